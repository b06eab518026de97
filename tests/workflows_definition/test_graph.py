"""Nothing waits for itself; outputs feed inputs and nothing else."""

from __future__ import annotations

import json

import pytest

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import read_definition
from peerd.workflows.problems import Problem


def graph(jobs: dict[str, list[str]]) -> tuple[Problem, ...]:
    """The problems of a workflow with these jobs and what each takes."""
    content = {
        "name": "w",
        "jobs": [
            {"name": name, "service": "s", "inputs": [{"from": each} for each in takes]} for name, takes in jobs.items()
        ],
    }
    return read_definition(workflows_pb2.DefinitionSource(text=json.dumps(content))).problems


@pytest.mark.parametrize(
    ("jobs", "cycles"),
    [
        ({"a": [], "b": ["a"], "c": ["a", "b"]}, []),
        ({"a": ["b"], "b": ["a"]}, ["a -> b -> a"]),
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, ["a -> b -> c -> a"]),
        # The short way round, although the long one exists.
        ({"a": ["d", "b"], "b": ["a"], "c": ["b"], "d": ["c"]}, ["a -> b -> a"]),
        # Two knots, and what hangs off them is not in them.
        ({"a": ["b"], "b": ["a"], "x": ["y", "a"], "y": ["x"], "z": ["x"]}, ["a -> b -> a", "x -> y -> x"]),
    ],
)
def test_each_knot_is_named_by_its_shortest_cycle(jobs: dict[str, list[str]], cycles: list[str]) -> None:
    problems = graph(jobs)
    assert {problem.reason.text for problem in problems} <= {"cycle"}
    assert [problem.message.removeprefix("these jobs wait for each other: ") for problem in problems] == cycles


def test_the_place_of_a_cycle_is_the_edge_that_closes_it() -> None:
    (problem,) = graph({"a": ["c"], "b": ["a"], "c": ["b"]})
    assert problem.field == "jobs[0].inputs[0].from"


def test_a_cycle_of_ten_thousand_jobs_is_found_and_told_briefly() -> None:
    jobs = {f"j{n}": [f"j{(n - 1) % 10_000}"] for n in range(10_000)}
    (problem,) = graph(jobs)
    assert problem.message.startswith("these jobs wait for each other: j0 -> j1 -> j2")
    assert problem.message.endswith("... (9988 more) -> j0")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a.stdin", "illegal_pair"),
        ("a.input", "illegal_pair"),
        ("a.package", "illegal_pair"),
        ("a.logs", "illegal_pair"),
        ("a.outptu", "bad_reference"),
        ("a.output/../x", "bad_path"),
        ("a.mounts", "bad_path"),
        ("a.mounts/", "bad_path"),
        ("a.mounts/../x", "bad_path"),
        ("a/x", "bad_reference"),
        ("aa", "unknown_job"),
        ("", "missing"),
    ],
)
def test_only_an_output_can_be_a_source(source: str, reason: str) -> None:
    problems = graph({"a": [], "b": [source]})
    assert [(problem.reason.text, problem.field) for problem in problems] == [(reason, "jobs[1].inputs[0].from")]


@pytest.mark.parametrize("source", ["a", "a.output", "a.stdout", "a.stderr", "a.mounts/x", "a.mounts/x/y"])
@pytest.mark.parametrize("into", ["", "input", "stdin", "mounts/x", "mounts/x/y"])
def test_any_output_may_feed_any_input(source: str, into: str) -> None:
    job = {"name": "b", "service": "s", "inputs": [{"from": source, "into": into}]}
    text = json.dumps({"name": "w", "jobs": [{"name": "a", "service": "s"}, job]})
    assert read_definition(workflows_pb2.DefinitionSource(text=text)).definition is not None


@pytest.mark.parametrize(
    ("into", "reason"),
    [
        ("output", "illegal_pair"),
        ("stdout", "illegal_pair"),
        ("stderr", "illegal_pair"),
        ("package", "illegal_pair"),
        ("logs", "illegal_pair"),
        ("input/x", "bad_reference"),
        ("std", "bad_reference"),
        ("mounts", "bad_path"),
        ("mounts/a/../b", "bad_path"),
        ("mounts//a", "bad_path"),
    ],
)
def test_only_an_input_can_be_fed(into: str, reason: str) -> None:
    job = {"name": "b", "service": "s", "inputs": [{"from": "a", "into": into}]}
    text = json.dumps({"name": "w", "jobs": [{"name": "a", "service": "s"}, job]})
    (problem,) = read_definition(workflows_pb2.DefinitionSource(text=text)).problems
    assert (problem.reason.text, problem.field) == (reason, "jobs[1].inputs[0].into")


def test_a_job_name_may_contain_dots_and_still_be_referred_to() -> None:
    assert graph({"split.1": [], "b": ["split.1", "split.1.stdout"]})[0].reason.text == "colliding_destinations"
    assert graph({"split.1": [], "b": ["split.1.stderr"]}) == ()


def test_a_misspelt_job_is_told_its_nearest_name() -> None:
    (problem,) = graph({"count": [], "merge": ["cuont.output"]})
    assert problem.next_action == "did you mean 'count'?"
