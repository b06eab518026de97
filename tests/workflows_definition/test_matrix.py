"""A matrix is written out as plain jobs, and what is wrong with one is said with its place."""

from __future__ import annotations

import pytest

from peerd.workflows.edges import LOCAL_PEER, edges_of
from peerd.workflows.matrix import expanded
from peerd.workflows.params import substituted
from peerd.workflows.problems import ProblemReason

from .reading import job_with, only_problem, read, valid

TWO_AXES = """
    name: w
    params: {greeting: hello}
    jobs:
      - {name: source, service: s}
      - name: work
        description: Works
        on: {peer: "${each.host}", labels: [big]}
        run: {argv: [echo, "${each.host}/${each.n}", "$${each.n}", "${params.greeting} ${HOME}"]}
        env: {NUMBER: "${each.index}"}
        matrix:
          - {name: host, values: [a, b]}
          - {name: n, values: [1, "${params.greeting}", x]}
        inputs:
          - {from: source}
      - name: last
        service: s
        inputs:
          - {from: work}
          - {from: work.stdout, into: stdin, to: logs}
          - {from: work.mounts/m, into: mounts/all}
    deliver:
      - {from: work}
"""


def test_every_combination_is_a_job_and_the_last_axis_turns_fastest() -> None:
    plain = expanded(valid(TWO_AXES))
    names = [job.name for job in plain.jobs]
    assert names == ["source", *(f"work.{number}" for number in range(6)), "last"]
    assert [job.on.peer for job in plain.jobs[1:7]] == ["a", "a", "a", "b", "b", "b"]
    assert plain.jobs[3].description == "Works (host=a, n=x)"
    assert [job.env["NUMBER"] for job in plain.jobs[1:7]] == list("012345")
    assert not any(job.matrix for job in plain.jobs)


def test_what_is_put_in_is_text_and_is_not_read_again() -> None:
    job = expanded(valid(TWO_AXES)).jobs[2]
    argv = list(substituted(job, {"greeting": "hello"}).run.argv)
    assert argv == ["echo", "a/${params.greeting}", "${each.n}", "hello ${HOME}"]


def test_each_instance_takes_the_inputs_and_gives_its_files_to_all_that_take_them() -> None:
    edges = edges_of(expanded(valid(TWO_AXES)))
    assert [edge.destination for edge in edges if edge.source == "source"] == [f"work.{n}" for n in range(6)]
    last = [edge for edge in edges if edge.destination == "last"]
    assert [edge.source for edge in last] == [f"work.{n}" for n in range(6)] * 3
    assert [edge.directory for edge in last[4:8]] == ["work.4", "work.5", "logs/work.0", "logs/work.1"]
    assert last[12].destination_path == "all"
    assert [edge.position for edge in last] == list(range(18))
    assert [edge.directory for edge in edges if edge.destination == LOCAL_PEER] == [f"work.{n}" for n in range(6)]


def test_a_definition_without_a_matrix_is_not_copied() -> None:
    plain = valid(job_with("env: {X: '${each.x}'}"))
    assert expanded(plain) is plain


@pytest.mark.parametrize(
    ("lines", "field", "reason"),
    [
        ("matrix: [{values: [a]}]", "jobs[0].matrix[0].name", ProblemReason.MISSING),
        ("matrix: [{name: x}]", "jobs[0].matrix[0].values", ProblemReason.MISSING),
        ("matrix: [{name: index, values: [a]}]", "jobs[0].matrix[0].name", ProblemReason.BAD_NAME),
        ("matrix: [{name: a.b, values: [a]}]", "jobs[0].matrix[0].name", ProblemReason.BAD_NAME),
        (
            "matrix: [{name: x, values: [a]}, {name: x, values: [b]}]",
            "jobs[0].matrix[1].name",
            ProblemReason.DUPLICATE_NAME,
        ),
        ('matrix: [{name: x, values: [a, "\\0"]}]', "jobs[0].matrix[0].values[1]", ProblemReason.BAD_VALUE),
        (f"matrix: [{{name: x, values: [{'v' * 5000}]}}]", "jobs[0].matrix[0].values[0]", ProblemReason.BAD_VALUE),
        (
            "matrix: [{name: x, values: [a]}]\nenv: {Y: '${each.y}'}",
            "jobs[0].env.Y",
            ProblemReason.UNKNOWN_PARAM,
        ),
        (
            "matrix: [{name: x, values: [a]}]\nenv: {Y: '${each.x'}",
            "jobs[0].env.Y",
            ProblemReason.BAD_PARAM_REFERENCE,
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(lines: str, field: str, reason: ProblemReason) -> None:
    problem = only_problem(job_with(lines))
    assert (problem.field, problem.reason) == (field, reason)
    assert problem.line >= 5


def test_a_matrix_of_too_many_jobs_is_refused_before_they_are_made() -> None:
    values = ", ".join(map(str, range(30)))
    axes = ", ".join(f"{{name: a{number}, values: [{values}]}}" for number in range(8))
    problem = only_problem(job_with(f"matrix: [{axes}]"))
    assert problem.reason is ProblemReason.TOO_MANY_JOBS
    assert problem.field == "jobs[0].matrix"


def test_the_name_of_an_instance_is_taken() -> None:
    text = (
        "name: w\njobs:\n  - {name: a, service: s, matrix: [{name: x, values: [1, 2]}]}\n  - {name: A.1, service: s}\n"
    )
    problem = only_problem(text)
    assert (problem.reason, problem.field) == (ProblemReason.DUPLICATE_NAME, "jobs[1].name")
    assert read(text.replace("A.1", "A.2")).definition is not None
    assert read(text.replace("A.1", "A.01")).definition is not None


def test_an_instance_cannot_have_too_long_a_name() -> None:
    text = f"name: w\njobs:\n  - {{name: {'a' * 62}, service: s, matrix: [{{name: x, values: [1]}}]}}\n"
    assert only_problem(text).reason is ProblemReason.BAD_NAME


def test_directories_of_instances_do_not_lie_in_each_others_way() -> None:
    jobs = """
        name: w
        jobs:
          - {name: a, service: s, matrix: [{name: x, values: [1, 2]}]}
          - {name: b, service: s}
          - {name: c, service: s, inputs: [{from: a}, {from: b, to: DIRECTORY}]}
    """
    assert read(jobs.replace("DIRECTORY", "a.2")).definition is not None
    problem = only_problem(jobs.replace("DIRECTORY", "a.1/x"))
    assert problem.reason is ProblemReason.COLLIDING_DESTINATIONS
    assert "input/a.1" in problem.message


def test_a_few_lines_that_become_millions_of_edges_are_refused_before_they_are_made() -> None:
    values = ", ".join(map(str, range(100)))
    axes = f"[{{name: x, values: [{values}]}}, {{name: y, values: [{values}]}}]"
    first = f"name: w\njobs:\n  - {{name: a, service: s, matrix: {axes}}}\n"
    taking = only_problem(f"{first}  - {{name: b, service: s, matrix: {axes}, inputs: [{{from: a}}]}}\n")
    assert (taking.field, taking.reason) == ("jobs[1].inputs", ProblemReason.TOO_MANY_EDGES)
    needing = only_problem(f"{first}  - {{name: b, service: s, matrix: {axes}, needs: [a]}}\n")
    assert (needing.field, needing.reason) == ("jobs[1].needs", ProblemReason.TOO_MANY_EDGES)
    inputs = ", ".join(f"{{from: a, to: d{number}}}" for number in range(11))
    plain = only_problem(f"{first}  - {{name: b, service: s, inputs: [{inputs}]}}\n")
    assert (plain.field, plain.reason) == ("jobs[1].inputs", ProblemReason.TOO_MANY_EDGES)
    home = only_problem(f"{first}deliver: [{inputs}]\n")
    assert (home.field, home.reason) == ("deliver[10]", ProblemReason.TOO_MANY_EDGES)
    valid(f"{first}  - {{name: b, service: s, needs: [a], inputs: [{{from: a}}]}}\n")


def test_what_instances_take_in_memory_is_bounded() -> None:
    values = ", ".join(map(str, range(300)))
    matrix = f"matrix: [{{name: x, values: [{values}]}}]"
    start = f"name: w\njobs:\n  - {{name: a, service: s, {matrix}"
    package = only_problem(f"{start}, package: [{{path: p, text: {'x' * 1_000_000}}}]}}\n")
    assert (package.field, package.reason) == ("jobs[0].matrix", ProblemReason.TOO_LARGE)
    long = f"name: w\njobs:\n  - {{name: a, service: s, matrix: [{{name: x, values: [1, {'v' * 4000}]}}]"
    text = only_problem(f"{long}, params: {{p: '{'${each.x}' * 17}'}}}}\n")
    assert (text.field, text.reason) == ("jobs[0].params.p", ProblemReason.OUT_OF_RANGE)
    valid(f"{long}, params: {{p: '{'${each.x}' * 16}'}}}}\n")


def test_a_number_of_thousands_of_digits_is_no_instance() -> None:
    many = "name: w\njobs:\n  - {name: a, service: s, matrix: [{name: x, values: [1]}]}\n"
    assert only_problem(f"{many}  - {{name: a.{'9' * 5000}, service: s}}\n").reason is ProblemReason.BAD_NAME
