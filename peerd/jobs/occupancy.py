"""The SQL of what jobs occupy on the disk: how much, whether they are still needed, and what became of it.

Columns ``disk_bytes``, ``files``, ``kept``, ``handing_in`` and ``released_at`` of ``job_executions`` are written here
and nowhere else, and rows are deleted here only. None of this is told to the orchestrator: it changes no revision, but
after a restore.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import JobKey
from peerd.jobs.repository import OF_KEY, OPEN, key_values
from peerd.store import Store, Tx
from peerd.transfers.repository import forget_job

CONDEMNED = "SELECT * FROM job_executions WHERE files = 'removing'"
_OVER = (
    "files = 'present' AND kept = 0 AND ended_at IS NOT NULL AND ended_at <= :before AND ("
    "contact_at <= :abandoned OR ((released_at IS NOT NULL OR status = 'cancelled') AND NOT EXISTS "
    "(SELECT 1 FROM job_edges e WHERE e.job_execution_id = job_executions.id AND e.status = 'sending'))) "
    "AND handing_in = 0 "
    "AND NOT EXISTS (SELECT 1 FROM job_executions r WHERE r.reused_id = job_executions.id AND r.ended_at IS NULL)"
)
_OLD_ROWS = (
    "SELECT * FROM job_executions WHERE files = 'removed' AND ended_at IS NOT NULL AND ended_at <= ? "
    "ORDER BY id LIMIT ?"
)
_OPEN_KNOWN = (
    f"{OPEN} AND id IN (SELECT job_execution_id FROM job_attempts WHERE outcome IS NULL "  # noqa: S608
    "AND id IN (SELECT value FROM json_each(?)))"
)
_NEWER = 1 << 20
"""Revisions; more than any job had between a backup and its restore."""
_RELEASE = f"UPDATE job_executions SET released_at = coalesce(released_at, ?), kept = ? WHERE {OF_KEY}"  # noqa: S608
_USED = (
    "SELECT coalesce(sum(max(disk_bytes, bytes_received)), 0) FROM job_executions "
    "WHERE orchestrator_peer_id = ? AND files = 'present'"
)
_PROMISED = (
    "SELECT coalesce(sum(e.bytes), 0) FROM job_executions j JOIN job_edges e ON e.job_execution_id = j.id "
    "WHERE j.orchestrator_peer_id = ? AND j.files = 'present' AND j.ended_at IS NULL "
    "AND e.incoming = 1 AND e.status = 'waiting'"
)
_UNSETTLED = (
    f"SELECT * FROM job_executions WHERE {OPEN} AND is_data = 0 AND orchestrator_peer_id != ? "  # noqa: S608
    "AND (status = 'running' OR disk_bytes < bytes_received)"
)


def release(tx: Tx, keys: Iterable[JobKey], *, keep: bool) -> None:
    """Their execution is over; whether their files are to be kept."""
    tx.executemany(_RELEASE, ((tx.now, int(keep), *key_values(key)) for key in keys))


def over(executions: Collection[int], *, before: int, abandoned: int, limit: int) -> tuple[str, dict[str, object]]:
    """Query for jobs whose files may go, oldest first: ended before one moment, or not heard of since another."""
    values: dict[str, object] = {f"only{number}": each for number, each in enumerate(sorted(executions))}
    only = f" AND workflow_execution_id IN ({', '.join(f':{name}' for name in values)})" if values else ""
    sql = f"SELECT * FROM job_executions WHERE {_OVER}{only} ORDER BY ended_at LIMIT :limit"  # noqa: S608
    return sql, {**values, "before": before, "abandoned": abandoned, "limit": limit}


def hold(tx: Tx, job_execution_id: int, held: bool) -> None:
    """Whether its files are still to be handed in as scans: retention leaves them until then."""
    tx.execute("UPDATE job_executions SET handing_in = ? WHERE id = ?", (int(held), job_execution_id))


def condemn(tx: Tx, job_execution_ids: Iterable[int]) -> None:
    """Their directories will be deleted."""
    tx.executemany("UPDATE job_executions SET files = 'removing' WHERE id = ?", ((each,) for each in job_execution_ids))


def removed(tx: Tx, job_execution_ids: Iterable[int]) -> None:
    """Their directories are deleted."""
    tx.executemany(
        "UPDATE job_executions SET files = 'removed', disk_bytes = 0 WHERE id = ?",
        ((each,) for each in job_execution_ids),
    )


def occupies(tx: Tx, job_execution_id: int, disk_bytes: int) -> None:
    """What its directory takes on the disk now."""
    tx.execute("UPDATE job_executions SET disk_bytes = ? WHERE id = ?", (disk_bytes, job_execution_id))


def used(tx: Tx, orchestrator: PeerId) -> int:
    """What the jobs of an orchestrator occupy here, as far as was measured or received."""
    row = tx.one(_USED, (orchestrator,))
    return int(row[0]) if row is not None else 0


def promised(tx: Tx, orchestrator: PeerId) -> int:
    """What was accepted for the jobs of an orchestrator and has not wholly arrived."""
    row = tx.one(_PROMISED, (orchestrator,))
    return int(row[0]) if row is not None else 0


def unsettled(executor: PeerId) -> tuple[str, tuple[str]]:
    """Query for the jobs of other peers that may occupy more than is known: they run, or were sent something."""
    return _UNSETTLED, (executor,)


async def known(store: Store) -> set[int]:
    """Ids of all jobs that have a row."""
    return {row["id"] for row in await store.all("SELECT id FROM job_executions")}


async def is_open(store: Store, job_execution_id: int) -> bool:
    """Whether that job has not ended."""
    sql = "SELECT 1 FROM job_executions WHERE id = ? AND ended_at IS NULL"
    return await store.one(sql, (job_execution_id,)) is not None


def forget(tx: Tx, before: Millis, limit: int) -> int:
    """Delete rows of jobs that ended before that and whose files are gone; returns how many."""
    return _delete(tx, tx.all(_OLD_ROWS, (before, limit)))


def doubt_open(tx: Tx, attempts: Collection[int]) -> int:
    """This store was restored: nobody knows what became of jobs that had not ended when its backup was made.

    Their rows go, so that whoever ordered them is told that they are lost; returns how many. Not those of which one of
    these attempts is open, and can be asked: what is said of them from now on is newer than all that was said before.
    """
    known = json.dumps(list(attempts))
    tx.execute(f"UPDATE job_executions SET revision = revision + ? WHERE {_OPEN_KNOWN}", (_NEWER, known))  # noqa: S608
    return _delete(tx, tx.all(f"SELECT * FROM job_executions WHERE {OPEN} AND NOT ({_OPEN_KNOWN})", (known,)))  # noqa: S608


def _delete(tx: Tx, rows: Sequence[sqlite3.Row]) -> int:
    for row in rows:
        forget_job(tx, row["orchestrator_peer_id"], row["store_id"], row["workflow_execution_id"], row["id"])
        for table in ("job_files", "job_edges", "job_attempts"):
            tx.execute(f"DELETE FROM {table} WHERE job_execution_id = ?", (row["id"],))  # noqa: S608
        tx.execute("DELETE FROM job_executions WHERE id = ?", (row["id"],))
    return len(rows)
