"""Graphs as text: Mermaid for web pages and notebooks, DOT for graphviz. Pure, and safe whatever things are called.

Nodes are numbered, so no name can be taken for syntax; names appear in labels only, escaped.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peerd.v1 import catalog_pb2, workflows_pb2
from peerd.v1.catalog_pb2 import InterfaceKind
from peerd.workflows.edges import LOCAL_PEER, edges_of, edges_of_maps

HOME = "Local Peer"

COLOURS = {
    "pending": "#f2f2f2",
    "placed": "#e4e9f5",
    "waiting_inputs": "#fff3c9",
    "running": "#bfdcff",
    "completed": "#c9f0d0",
    "failed": "#ffc9c9",
    "skipped": "#e6e6e6",
    "cancelled": "#ead7f2",
    "home": "#ffffff",
}
"""Fill by state; a state that is not here is drawn as one that has none."""
_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Node:
    """A job, or Local Peer."""

    name: str
    # A key of COLOURS, or "".
    state: str = ""
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """Files on their way from one node to another, by position."""

    source: int
    destination: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is drawn."""

    name: str
    nodes: Sequence[Node]
    arrows: Sequence[Arrow]


def of_definition(definition: workflows_pb2.WorkflowDefinition) -> Drawing:
    """The graph of a valid definition, without states."""
    nodes = [Node(name=job.name) for job in definition.jobs]
    ends = [
        (
            edge.source,
            edge.list_of or edge.destination,
            interface(edge.source_kind, edge.shown_path),
            interface(edge.destination_kind, edge.destination_path),
        )
        for edge in itertools.chain(edges_of(definition), *edges_of_maps(definition).values())
    ]
    return _drawing(definition.name, nodes, ends)


def of_execution(execution: workflows_pb2.Execution) -> Drawing:
    """The graph of an execution with the state of each job, and where it is."""
    nodes = [Node(name=job.node_id, state=state_of(job), peer=job.executor_name) for job in execution.jobs]
    ends = [
        (
            edge.source_node_id,
            edge.destination_node_id,
            interface(edge.source_kind, edge.source_path),
            interface(edge.destination_kind, edge.destination_path),
        )
        for edge in execution.edges
    ]
    return _drawing(f"{execution.workflow_name} {execution.workflow_execution_id}", nodes, ends)


def state_of(job: workflows_pb2.WorkflowJob) -> str:
    """``waiting_inputs`` and so on; "" for a state of a newer version."""
    names: dict[int, str] = {value: name for name, value in workflows_pb2.WorkflowJobStatus.items()}
    return names.get(job.status, "").removeprefix("WORKFLOW_JOB_STATUS_").lower()


def interface(kind: InterfaceKind.ValueType, path: str) -> str:
    """``output``, ``output/reports``, ``mounts/data``, ``stdin``."""
    names: dict[int, str] = {value: name for name, value in InterfaceKind.items()}
    word = "mounts" if kind == catalog_pb2.INTERFACE_KIND_MOUNT else names[kind].removeprefix("INTERFACE_KIND_").lower()
    return f"{word}/{path}" if path else word


def mermaid(drawing: Drawing) -> str:
    """A flowchart."""
    lines = ["flowchart LR"]
    for index, node in enumerate(drawing.nodes):
        label = "<br/>".join(_mermaid_text(part) for part in _label(node))
        shape = f'(["{label}"])' if node.state == "home" else f'["{label}"]'
        lines.append(f"    n{index}{shape}" + (f":::{node.state}" if node.state in COLOURS else ""))
    for arrow in drawing.arrows:
        lines.append(f'    n{arrow.source} -->|"{_mermaid_text(arrow.label)}"| n{arrow.destination}')
    used = dict.fromkeys(node.state for node in drawing.nodes)
    for state in COLOURS:
        if state in used:
            lines.append(f"    classDef {state} fill:{COLOURS[state]},stroke:#555,color:#111")
    return "\n".join(lines) + "\n"


def dot(drawing: Drawing) -> str:
    """A digraph."""
    lines = [
        f"digraph {_quoted([drawing.name])} {{",
        "    rankdir=LR",
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#555555", fontname="sans-serif"]',
        '    edge [color="#555555", fontname="sans-serif", fontsize=10]',
    ]
    for index, node in enumerate(drawing.nodes):
        fill = f', fillcolor="{COLOURS[node.state]}"' if node.state in COLOURS else ""
        shape = ", shape=ellipse" if node.state == "home" else ""
        lines.append(f"    n{index} [label={_quoted(_label(node))}{fill}{shape}]")
    for arrow in drawing.arrows:
        lines.append(f"    n{arrow.source} -> n{arrow.destination} [label={_quoted([arrow.label])}]")
    return "\n".join([*lines, "}"]) + "\n"


def _drawing(name: str, nodes: list[Node], ends: Iterable[tuple[str, str, str, str]]) -> Drawing:
    index = {node.name: position for position, node in enumerate(nodes)}
    arrows: list[Arrow] = []
    home = len(nodes)
    for source, destination, out, into in ends:
        if source == LOCAL_PEER:
            continue  # package files are part of the definition
        if destination == LOCAL_PEER and len(nodes) == home:
            nodes = [*nodes, Node(name=HOME, state="home")]
        if source not in index or (destination and destination not in index):
            continue  # a job that this update does not carry
        end = index[destination] if destination else home
        arrows.append(Arrow(source=index[source], destination=end, label=out if not destination else f"{out} → {into}"))
    return Drawing(name=name, nodes=nodes, arrows=arrows)


def _label(node: Node) -> list[str]:
    about = " on ".join(word for word in (node.state.replace("_", " "), node.peer) if word)
    return [node.name, about] if about and node.state != "home" else [node.name]


def _plain(text: str) -> str:
    """On one line, without what cannot be seen."""
    shown = "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _mermaid_text(text: str) -> str:
    entities = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}
    return "".join(entities.get(character, character) for character in _plain(text))


def _quoted(parts: Iterable[str]) -> str:
    escaped = [_plain(part).replace("\\", "\\\\").replace('"', '\\"') for part in parts]
    return '"' + "\\n".join(escaped) + '"'
