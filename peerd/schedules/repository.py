"""The SQL of schedules and of what became of their planned times."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from peerd import metrics
from peerd.clock import Millis
from peerd.cron import Plan, parse_plan
from peerd.errors import PeerdError, Reason
from peerd.schedules.catching_up import Verdict
from peerd.schedules.model import Cause, Firing, FiringStatus, Origin, Schedule, jitter_of
from peerd.store import Store, Tx
from peerd.v1 import workflows_pb2

KEPT_FIRINGS = 1000
"""Of one schedule; older ones that are over go. That none comes again follows from decided_until."""
_WAITING = "status IN ('queued', 'retrying')"


def no_such_schedule(name: str) -> PeerdError:
    """The refusal for a name that no schedule has."""
    return PeerdError(
        Reason.NOT_FOUND, f"there is no schedule {name[:80]!r} here", next_action="see 'peerctl schedules list'"
    )


# Schedules


def insert(tx: Tx, columns: Mapping[str, object]) -> int:
    """A new schedule."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    return tx.insert(f"INSERT INTO schedules ({names}) VALUES ({marks})", list(columns.values()))  # noqa: S608 - ours


def update(tx: Tx, schedule_id: int, columns: Mapping[str, object]) -> None:
    """Change these columns."""
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE schedules SET {names} WHERE id = ?", (*columns.values(), schedule_id))  # noqa: S608 - ours


def delete(tx: Tx, schedule_id: int) -> None:
    """It, and what it remembers."""
    tx.execute("DELETE FROM schedule_firings WHERE schedule_id = ?", (schedule_id,))
    tx.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,))


def count(tx: Tx) -> int:
    """How many there are."""
    row = tx.one("SELECT count(*) AS count FROM schedules")
    return int(row["count"]) if row is not None else 0


def find(tx: Tx, schedule_id: int) -> Schedule | None:
    """The schedule of that id."""
    row = tx.one("SELECT * FROM schedules WHERE id = ?", (schedule_id,))
    return None if row is None else to_schedule(row)


def find_named(tx: Tx, name: str) -> Schedule | None:
    """The schedule of exactly that name."""
    row = tx.one("SELECT * FROM schedules WHERE name = ?", (name,))
    return None if row is None else to_schedule(row)


def get(tx: Tx, name_or_id: str) -> Schedule:
    """A schedule by name or id. Raises NOT_FOUND."""
    row = tx.one(*_query(name_or_id))
    if row is None:
        raise no_such_schedule(name_or_id)
    return to_schedule(row)


async def read(store: Store, name_or_id: str) -> Schedule:
    """The same, outside of a transaction."""
    row = await store.one(*_query(name_or_id))
    if row is None:
        raise no_such_schedule(name_or_id)
    return to_schedule(row)


async def page(store: Store, *, after: int, limit: int) -> list[Schedule]:
    """Some of all, oldest first."""
    rows = await store.all("SELECT * FROM schedules WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    return [to_schedule(row) for row in rows]


async def due(store: Store, now: int) -> list[Schedule]:
    """Those with a planned time that has come."""
    rows = await store.all(
        "SELECT * FROM schedules WHERE paused_at IS NULL AND next_at IS NOT NULL AND next_at <= ? ORDER BY next_at, id",
        (now,),
    )
    return [to_schedule(row) for row in rows]


def plan_anew(tx: Tx) -> None:
    """Compute when each runs next: the rules of a zone may be others than before."""
    for row in tx.all("SELECT * FROM schedules"):
        schedule = to_schedule(row)
        if (next_at := schedule.next_start(schedule.decided_until)) != schedule.next_at and not schedule.damage:
            update(tx, schedule.schedule_id, {"next_at": next_at})


def to_schedule(row: sqlite3.Row) -> Schedule:
    """A row as a value; one that cannot be read says so in ``damage``."""
    definition = workflows_pb2.ScheduleDefinition()
    plan: Plan | None = None
    damage = ""
    try:
        definition.ParseFromString(row["definition"])
        plan = parse_plan(definition.cron, definition.timezone)
        jitter_of(definition)
    except (DecodeError, ValueError) as error:
        plan, damage = None, f"what is stored of it cannot be used: {error}"
    return Schedule(
        schedule_id=row["id"],
        name=row["name"],
        origin=Origin(row["origin"]),
        workflow_id=row["workflow_id"],
        workflow_name=row["workflow_name"],
        workflow_version=row["workflow_version"],
        definition=definition,
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        paused_at=row["paused_at"],
        pause_reason=row["pause_reason"],
        pause_began=row["pause_began"],
        pause_ended=row["pause_ended"],
        skip_until=row["skip_until"],
        decided_until=row["decided_until"],
        next_at=row["next_at"],
        plan=plan,
        damage=damage,
    )


def _query(name_or_id: str) -> tuple[str, Sequence[object]]:
    """A name is looked for first: names may consist of digits."""
    number = int(name_or_id) if name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) < 19 else -1
    return "SELECT * FROM schedules WHERE name = ? OR id = ? ORDER BY name = ? DESC", (name_or_id, number, name_or_id)


# Firings


def add_firing(tx: Tx, schedule_id: int, planned_at: int | None, cause: Cause, started_by: str) -> Firing | None:
    """A new row, about to be decided on; None if that planned time has one."""
    found = tx.execute(
        "INSERT INTO schedule_firings (schedule_id, planned_at, cause, started_by, status, since) "
        "VALUES (?, ?, ?, ?, 'queued', ?) ON CONFLICT DO NOTHING",
        (schedule_id, planned_at, cause.value, started_by, tx.now),
    )
    return get_firing(tx, found.lastrowid) if found.rowcount and found.lastrowid else None


def get_firing(tx: Tx, firing_id: int) -> Firing:
    """A row that is there."""
    row = tx.one("SELECT * FROM schedule_firings WHERE id = ?", (firing_id,))
    assert row is not None  # noqa: S101 - the caller has just found it
    return to_firing(row)


def add_missed(tx: Tx, schedule_id: int, missed: Sequence[Verdict]) -> None:
    """Rows of planned times that never run."""
    tx.executemany(
        "INSERT INTO schedule_firings (schedule_id, planned_at, cause, started_by, status, reason, message, since, "
        "missed_since) VALUES (?, ?, 'schedule', '', 'missed', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            (schedule_id, verdict.planned_at, verdict.reason, verdict.message, tx.now, verdict.missed_since)
            for verdict in missed
        ),
    )
    _count(tx, FiringStatus.MISSED, len(missed))


def decide(
    tx: Tx,
    firing_id: int,
    status: FiringStatus,
    *,
    reason: str = "",
    message: str = "",
    next_action: str = "",
    execution_id: int | None = None,
    next_attempt_at: int | None = None,
) -> None:
    """Say what became of it."""
    tx.execute(
        "UPDATE schedule_firings SET since = iif(status = ? AND reason = ? AND attempts > 0, since, ?), status = ?, "
        "reason = ?, message = ?, next_action = ?, workflow_execution_id = ?, running = ?, next_attempt_at = ?, "
        "attempts = attempts + 1 WHERE id = ?",
        (
            status.value,
            reason,
            tx.now,
            status.value,
            reason,
            message,
            next_action,
            execution_id,
            int(execution_id is not None),
            next_attempt_at,
            firing_id,
        ),
    )
    if not status.waits:
        _count(tx, status, 1)


def _count(tx: Tx, status: FiringStatus, number: int) -> None:
    """Once it is durable; what still waits is counted when it is decided."""
    tx.on_commit(lambda: metrics.schedule_firings.labels(status.value).inc(number))


def running(tx: Tx, schedule_id: int) -> list[int]:
    """Executions of the schedule that were not known to have ended."""
    rows = tx.all(
        "SELECT workflow_execution_id AS id FROM schedule_firings WHERE schedule_id = ? AND running = 1 ORDER BY id",
        (schedule_id,),
    )
    return [row["id"] for row in rows]


def ended(tx: Tx, schedule_id: int, execution_ids: Sequence[int]) -> None:
    """These have."""
    tx.executemany(
        "UPDATE schedule_firings SET running = 0 WHERE schedule_id = ? AND workflow_execution_id = ?",
        ((schedule_id, execution_id) for execution_id in execution_ids),
    )


def waiting(tx: Tx, schedule_id: int) -> list[Firing]:
    """Firings of the schedule that wait, oldest first."""
    rows = tx.all(f"SELECT * FROM schedule_firings WHERE schedule_id = ? AND {_WAITING} ORDER BY id", (schedule_id,))  # noqa: S608
    return [to_firing(row) for row in rows]


async def with_waiting(store: Store) -> list[int]:
    """Schedules that have firings which wait."""
    rows = await store.all(f"SELECT DISTINCT schedule_id AS id FROM schedule_firings WHERE {_WAITING} ORDER BY id")  # noqa: S608
    return [row["id"] for row in rows]


async def count_waiting(store: Store, schedule_id: int) -> int:
    """How many of its firings wait."""
    row = await store.one(
        f"SELECT count(*) AS count FROM schedule_firings WHERE schedule_id = ? AND {_WAITING}",  # noqa: S608
        (schedule_id,),
    )
    return int(row["count"]) if row is not None else 0


async def firings(store: Store, schedule_id: int, *, before: int, limit: int) -> list[Firing]:
    """Some of a schedule, newest first."""
    rows = await store.all(
        "SELECT * FROM schedule_firings WHERE schedule_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
        (schedule_id, before, limit),
    )
    return [to_firing(row) for row in rows]


def prune(tx: Tx, schedule_id: int) -> None:
    """Delete the oldest firings that are over."""
    tx.execute(
        f"DELETE FROM schedule_firings WHERE schedule_id = ? AND running = 0 AND NOT {_WAITING} AND id <= "  # noqa: S608
        "(SELECT id FROM schedule_firings WHERE schedule_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (schedule_id, schedule_id, KEPT_FIRINGS),
    )


def to_firing(row: sqlite3.Row) -> Firing:
    """A row as a value."""
    return Firing(
        firing_id=row["id"],
        schedule_id=row["schedule_id"],
        planned_at=row["planned_at"],
        cause=Cause(row["cause"]),
        started_by=row["started_by"],
        status=FiringStatus(row["status"]),
        reason=row["reason"],
        message=row["message"],
        next_action=row["next_action"],
        since=Millis(row["since"]),
        workflow_execution_id=row["workflow_execution_id"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        missed_since=row["missed_since"],
    )
