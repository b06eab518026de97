"""What a new generation of interfaces changes. Pure.

A job that has made an attempt keeps the inputs it has: they are what it worked on. One that has not drops what it got
from a producer that was replaced, and waits for the new one. Outgoing edges follow their destination at any time; one
that was given up is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from peerd.jobs.model import Edge, EdgeStatus, Job, JobStatus


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What to write, and what to tell the sender."""

    put: tuple[Edge, ...] = ()
    drop: tuple[Edge, ...] = ()
    withdraw: tuple[Edge, ...] = ()
    """As they were: these transfers are no longer wanted."""
    send: tuple[Edge, ...] = ()
    """As they are now."""


def merge(job: Job, present: Iterable[Edge], wanted: Iterable[Edge]) -> Merged:
    """Compare a job's edges with those of a higher generation."""
    old = {edge.edge_id: edge for edge in present}
    new = {edge.edge_id: edge for edge in wanted}
    put: list[Edge] = []
    withdraw: list[Edge] = []
    send: list[Edge] = []
    for edge in new.values():
        before = old.get(edge.edge_id)
        if edge.incoming:
            if not job.started:
                put.append(_incoming(before, edge))
            continue
        changed = _outgoing(job, before, edge)
        put.append(changed)
        if before is not None and before.status is EdgeStatus.SENDING and not before.same_end(changed):
            withdraw.append(before)
        if changed.status is EdgeStatus.SENDING and (before is None or changed != before):
            send.append(changed)
    gone = _gone(job, old, new)
    withdraw += [edge for edge in gone if edge.status is EdgeStatus.SENDING]
    return Merged(put=tuple(put), drop=tuple(gone), withdraw=tuple(withdraw), send=tuple(send))


def _incoming(before: Edge | None, edge: Edge) -> Edge:
    if before is None:
        return edge
    if before.same_end(edge):
        return replace(edge, status=before.status, bytes=before.bytes)
    # Even if nothing was recorded yet, part of the old producer's files may lie there.
    return replace(edge, status=EdgeStatus.CLEARING)


def _outgoing(job: Job, before: Edge | None, edge: Edge) -> Edge:
    if before is not None and before.same_end(edge) and before.status is not EdgeStatus.FAILED:
        return replace(edge, status=before.status, bytes=before.bytes)
    return replace(edge, status=EdgeStatus.SENDING if job.status is JobStatus.COMPLETED else EdgeStatus.WAITING)


def _gone(job: Job, old: Mapping[int, Edge], new: Mapping[int, Edge]) -> list[Edge]:
    return [edge for edge in old.values() if edge.edge_id not in new and not (edge.incoming and job.started)]
