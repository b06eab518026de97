"""How long an orchestrator keeps what executions leave behind at home.

The files that were delivered and the event log go some days after the end, rows much later; nothing goes while an
execution is kept. What is to go is condemned in a transaction first, so that a kill in between is made good.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peerd import trees
from peerd.clock import Clock, Millis
from peerd.config import RetentionConfig
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.jobs.retention import DAY_MS, Wanted
from peerd.store import Store, Tx
from peerd.workflows.repository import no_such_execution

_BATCH = 100
_SELECT = "SELECT x.id, x.ended_at, w.name FROM workflow_executions x JOIN workflows w ON w.id = x.workflow_id"
_OVER = "x.settled = 1 AND x.kept = 0 AND x.files = 'present' AND x.ended_at <= :before"
_OLD_ROWS = (
    "SELECT id FROM workflow_executions WHERE settled = 1 AND files = 'removed' AND ended_at <= ? ORDER BY id LIMIT ?"
)


@dataclass(frozen=True, kw_only=True)
class ExecutionRemains:
    """What an execution left at home that nobody needs any more."""

    workflow_execution_id: int
    name: str
    """Of the workflow."""
    ended_at: Millis
    path: Path
    bytes: int = 0


class ExecutionRetention:
    """What becomes of executions that are over."""

    def __init__(
        self, store: Store, clock: Clock, config: RetentionConfig, *, data_dir: Path, own_peer_id: PeerId
    ) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._data_dir = data_dir
        self._own_peer_id = own_peer_id

    def keep(self, tx: Tx, execution_id: int, *, keep: bool) -> None:
        """Keep its files for ever, or not any more; executors hear of it later. Raises NOT_FOUND."""
        changed = tx.execute(
            "UPDATE workflow_executions SET kept = ?, told = 0, version = version + 1 WHERE id = ?",
            (int(keep), execution_id),
        )
        if changed.rowcount == 0:
            raise no_such_execution(execution_id)
        tx.execute("UPDATE workflow_jobs SET told = 0 WHERE workflow_execution_id = ?", (execution_id,))

    async def find(self, wanted: Wanted) -> list[ExecutionRemains]:
        """What would be removed now, with what it takes on the disk."""
        sql, values = self._query(wanted, self._clock.now(), limit=-1)
        found = [self._remains(row) for row in await self._store.all(sql, values)]
        return await asyncio.to_thread(lambda: [_measured(entry) for entry in found])

    async def collect(self, wanted: Wanted) -> list[ExecutionRemains]:
        """Remove files and logs, and what an earlier round was killed in the middle of; returns what went."""
        left = await self._store.all(f"{_SELECT} WHERE x.files = 'removing'")
        await self._remove([self._remains(row) for row in left])
        removed: list[ExecutionRemains] = []
        while batch := await self._store.write(lambda tx: self._condemn(tx, wanted)):
            failpoint("workflow.gc.after_condemn")
            removed += await self._remove(batch)
        return removed

    async def forget(self) -> int:
        """Delete the rows of executions that ended long ago and whose files are gone; returns how many rows.

        With the last execution of a definition that nobody stored, the definition goes as well.
        """
        before = self._clock.now() - round(self._config.history_days * DAY_MS)
        forgotten = await self._store.write(lambda tx: _delete_definitions(tx, before))
        while count := await self._store.write(lambda tx: self._delete_rows(tx, before)):
            forgotten += count
        return forgotten

    def _query(self, wanted: Wanted, now: Millis, *, limit: int) -> tuple[str, dict[str, object]]:
        days = self._config.executions_days * DAY_MS
        older = days if wanted.older_than_ms is None else wanted.older_than_ms
        only = f" AND x.id IN ({', '.join(map(str, sorted(wanted.executions)))})" if wanted.executions else ""
        return f"{_SELECT} WHERE {_OVER}{only} ORDER BY x.ended_at LIMIT :limit", {
            "before": now - round(older),
            "limit": limit,
        }

    def _condemn(self, tx: Tx, wanted: Wanted) -> list[ExecutionRemains]:
        rows = tx.all(*self._query(wanted, tx.now, limit=_BATCH))
        tx.executemany(
            "UPDATE workflow_executions SET files = 'removing', version = version + 1 WHERE id = ?",
            ((row["id"],) for row in rows),
        )
        return [self._remains(row) for row in rows]

    async def _remove(self, condemned: Sequence[ExecutionRemains]) -> list[ExecutionRemains]:
        if not condemned:
            return []
        measured = await asyncio.to_thread(lambda: [_measured(entry) for entry in condemned])
        await asyncio.to_thread(self._delete, [entry.path for entry in condemned])
        failpoint("workflow.gc.after_remove")

        def removed(tx: Tx) -> None:
            ids = [(entry.workflow_execution_id,) for entry in condemned]
            tx.executemany("UPDATE workflow_executions SET files = 'removed' WHERE id = ?", ids)
            for table in ("execution_events", "execution_inbox"):
                tx.executemany(f"DELETE FROM {table} WHERE workflow_execution_id = ?", ids)  # noqa: S608

        await self._store.write(removed)
        return measured

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            trees.remove(path, up_to=self._data_dir / "workflows")

    def _delete_rows(self, tx: Tx, before: int) -> int:
        ids = [(row["id"],) for row in tx.all(_OLD_ROWS, (before, _BATCH))]
        for table in ("execution_events", "execution_inbox", "execution_edges", "workflow_jobs"):
            tx.executemany(f"DELETE FROM {table} WHERE workflow_execution_id = ?", ids)  # noqa: S608
        for table, column in (
            ("outgoing_transfers", "source_job_execution_id"),
            ("incoming_transfers", "destination_job_execution_id"),
        ):
            tx.executemany(
                f"DELETE FROM {table} WHERE workflow_execution_id = ? AND {column} = 0"  # noqa: S608
                " AND orchestrator_peer_id = ?",
                ((execution_id, self._own_peer_id) for (execution_id,) in ids),
            )
        tx.executemany("DELETE FROM workflow_executions WHERE id = ?", ids)
        return len(ids)

    def _remains(self, row: sqlite3.Row) -> ExecutionRemains:
        home = JobPlace(
            data_dir=self._data_dir,
            orchestrator=self._own_peer_id,
            workflow_execution_id=row["id"],
            executor=self._own_peer_id,
            job_execution_id=0,
        )
        return ExecutionRemains(
            workflow_execution_id=row["id"], name=row["name"], ended_at=row["ended_at"], path=home.directory
        )


def _delete_definitions(tx: Tx, before: int) -> int:
    deleted = tx.execute(
        "DELETE FROM workflow_versions WHERE stored = 0 AND created_at <= ? AND NOT EXISTS (SELECT 1 FROM "
        "workflow_executions x WHERE x.workflow_id = workflow_versions.workflow_id "
        "AND x.workflow_version = workflow_versions.version)",
        (before,),
    ).rowcount
    if deleted:
        tx.execute(
            "DELETE FROM workflows WHERE id NOT IN (SELECT workflow_id FROM workflow_versions) "
            "AND id NOT IN (SELECT workflow_id FROM workflow_executions)"
        )
    return deleted


def _measured(entry: ExecutionRemains) -> ExecutionRemains:
    return replace(entry, bytes=trees.measure(entry.path))
