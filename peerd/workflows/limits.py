"""Time-outs of the orchestrator: how long a job may queue, wait to start, and wait for one edge. Pure.

They count from moments that are in the log, so they go on over a restart, and pass by the clock that nobody sets:
``state.ahead`` is how far that one is ahead of the wall clock by which events are told.

Whether a job has started or its files have arrived is known on its executor, so after a restart, or while a peer is
away, what was last heard may be old: those two limits wait until its peer was heard again, or is known to be away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from peerd.clock import Millis
from peerd.workflows.events import TimedOut
from peerd.workflows.model import JobStatus, WorkflowJobStatus
from peerd.workflows.state import EdgeState, ExecutionState, JobState

QUEUE: Final = "queue_timeout"
START: Final = "start_timeout"
TRANSFER: Final = "transfer_timeout"
_ASK_AGAIN_MS = 500


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Something that must have happened by a moment."""

    name: str
    at: Millis
    # What has not happened if it passes.
    message: str


def passed(state: ExecutionState, job: JobState, now: Millis) -> TimedOut | None:
    """The limit that has passed, if it is certain; else the job is looked at again soon."""
    for limit in _running(state, job):
        if limit.at > now:
            continue
        if limit.name == QUEUE or job.peer in state.heard or job.peer in state.away:
            return TimedOut(node=job.spec.node_id, limit=limit.name, message=limit.message, at=now)
        state.set_timer(Millis(now + _ASK_AGAIN_MS), node=job.spec.node_id)
    return None


def nearest(state: ExecutionState, job: JobState) -> tuple[Millis, str] | None:
    """Until when it may wait at most, and by which limit."""
    found = [(limit.at, limit.name) for limit in _running(state, job)]
    if job.spec.deadline_at is not None:
        found.append((job.spec.deadline_at, "deadline"))
    return min(found, default=None)


def queues(state: ExecutionState, job: JobState, at: Millis) -> None:
    """From now on it waits for a peer."""
    if job.spec.queue_timeout is not None:
        job.queue_ends = Millis(at + state.ahead + job.spec.queue_timeout)
        state.set_timer(job.queue_ends, node=job.spec.node_id)


def ready(state: ExecutionState, job: JobState, at: Millis) -> None:
    """Its inputs are complete since then."""
    if job.start_ends is None and job.spec.start_timeout is not None:
        job.start_ends = Millis(at + state.ahead + job.spec.start_timeout)
        state.set_timer(job.start_ends, node=job.spec.node_id)


def sends(state: ExecutionState, edge: EdgeState, at: Millis) -> None:
    """Both ends of the edge are known and its files are there: they may be on their way from now on."""
    consumer = state.jobs[edge.spec.destination]
    if edge.transfer_ends is None and consumer.spec.transfer_timeout is not None:
        edge.transfer_ends = Millis(at + state.ahead + consumer.spec.transfer_timeout)
        state.set_timer(edge.transfer_ends, node=edge.spec.destination)


def _running(state: ExecutionState, job: JobState) -> Iterator[Limit]:
    spec = job.spec
    if job.final:
        return
    if spec.queue_timeout is not None and job.queue_ends is not None and not job.remote_id:
        message = f"no peer had taken it within {_words(spec.queue_timeout)}"
        yield Limit(name=QUEUE, at=job.queue_ends, message=message)
    report = job.report
    waits_to_start = report is not None and report.status is JobStatus.READY and not report.attempt
    if spec.start_timeout is not None and job.start_ends is not None and waits_to_start:
        message = f"it did not run within {_words(spec.start_timeout)} of its inputs being complete"
        yield Limit(name=START, at=job.start_ends, message=message)
    if spec.transfer_timeout is None or job.status is WorkflowJobStatus.RUNNING:
        return
    if report is not None and report.status is not JobStatus.CREATED and report.status is not JobStatus.WAITING_INPUTS:
        return  # it has all it waits for
    for edge_id in job.inputs:
        edge = state.edges[edge_id]
        if edge.transfer_ends is not None and not edge.settled:
            source = edge.spec.source or "its package"
            message = f"the files of {source} (edge {edge_id}) did not arrive within {_words(spec.transfer_timeout)}"
            yield Limit(name=TRANSFER, at=edge.transfer_ends, message=message)


def _words(millis: int) -> str:
    return f"{millis / 1000:g} s"
