"""What stands in the store about the queue, for :mod:`peerd.jobs.choosing` to decide on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from peerd.clock import Millis
from peerd.jobs.choosing import Capacity, Choice, Running, Turn, Waiting, choose
from peerd.jobs.repository import OPEN, to_resources

_DEPTH = 64
"""Of each orchestrator's jobs of each service so many are looked at; the next when these have started."""
_COLUMNS = (
    "id, orchestrator_peer_id, service_id, priority, since, reason, cpus, memory_bytes, disk_limit_bytes, gpus, "
    "max_concurrent"
)
_QUEUED = "status = 'ready' AND is_data = 0 AND hold = 0"
"""As the partial index spells it."""
_READY = (
    f"SELECT {_COLUMNS} FROM (SELECT DISTINCT orchestrator_peer_id AS o, service_id AS s FROM job_executions "  # noqa: S608
    f"WHERE {_QUEUED}) JOIN job_executions j ON j.id IN (SELECT id FROM job_executions i WHERE {_QUEUED} "
    "AND i.orchestrator_peer_id = o AND i.service_id IS s AND (i.next_try_at IS NULL OR i.next_try_at <= :now) "
    "ORDER BY i.priority DESC, i.id LIMIT :depth)"
)
RUNNING = (
    f"SELECT {_COLUMNS} FROM job_executions WHERE {OPEN} AND status = 'running' AND is_data = 0",  # noqa: S608
    (),
)
TURNS = (
    "SELECT o.orchestrator_peer_id, a.id, a.started_at FROM "  # noqa: S608
    f"(SELECT DISTINCT orchestrator_peer_id FROM job_executions WHERE {_QUEUED}) o "
    "JOIN job_attempts a ON a.id = (SELECT max(last_attempt_id) FROM job_executions j "
    "WHERE j.orchestrator_peer_id = o.orchestrator_peer_id AND j.last_attempt_id > 0)",
    (),
)
_UNTOLD = frozenset({"slot", "retry", ""})
"""Reasons of a ready job for which a place that is not free is nothing new."""


def ready(now: Millis) -> tuple[str, dict[str, int]]:
    """Query for the jobs to look at."""
    return _READY, {"now": now, "depth": _DEPTH}


def decide(
    ready: Sequence[sqlite3.Row],
    running: Sequence[sqlite3.Row],
    turns: Sequence[sqlite3.Row],
    capacity: Capacity,
    now: Millis,
) -> Choice:
    """What starts, and whose reason to wait is another than its row says."""
    choice = choose(
        map(_to_running, running),
        map(_to_waiting, ready),
        capacity,
        turns={row["orchestrator_peer_id"]: Turn(number=row["id"], at=row["started_at"]) for row in turns},
        now=now,
    )
    known = {row["id"]: row["reason"] for row in ready}
    news = {
        job_id: wait
        for job_id, wait in choice.waits.items()
        if wait.reason != known[job_id] and not (wait.reason == "slot" and known[job_id] in _UNTOLD)
    }
    return Choice(start=choice.start, waits=news)


def _to_running(row: sqlite3.Row) -> Running:
    return Running(
        orchestrator=row["orchestrator_peer_id"],
        service_id=row["service_id"],
        needs=to_resources(row),
        since=row["since"],
    )


def _to_waiting(row: sqlite3.Row) -> Waiting:
    return Waiting(
        id=row["id"],
        orchestrator=row["orchestrator_peer_id"],
        service_id=row["service_id"],
        needs=to_resources(row),
        priority=row["priority"],
        since=row["since"],
        max_concurrent=row["max_concurrent"],
    )
