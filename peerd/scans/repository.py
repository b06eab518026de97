"""The SQL of ingest jobs. Their state is written by :func:`add` and :func:`move` alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.scans import data
from peerd.scans.model import MAX_SKIPPED, TRANSITIONS, IngestJob, IngestState, Look, SkippedLine, may_become
from peerd.scans.statement import Claim
from peerd.store import Store, Tx

_SELECT = (
    "SELECT ingest_jobs.*, coalesce(scanner_keys.name, '') AS key_name FROM ingest_jobs "
    "LEFT JOIN scanner_keys USING (scanner)"
)
_PRUNED = 100
"""Scans in one transaction: the bytes of each may be many."""
_OPEN = "state IN ('pending', 'processing')"


def no_such_job(name: object) -> PeerdError:
    """The refusal for an id that no ingest job has."""
    return PeerdError(
        Reason.NOT_FOUND, f"there is no ingest job {str(name)[:60]} here", next_action="see 'peerctl scans list'"
    )


def add(tx: Tx, claim: Claim, *, job_uuid: str, scan_data_id: int, submitted_by: str) -> IngestJob:
    """A new one, pending."""
    columns = {
        "job_uuid": job_uuid,
        "state": IngestState.PENDING.value,
        "scanner": claim.scanner,
        "scan_id": claim.scan_id,
        "content": claim.content,
        "format": claim.format,
        "tool": claim.tool,
        "tool_version": claim.tool_version,
        "organization": claim.organization,
        "vantage": claim.vantage,
        "scope": claim.scope,
        "issued_at": claim.issued_at,
        "scanned_at": claim.scanned_at,
        "time_stated": int(claim.time_stated),
        "data_sha256": claim.data_sha256,
        "data_size": claim.data_size,
        "scan_data_id": scan_data_id,
        "submitted_by": submitted_by,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    number = tx.insert(f"INSERT INTO ingest_jobs ({names}) VALUES ({marks})", list(columns.values()))  # noqa: S608 - ours
    return get(tx, number)


def move(tx: Tx, job: IngestJob, to: IngestState, **columns: object) -> IngestJob:
    """Bring a job into another state, with what else changes then. Raises ILLEGAL_TRANSITION and changes nothing."""
    present = get(tx, job.ingest_job_id)
    if not may_become(present.state, to):
        legal = ", ".join(sorted(state.value for state in TRANSITIONS[present.state])) or "nothing"
        raise PeerdError(
            Reason.ILLEGAL_TRANSITION,
            f"ingest job {job.ingest_job_id} is {present.state.value}; it can become {legal}, not {to.value}",
        )
    changed = {"state": to.value, "updated_at": tx.now, "completed_at": tx.now if to.final else None, **columns}
    if to is present.state:
        changed.pop("completed_at")
    names = ", ".join(f"{name} = ?" for name in changed)
    tx.execute(f"UPDATE ingest_jobs SET {names} WHERE id = ?", (*changed.values(), job.ingest_job_id))  # noqa: S608 - ours
    return get(tx, job.ingest_job_id)


def get(tx: Tx, ingest_job_id: int) -> IngestJob:
    """Raises NOT_FOUND."""
    row = tx.one(f"{_SELECT} WHERE ingest_jobs.id = ?", (ingest_job_id,))
    if row is None:
        raise no_such_job(ingest_job_id)
    return to_job(row)


def find_scan(tx: Tx, scanner: str, scan_id: str) -> IngestJob | None:
    """The job of that scan, if it was ever accepted."""
    row = tx.one(f"{_SELECT} WHERE scanner = ? AND scan_id = ?", (scanner, scan_id))
    return None if row is None else to_job(row)


def use_nonce(tx: Tx, claim: Claim, *, kept_until: int) -> bool:
    """Remember it; False if it was used before."""
    added = tx.execute(
        "INSERT INTO scan_nonces (scanner, nonce, kept_until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (claim.scanner, claim.nonce, kept_until),
    )
    return added.rowcount == 1


def count_open(tx: Tx, scanner: str | None = None) -> int:
    """Jobs that are not final, of all or of one scanner."""
    where, params = ("", ()) if scanner is None else (" AND scanner = ?", (scanner,))
    row = tx.one(f"SELECT count(*) AS count FROM ingest_jobs WHERE {_OPEN}{where}", params)  # noqa: S608 - ours
    return int(row["count"]) if row is not None else 0


def add_skipped(tx: Tx, job: IngestJob, lines: Iterable[SkippedLine]) -> None:
    """Keep those that there is room for."""
    tx.executemany(
        "INSERT INTO ingest_skipped (ingest_job_id, number, line, reason, excerpt) VALUES (?, ?, ?, ?, ?)",
        (
            (job.ingest_job_id, entry.number, entry.line, entry.reason, entry.excerpt)
            for entry in lines
            if entry.number <= MAX_SKIPPED
        ),
    )


def forget_skipped(tx: Tx, ingest_job_id: int) -> None:
    """Of a job that begins anew."""
    tx.execute("DELETE FROM ingest_skipped WHERE ingest_job_id = ?", (ingest_job_id,))


async def due(store: Store, now: int, limit: int) -> list[IngestJob]:
    """Jobs to be worked on, oldest first."""
    rows = await store.all(
        f"{_SELECT} WHERE {_OPEN} AND next_attempt_at <= ? ORDER BY ingest_jobs.id LIMIT ?",
        (now, limit),
    )
    return [to_job(row) for row in rows]


async def next_due(store: Store, besides: Iterable[int]) -> int | None:
    """When the first of those that wait is to be tried again, by the steady clock."""
    left_out = list(besides)
    marks = ", ".join("?" * len(left_out))
    row = await store.one(
        f"SELECT min(next_attempt_at) AS at FROM ingest_jobs WHERE {_OPEN} AND id NOT IN ({marks})",  # noqa: S608 - ours
        left_out,
    )
    return None if row is None or row["at"] is None else int(row["at"])


async def read(store: Store, ingest_job_id: int) -> IngestJob:
    """As last committed. Raises NOT_FOUND."""
    row = await store.one(f"{_SELECT} WHERE ingest_jobs.id = ?", (ingest_job_id,))
    if row is None:
        raise no_such_job(ingest_job_id)
    return to_job(row)


async def read_uuid(store: Store, job_uuid: str) -> IngestJob:
    """The same by its UUID. Raises NOT_FOUND."""
    row = await store.one(f"{_SELECT} WHERE job_uuid = ?", (job_uuid,))
    if row is None:
        raise no_such_job(job_uuid)
    return to_job(row)


async def page(
    store: Store, *, start: int, limit: int, state: IngestState | None, scanner: str, oldest_first: bool
) -> list[IngestJob]:
    """Some, behind the job with that id in their order; 0 for the first ones."""
    behind, order = (">", "ASC") if oldest_first else ("<", "DESC")
    if not start:
        start = 0 if oldest_first else 2**62
    where, params = _where(state, scanner)
    rows = await store.all(
        f"{_SELECT} WHERE ingest_jobs.id {behind} ? AND {where} ORDER BY ingest_jobs.id {order} LIMIT ?",
        (start, *params, limit),
    )
    return [to_job(row) for row in rows]


async def slice_of(
    store: Store, *, offset: int, limit: int, state: IngestState | None, scanner: str, by_update: bool, newest: bool
) -> tuple[list[IngestJob], int]:
    """Some by their place, and how many there are: what HTTP shows."""
    where, params = _where(state, scanner)
    order = (
        f"{'updated_at' if by_update else 'created_at'} {'DESC' if newest else 'ASC'}, id {'DESC' if newest else ''}"
    )
    count = await store.one(f"SELECT count(*) AS count FROM ingest_jobs WHERE {where}", params)  # noqa: S608 - ours
    rows = await store.all(
        f"{_SELECT} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
        (*params, limit, offset),
    )
    return [to_job(row) for row in rows], int(count["count"]) if count is not None else 0


async def count_states(store: Store) -> dict[str, int]:
    """Jobs by state; those that are final are not counted, since they are ever more."""
    rows = await store.all(f"SELECT state, count(*) AS count FROM ingest_jobs WHERE {_OPEN} GROUP BY state")  # noqa: S608
    return {row["state"]: row["count"] for row in rows}


async def data_bytes(store: Store) -> int:
    """What the bytes of scans take in the store, compressed as they are there."""
    row = await store.one("SELECT coalesce(sum(length(content)), 0) AS bytes FROM scan_pieces")
    return int(row["bytes"]) if row is not None else 0


def look(connection: sqlite3.Connection, failed_since: int) -> Look:
    """How ingest stands, for whoever looks without a daemon."""
    (waiting, troubled) = connection.execute(
        f"SELECT count(*), coalesce(sum(failing_since > 0), 0) FROM ingest_jobs WHERE {_OPEN}"  # noqa: S608 - ours
    ).fetchone()
    (failed,) = connection.execute(
        "SELECT count(*) FROM ingest_jobs WHERE state = 'failed' AND updated_at > ?", (failed_since,)
    ).fetchone()
    return Look(waiting=waiting, troubled=troubled, failed=failed)


async def skipped(store: Store, ingest_job_id: int, *, after: int, limit: int) -> list[SkippedLine]:
    """Some of what was skipped, in the order of the scan."""
    rows = await store.all(
        "SELECT * FROM ingest_skipped WHERE ingest_job_id = ? AND number > ? ORDER BY number LIMIT ?",
        (ingest_job_id, after, limit),
    )
    return [
        SkippedLine(number=row["number"], line=row["line"], reason=row["reason"], excerpt=row["excerpt"])
        for row in rows
    ]


def prune(tx: Tx, *, data_before: int, skipped_before: int, jobs_before: int) -> int:
    """Remove some bytes, skipped lines and jobs of what has long been final, and nonces; returns how many.

    What was learned of a job that goes stays in the inventory.
    """
    rows = tx.all(
        f"SELECT id, scan_data_id FROM ingest_jobs WHERE scan_data_id IS NOT NULL AND completed_at < ? AND NOT {_OPEN} "  # noqa: S608
        "ORDER BY completed_at LIMIT ?",
        (data_before, _PRUNED),
    )
    for row in rows:
        data.remove(tx, row["scan_data_id"])
        tx.execute("UPDATE ingest_jobs SET scan_data_id = NULL WHERE id = ?", (row["id"],))
    # From one job with skipped lines to the next by the index: most jobs have none, and there are ever more of them.
    with_lines = tx.all(
        "WITH RECURSIVE ids (id) AS (SELECT min(ingest_job_id) FROM ingest_skipped UNION ALL SELECT "
        "(SELECT min(ingest_job_id) FROM ingest_skipped WHERE ingest_job_id > ids.id) FROM ids WHERE id IS NOT NULL) "
        "SELECT id FROM ids JOIN ingest_jobs USING (id) WHERE completed_at < ? AND scan_data_id IS NULL LIMIT ?",
        (skipped_before, _PRUNED),
    )
    tx.executemany("DELETE FROM ingest_skipped WHERE ingest_job_id = ?", ((row["id"],) for row in with_lines))
    jobs = tx.all(
        f"SELECT id FROM ingest_jobs WHERE updated_at < ? AND scan_data_id IS NULL AND NOT {_OPEN} "  # noqa: S608 - ours
        "ORDER BY updated_at LIMIT ?",
        (jobs_before, 10 * _PRUNED),
    )
    for job in jobs:
        forget_skipped(tx, job["id"])
        tx.execute("DELETE FROM ingest_jobs WHERE id = ?", (job["id"],))
    tx.execute("DELETE FROM scan_nonces WHERE kept_until < ?", (tx.now,))
    return len(rows) + len(with_lines) + len(jobs)


def to_job(row: sqlite3.Row) -> IngestJob:
    """A row as a value."""
    values = {name: row[name] for name in row.keys() if name not in ("id", "state")}  # noqa: SIM118 - a row is no dict
    return IngestJob(ingest_job_id=row["id"], state=IngestState(row["state"]), **values)


def _where(state: IngestState | None, scanner: str) -> tuple[str, Sequence[object]]:
    parts, params = ["1"], list[object]()
    if state is not None:
        parts.append("state = ?")
        params.append(state.value)
    if scanner:
        parts.append("scanner = ?")
        params.append(scanner)
    return " AND ".join(parts), params


def kept_until(claim: Claim, max_age_ms: int) -> Millis:
    """When no statement with this nonce could be accepted any more, with a day for clocks that are set."""
    return Millis(claim.issued_at + max_age_ms + 86_400_000)
