"""Measures what jobs of other peers occupy while they have not ended, and ends those that exceed a quota.

An orchestrator is over its quota when what its jobs were measured to occupy is more than it may be. Then the running
jobs that have grown since the last look are ended, the fastest first, until enough comes free: what a job made that
is ended for this is removed. A job that has made little is let be, and so is one that writes nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peerd import trees
from peerd.clock import Clock
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.jobs import occupancy
from peerd.jobs.model import Job, JobStatus, Stop
from peerd.jobs.places import Places
from peerd.jobs.quota import Quota
from peerd.jobs.repository import JobRepository, to_job
from peerd.store import Store, Tx
from peerd.transfers.staging import FOLDER

EVERY_SECONDS = 5.0
LET_BE_BYTES = 1024**2
"""What a running job may have made, its logs and directories, without being ended for it."""
_SHARE_OF_TIME = 0.05


@dataclass(frozen=True, kw_only=True)
class _Growth:
    job: Job
    by: int

    @property
    def made(self) -> int:
        """What comes free when it is ended."""
        return self.job.disk_bytes - self.job.bytes_received


class Measuring:
    """Looks again and again; takes at most a twentieth of the time, however much there is to look at."""

    def __init__(self, store: Store, repository: JobRepository, places: Places, quota: Quota, clock: Clock) -> None:
        self._store = store
        self._repository = repository
        self._places = places
        self._quota = quota
        self._clock = clock
        self._not_before = 0.0

    @property
    def needed(self) -> bool:
        """Whether anybody is limited."""
        return self._quota.limit_bytes > 0

    async def step(self) -> None:
        """Measure everything that may have changed. Call it every so often."""
        began = self._clock.monotonic()
        if began < self._not_before:
            return
        sizes: dict[int, int] = {}
        for row in await self._store.all(*occupancy.unsettled(self._places.executor)):
            job = to_job(row)
            directory = self._places.of(job).directory
            sizes[job.id] = await asyncio.to_thread(_measure, directory)
        if sizes:
            ended = await self._store.write(lambda tx: self._record(tx, sizes))
            if ended:
                failpoint("job.quota.after_commit")
        took = self._clock.monotonic() - began
        self._not_before = began + took / _SHARE_OF_TIME

    def _record(self, tx: Tx, sizes: dict[int, int]) -> int:
        """Store what was measured and wish the end of what exceeds; returns how many are to end."""
        grown: dict[PeerId, list[_Growth]] = {}
        for job_id, size in sizes.items():
            before = self._repository.find_id(tx, job_id)
            if before is None or before.status.final:
                continue
            occupancy.occupies(tx, job_id, size)
            growth = _Growth(job=self._repository.get(tx, job_id), by=size - before.disk_bytes)
            grown.setdefault(before.key.orchestrator, []).append(growth)
        ended = 0
        for orchestrator, growths in grown.items():
            excess = self._quota.excess(tx, orchestrator)
            for job in _to_end(excess, growths) if excess else ():
                self._repository.wish_stop(tx, job, Stop.QUOTA, self._message(tx, orchestrator))
                ended += 1
        if ended:
            failpoint("job.quota.before_commit")
        return ended

    def _message(self, tx: Tx, orchestrator: PeerId) -> str:
        used = occupancy.used(tx, orchestrator)
        return (
            f"ended because it wrote while the jobs of {orchestrator} occupied {used} bytes here and may occupy "
            f"{self._quota.limit_bytes}; what it had made is removed, its inputs and logs are kept"
        )


def _measure(directory: Path) -> int:
    """What is on its way is left out: it is counted as promised already."""
    return trees.measure(directory, without=directory / FOLDER, opening=True)


def _to_end(excess: int, growths: Iterable[_Growth]) -> list[Job]:
    """The jobs to end for it: the fastest first, until enough comes free."""
    chosen = []
    fastest_first = sorted(growths, key=lambda growth: -growth.by)
    excess -= sum(growth.made for growth in fastest_first if growth.job.stop is Stop.QUOTA)  # they are ending already
    for growth in fastest_first:
        job = growth.job
        if excess <= 0:
            break
        if job.status is JobStatus.RUNNING and job.stop is None and growth.by > 0 and growth.made > LET_BE_BYTES:
            chosen.append(job)
            excess -= growth.made
    return chosen
