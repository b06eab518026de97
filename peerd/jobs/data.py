"""Jobs of data services: they offer a path of this machine, start no process, and are over at once.

What is offered is listed when the job runs, and a path that is not there fails the job. The files stay where they are
and are sent from there; the sender notices when one changes while it is sent (``source_changed``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from peerd.clock import Clock
from peerd.jobs import files
from peerd.jobs.model import Job, JobFile
from peerd.jobs.recording import Recording
from peerd.jobs.repository import startable, to_job
from peerd.store import Store

_AT_ONCE = 100


class DataJobs:
    """Runs them."""

    def __init__(self, store: Store, recording: Recording, clock: Clock) -> None:
        self._store = store
        self._recording = recording
        self._clock = clock

    async def step(self) -> None:
        """Run all that are ready."""
        rows = await self._store.all(*startable(self._clock.steady(), _AT_ONCE, data=True))
        await asyncio.gather(*(self._run(to_job(row)) for row in rows))

    async def _run(self, job: Job) -> None:
        offered: list[JobFile] = []
        problem = ""
        try:
            offered = await asyncio.to_thread(files.offered_files, Path(job.work.path))
        except OSError as error:
            problem = f"{job.work.path} cannot be offered: {error.strerror or error}"
        await self._store.write(lambda tx: self._recording.serve(tx, job.id, offered, problem))
