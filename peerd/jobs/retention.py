"""How long an executor keeps what jobs leave behind.

A job's directory goes some days after its end, once its orchestrator has said that the execution is over, or has not
been heard of for so long that it never will; never while it is kept. Its row goes much later. Each directory is
condemned in a transaction before it is deleted, so that a kill between the two is made good by the next round, and
nobody reads half a directory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from peerd import trees
from peerd.clock import Clock, Millis
from peerd.config import RetentionConfig
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.jobs.model import Job, JobKey
from peerd.jobs.places import Places
from peerd.jobs.repository import key_values, to_job
from peerd.store import Store, Tx

DAY_MS = 86_400_000
_BATCH = 200
_OF_KEY = (
    "orchestrator_peer_id = ? AND store_id = ? AND workflow_execution_id = ? AND workflow_job_id = ? AND placement = ?"
)
_OVER = (
    "files = 'present' AND kept = 0 AND ended_at IS NOT NULL AND ended_at <= :before AND ("
    "contact_at <= :abandoned OR ((released_at IS NOT NULL OR status = 'cancelled') AND NOT EXISTS "
    "(SELECT 1 FROM job_edges e WHERE e.job_execution_id = job_executions.id AND e.status = 'sending')))"
)
_OLD_ROWS = (
    "SELECT * FROM job_executions WHERE files = 'removed' AND ended_at IS NOT NULL AND ended_at <= ? "
    "ORDER BY id LIMIT ?"
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which remains are looked for."""

    older_than_ms: int | None = None
    """Ended so long ago; as configured when None."""
    executions: frozenset[int] = frozenset()
    """Only of these; of all when empty."""


@dataclass(frozen=True, kw_only=True)
class JobRemains:
    """The directory of a job that nobody needs any more."""

    orchestrator: str
    workflow_execution_id: int
    job_execution_id: int
    name: str
    ended_at: Millis
    path: Path
    bytes: int = 0


class JobRetention:
    """What becomes of jobs that are over."""

    def __init__(self, store: Store, places: Places, clock: Clock, config: RetentionConfig) -> None:
        self._store = store
        self._places = places
        self._clock = clock
        self._config = config

    async def release(self, keys: Sequence[JobKey], *, keep: bool) -> None:
        """Their orchestrator says that their execution is over, and whether their files are to be kept."""

        def write(tx: Tx) -> None:
            tx.executemany(
                f"UPDATE job_executions SET released_at = coalesce(released_at, ?), kept = ? WHERE {_OF_KEY}",  # noqa: S608
                ((tx.now, int(keep), *key_values(key)) for key in keys),
            )
            failpoint("job.release.before_commit")

        await self._store.write(write)
        failpoint("job.release.after_commit")

    async def find(self, wanted: Wanted) -> list[JobRemains]:
        """What would be removed now, with what it takes on the disk."""
        sql, values = self._query(wanted, self._clock.now(), limit=-1)
        found = [self._remains(row) for row in await self._store.all(sql, values)]
        return await asyncio.to_thread(lambda: [_measured(entry) for entry in found])

    async def collect(self, wanted: Wanted) -> list[JobRemains]:
        """Remove directories, and what an earlier round was killed in the middle of; returns what went."""
        await self._remove(await self._condemned())
        removed: list[JobRemains] = []
        while batch := await self._store.write(lambda tx: self._condemn(tx, wanted)):
            failpoint("job.gc.after_condemn")
            removed += await self._remove(batch)
        return removed

    async def forget(self) -> int:
        """Delete the rows of jobs that ended long ago and whose files are gone; returns how many."""
        before = self._clock.now() - round(self._config.history_days * DAY_MS)
        forgotten = 0
        while count := await self._store.write(lambda tx: _delete_rows(tx, tx.all(_OLD_ROWS, (before, _BATCH)))):
            forgotten += count
        return forgotten

    def _query(self, wanted: Wanted, now: Millis, *, limit: int) -> tuple[str, dict[str, object]]:
        days = self._config.jobs_days * DAY_MS
        values: dict[str, object] = {
            "before": now - round(days if wanted.older_than_ms is None else wanted.older_than_ms),
            "abandoned": now - round(self._config.abandoned_days * DAY_MS),
            "limit": limit,
        }
        only, more = _only(wanted.executions)
        return f"SELECT * FROM job_executions WHERE {_OVER}{only} ORDER BY ended_at LIMIT :limit", {**values, **more}  # noqa: S608

    def _condemn(self, tx: Tx, wanted: Wanted) -> list[JobRemains]:
        rows = tx.all(*self._query(wanted, tx.now, limit=_BATCH))
        tx.executemany("UPDATE job_executions SET files = 'removing' WHERE id = ?", ((row["id"],) for row in rows))
        return [self._remains(row) for row in rows]

    async def _condemned(self) -> list[JobRemains]:
        rows = await self._store.all("SELECT * FROM job_executions WHERE files = 'removing'")
        return [self._remains(row) for row in rows]

    async def _remove(self, condemned: Sequence[JobRemains]) -> list[JobRemains]:
        if not condemned:
            return []
        measured = await asyncio.to_thread(lambda: [_measured(entry) for entry in condemned])
        await asyncio.to_thread(self._delete, [entry.path for entry in condemned])
        failpoint("job.gc.after_remove")

        def removed(tx: Tx) -> None:
            tx.executemany(
                "UPDATE job_executions SET files = 'removed', disk_bytes = 0 WHERE id = ?",
                ((entry.job_execution_id,) for entry in condemned),
            )

        await self._store.write(removed)
        return measured

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            trees.remove(path, up_to=self._places.data_dir / "workflows")

    def _remains(self, row: sqlite3.Row) -> JobRemains:
        job = to_job(row)
        return JobRemains(
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


def _measured(entry: JobRemains) -> JobRemains:
    return JobRemains(**{**entry.__dict__, "bytes": trees.measure(entry.path)})


def _only(executions: Collection[int]) -> tuple[str, dict[str, object]]:
    if not executions:
        return "", {}
    values: dict[str, object] = {f"only{number}": each for number, each in enumerate(sorted(executions))}
    return f" AND workflow_execution_id IN ({', '.join(f':{name}' for name in values)})", values


def _delete_rows(tx: Tx, rows: Sequence[sqlite3.Row]) -> int:
    for row in rows:
        edge = (row["orchestrator_peer_id"], row["store_id"], row["workflow_execution_id"])
        for table, column in (
            ("outgoing_transfers", "source_job_execution_id"),
            ("incoming_transfers", "destination_job_execution_id"),
        ):
            tx.execute(
                f"DELETE FROM {table} WHERE orchestrator_peer_id = ? AND store_id = ? AND workflow_execution_id = ?"  # noqa: S608
                f" AND {column} = ?",
                (*edge, row["id"]),
            )
        for table in ("job_files", "job_edges", "job_attempts"):
            tx.execute(f"DELETE FROM {table} WHERE job_execution_id = ?", (row["id"],))  # noqa: S608
        tx.execute("DELETE FROM job_executions WHERE id = ?", (row["id"],))
    return len(rows)
