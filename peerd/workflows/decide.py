"""decide(state, jobs, now) -> commands: what is outstanding for these jobs. Pure.

Commands follow from the state, level-triggered: a command is outstanding for as long as the state lacks the event
that would answer it. So commands need no table of their own - after a restart the replayed state, asked about all its
jobs, yields again exactly what was not answered, and every command may be repeated (each names its placement and
generation, by which executors know it again). The one thing that must be durable *before* a command leaves is that a
start was sent, since from then on the job may be running: :class:`~peerd.workflows.events.JobStartSent` is committed
first, in the transaction of the events that made the start possible.

Only the jobs that events have touched are looked at, so a decision costs nothing for the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.workflows.endings import may_run_again
from peerd.workflows.events import DeadlinePassed, Event, JobLost
from peerd.workflows.gates import gate
from peerd.workflows.limits import passed
from peerd.workflows.model import EdgeStatus, WorkflowJobStatus
from peerd.workflows.state import ExecutionState, JobState

_REVOKED = "its peer was revoked and its lease has run out"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something to be done for one placement of one job."""

    node: str
    placement: int


@dataclass(frozen=True, kw_only=True)
class PlaceJob(Command):
    """Choose a peer, none of the excluded; then it has this placement."""

    excluded: frozenset[str]
    # It leaves a peer that is away; nothing is lost if no other takes it.
    move: bool = False


@dataclass(frozen=True, kw_only=True)
class ExpandMap(Command):
    """Read the list of a job with a map, which is here, and say what it holds."""


@dataclass(frozen=True, kw_only=True)
class CreateJob(Command):
    """Phase one."""

    peer: str


@dataclass(frozen=True, kw_only=True)
class StartJob(Command):
    """Phase two. ``new``: this generation has not been sent before."""

    peer: str
    generation: int
    new: bool = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class CancelJob(Command):
    """End it, whatever it does; repeated until answered."""

    peer: str
    reason: str


def decide(state: ExecutionState, jobs: Iterable[JobState], now: Millis) -> list[Command]:
    """What is outstanding for these jobs and can be done now: nothing for peers that are away."""
    return [command for job in jobs for command in _outstanding(state, job, now)]


def due(state: ExecutionState, now: Millis) -> list[Event]:
    """What has come to pass by now. Jobs whose time has come for another reason are marked to be looked at."""
    found: list[Event] = []
    if not state.cancel:
        found += [gate(state, state.jobs[node], now) for node in state.gates]
    seen: set[str] = set()
    while state.timers and state.timers[0][0] <= now:
        _, node, peer = heapq.heappop(state.timers)
        for name in [node] if node else state.by_peer.get(peer, ()):
            if name in seen:
                continue
            seen.add(name)
            job = state.jobs[name]
            state.dirty[name] = None
            found += _stops_in_vain(state, job, now)
            if job.final and _sends_in_vain(state, job, now):
                found.append(JobLost(node=name, placement=job.placement, message=_REVOKED, at=now))
            if job.final or state.cancel:
                continue
            if job.spec.deadline_at is not None and job.spec.deadline_at <= now:
                found.append(DeadlinePassed(node=name, waiting=_waiting_for(job), at=now))
            elif (timed_out := passed(state, job, now)) is not None:
                found.append(timed_out)
            elif _gone_for_good(state, job.peer, now):
                found.append(JobLost(node=name, placement=job.placement, message=_REVOKED, at=now))
    return found


def _outstanding(state: ExecutionState, job: JobState, now: Millis) -> Iterator[Command]:
    node = job.spec.node_id
    retry_later = job.held is not None and job.held.retry_at is not None and job.held.retry_at > now
    for placement, peer in job.stops.items():
        if peer not in state.away and not (retry_later and placement == job.placement):
            yield CancelJob(node=node, placement=placement, peer=peer, reason=_stop_reason(state, job, placement))
    if state.cancel or state.status.final or retry_later:
        return
    if job.final:
        if job.status is not WorkflowJobStatus.COMPLETED:
            return
    elif not job.open:
        return
    elif job.spec.mapped is not None:
        if state.edges[job.spec.mapped.list_edge].status is EdgeStatus.DELIVERED:
            yield ExpandMap(node=node, placement=0)
        return
    elif not job.peer:
        yield PlaceJob(node=node, placement=job.placement + 1, excluded=frozenset(job.refused_by))
        return
    elif job.peer in state.away:
        if _may_move(state, job, now):
            # To nobody who is away as well: from there it might move back at once, and so on for ever.
            excluded = frozenset({*job.refused_by, *state.away})
            yield PlaceJob(node=node, placement=job.placement + 1, excluded=excluded, move=True)
        return
    elif not job.remote_id:
        yield CreateJob(node=node, placement=job.placement, peer=job.peer)
        return
    if job.needs_start and job.missing == 0 and job.peer not in state.away and not _ahead_of_consumers(state, job):
        generation = job.generation + job.stale
        yield StartJob(node=node, placement=job.placement, peer=job.peer, generation=generation, new=job.stale)


def _ahead_of_consumers(state: ExecutionState, job: JobState) -> bool:
    """Whether a consumer still expects this job's files from where the job was before it moved.

    It would refuse them for good from anybody else, so a moved job starts only after its consumers know.
    """
    if job.placement == 1 or job.start_sent:
        return False
    consumers = (state.jobs.get(state.edges[edge_id].spec.destination) for edge_id in job.outputs)
    return any(
        consumer is not None and consumer.start_sent and not consumer.final and consumer.needs_start
        for consumer in consumers
    )


def _may_move(state: ExecutionState, job: JobState, now: Millis) -> bool:
    """Whether the job may leave a peer that is away: it never ran there, or can no longer hold its lease."""
    timing, since = state.timing, state.away[job.peer].since
    if job.spec.pinned:
        return False
    if not job.may_have_run:
        return now >= since + timing.replace_after
    return may_run_again(job) and now >= since + timing.lease + timing.max_clock_skew


def _stops_in_vain(state: ExecutionState, job: JobState, now: Millis) -> list[Event]:
    return [
        JobLost(node=job.spec.node_id, placement=placement, message=_REVOKED, at=now)
        for placement, peer in job.stops.items()
        if _gone_for_good(state, peer, now)
    ]


def _sends_in_vain(state: ExecutionState, job: JobState, now: Millis) -> bool:
    """Whether it completed on a peer that will not come back, and somebody still waits for its files."""
    if state.status.final or job.status is not WorkflowJobStatus.COMPLETED or not _gone_for_good(state, job.peer, now):
        return False
    return any(not state.edges[edge_id].settled for edge_id in job.outputs)


def _gone_for_good(state: ExecutionState, peer: str, now: Millis) -> bool:
    away = state.away.get(peer)
    timing = state.timing
    return away is not None and away.gone and now >= away.since + timing.lease + timing.max_clock_skew


def _stop_reason(state: ExecutionState, job: JobState, placement: int) -> str:
    if placement != job.placement or not job.peer:
        return "moved to another peer"
    if state.cancel:
        return state.cancel.reason or "cancelled"
    return job.message or job.reason


def _waiting_for(job: JobState) -> str:
    if job.held is not None and job.held.message:
        return job.held.message
    where = f" on {job.peer[:8]}" if job.peer else ""
    return f"the job was {job.status.value.replace('_', ' ')}{where}"
