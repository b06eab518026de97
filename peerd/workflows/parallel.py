"""Places of a job's instances: with ``max_parallel`` at most so many of them run at once. Pure, part of evolve.

All instances get peers, ids, interfaces and files as ever, but their executors hold them back. One that is told to be
ready waits here for a place, in the order of the definition; who has a place gets its interfaces anew without the hold
and keeps it until it has ended or leaves its peer. So a job that waits for files, or whose peer is away from the
beginning, takes no place from others. Only durable events move places, so that replay gives the same ones.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peerd.workflows.model import JobStatus

if TYPE_CHECKING:
    from peerd.workflows.state import ExecutionState, JobState


@dataclass(slots=True, kw_only=True)
class Places:
    """Of one job with ``max_parallel``."""

    limit: int
    taken: int = 0
    # (workflow job id, node) of those that are ready; some may no longer be.
    waiting: list[tuple[int, str]] = field(default_factory=list)


def is_ready(state: ExecutionState, job: JobState) -> None:
    """A job that is held back could run."""
    heapq.heappush(state.places[job.spec.places].waiting, (job.spec.workflow_job_id, job.spec.node_id))
    _give(state, job.spec.places)


def leaves(state: ExecutionState, job: JobState) -> None:
    """The job has ended, or is on no peer any more: the place it has, if it has one, is free."""
    if job.spec.places and not job.hold:
        state.places[job.spec.places].taken -= 1
        job.hold = not job.final
        _give(state, job.spec.places)


def _give(state: ExecutionState, name: str) -> None:
    places = state.places[name]
    while places.waiting and places.taken < places.limit and not state.cancel:
        job = state.jobs[heapq.heappop(places.waiting)[1]]
        if job.hold and not job.final and job.report is not None and job.report.status is JobStatus.READY:
            job.hold, job.stale = False, True
            places.taken += 1
            state.touch(job)
