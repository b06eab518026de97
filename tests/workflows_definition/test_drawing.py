"""Graphs as Mermaid and DOT: golden text, states, and names that look like syntax."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.v1 import catalog_pb2, workflows_pb2
from peerd.workflows.definition import read_definition
from peerd.workflows.drawing import COLOURS, Arrow, Drawing, Node, dot, mermaid, of_definition, of_execution

TEXT = """
name: word-count
jobs:
  - {name: texts, service: s}
  - name: count
    service: s
    inputs: [{from: texts.output/books, to: in}, {from: texts.stdout, into: mounts/log}]
    package: [{path: a, text: b}]
deliver:
  - {from: count}
"""


def definition() -> workflows_pb2.WorkflowDefinition:
    read = read_definition(workflows_pb2.DefinitionSource(text=TEXT)).definition
    assert read is not None
    return read


def execution() -> workflows_pb2.Execution:
    make: Any = workflows_pb2.WorkflowJob
    output, stdin, into = (
        catalog_pb2.INTERFACE_KIND_OUTPUT,
        catalog_pb2.INTERFACE_KIND_STDIN,
        catalog_pb2.INTERFACE_KIND_INPUT,
    )
    edge: Any = workflows_pb2.ExecutionEdge
    return workflows_pb2.Execution(
        workflow_execution_id=7,
        workflow_name="word-count",
        jobs=[
            make(node_id="texts", executor_name="alpha", status=workflows_pb2.WORKFLOW_JOB_STATUS_COMPLETED),
            make(node_id="count", executor_name='b"<eta>', status=workflows_pb2.WORKFLOW_JOB_STATUS_WAITING_INPUTS),
        ],
        edges=[
            edge(source_node_id="texts", source_kind=output, destination_node_id="count", destination_kind=stdin),
            edge(source_node_id="count", source_kind=output, source_path="a b", destination_kind=into),
        ],
    )


def test_a_definition_as_mermaid() -> None:
    assert mermaid(of_definition(definition())) == (
        "flowchart LR\n"
        '    n0["texts"]\n'
        '    n1["count"]\n'
        '    n2(["Local Peer"]):::home\n'
        '    n0 -->|"output/books → input"| n1\n'
        '    n0 -->|"stdout → mounts/log"| n1\n'
        '    n1 -->|"output"| n2\n'
        "    classDef home fill:#ffffff,stroke:#555,color:#111\n"
    )


def test_an_execution_as_mermaid_has_states_and_escapes_names() -> None:
    assert mermaid(of_execution(execution())) == (
        "flowchart LR\n"
        '    n0["texts<br/>completed on alpha"]:::completed\n'
        '    n1["count<br/>waiting inputs on b#quot;#lt;eta#gt;"]:::waiting_inputs\n'
        '    n2(["Local Peer"]):::home\n'
        '    n0 -->|"output → stdin"| n1\n'
        '    n1 -->|"output/a b"| n2\n'
        "    classDef waiting_inputs fill:#fff3c9,stroke:#555,color:#111\n"
        "    classDef completed fill:#c9f0d0,stroke:#555,color:#111\n"
        "    classDef home fill:#ffffff,stroke:#555,color:#111\n"
    )


def test_an_execution_as_dot() -> None:
    assert dot(of_execution(execution())) == (
        'digraph "word-count 7" {\n'
        "    rankdir=LR\n"
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#555555", fontname="sans-serif"]\n'
        '    edge [color="#555555", fontname="sans-serif", fontsize=10]\n'
        '    n0 [label="texts\\ncompleted on alpha", fillcolor="#c9f0d0"]\n'
        '    n1 [label="count\\nwaiting inputs on b\\"<eta>", fillcolor="#fff3c9"]\n'
        '    n2 [label="Local Peer", fillcolor="#ffffff", shape=ellipse]\n'
        '    n0 -> n1 [label="output → stdin"]\n'
        '    n1 -> n2 [label="output/a b"]\n'
        "}\n"
    )


def test_every_state_of_a_job_has_a_colour() -> None:
    words = {
        name.removeprefix("WORKFLOW_JOB_STATUS_").lower()
        for name in workflows_pb2.WorkflowJobStatus.DESCRIPTOR.values_by_name
    }
    assert words - {"unspecified"} <= set(COLOURS)


def test_a_state_of_a_newer_version_is_drawn_without_one() -> None:
    made = execution()
    made.jobs[0].status = 99  # type: ignore[assignment]
    assert 'n0["texts<br/>alpha"]\n' in mermaid(of_execution(made))


LABELS = st.text(st.characters(), max_size=20) | st.sampled_from(
    ['"]', "\\", '\\"', "|end|", "%%", "`x`", "a\nb", "#35;"]
)
DRAWINGS = st.builds(
    Drawing,
    name=LABELS,
    nodes=st.lists(st.builds(Node, name=LABELS, state=st.sampled_from(["", "failed", "odd"]), peer=LABELS), max_size=3),
    arrows=st.just(()),
) | st.builds(
    Drawing,
    name=LABELS,
    nodes=st.just((Node(name="a"), Node(name="b"))),
    arrows=st.lists(st.builds(Arrow, source=st.just(0), destination=st.just(1), label=LABELS), max_size=2),
)


@given(DRAWINGS)
def test_no_name_becomes_syntax(drawing: Drawing) -> None:
    lines = mermaid(drawing).splitlines()
    expected = 1 + len(drawing.nodes) + len(drawing.arrows) + ("failed" in {node.state for node in drawing.nodes})
    assert len(lines) == expected
    for line in lines[1:]:
        node, arrow = r'n\d+\["[^"`\\&]*"\](:::failed)?', r'n0 -->\|"[^"`\\<>&]*"\| n1'
        assert re.fullmatch(rf"    ({node}|{arrow}|classDef failed fill:#\w+,stroke:#555,color:#111)", line), line
    quoted = r'"(?:[^"\\]|\\.)*"'
    for line in dot(drawing).splitlines()[4:-1]:
        attributes = r'(, fillcolor="#\w+")?'
        assert re.fullmatch(rf"    (n\d+|n0 -> n1) \[label={quoted}{attributes}\]", line), line


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@given(DRAWINGS)
def test_graphviz_reads_it(drawing: Drawing) -> None:
    done = subprocess.run(["dot", "-Tcanon"], input=dot(drawing).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
