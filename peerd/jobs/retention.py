"""How long an executor keeps what jobs leave behind.

A job's directory goes some days after its end, once its orchestrator has said that the execution is over, or has not
been heard of for so long that it never will; never while it is kept. Its row goes much later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from peerd.clock import DAY_MS, Clock, Millis
from peerd.config import RetentionConfig
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.jobs import occupancy
from peerd.jobs.model import Job, JobKey
from peerd.jobs.places import Places
from peerd.jobs.repository import to_job
from peerd.retention import Remains, Retention, Wanted
from peerd.store import Store, Tx

_ROWS_AT_ONCE = 200


class JobRetention(Retention):
    """What becomes of jobs that are over."""

    def __init__(self, store: Store, places: Places, clock: Clock, config: RetentionConfig) -> None:
        failpoints = ("job.gc.after_condemn", "job.gc.after_remove")
        super().__init__(store, clock, root=places.data_dir / "workflows", failpoints=failpoints)
        self._places = places
        self._config = config

    async def release(self, keys: Sequence[JobKey], *, keep: bool) -> None:
        """Their orchestrator says that their execution is over, and whether their files are to be kept."""

        def write(tx: Tx) -> None:
            occupancy.release(tx, keys, keep=keep)
            failpoint("job.release.before_commit")

        await self._store.write(write)
        failpoint("job.release.after_commit")

    async def forget(self, now: Millis) -> int:
        """Delete the rows of jobs that ended long ago and whose files are gone; returns how many."""
        before = Millis(now - round(self._config.history_days * DAY_MS))
        forgotten = 0
        while count := await self._store.write(lambda tx: occupancy.forget(tx, before, _ROWS_AT_ONCE)):
            forgotten += count
        return forgotten

    def _over(self, wanted: Wanted, now: Millis, *, limit: int) -> tuple[str, dict[str, object]]:
        age = round(self._config.jobs_days * DAY_MS) if wanted.older_than_ms is None else wanted.older_than_ms
        abandoned = self._clock.steady() - round(self._config.abandoned_days * DAY_MS)
        return occupancy.over(wanted.executions, before=now - age, abandoned=abandoned, limit=limit)

    def _condemned(self) -> str:
        return occupancy.CONDEMNED

    def _condemn(self, tx: Tx, found: Sequence[Remains]) -> None:
        occupancy.condemn(tx, [each.job_execution_id for each in found])

    def _gone(self, tx: Tx, found: Sequence[Remains]) -> None:
        occupancy.removed(tx, [each.job_execution_id for each in found])

    def _remains(self, row: sqlite3.Row) -> Remains:
        job = to_job(row)
        return Remains(
            orchestrator=job.key.orchestrator,
            workflow_execution_id=job.key.workflow_execution_id,
            job_execution_id=job.id,
            name=job.node_id,
            ended_at=job.ended_at or Millis(0),
            path=self._places.of(job).directory,
        )


def check_files_present(job: Job) -> None:
    """Raises FILES_REMOVED for a job whose directory is gone or going."""
    if job.files != "present":
        raise PeerdError(Reason.FILES_REMOVED, f"the files of job execution {job.id} were removed by retention")
