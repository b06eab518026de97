"""The SQL of scans that jobs here left for another peer's inventory: one row for each file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from peerd.clock import Millis
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.store import Store, Tx


class HandInState(Enum):
    """Where a scan stands on its way."""

    WAITING = "waiting"
    HANDED_IN = "handed_in"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class HandIn:
    """One, as it is stored."""

    hand_in_id: int
    scan_id: str
    job_execution_id: int
    service: str
    directory: str
    """Of the job, relative to the data directory."""
    path: str
    """Below the job's output."""
    to_peer_id: PeerId
    format: str
    vantage: str
    scanned_at: Millis
    state: HandInState
    ingest_job_id: int
    attempts: int
    next_attempt_at: int
    """By the steady clock."""
    waiting_since: int
    """The same."""
    created_at: Millis
    updated_at: Millis
    reason: str
    message: str
    next_action: str


def add(tx: Tx, **columns: object) -> None:
    """A new one. All columns that have no default must be said."""
    columns |= {"created_at": tx.now, "updated_at": tx.now, "waiting_since": tx.steady}
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    tx.execute(f"INSERT INTO scan_hand_ins ({names}) VALUES ({marks})", list(columns.values()))  # noqa: S608 - ours


def handed_in(tx: Tx, hand_in_id: int, ingest_job_id: int) -> None:
    """The other peer has it, as that ingest job."""
    _end(tx, hand_in_id, HandInState.HANDED_IN, ingest_job_id=ingest_job_id, reason="", message="", next_action="")


def refused(tx: Tx, hand_in_id: int, error: PeerdError) -> None:
    """It never will."""
    _end(tx, hand_in_id, HandInState.REFUSED, **_words(error))


def postponed(tx: Tx, hand_in_id: int, error: PeerdError, next_attempt_at: int) -> None:
    """It is tried again then; that is why."""
    _write(tx, hand_in_id, next_attempt_at=next_attempt_at, **_words(error))


def put_off(tx: Tx, to: str, error: PeerdError, next_attempt_at: int) -> None:
    """That peer is away: all that waits for it does so until then."""
    words = _words(error)
    tx.execute(
        "UPDATE scan_hand_ins SET next_attempt_at = max(next_attempt_at, ?), reason = ?, message = ?, next_action = ? "
        "WHERE state = 'waiting' AND to_peer_id = ?",
        (next_attempt_at, *words.values(), to),
    )


def bring_forward(tx: Tx, to: str) -> int:
    """That peer is there: what waits for it is tried now; returns how many."""
    sql = "UPDATE scan_hand_ins SET next_attempt_at = 0 WHERE state = 'waiting' AND to_peer_id = ?"
    return tx.execute(sql, (to,)).rowcount


def jobs_done(tx: Tx, job_execution_id: int) -> bool:
    """Whether nothing of that job waits any more."""
    sql = "SELECT 1 FROM scan_hand_ins WHERE job_execution_id = ? AND state = 'waiting'"
    return tx.one(sql, (job_execution_id,)) is None


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Delete some that ended before that; returns how many."""
    return tx.execute(
        "DELETE FROM scan_hand_ins WHERE id IN (SELECT id FROM scan_hand_ins WHERE state != 'waiting' "
        "AND updated_at <= ? ORDER BY id LIMIT ?)",
        (before, limit),
    ).rowcount


def look(connection: sqlite3.Connection, refused_since: int) -> tuple[int, int]:
    """(how many wait and could not be handed in so far, how many were refused lately), without a daemon."""
    (waiting,) = connection.execute(
        "SELECT count(*) FROM scan_hand_ins WHERE state = 'waiting' AND reason != ''"
    ).fetchone()
    (refused,) = connection.execute(
        "SELECT count(*) FROM scan_hand_ins WHERE state = 'refused' AND updated_at > ?", (refused_since,)
    ).fetchone()
    return int(waiting), int(refused)


async def due(store: Store, now: int) -> list[HandIn]:
    """The next ones to be tried, by the steady clock."""
    sql = "SELECT * FROM scan_hand_ins WHERE state = 'waiting' AND next_attempt_at <= ? ORDER BY id LIMIT 100"
    return [_to_hand_in(row) for row in await store.all(sql, (now,))]


async def next_due(store: Store) -> int | None:
    """When the next one is to be tried, by the steady clock."""
    row = await store.one("SELECT min(next_attempt_at) AS at FROM scan_hand_ins WHERE state = 'waiting'")
    return None if row is None or row["at"] is None else int(row["at"])


async def page(store: Store, *, before: int, limit: int, state: HandInState | None) -> Sequence[HandIn]:
    """Newest first, below that id unless it is 0."""
    sql = "SELECT * FROM scan_hand_ins WHERE (? = 0 OR id < ?) AND state = coalesce(?, state) ORDER BY id DESC LIMIT ?"
    rows = await store.all(sql, (before, before, state.value if state is not None else None, limit))
    return [_to_hand_in(row) for row in rows]


def _end(tx: Tx, hand_in_id: int, state: HandInState, **columns: object) -> None:
    _write(tx, hand_in_id, state=state.value, next_attempt_at=0, **columns)


def _write(tx: Tx, hand_in_id: int, **columns: object) -> None:
    """What has ended stays as it is."""
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(
        f"UPDATE scan_hand_ins SET {names}, attempts = attempts + 1, updated_at = ? "  # noqa: S608 - ours
        "WHERE id = ? AND state = 'waiting'",
        (*columns.values(), tx.now, hand_in_id),
    )


def _words(error: PeerdError) -> dict[str, object]:
    return {"reason": error.reason.text, "message": error.message, "next_action": error.next_action}


def _to_hand_in(row: sqlite3.Row) -> HandIn:
    values = {name: row[name] for name in row.keys() if name not in ("id", "state")}  # noqa: SIM118 - a Row is no dict
    return HandIn(hand_in_id=row["id"], state=HandInState(row["state"]), **values)
