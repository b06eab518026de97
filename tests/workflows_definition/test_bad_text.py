"""Every mistake is named by reason, field and place."""

from __future__ import annotations

import json
import time

import pytest

from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2
from peerd.workflows.definition import accept_definition, read_definition

from .reading import job_with, only_problem, read

DEEP = "[" * 200

# (what is wrong, text, reason, field, line, column)
BAD_TEXTS = [
    ("empty", "", "missing", "", 1, 1),
    ("only a comment", "# nothing\n", "missing", "", 2, 1),
    ("not a mapping", "- a\n- b\n", "wrong_type", "", 1, 1),
    ("a bare word", "hello", "wrong_type", "", 1, 1),
    ("unclosed quote", 'name: "w\njobs: []\n', "bad_yaml", "", 3, 1),
    ("bad indentation", "name: w\n jobs: []\n", "bad_yaml", "", 2, 6),
    ("a tab as indentation", "name: w\njobs:\n\t- name: a\n", "bad_yaml", "", 3, 1),
    ("a control character", "name: w\ndescription: a\x07b\n", "bad_yaml", "", 2, 15),
    ("two documents", "name: w\n---\nname: v\n", "bad_yaml", "", 2, 1),
    ("a tag", "name: !!python/name:os.system w\n", "bad_yaml", "", 1, 7),
    ("a harmless tag", "name: !!str w\n", "bad_yaml", "", 1, 7),
    ("a tag on a mapping", "name: w\njobs: !!set {a}\n", "bad_yaml", "", 2, 7),
    ("a list as a key", "? [a, b]\n: 1\n", "bad_yaml", "", 1, 3),
    ("an unknown alias", "name: *w\n", "bad_yaml", "", 1, 7),
    ("an alias inside its own anchor", "jobs: &x [*x]\n", "bad_yaml", "", 1, 11),
    ("a key twice", "name: w\njobs: []\nname: v\n", "duplicate_key", "", 3, 1),
    ("a parameter twice", "name: w\nparams:\n  a: 1\n  a: 2\n", "duplicate_key", "", 4, 3),
    ("too deep", "jobs: " + DEEP + "\n", "too_deep", "", 1, 106),
    ("too deep in JSON", '{"jobs": ' + DEEP, "too_deep", "", 1, 109),
    ("JSON: trailing comma", '{"name": "w",}', "bad_json", "", 1, 14),
    ("JSON: ends early", '{"name": "w"', "bad_json", "", 1, 13),
    ("JSON: no value", '{"name": }', "bad_json", "", 1, 10),
    ("JSON: no colon", '{"name" "w"}', "bad_json", "", 1, 9),
    ("JSON: a comment", '{"name": "w"} // no', "bad_json", "", 1, 15),
    ("JSON: NaN", '{"name": NaN}', "bad_json", "", 1, 10),
    ("JSON: no comma in a list", '{"jobs": [1 2]}', "bad_json", "", 1, 13),
    ("JSON: bad escape", '{"name":\n "\\x"}', "bad_json", "", 2, 3),
    ("JSON: half a surrogate pair", '{"name": "\\ud800"}', "bad_json", "", 1, 10),
    ("JSON: newline in a string", '{"name": "a\nb"}', "bad_json", "", 1, 12),
    ("JSON: a key twice", '{"name": "w",\n "name": "v"}', "duplicate_key", "", 2, 2),
]


@pytest.mark.parametrize(
    ("text", "reason", "field", "line", "column"), [row[1:] for row in BAD_TEXTS], ids=[row[0] for row in BAD_TEXTS]
)
def test_text_that_cannot_be_read(text: str, reason: str, field: str, line: int, column: int) -> None:
    problem = read_definition(workflows_pb2.DefinitionSource(text=text)).problems[0]
    assert (problem.reason.text, problem.field, problem.line, problem.column) == (reason, field, line, column)
    assert problem.to_proto().next_action


# (what is wrong, lines of a job from line 5, reason, field, line, column)
BAD_JOBS = [
    ("an unknown field", "timout: 5m", "unknown_field", "jobs[0].timout", 5, 5),
    ("a list for a text", "timeout: [5m]", "wrong_type", "jobs[0].timeout", 5, 14),
    ("a mapping for a text", "description: {a: b}", "wrong_type", "jobs[0].description", 5, 18),
    ("a text for a list", "inputs: b.output", "wrong_type", "jobs[0].inputs", 5, 13),
    ("a list for names with values", "env: [A=1]", "wrong_type", "jobs[0].env", 5, 10),
    ("nothing for a value", "env:\n  A:\n", "wrong_type", "jobs[0].env.A", 6, 9),
    ("null for a value", "env: {A: null}", "wrong_type", "jobs[0].env.A", 5, 14),
    (
        "yes for a truth value",
        "package: [{path: x, text: y, executable: yes}]",
        "wrong_type",
        "jobs[0].package[0].executable",
        5,
        46,
    ),
    ("a word for a number", "retry: {attempts: many}", "wrong_type", "jobs[0].retry.attempts", 5, 23),
    ("a negative number", "retry: {attempts: -1}", "wrong_type", "jobs[0].retry.attempts", 5, 23),
    ("a fraction of an attempt", "retry: {attempts: 1.5}", "wrong_type", "jobs[0].retry.attempts", 5, 23),
    ("no attempts", "retry: {attempts: 0}", "out_of_range", "jobs[0].retry.attempts", 5, 23),
    ("too many attempts", "retry: {attempts: 101}", "out_of_range", "jobs[0].retry.attempts", 5, 23),
    ("an unknown word", "retry: {on: [exit, crash]}", "bad_choice", "jobs[0].retry.on[1]", 5, 24),
    ("NaN", "resources: {cpus: .nan}", "wrong_type", "jobs[0].resources.cpus", 5, 23),
    ("infinity", "resources: {cpus: .inf}", "wrong_type", "jobs[0].resources.cpus", 5, 23),
    ("an overflow", "resources: {cpus: 1e999}", "out_of_range", "jobs[0].resources.cpus", 5, 23),
    ("no cpu", "resources: {cpus: 0}", "out_of_range", "jobs[0].resources.cpus", 5, 23),
    ("a negative cpu", "resources: {cpus: -2}", "out_of_range", "jobs[0].resources.cpus", 5, 23),
    ("no size", "resources: {memory: lots}", "bad_memory", "jobs[0].resources.memory", 5, 25),
    ("nothing of memory", "resources: {memory: 0G}", "bad_memory", "jobs[0].resources.memory", 5, 25),
    ("no duration", "timeout: soon", "bad_duration", "jobs[0].timeout", 5, 14),
    ("units in the wrong order", "timeout: 5s1h", "bad_duration", "jobs[0].timeout", 5, 14),
    ("no time", "timeout: 0s", "bad_duration", "jobs[0].timeout", 5, 14),
    ("longer than a year", "deadline: 9000d", "bad_duration", "jobs[0].deadline", 5, 15),
    ("a bad backoff", "retry:\n  max_backoff: x", "bad_duration", "jobs[0].retry.max_backoff", 6, 20),
    ("a bad constraint", "execution_constraint: input_ready", "bad_choice", "jobs[0].execution_constraint", 5, 27),
    ("a bad policy", "partition_policy: wait", "bad_choice", "jobs[0].partition_policy", 5, 23),
    (
        "both spellings",
        "partition_policy: stop\npartitionPolicy: stop",
        "duplicate_key",
        "jobs[0].partition_policy",
        6,
        5,
    ),
    ("two bodies", "package: [{path: x, text: y, content: eQ==}]", "choose_one", "jobs[0].package[0].content", 5, 34),
    ("no body", "package: [{path: x}]", "missing", "jobs[0].package[0]", 5, 15),
    ("no path", "package: [{text: x}]", "missing", "jobs[0].package[0].path", 5, 15),
    ("no base64", "package: [{path: x, content: '***'}]", "wrong_type", "jobs[0].package[0].content", 5, 34),
    (
        "a file not sent along",
        "package: [{path: x, source: x.py}]",
        "unresolved_source",
        "jobs[0].package[0].source",
        5,
        33,
    ),
    ("a path that leads out", "package: [{path: ../x, text: y}]", "bad_path", "jobs[0].package[0].path", 5, 22),
    ("an absolute path", "package: [{path: /x, text: y}]", "bad_path", "jobs[0].package[0].path", 5, 22),
    ("a path with NUL", 'package: [{path: "a\\0b", text: y}]', "bad_path", "jobs[0].package[0].path", 5, 22),
    (
        "a path twice",
        "package: [{path: x, text: y}, {path: X, text: y}]",
        "duplicate_path",
        "jobs[0].package[1].path",
        5,
        42,
    ),
    (
        "a file as directory",
        "package: [{path: x/y, text: y}, {path: x, text: y}]",
        "duplicate_path",
        "jobs[0].package[0].path",
        5,
        22,
    ),
    ("service and command", "run: {argv: [ls]}", "choose_one", "jobs[0].run", 5, 10),
    ("an environment name with =", "env: {A=B: c}", "bad_env_name", 'jobs[0].env["A=B"]', 5, 16),
    ("our own environment", "env: {PEERD_JOB: c}", "bad_env_name", "jobs[0].env.PEERD_JOB", 5, 22),
    ("the loader's environment", "env: {LD_PRELOAD: c}", "bad_env_name", "jobs[0].env.LD_PRELOAD", 5, 23),
    ("NUL in a value", 'env: {A: "x\\0"}', "bad_value", "jobs[0].env.A", 5, 14),
    ("a value too long", f"env: {{A: {'x' * 70000}}}", "bad_value", "jobs[0].env.A", 5, 14),
    ("a parameter with a space", "params: {a b: c}", "bad_name", 'jobs[0].params["a b"]', 5, 19),
    ("an unknown parameter", "params: {a: '${params.b}'}", "unknown_param", "jobs[0].params.a", 5, 17),
    ("an open reference", "params: {a: '${params.b'}", "bad_param_reference", "jobs[0].params.a", 5, 17),
    ("a nameless reference", "params: {a: '${params.}'}", "bad_param_reference", "jobs[0].params.a", 5, 17),
    ("an empty label", "on: {labels: [gpu, '']}", "missing", "jobs[0].on.labels[1]", 5, 24),
    ("a role with a newline", 'on: {role: "a\\nb"}', "bad_value", "jobs[0].on.role", 5, 16),
    ("an unknown selector", "on: {roles: [a]}", "unknown_field", "jobs[0].on.roles", 5, 10),
    ("a merge key", "<<: {timeout: 5s}", "unknown_field", 'jobs[0]["<<"]', 5, 5),
    ("an unknown job", "inputs: [{from: b.output}]", "unknown_job", "jobs[0].inputs[0].from", 5, 21),
    ("an input from nowhere", "inputs: [{into: stdin}]", "missing", "jobs[0].inputs[0].from", 5, 14),
    ("itself", "inputs: [{from: a}]", "self_reference", "jobs[0].inputs[0].from", 5, 21),
]


@pytest.mark.parametrize(
    ("lines", "reason", "field", "line", "column"), [row[1:] for row in BAD_JOBS], ids=[row[0] for row in BAD_JOBS]
)
def test_a_field_that_is_wrong(lines: str, reason: str, field: str, line: int, column: int) -> None:
    problem = only_problem(job_with(lines))
    assert (problem.reason.text, problem.field, problem.line, problem.column) == (reason, field, line, column)
    assert problem.to_proto().next_action


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        ("matrix: {n: [1]}", "write '- ' before it; each item may have: name, values"),
        ("matrix: [n]", "it may have: name, values"),
        ("resources: 2", "it may have: cpus, disk, gpus, memory"),
    ],
)
def test_what_it_could_have_been_is_said(lines: str, hint: str) -> None:
    """``run: [ls]`` and its like are what people try first."""
    assert only_problem(job_with(lines)).to_proto().next_action == hint


# (what is wrong, text, reason, field, line, column)
BAD_WORKFLOWS = [
    ("no jobs", "name: w\n", "no_jobs", "jobs", 1, 1),
    ("an empty list of jobs", "name: w\njobs: []\n", "no_jobs", "jobs", 2, 7),
    ("no name", "jobs: [{name: a, service: s}]\n", "missing", "name", 1, 1),
    ("a name with a slash", "name: a/b\njobs: [{name: a, service: s}]\n", "bad_name", "name", 1, 7),
    ("a name of dots", "name: ..\njobs: [{name: a, service: s}]\n", "bad_name", "name", 1, 7),
    ("a name too long", f"name: {'n' * 64}\njobs: [{{name: a, service: s}}]\n", "bad_name", "name", 1, 7),
    ("a job without a name", "name: w\njobs: [{service: s}]\n", "missing", "jobs[0].name", 2, 8),
    (
        "a job named like an interface",
        "name: w\njobs: [{name: a.output, service: s}]\n",
        "bad_name",
        "jobs[0].name",
        2,
        15,
    ),
    (
        "two jobs of a name",
        "name: w\njobs:\n- {name: a, service: s}\n- {name: A, service: s}\n",
        "duplicate_name",
        "jobs[1].name",
        4,
        10,
    ),
    ("nothing to do", "name: w\njobs: [{name: a}]\n", "missing", "jobs[0]", 2, 8),
    ("an empty command", "name: w\njobs: [{name: a, run: {}}]\n", "missing", "jobs[0].run.argv", 2, 23),
    (
        "params for a command",
        "name: w\njobs: [{name: a, run: {argv: [ls]}, params: {x: 1}}]\n",
        "bad_value",
        "jobs[0].params",
        2,
        45,
    ),
    (
        "a bad delivery",
        "name: w\njobs: [{name: a, service: s}]\ndeliver: [{from: a.logs}]\n",
        "illegal_pair",
        "deliver[0].from",
        3,
        18,
    ),
    (
        "a delivery that says into",
        "name: w\njobs: [{name: a, service: s}]\ndeliver: [{from: a, into: stdin}]\n",
        "unknown_field",
        "deliver[0].into",
        3,
        21,
    ),
]


@pytest.mark.parametrize(
    ("text", "reason", "field", "line", "column"),
    [row[1:] for row in BAD_WORKFLOWS],
    ids=[row[0] for row in BAD_WORKFLOWS],
)
def test_a_workflow_that_is_wrong(text: str, reason: str, field: str, line: int, column: int) -> None:
    problem = only_problem(text)
    assert (problem.reason.text, problem.field, problem.line, problem.column) == (reason, field, line, column)


def test_all_problems_are_listed_at_once_in_the_order_of_the_file() -> None:
    problems = read(
        """\
        name: w w
        jobs:
          - name: a
            servce: s
            timeout: soon
          - name: b
            service: s
            inputs: [{from: c}]
        deliver:
          - from: a.stdin
        """
    ).problems
    assert [(problem.line, problem.reason.text) for problem in problems] == [
        (1, "bad_name"),
        (4, "unknown_field"),
        (5, "bad_duration"),
        (8, "unknown_job"),
        (10, "illegal_pair"),
    ]


def test_an_unknown_field_names_the_nearest_legal_one() -> None:
    assert "'max_backoff'" in only_problem(job_with("retry: {maxBakoff: 5s}")).next_action
    assert "'timeout'" in only_problem(job_with("timout: 5s")).next_action


def test_what_follows_from_what_could_not_be_read_is_not_a_problem_of_its_own() -> None:
    problem = only_problem(
        """\
        name: w
        jobs:
          - name: [a]
            service: s
          - name: b
            service: s
            inputs: [{from: a}]
        """
    )
    assert problem.field == "jobs[0].name"


def test_a_thousand_problems_are_enough() -> None:
    text = json.dumps({"name": "w", "jobs": [{"name": f"j{n}", "service": "s", "x": 1} for n in range(3000)]})
    problems = read(text).problems
    assert len(problems) == 1001
    assert problems[-1].reason.text == "more_problems"


def test_a_flood_of_mistakes_is_answered_soon() -> None:
    unknown = "".join(f"x{n}: y\n" for n in range(200_000))
    params = {f"p{n}": "" for n in range(1000)}
    argv = ["${params.nope}"] * 1000
    references = {"name": "w", "params": params, "jobs": [{"name": f"j{n}", "run": {"argv": argv}} for n in range(20)]}
    for text in (
        unknown,
        json.dumps(references),
        json.dumps({"name": "w", "params": {f"p {n}": 1 for n in range(9999)}}),
    ):
        started = time.process_time()  # of this process alone: others may be busy
        assert read(text).problems
        assert time.process_time() - started < 4


def test_aliases_work_but_cannot_become_a_billion() -> None:
    shared = read("name: w\njobs: [{name: a, service: s, env: &e {X: y}}, {name: b, service: s, env: *e}]\n")
    assert shared.definition is not None
    assert shared.definition.jobs[1].env["X"] == "y"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(ord('a') + n)}: &{chr(ord('a') + n)} [{', '.join(['*' + chr(ord('a') + n - 1)] * 10)}]\n"
        for n in range(1, 12)
    )
    started = time.process_time()
    problem = only_problem(bomb)
    assert problem.reason.text == "too_large"
    assert time.process_time() - started < 2


def test_a_text_above_the_limit_is_refused_unread() -> None:
    problem = only_problem("name: " + "é" * (8 * 1024 * 1024))
    assert problem.reason.text == "too_large"


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", '{"a":', "[{"])
def test_deep_nesting_does_not_end_the_process(opening: str) -> None:
    problem = read_definition(workflows_pb2.DefinitionSource(text=opening * 200_000)).problems[0]
    assert problem.reason.text == "too_deep"


def test_twenty_thousand_jobs_are_the_limit() -> None:
    text = json.dumps({"name": "w", "jobs": [{"name": f"j{n}", "service": "s"} for n in range(20_001)]})
    assert only_problem(text).reason.text == "too_many_jobs"


@pytest.mark.parametrize("field", ["params", "env"])
def test_a_thousand_entries_are_the_limit(field: str) -> None:
    job = {"name": "a", "service": "s", field: {f"E{n}": "" for n in range(1001)}}
    problem = only_problem(json.dumps({"name": "w", "jobs": [job]}))
    assert (problem.reason.text, problem.field) == ("out_of_range", f"jobs[0].{field}")


def test_package_files_have_a_limit_in_all() -> None:
    files = [{"path": f"f{n}", "text": "x" * 1024 * 1024} for n in range(3)]
    problem = only_problem(json.dumps({"name": "w", "jobs": [{"name": "a", "service": "s", "package": files}]}))
    assert (problem.reason.text, problem.field) == ("too_large", "jobs[0].package[2]")


def test_a_message_is_judged_like_a_text_without_places() -> None:
    definition = workflows_pb2.WorkflowDefinition(name="w", jobs=[workflows_pb2.JobDefinition(name="a", timeout="x")])
    problems = read_definition(workflows_pb2.DefinitionSource(definition=definition)).problems
    assert [(p.reason.text, p.field, p.line) for p in problems] == [
        ("missing", "jobs[0]", 0),
        ("bad_duration", "jobs[0].timeout", 0),
    ]


def test_a_message_with_fields_of_a_newer_version_is_refused() -> None:
    definition = workflows_pb2.WorkflowDefinition(
        name="w", jobs=[workflows_pb2.JobDefinition(name="a", service="s")]
    ).SerializeToString()
    newer = workflows_pb2.WorkflowDefinition.FromString(definition + b"\xf8\x3f\x01")  # field 1023
    (problem,) = read_definition(workflows_pb2.DefinitionSource(definition=newer)).problems
    assert problem.reason.text == "unknown_field"
    assert "version" in problem.message


def test_no_source_is_a_problem_too() -> None:
    (problem,) = read_definition(workflows_pb2.DefinitionSource()).problems
    assert problem.reason.text == "missing"


def test_accepting_refuses_with_file_line_and_field() -> None:
    source = workflows_pb2.DefinitionSource(text=job_with("timout: 5m\ntimeout: x"), file_name="w.yaml")
    with pytest.raises(PeerdError) as refusal:
        accept_definition(source)
    assert refusal.value.reason is Reason.INVALID_DEFINITION
    assert refusal.value.message == "w.yaml:5:5 jobs[0].timout: 'timout' is not a field of a job (and 1 more)"
    assert [violation.field for violation in refusal.value.violations] == ["jobs[0].timout", "jobs[0].timeout"]
    assert refusal.value.next_action == "did you mean 'timeout'?"
