"""Brings what the daemon knows into its metrics."""

from __future__ import annotations

import asyncio
from collections import Counter

from peerd import __version__, metrics
from peerd.clock import Clock
from peerd.detector.contact import Measurement
from peerd.errors import PeerdError
from peerd.jobs.changes import Change
from peerd.jobs.model import JobStatus
from peerd.registry.model import PeerView
from peerd.store import Tx
from peerd.transfers.model import Destinations, Expectation, Outcomes, Received, TransferKey
from peerd.v1.registry_pb2 import Sample

_LAG_SECONDS = 0.5


def call_ended(method: str, code: str, seconds: float) -> None:
    """An RPC was answered."""
    service, _, name = method.strip("/").rpartition("/")
    metrics.grpc_handled.labels(service, name, code).inc()
    metrics.grpc_handling.labels(service, name).observe(seconds)


def probe_ended(measurement: Measurement) -> None:
    """A peer answered a probe, or did not."""
    if measurement.latency_ms is None:
        metrics.heartbeats_missed.inc()
    else:
        metrics.heartbeat_latency.observe(measurement.latency_ms / 1000)


def collect(peers: tuple[PeerView, ...], sample: Sample, started_at: int) -> None:
    """Set the gauges to what is so now."""
    of_members = frozenset(role for peer in peers if not peer.external for role in peer.roles)
    metrics.build.labels(__version__).set(1)
    metrics.start_time.set(started_at / 1000)
    counts = Counter((role, peer.status.name.lower()) for peer in peers for role in _roles(peer, of_members))
    metrics.peers.clear()
    for (role, status), count in counts.items():
        metrics.peers.labels(role, status).set(count)
    offsets = [abs(peer.clock_offset_ms) for peer in peers if peer.clock_offset_ms is not None]
    metrics.clock_offset.set(max(offsets, default=0.0) / 1000)
    metrics.local_health.set(sample.local_health)
    metrics.jobs_running.set(sample.running_jobs)
    metrics.jobs_queued.set(sample.queued_jobs)
    metrics.transfers_active.set(sample.active_transfers)


def _roles(peer: PeerView, of_members: frozenset[str]) -> list[str]:
    """As labels, of which there must not be ever more: a machine without peerd may call itself anything."""
    if peer.external and not peer.roles <= of_members:
        return ["external"]
    return sorted(peer.roles) or ["none"]


class JobCounter:
    """Counts ends of jobs, and how long their processes ran."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started: dict[int, float] = {}

    def changed(self, change: Change) -> None:
        """A change of a job was committed."""
        if change.status is JobStatus.RUNNING:
            self._started.setdefault(change.job_execution_id, self._clock.monotonic())
        elif change.status.final:
            metrics.jobs_finished.labels(change.status.value).inc()
            started = self._started.pop(change.job_execution_id, None)
            if started is not None:
                metrics.job_duration.observe(self._clock.monotonic() - started)


class CountedDestinations:
    """Counts what arrives."""

    def __init__(self, inner: Destinations) -> None:
        self._inner = inner

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        return self._inner.expect(tx, key)

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self._inner.accepted(tx, key, total_bytes)

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        self._inner.refused(tx, key, error)

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        self._inner.received(tx, key, received)
        total = received.total_bytes

        def count() -> None:
            metrics.transfers_finished.labels("in", "received").inc()
            metrics.transfer_bytes.labels("in").inc(total)

        tx.on_commit(count)


class CountedOutcomes:
    """Counts what was sent, or could not be."""

    def __init__(self, inner: Outcomes) -> None:
        self._inner = inner

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self._inner.delivered(tx, key, total_bytes)

        def count() -> None:
            metrics.transfers_finished.labels("out", "delivered").inc()
            metrics.transfer_bytes.labels("out").inc(total_bytes)

        tx.on_commit(count)

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        self._inner.undeliverable(tx, key, reason, message)
        tx.on_commit(lambda: metrics.transfers_finished.labels("out", "undeliverable").inc())


class LoopLag:
    """How late the event loop is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_LAG_SECONDS)
            self.seconds = max(0.0, self._clock.monotonic() - before - _LAG_SECONDS)
            metrics.loop_lag.set(self.seconds)
