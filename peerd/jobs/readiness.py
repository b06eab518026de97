"""Whether a job may start, and what it waits for if not. Pure.

A peer whose role is OUTPUT sends to us: its edge is *incoming*, and we wait until all of it is verified and recorded.
A peer whose role is INPUT receives from us: we never wait for it. (The source text mixed these up and would wait for
its own consumer.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from peerd.identity.peer_id import PeerId
from peerd.jobs.model import Edge, EdgeStatus, JobStatus

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """The status a job that has interfaces and has not started must have, and why."""

    status: JobStatus
    reason: str
    message: str


HELD = "held"
"""Reason of a ready job that its orchestrator holds back."""


def readiness(
    edges: Iterable[Edge], *, waits_for_inputs: bool, name_of: Callable[[PeerId], str], hold: bool = False
) -> Readiness:
    """Decide from the incoming edges; ``hold``: its orchestrator says when it may start."""
    missing = missing_inputs(edges) if waits_for_inputs else []
    if missing:
        return Readiness(status=JobStatus.WAITING_INPUTS, reason="inputs", message=_waiting_for(missing, name_of))
    if hold:
        message = "its inputs are here; its orchestrator holds it back until others of its kind have ended"
        return Readiness(status=JobStatus.READY, reason=HELD, message=message)
    return Readiness(status=JobStatus.READY, reason="slot", message="waits for a free place to run")


def missing_inputs(edges: Iterable[Edge]) -> list[Edge]:
    """The incoming edges that are not complete, in the order of their numbers."""
    found = [edge for edge in edges if edge.incoming and edge.status is not EdgeStatus.RECEIVED]
    return sorted(found, key=lambda edge: edge.edge_id)


def _waiting_for(missing: Sequence[Edge], name_of: Callable[[PeerId], str]) -> str:
    named = [
        f"{edge.place} from {name_of(edge.peer_id)} (edge {edge.edge_id}, its job {edge.peer_job_execution_id})"
        for edge in missing[:_NAMED]
    ]
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"waits for {', '.join(named)}{more}"
