"""Jobs that start no process: they offer files of this machine, and are over at once.

Of a data service, what is offered is listed when the job runs, and a path that is not there fails the job. The files
stay where they are and are sent from there; the sender notices when one changes while it is sent (``source_changed``).
A job that reuses another offers what that one made; see :mod:`peerd.jobs.reuse`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from peerd import trees
from peerd.clock import Clock
from peerd.failpoints import failpoint
from peerd.jobs import files
from peerd.jobs.model import Job, JobFile
from peerd.jobs.places import Places
from peerd.jobs.recording import Recording, Served
from peerd.jobs.repository import startable, to_job
from peerd.jobs.reuse import link_files, stdout_truncated
from peerd.store import Store

_AT_ONCE = 100


class DataJobs:
    """Runs them."""

    def __init__(self, store: Store, recording: Recording, places: Places, clock: Clock) -> None:
        self._store = store
        self._recording = recording
        self._places = places
        self._clock = clock

    async def step(self) -> None:
        """Run all that are ready."""
        rows = await self._store.all(*startable(self._clock.steady(), _AT_ONCE, data=True))
        # All of them come to an end before the next step, also beside one that fails: they would be run twice.
        for result in await asyncio.gather(*(self._run(to_job(row)) for row in rows), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _run(self, job: Job) -> None:
        if job.reused_id is not None and not job.work.is_data:
            offered, served = await self._linked(job, job.reused_id)
        else:
            offered, served = await self._offered(job)
        await self._store.write(lambda tx: self._recording.serve(tx, job.id, offered, served))

    async def _offered(self, job: Job) -> tuple[list[JobFile], Served]:
        try:
            return await asyncio.to_thread(files.offered_files, Path(job.work.path)), Served()
        except OSError as error:
            return [], Served(problem=f"{job.work.path} cannot be offered: {error.strerror or error}")

    async def _linked(self, job: Job, reused_id: int) -> tuple[list[JobFile], Served]:
        """It was there when this job was created, and retention has spared it since."""
        row = await self._store.one("SELECT * FROM job_executions WHERE id = ?", (reused_id,))
        if row is None:  # its row was damaged and put aside
            return [], Served(problem=f"job execution {reused_id}, whose files were to be sent again, is gone")
        earlier, place = to_job(row), self._places.of(job)
        try:
            made = await asyncio.to_thread(link_files, self._places.of(earlier), place)
        except OSError as error:
            return [], Served(problem=f"the files of job execution {reused_id} cannot be used: {error}")
        failpoint("job.reuse.after_link")
        occupied = await asyncio.to_thread(trees.measure, place.directory, opening=True)
        return made, Served(stdout_truncated=stdout_truncated(earlier), disk_bytes=occupied)
