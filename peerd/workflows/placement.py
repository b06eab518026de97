"""Which peer runs a job: (need, candidates) -> a peer, or every candidate's refusal. Pure; see below (being written)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peerd.registry.model import PeerView
from peerd.v1 import catalog_pb2, workflows_pb2

PeerIdText = str


@dataclass(frozen=True, kw_only=True)
class NeededInterface:
    """An interface that some edge of the job uses, seen from the job."""

    kind: catalog_pb2.InterfaceKind
    path: str = ""
    # INPUT: an edge brings files in; OUTPUT: an edge takes files out.
    function: catalog_pb2.MountFunction


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job asks of a peer. Made by ``need_of(job, edges)``."""

    node_id: str
    peer: str = ""
    role: str = ""
    labels: frozenset[str] = frozenset()
    group: str = ""
    # Empty for an ad-hoc command.
    service: str = ""
    interfaces: tuple[NeededInterface, ...] = ()
    cpus: float = 0.0
    memory_bytes: int = 0
    params: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A peer with what is known of its offer now."""

    peer: PeerView
    # None: its catalog is unknown (not asked yet, or it did not answer) - the job may be tried there.
    services: tuple[catalog_pb2.Service, ...] | None = None
    # Jobs given to it that its running_jobs may not show yet.
    assigned: int = 0
    # None: unknown, allowed to try. False after it refused one with adhoc_not_allowed.
    allows_commands: bool | None = None
    # Sizes from its advert; 0 unknown.
    cpu_cores: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why this candidate is not it, and the smallest change that would help."""

    peer_id: str
    peer_name: str
    reason: str
    message: str
    next_action: str
    # True: it would take the job if only it were online.
    when_back: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``peer_id`` chosen; or None and: ``waits_for`` peers that would take it once online, else nobody fits."""

    peer_id: str | None
    refusals: tuple[Refused, ...] = ()
    waits_for: tuple[str, ...] = ()


def place(need: Need, candidates: Iterable[Candidate]) -> Decision:
    """Choose; refusals are complete only when nobody was chosen or ``explain`` is asked of the plan."""
    raise NotImplementedError


def need_of(job: workflows_pb2.JobDefinition, edges: Iterable[object]) -> Need:
    """The need of a job from its definition and the edges that touch it (edges.Edge)."""
    raise NotImplementedError
