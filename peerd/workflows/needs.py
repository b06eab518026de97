"""What a job asks of a peer, and what is known of a peer that may get it. Plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from peerd.catalog.declaration import INTERFACE_KINDS
from peerd.catalog.model import InterfaceKind
from peerd.registry.expression import parse_expression
from peerd.registry.model import PeerView
from peerd.registry.selection import Selector
from peerd.v1 import catalog_pb2, workflows_pb2
from peerd.workflows.edges import Edge
from peerd.workflows.quantities import parse_memory


@dataclass(frozen=True, kw_only=True)
class NeededInterface:
    """An interface that an edge of the job uses."""

    kind: InterfaceKind
    # For mounts.
    path: str = ""
    # True: files come in there; False: files leave from there.
    receives: bool

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job asks of a peer; see :func:`need_of`."""

    node_id: str
    selector: Selector = field(default_factory=Selector)
    # Name or id; empty for an ad-hoc command.
    service: str = ""
    interfaces: tuple[NeededInterface, ...] = ()
    params: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A peer with what is known of it now."""

    peer: PeerView
    # None: its catalog is not known (not read yet, or it did not answer).
    services: Collection[catalog_pb2.Service] | None = None
    # Jobs given to it that its running_jobs may not show yet.
    assigned: int = 0
    # Jobs placed there whose outputs this one takes.
    near: int = 0
    # Grows with each job that is given to any peer; what it was when this one got its last.
    turn: int = 0
    # False once it refused a command of ours with adhoc_not_allowed.
    allows_commands: bool = True
    # What it said when it was given this very job and would not take it.
    refused: str = ""


def need_of(job: workflows_pb2.JobDefinition, edges: Iterable[Edge]) -> Need:
    """The need of a job, from its definition and the edges of it (others are passed over)."""
    interfaces: dict[NeededInterface, None] = {}
    for edge in edges:
        if edge.destination == job.name:
            kind, path = edge.destination_kind, edge.destination_path
            interfaces[NeededInterface(kind=INTERFACE_KINDS[kind], path=path, receives=True)] = None
        elif edge.source == job.name:
            kind, path = edge.source_kind, edge.source_path
            interfaces[NeededInterface(kind=INTERFACE_KINDS[kind], path=path, receives=False)] = None
    return Need(
        node_id=job.name,
        selector=Selector(
            peer=job.on.peer,
            role=job.on.role,
            labels=frozenset(job.on.labels),
            group=job.on.group,
            region=job.on.region,
            where=parse_expression(job.on.where) if job.on.where else None,
        ),
        service=job.service,
        interfaces=tuple(interfaces),
        params=frozenset(job.params),
        env=frozenset(job.env) | frozenset(job.secrets),
        cpus=job.resources.cpus,
        memory_bytes=parse_memory(job.resources.memory) if job.resources.memory else 0,
        gpus=job.resources.gpus,
    )
