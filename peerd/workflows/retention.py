"""How long an orchestrator keeps what executions leave behind at home.

The files that were delivered and the event log go some days after the end, rows much later; nothing goes while an
execution is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from peerd.clock import DAY_MS, Clock, Millis
from peerd.config import RetentionConfig
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.retention import Remains, Retention, Wanted
from peerd.store import Store, Tx
from peerd.transfers.repository import forget_job
from peerd.workflows.repository import no_such_execution

_BATCH = 100
_SELECT = "SELECT x.id, x.ended_at, w.name FROM workflow_executions x JOIN workflows w ON w.id = x.workflow_id"
_OVER = "x.settled = 1 AND x.kept = 0 AND x.files = 'present' AND x.ended_at <= :before"
_OLD_ROWS = (
    "SELECT id FROM workflow_executions WHERE settled = 1 AND files = 'removed' AND ended_at <= ? ORDER BY id LIMIT ?"
)


class ExecutionRetention(Retention):
    """What becomes of executions that are over."""

    def __init__(
        self, store: Store, clock: Clock, config: RetentionConfig, *, data_dir: Path, own_peer_id: PeerId
    ) -> None:
        failpoints = ("workflow.gc.after_condemn", "workflow.gc.after_remove")
        super().__init__(store, clock, root=data_dir / "workflows", failpoints=failpoints)
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

    async def forget(self, now: Millis) -> int:
        """Delete the rows of executions that ended long ago and whose files are gone; returns how many rows.

        With the last execution of a definition that nobody stored, the definition goes as well.
        """
        before = now - round(self._config.history_days * DAY_MS)
        forgotten = await self._store.write(lambda tx: _delete_definitions(tx, before))
        while count := await self._store.write(lambda tx: self._delete_rows(tx, before)):
            forgotten += count
        return forgotten

    def _over(self, wanted: Wanted, now: Millis, *, limit: int) -> tuple[str, dict[str, object]]:
        age = round(self._config.executions_days * DAY_MS) if wanted.older_than_ms is None else wanted.older_than_ms
        only = f" AND x.id IN ({', '.join(map(str, sorted(wanted.executions)))})" if wanted.executions else ""
        sql = f"{_SELECT} WHERE {_OVER}{only} ORDER BY x.ended_at LIMIT :limit"
        return sql, {"before": now - age, "limit": limit}

    def _condemned(self) -> str:
        return f"{_SELECT} WHERE x.files = 'removing'"

    def _condemn(self, tx: Tx, found: Sequence[Remains]) -> None:
        tx.executemany(
            "UPDATE workflow_executions SET files = 'removing', version = version + 1 WHERE id = ?",
            ((each.workflow_execution_id,) for each in found),
        )

    def _gone(self, tx: Tx, found: Sequence[Remains]) -> None:
        ids = [(each.workflow_execution_id,) for each in found]
        tx.executemany("UPDATE workflow_executions SET files = 'removed' WHERE id = ?", ids)
        for table in ("execution_events", "execution_inbox"):
            tx.executemany(f"DELETE FROM {table} WHERE workflow_execution_id = ?", ids)  # noqa: S608

    def _delete_rows(self, tx: Tx, before: int) -> int:
        ids = [(row["id"],) for row in tx.all(_OLD_ROWS, (before, _BATCH))]
        for table in ("execution_events", "execution_inbox", "execution_edges", "workflow_maps", "workflow_jobs"):
            tx.executemany(f"DELETE FROM {table} WHERE workflow_execution_id = ?", ids)  # noqa: S608
        for (execution_id,) in ids:
            forget_job(tx, self._own_peer_id, None, execution_id, 0)  # also what an earlier store, since restored, knew
        tx.executemany("DELETE FROM workflow_executions WHERE id = ?", ids)
        return len(ids)

    def _remains(self, row: sqlite3.Row) -> Remains:
        home = JobPlace(
            data_dir=self._data_dir,
            orchestrator=self._own_peer_id,
            workflow_execution_id=row["id"],
            executor=self._own_peer_id,
            job_execution_id=0,
        )
        return Remains(
            orchestrator=self._own_peer_id,
            workflow_execution_id=row["id"],
            name=row["name"],
            ended_at=row["ended_at"],
            path=home.directory,
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
