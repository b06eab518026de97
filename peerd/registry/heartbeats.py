"""The history of probes: what each showed, for as long as it is asked for.

A daemon makes about one probe a second, however large the mesh. Each is a row of some 40 bytes for a day; of older ones
one in five minutes is kept, and every change of status; after the retention nothing is. Rows are written every ten
seconds in one transaction: nobody was told that they are durable.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from peerd.clock import Clock, Millis
from peerd.detector.contact import Measurement
from peerd.identity.peer_id import PeerId
from peerd.registry.model import PeerStatus
from peerd.store import Store, Tx
from peerd.v1.registry_pb2 import Sample

FLUSH_SECONDS = 10.0
_BUCKET_MS = 300_000
_HOUR_MS = 3_600_000
_MAX_WAITING = 10_000

_INSERT = (
    "INSERT OR REPLACE INTO heartbeats (peer, at, status, latency_us, clock_offset_ms, running_jobs, cpu_permille,"
    " memory_permille, disk_permille) VALUES ("
    "(SELECT number FROM heartbeat_peers WHERE peer_id = ?), ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PAGE = (
    "SELECT at, status, latency_us, clock_offset_ms, running_jobs, cpu_permille, memory_permille, disk_permille"
    " FROM heartbeats WHERE peer = (SELECT number FROM heartbeat_peers WHERE peer_id = ?) AND at >= ? AND at < ?"
    " ORDER BY at DESC LIMIT ?"
)
_THIN = (
    "DELETE FROM heartbeats WHERE at >= :start AND at < :end AND (peer, at) NOT IN (SELECT peer, min(at)"
    " FROM heartbeats WHERE at >= :start AND at < :end GROUP BY peer, at / :bucket, status)"
)


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """One kept probe."""

    at: Millis
    status: PeerStatus
    latency_ms: float | None
    clock_offset_ms: float | None
    running_jobs: int | None
    cpu_percent: float | None
    memory_percent: float | None
    """Of its memory, how much was in use."""
    disk_percent: float | None


class Heartbeats:
    """Keeps and tells the history."""

    def __init__(self, store: Store, clock: Clock, *, days: float, detail_hours: float) -> None:
        self._store = store
        self._clock = clock
        self._kept_ms = round(days * 24 * _HOUR_MS)
        self._detail_ms = round(detail_hours * _HOUR_MS)
        self._waiting: list[tuple[object, ...]] = []
        self._thinned_until = 0

    def add(self, measurement: Measurement, status: PeerStatus) -> None:
        """Keep a probe; it is written with the next :meth:`flush`."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(_row(measurement, status))

    async def flush(self) -> None:
        """Write what waits."""
        rows, self._waiting = self._waiting, []
        if rows:
            await self._store.write(lambda tx: _insert(tx, rows))

    async def prune(self) -> None:
        """Thin out what is older than the detail, delete what is older than the retention."""
        now = self._clock.now()
        end = (now - self._detail_ms) // _BUCKET_MS * _BUCKET_MS
        start = self._thinned_until

        def write(tx: Tx) -> None:
            tx.execute("DELETE FROM heartbeats WHERE at < ?", (now - self._kept_ms,))
            if end > start:
                tx.execute(_THIN, {"start": start, "end": end, "bucket": _BUCKET_MS})
            tx.execute("DELETE FROM heartbeat_peers WHERE number NOT IN (SELECT DISTINCT peer FROM heartbeats)")

        await self._store.write(write)
        self._thinned_until = max(start, end)

    async def page(self, peer_id: PeerId, *, since: Millis, before: Millis, count: int) -> list[Heartbeat]:
        """Up to so many of a peer, newest first."""
        return [_heartbeat(row) for row in await self._store.all(_PAGE, (peer_id, since, before, count))]


def _insert(tx: Tx, rows: list[tuple[object, ...]]) -> None:
    for peer_id in {row[0] for row in rows}:
        tx.execute("INSERT INTO heartbeat_peers (peer_id) VALUES (?) ON CONFLICT DO NOTHING", (peer_id,))
    for row in rows:
        tx.execute(_INSERT, row)


def _row(measurement: Measurement, status: PeerStatus) -> tuple[object, ...]:
    sample = measurement.sample or Sample()
    offset = measurement.clock_offset_ms
    return (
        measurement.peer_id,
        measurement.at,
        status.value,
        None if measurement.latency_ms is None else round(measurement.latency_ms * 1000),
        None if offset is None else round(offset),
        sample.running_jobs if measurement.sample is not None else None,
        round(sample.cpu_percent * 10) if measurement.sample is not None else None,
        _permille(sample.memory_total_bytes - sample.memory_available_bytes, sample.memory_total_bytes),
        _permille(sample.disk_total_bytes - sample.disk_free_bytes, sample.disk_total_bytes),
    )


def _permille(used: int, total: int) -> int | None:
    return round(1000 * used / total) if total else None


def _heartbeat(row: sqlite3.Row) -> Heartbeat:
    return Heartbeat(
        at=Millis(row["at"]),
        status=PeerStatus(row["status"]),
        latency_ms=None if row["latency_us"] is None else row["latency_us"] / 1000,
        clock_offset_ms=row["clock_offset_ms"],
        running_jobs=row["running_jobs"],
        cpu_percent=_percent(row["cpu_permille"]),
        memory_percent=_percent(row["memory_permille"]),
        disk_percent=_percent(row["disk_permille"]),
    )


def _percent(permille: int | None) -> float | None:
    return None if permille is None else permille / 10
