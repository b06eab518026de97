"""The edges of a definition, flat and numbered: which files go from where to where.

Pure, and computed from the definition alone, so the orchestrator, ``plan`` and validation agree. Edge ids count from
1 in definition order: the inputs of the first job, of the second ..., then one edge per job with package files, then
the deliveries to Local Peer, then the lists of maps.

The directory an edge ends in: what its ``to`` says; else the place itself when it is the only edge into that place,
else a directory named after the producing job. Places are ``input`` (stdin and input edges share it), each mount
path, and the ``input`` of Local Peer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from peerd.transfers.selection import EVERYTHING, Selection
from peerd.v1 import catalog_pb2, workflows_pb2
from peerd.v1.catalog_pb2 import InterfaceKind
from peerd.workflows.selections import selection_of

LOCAL_PEER = ""
"""Node id of the owner's end of an edge: source of package files, destination of deliveries."""

SOURCE_KINDS = {
    "output": catalog_pb2.INTERFACE_KIND_OUTPUT,
    "stdout": catalog_pb2.INTERFACE_KIND_STDOUT,
    "stderr": catalog_pb2.INTERFACE_KIND_STDERR,
    "mounts": catalog_pb2.INTERFACE_KIND_MOUNT,
}
DESTINATION_KINDS = {
    "input": catalog_pb2.INTERFACE_KIND_INPUT,
    "stdin": catalog_pb2.INTERFACE_KIND_STDIN,
    "mounts": catalog_pb2.INTERFACE_KIND_MOUNT,
}


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed ``from``: an output of a job."""

    node_id: str
    # A key of SOURCE_KINDS in a valid definition; anything else was written in its place.
    word: str
    # Of a mount, or of the part of an output that is meant; as written.
    path: str = ""

    @property
    def mount(self) -> str:
        """The path of the mount that it is."""
        return self.path if self.word == "mounts" else ""

    @property
    def part(self) -> str:
        """The directory or file of the output that it narrows to."""
        return "" if self.word == "mounts" else self.path


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed ``into``: an input of the job that has it."""

    # A key of DESTINATION_KINDS in a valid definition.
    word: str
    path: str = ""

    @property
    def directory(self) -> str:
        """Relative to the job's directory; stdin edges lie in input/ too."""
        return f"mounts/{self.path}" if self.word == "mounts" else "input"


# A job may not end in one of these, else "a.output" could be a job or its output.
INTERFACE_WORDS = ("output", "stdout", "stderr", "mounts", "input", "stdin", "package", "logs")


def parse_source(text: str) -> Source:
    """``JOB[.output[/PATH]|.stdout|.stderr|.mounts/PATH]``; never fails, validation judges what comes out."""
    head, slash, path = text.partition("/")
    node_id, dot, word = head.rpartition(".")
    if dot and word in INTERFACE_WORDS:
        return Source(node_id, word, path)
    if slash:
        return Source(node_id or head, f"{word}/{path}" if dot else f"/{path}")
    return Source(text, "output")


def parse_place(text: str) -> Place:
    """``input`` (also for ""), ``stdin`` or ``mounts/PATH``; never fails, validation judges what comes out."""
    word, _, path = (text or "input").partition("/")
    return Place(word, path) if word == "mounts" else Place(text or "input")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A connection of two interfaces."""

    edge_id: int
    # LOCAL_PEER for package files.
    source: str
    source_kind: InterfaceKind.ValueType
    # For mounts: path below mounts/.
    source_path: str = ""
    # LOCAL_PEER for deliveries.
    destination: str
    destination_kind: InterfaceKind.ValueType
    # For mounts: path below mounts/.
    destination_path: str = ""
    # Below the destination's place; "" for the place itself.
    directory: str = ""
    # Index among the inputs of the destination (or the deliveries): the order of concatenation for stdin.
    position: int = 0
    # Which files of the output, under which names; the sender applies it.
    selection: Selection = EVERYTHING
    # The job with a map whose list comes along it, to be read by the orchestrator itself.
    list_of: str = ""

    @property
    def shown_path(self) -> str:
        """For people: below which path of the output or of mounts/ it begins."""
        return self.source_path or self.selection.path


def edges_of(definition: workflows_pb2.WorkflowDefinition) -> tuple[Edge, ...]:
    """All edges of a valid definition, without those of the instances of a map, which come with them."""
    mapped = {job.name for job in definition.jobs if job.HasField("map")}
    plain = (edge for edge in _edges(definition) if not mapped & {edge.source, edge.destination})
    lists = (_list_edge(job) for job in definition.jobs if job.HasField("map"))
    return tuple(replace(edge, edge_id=number) for number, edge in enumerate((*plain, *lists), 1))


def edges_of_maps(definition: workflows_pb2.WorkflowDefinition) -> dict[str, tuple[Edge, ...]]:
    """By job with a map, the edges that each of its instances will have, with its own name at their end.

    An edge between two such jobs belongs to the one that takes the files: the other's list is known before.
    """
    found: dict[str, list[Edge]] = {job.name: [] for job in definition.jobs if job.HasField("map")}
    for edge in _edges(definition) if found else ():
        if edge.destination in found:
            found[edge.destination].append(edge)
        elif edge.source in found:
            found[edge.source].append(edge)
    return {name: tuple(edges) for name, edges in found.items()}


def edges_by_job(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    """Job -> the edges that touch it, in order; LOCAL_PEER -> package files and deliveries."""
    touching: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        touching[edge.source].append(edge)
        touching[edge.destination].append(edge)
    return dict(touching)


def directories(pairs: list[tuple[Source, Place, str]]) -> list[str]:
    """Where the edges into one job end below their places, given (from, into, to) of each."""
    crowd = Counter(place.directory for _, place, _ in pairs)
    return [to or ("" if crowd[place.directory] == 1 else source.node_id) for source, place, to in pairs]


def _edges(definition: workflows_pb2.WorkflowDefinition) -> Iterator[Edge]:
    """Without numbers, and of a map as if it were one job."""
    mapped = {job.name for job in definition.jobs if job.HasField("map")}
    for job in definition.jobs:
        pairs = [(parse_source(getattr(item, "from")), parse_place(item.into), item.to) for item in job.inputs]
        for position, (item, (source, place, to), directory) in enumerate(
            zip(job.inputs, pairs, directories(pairs), strict=True)
        ):
            yield Edge(
                edge_id=0,
                source=source.node_id,
                source_kind=SOURCE_KINDS[source.word],
                source_path=source.mount,
                destination=job.name,
                destination_kind=DESTINATION_KINDS[place.word],
                destination_path=place.path,
                directory=to if source.node_id in mapped else directory,
                position=position,
                selection=selection_of(item, source.part),
            )
    for job in definition.jobs:
        if job.package:
            yield Edge(
                edge_id=0,
                source=LOCAL_PEER,
                source_kind=catalog_pb2.INTERFACE_KIND_PACKAGE,
                destination=job.name,
                destination_kind=catalog_pb2.INTERFACE_KIND_PACKAGE,
            )
    home = [(parse_source(getattr(item, "from")), parse_place(""), item.to) for item in definition.deliver]
    for position, (delivery, (source, _, to), directory) in enumerate(
        zip(definition.deliver, home, directories(home), strict=True)
    ):
        yield Edge(
            edge_id=0,
            source=source.node_id,
            source_kind=SOURCE_KINDS[source.word],
            source_path=source.mount,
            destination=LOCAL_PEER,
            destination_kind=catalog_pb2.INTERFACE_KIND_INPUT,
            directory=to if source.node_id in mapped else directory,
            position=position,
            selection=selection_of(delivery, source.part),
        )


def _list_edge(job: workflows_pb2.JobDefinition) -> Edge:
    source = parse_source(getattr(job.map, "from"))
    return Edge(
        edge_id=0,
        source=source.node_id,
        source_kind=SOURCE_KINDS[source.word],
        source_path=source.mount,
        destination=LOCAL_PEER,
        destination_kind=catalog_pb2.INTERFACE_KIND_INPUT,
        directory=job.name,
        selection=Selection(path=source.part),
        list_of=job.name,
    )
