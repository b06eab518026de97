"""Where the files of an edge end, and that no two edges end in each other's directory."""

from __future__ import annotations

import json

import pytest

from peerd.v1 import catalog_pb2, workflows_pb2
from peerd.workflows.definition import Reading, read_definition
from peerd.workflows.edges import LOCAL_PEER, edges_by_job, edges_of

from .reading import valid

Input = tuple[str, str, str]


def consumer(*inputs: Input) -> Reading:
    """A workflow of jobs a, b, c and one consumer with these (from, into, to)."""
    jobs: list[dict[str, object]] = [{"name": name, "service": "s"} for name in "abc"]
    edges = [{"from": source, "into": into, "to": to} for source, into, to in inputs]
    jobs.append({"name": "consumer", "service": "s", "inputs": edges})
    text = json.dumps({"name": "w", "jobs": jobs})
    return read_definition(workflows_pb2.DefinitionSource(text=text))


@pytest.mark.parametrize(
    ("inputs", "directories"),
    [
        ([("a", "", "")], [""]),
        ([("a", "", "x/y")], ["x/y"]),
        ([("a", "", ""), ("b", "", "")], ["a", "b"]),
        # stdin and input share a place, a mount is another
        ([("a.stdout", "stdin", ""), ("b", "input", "")], ["a", "b"]),
        ([("a.stdout", "stdin", ""), ("b", "mounts/app", "")], ["", ""]),
        ([("a", "mounts/app", ""), ("b", "mounts/app", ""), ("c", "", "")], ["a", "b", ""]),
        ([("a", "mounts/app", ""), ("b", "mounts/data", "")], ["", ""]),
        # an explicit directory counts as an edge into the place, too
        ([("a", "", "x"), ("b", "", "")], ["x", "b"]),
        ([("a", "", "x"), ("a.stdout", "", "y")], ["x", "y"]),
        ([("a", "", "x"), ("b", "", "xx")], ["x", "xx"]),
    ],
)
def test_the_directory_of_each_edge(inputs: list[Input], directories: list[str]) -> None:
    reading = consumer(*inputs)
    assert reading.definition is not None, reading.problems
    assert [edge.directory for edge in edges_of(reading.definition)] == directories


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("a", "", "x"), ("b", "", "x")], "'a' and 'b' both end in input/x/"),
        ([("a", "", "X"), ("b", "", "x")], "'a' and 'b' both end in input/x/"),
        ([("a", "", ""), ("a.stdout", "", "")], "'a' and 'a.stdout' both end in input/a/"),
        ([("a", "stdin", "x"), ("b", "input", "x")], "'a' and 'b' both end in input/x/"),
        ([("a", "", "b"), ("b", "", "")], "'a' and 'b' both end in input/b/"),
        ([("a", "", "x"), ("b", "", "x/y")], "'b' ends in input/x/y/, inside of input/x/ where 'a' ends"),
        ([("a", "", "x/y/z"), ("b", "", "x")], "'a' ends in input/x/y/z/, inside of input/x/ where 'b' ends"),
        ([("a", "mounts/m", "x"), ("b", "mounts/m", "x")], "'a' and 'b' both end in mounts/m/x/"),
        (
            [("a", "mounts/m", ""), ("b", "mounts/m/n", "")],
            "'b' ends in mounts/m/n/, inside of mounts/m/ where 'a' ends",
        ),
        ([("a", "mounts/m", ""), ("b", "mounts/M", "")], "'a' and 'b' both end in mounts/M/"),
    ],
)
def test_colliding_destinations_are_refused_with_both_named(inputs: list[Input], message: str) -> None:
    problems = consumer(*inputs).problems
    assert [problem.reason.text for problem in problems] == ["colliding_destinations"]
    assert problems[0].message == f"{message} (jobs[3].inputs[0] and jobs[3].inputs[1])"
    assert problems[0].field == "jobs[3].inputs[1]"


@pytest.mark.parametrize("to", ["../x", "/x", "a//b", "a/./b", "x/", "a\x00b", "a" * 256])
def test_a_directory_that_leads_elsewhere_is_refused(to: str) -> None:
    (problem,) = consumer(("a", "", to)).problems
    assert (problem.reason.text, problem.field) == ("bad_path", "jobs[3].inputs[0].to")


def test_deliveries_follow_the_same_rules() -> None:
    one = valid("name: w\njobs: [{name: a, service: s}]\ndeliver: [{from: a}]\n")
    assert [edge.directory for edge in edges_of(one)] == [""]
    two = valid(
        "name: w\njobs: [{name: a, service: s}, {name: b, service: s}]\ndeliver: [{from: a}, {from: b.stdout}]\n"
    )
    assert [edge.directory for edge in edges_of(two)] == ["a", "b"]
    text = "name: w\njobs: [{name: a, service: s}]\ndeliver: [{from: a, to: x}, {from: a.stdout, to: x}]\n"
    (problem,) = read_definition(workflows_pb2.DefinitionSource(text=text)).problems
    assert (problem.reason.text, problem.field, problem.line) == ("colliding_destinations", "deliver[1]", 3)


def test_edges_are_numbered_inputs_then_packages_then_deliveries() -> None:
    definition = valid(
        """\
        name: w
        jobs:
          - name: c
            service: s
            inputs:
              - {from: a.stdout, into: stdin}
              - {from: b.mounts/out/x, into: mounts/app}
            package: [{path: x, text: y}, {path: z, text: y}]
          - name: a
            service: s
            package: [{path: x, text: y}]
          - name: b
            service: s
            inputs: [{from: a}]
        deliver: [{from: c.stderr, to: log}]
        """
    )
    edges = edges_of(definition)
    told = [
        (e.edge_id, e.source, e.source_kind, e.source_path, e.destination, e.destination_kind, e.destination_path)
        for e in edges
    ]
    assert told == [
        (1, "a", catalog_pb2.INTERFACE_KIND_STDOUT, "", "c", catalog_pb2.INTERFACE_KIND_STDIN, ""),
        (2, "b", catalog_pb2.INTERFACE_KIND_MOUNT, "out/x", "c", catalog_pb2.INTERFACE_KIND_MOUNT, "app"),
        (3, "a", catalog_pb2.INTERFACE_KIND_OUTPUT, "", "b", catalog_pb2.INTERFACE_KIND_INPUT, ""),
        (4, LOCAL_PEER, catalog_pb2.INTERFACE_KIND_PACKAGE, "", "c", catalog_pb2.INTERFACE_KIND_PACKAGE, ""),
        (5, LOCAL_PEER, catalog_pb2.INTERFACE_KIND_PACKAGE, "", "a", catalog_pb2.INTERFACE_KIND_PACKAGE, ""),
        (6, "c", catalog_pb2.INTERFACE_KIND_STDERR, "", LOCAL_PEER, catalog_pb2.INTERFACE_KIND_INPUT, ""),
    ]
    assert [edge.position for edge in edges] == [0, 1, 0, 0, 0, 0]
    assert [edge.edge_id for edge in edges_by_job(edges)["a"]] == [1, 3, 5]
    assert [edge.edge_id for edge in edges_by_job(edges)[LOCAL_PEER]] == [4, 5, 6]
