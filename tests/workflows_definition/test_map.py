"""A map: what is wrong with one, how its list is read, and which edges its instances have."""

from __future__ import annotations

import pytest

from peerd.v1 import workflows_pb2
from peerd.workflows.drawing import mermaid, of_definition
from peerd.workflows.edges import LOCAL_PEER, edges_of, edges_of_maps
from peerd.workflows.maps import ListError, edge_count, instance_edges, mapped_instance, read_list
from peerd.workflows.matrix import expanded, places_of
from peerd.workflows.problems import ProblemReason
from peerd.workflows.requests import execution_spec

from .reading import only_problem, read, valid

OVER = """
    name: w
    params: {greeting: hello}
    jobs:
      - {name: make, service: s}
      - {name: other, service: s}
      - name: work
        description: Works
        map: {from: make.output/list.json, as: thing}
        max_parallel: 3
        needs: [other]
        on: {peer: "${each.thing.host}"}
        run: {argv: [echo, "${each.thing.n}", "$${each.thing.n}", "${params.greeting}", "${each.index}"]}
        inputs:
          - {from: other}
        package: [{path: p, text: x}]
      - name: last
        service: s
        inputs:
          - {from: other}
          - {from: work}
          - {from: work.stdout, into: stdin, to: logs}
    deliver:
      - {from: work}
      - {from: last}
"""


def job_of(text: str, name: str = "work") -> workflows_pb2.JobDefinition:
    return next(job for job in valid(text).jobs if job.name == name)


def test_the_list_comes_here_and_the_edges_of_instances_come_with_them() -> None:
    definition = valid(OVER)
    edges = edges_of(definition)
    assert [(edge.source, edge.destination, edge.directory) for edge in edges] == [
        ("other", "last", "other"),
        ("last", LOCAL_PEER, "last"),
        ("make", LOCAL_PEER, "work"),
    ]
    assert (edges[-1].list_of, edges[-1].selection.path) == ("work", "list.json")
    assert [edge.edge_id for edge in edges] == [1, 2, 3]
    templates = edges_of_maps(definition)["work"]
    made = list(instance_edges("work", templates, {"work": 2}, 4))
    assert len(made) == edge_count("work", templates, {"work": 2}) == 10
    assert [edge.edge_id for edge in made] == list(range(4, 14))
    of_one = [edge for edge in made if "work.1" in (edge.source, edge.destination)]
    assert [(edge.source, edge.destination, edge.directory) for edge in of_one] == [
        ("other", "work.1", ""),
        ("work.1", "last", "work.1"),
        ("work.1", "last", "logs/work.1"),
        (LOCAL_PEER, "work.1", ""),
        ("work.1", LOCAL_PEER, "work.1"),
    ]  # fmt: skip


def test_a_map_may_take_the_files_of_another() -> None:
    text = OVER + "      - {from: next}\n"
    text = text.replace(
        "      - name: last",
        "      - {name: next, service: s, map: {from: other}, inputs: [{from: work}]}\n      - name: last",
    )
    templates = edges_of_maps(valid(text))
    assert {(edge.source, edge.destination) for edge in templates["next"]} == {("work", "next"), ("next", LOCAL_PEER)}
    made = list(instance_edges("next", templates["next"], {"work": 2, "next": 3}, 1))
    assert len(made) == edge_count("next", templates["next"], {"work": 2, "next": 3}) == 9
    assert (made[1].source, made[1].destination, made[1].directory) == ("work.1", "next.0", "work.1")


def test_an_instance_is_a_plain_job_with_its_values() -> None:
    job = job_of(OVER)
    items = read_list(b'[{"host": "a", "n": 1.50}, {"host": "b", "n": "${params.greeting}"}]', job, limit=10)
    assert items == [{"thing.host": "a", "thing.n": "1.50"}, {"thing.host": "b", "thing.n": "${params.greeting}"}]
    made = mapped_instance(job, 1, items[1])
    assert (made.name, made.on.peer, made.description) == (
        "work.1",
        "b",
        "Works (thing.host=b, thing.n=${params.greeting})",
    )
    assert list(made.run.argv) == ["echo", "$${params.greeting}", "$${each.thing.n}", "${params.greeting}", "1"]
    assert not made.HasField("map") and not made.needs and not made.inputs


PLAIN = """
    name: w
    jobs:
      - {name: make, service: s}
      - {name: a, service: s, map: {from: make}, params: {p: "${each.item}"}}
"""


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"", []),
        (b" [ ] ", []),
        (b"a\n\n  b c \nd", ["a", "  b c ", "d"]),
        (b'["a", 1, 2.50, 1e3, true, false, "\\u00e9"]', ["a", "1", "2.50", "1e3", "true", "false", "é"]),
        (b"\xef\xbb\xbf[1]", ["1"]),
        ("a\u2028b\x0cc\r\n\x85d\r\n\r\n".encode(), ["a\u2028b\x0cc", "\x85d"]),
    ],
)
def test_a_list_is_json_or_lines(content: bytes, values: list[str]) -> None:
    assert read_list(content, job_of(PLAIN, "a"), limit=10) == [{"item": value} for value in values]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "no UTF-8 text: byte 0"),
        (b"[1,", "no JSON: Expecting value in line 1, column 4"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1}', "a JSON object; it must be an array"),
        (b"[1] x", "no JSON: Extra data"),
        (b"[[1]]", "item 0 is an array"),
        (b"[null]", "item 0 is null"),
        (b'[{"a": {"b": 1}}]', "item 0, 'a' is an object"),
        (b"[NaN]", "NaN"),
        (b'["\\u0000"]', "item 0: the value contains a NUL"),
        (b'["\\ud800"]', "half a character"),
        (b"x" * 5000, "longer than 4096 bytes"),
        (b"1\n" * 11, "has 11 items; there is room for 10"),
        (b'[{"a": 1}]', "item 0 has no ${each.item}, which params.p asks for; it has ${each.item.a}"),
    ],
)
def test_what_is_no_list_says_why(content: bytes, message: str) -> None:
    with pytest.raises(ListError) as raised:
        read_list(content, job_of(PLAIN, "a"), limit=10)
    assert message in str(raised.value)


def test_an_item_that_would_make_a_job_too_large_is_refused() -> None:
    text = f"""
        name: w
        jobs:
          - {{name: make, service: s}}
          - name: a
            service: s
            map: {{from: make}}
            params: {{p: "{"${each.item}" * 17}"}}
    """
    content = b"x\n" + b"y" * 4000
    with pytest.raises(ListError, match=r"item 1 makes params\.p longer than 65536 bytes"):
        read_list(content, job_of(text, "a"), limit=10)
    many = text.replace("params: {", "params: {" + "".join(f'q{n}: "{"${each.item}" * 16}", ' for n in range(17)))
    with pytest.raises(ListError, match="item 1 makes argv, env and params take more than"):
        read_list(content, job_of(many.replace("${each.item}" * 17, ""), "a"), limit=10)


def test_an_item_that_names_no_peer_is_refused() -> None:
    with pytest.raises(ListError, match="item 0 leaves the name of the peer empty"):
        read_list(b'[{"host": "", "n": 1}]', job_of(OVER), limit=10)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ("map: {as: x}", "jobs[1].map.from", ProblemReason.MISSING),
        ("map: {from: nobody}", "jobs[1].map.from", ProblemReason.UNKNOWN_JOB),
        ("map: {from: a}", "jobs[1].map.from", ProblemReason.SELF_REFERENCE),
        ("map: {from: make.input}", "jobs[1].map.from", ProblemReason.ILLEGAL_PAIR),
        ("map: {from: make.output/../x}", "jobs[1].map.from", ProblemReason.BAD_PATH),
        ("map: {from: make, as: index}", "jobs[1].map.as", ProblemReason.BAD_NAME),
        ("map: {from: make, as: a.b}", "jobs[1].map.as", ProblemReason.BAD_NAME),
        ("map: {from: make}, matrix: [{name: x, values: [1]}]", "jobs[1].map", ProblemReason.CHOOSE_ONE),
        ("map: {from: make}, env: {X: '${each.items}'}", "jobs[1].env.X", ProblemReason.UNKNOWN_PARAM),
        ("map: {from: make}, env: {X: '${each.item'}", "jobs[1].env.X", ProblemReason.BAD_PARAM_REFERENCE),
        ("max_parallel: 2", "jobs[1].max_parallel", ProblemReason.BAD_VALUE),
        ("map: {from: make}, max_parallel: 30000", "jobs[1].max_parallel", ProblemReason.OUT_OF_RANGE),
        ("map: {from: after}, ", "jobs[1].map.from", ProblemReason.CYCLE),
    ],
)
def test_what_is_wrong_with_a_map_is_said_with_its_place(fields: str, field: str, reason: ProblemReason) -> None:
    text = f"name: w\njobs:\n  - {{name: make, service: s}}\n  - {{name: a, service: s, {fields}}}\n"
    text += "  - {name: after, service: s, inputs: [{from: a}]}\n"
    assert (problem := only_problem(text)).field == field and problem.reason is reason, problem


def test_the_list_comes_from_one_job_and_names_stay_free_for_instances() -> None:
    start = "name: w\njobs:\n  - {name: many, service: s, matrix: [{name: x, values: [1]}]}\n"
    assert (
        only_problem(f"{start}  - {{name: a, service: s, map: {{from: many}}}}\n").reason is ProblemReason.BAD_REFERENCE
    )
    made = "name: w\njobs:\n  - {name: make, service: s}\n"
    clash = only_problem(f"{made}  - {{name: a, service: s, map: {{from: make}}}}\n  - {{name: A.7, service: s}}\n")
    assert (clash.field, clash.reason) == ("jobs[2].name", ProblemReason.DUPLICATE_NAME)
    long = only_problem(f"{made}  - {{name: {'a' * 60}, service: s, map: {{from: make}}}}\n")
    assert (long.field, long.reason) == ("jobs[1].name", ProblemReason.BAD_NAME)
    when = read(f"{made}  - {{name: a, service: s, map: {{from: make}}}}\n"
                "  - {name: b, service: s, needs: [a], when: jobs.a.status == 'failed'}\n")  # fmt: skip
    assert [problem.message for problem in when.problems] == ["jobs.a: 'a' has a map, so it does not end in one way"]


def test_a_bound_is_for_more_instances_than_it_lets_run() -> None:
    rows = "name: w\njobs:\n  - {name: a, service: s, max_parallel: %d, matrix: [{name: x, values: [1, 2, 3]}]}\n"
    definition = expanded(valid(rows % 2))
    assert places_of(definition) == {"a.0": "a", "a.1": "a", "a.2": "a"}
    assert places_of(expanded(valid(rows % 3))) == {}
    spec = execution_spec(1, 0, definition, edges_of(definition), 1)  # type: ignore[arg-type]
    assert [(job.places, job.max_parallel) for job in spec.jobs] == [("a", 2)] * 3


def test_a_graph_shows_the_way_of_the_list() -> None:
    text = mermaid(of_definition(valid(OVER)))
    assert 'n0 -->|"output/list.json → input"| n2' in text and 'n2 -->|"output → input"| n3' in text
