"""The history of probes stays small, however long it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.clock import FakeClock, Millis
from peerd.detector.contact import Measurement
from peerd.registry.heartbeats import Heartbeats
from peerd.registry.model import PeerStatus
from peerd.store import open_store
from peerd.v1.registry_pb2 import Sample
from tests.mesh.signing import ADA, BOB

MIB = 1024**2
STATED = 16 * MIB
"""What docs/membership.md states for a mesh of three and the default retention."""

SAMPLE = Sample(
    running_jobs=3,
    cpu_percent=12.5,
    memory_available_bytes=5,
    memory_total_bytes=10,
    disk_free_bytes=1,
    disk_total_bytes=4,
)


def beat(at: int, *, peer: str = ADA.peer_id, answered: bool = True) -> Measurement:
    latency, offset = (1.25, -3.4) if answered else (None, None)
    return Measurement(
        peer_id=peer,  # type: ignore[arg-type]
        at=Millis(at),
        latency_ms=latency,
        clock_offset_ms=offset,
        sample=SAMPLE if answered else None,
    )


async def test_what_was_measured_is_told_newest_first(tmp_path: Path) -> None:
    clock = FakeClock()
    store = await open_store(tmp_path / "s.db", clock)
    history = Heartbeats(store, clock, days=30, detail_hours=24)
    history.add(beat(1000), PeerStatus.ONLINE)
    history.add(beat(2000, answered=False), PeerStatus.SUSPECT)
    history.add(beat(1500, peer=BOB.peer_id), PeerStatus.ONLINE)
    await history.flush()
    newest, oldest = await history.page(ADA.peer_id, since=Millis(0), before=Millis(10**15), count=10)
    assert (newest.at, newest.status, newest.latency_ms, newest.running_jobs) == (2000, PeerStatus.SUSPECT, None, None)
    assert (oldest.latency_ms, oldest.clock_offset_ms, oldest.running_jobs) == (1.25, -3, 3)
    assert (oldest.cpu_percent, oldest.memory_percent, oldest.disk_percent) == (12.5, 50.0, 75.0)
    assert [
        entry.at for entry in await history.page(ADA.peer_id, since=Millis(1500), before=Millis(10**15), count=9)
    ] == [2000]
    await store.close()


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_thirty_days_and_a_hundred_thousand_heartbeats_stay_below_the_stated_size(tmp_path: Path) -> None:
    clock = FakeClock()
    store = await open_store(tmp_path / "s.db", clock)
    history = Heartbeats(store, clock, days=30, detail_hours=24)
    written = 0
    for hour in range(30 * 24):
        start = clock.now()
        # As the detector does it: one probe a second, of one peer after another.
        for second in range(0, 3600, 1 if hour >= 30 * 24 - 26 else 10):
            peer = (ADA, BOB)[second % 2].peer_id
            status = PeerStatus.SUSPECT if second == 1800 else PeerStatus.ONLINE
            history.add(beat(start + second * 1000, peer=peer), status)
            written += 1
            if written % 5000 == 0:
                await history.flush()
        clock.advance(3600)
        await history.flush()
        await history.prune()
    assert written > 100_000
    assert (tmp_path / "s.db").stat().st_size < STATED
    rows = await store.all("SELECT count(*) AS n, min(at) AS oldest FROM heartbeats")
    day = 24 * 3600
    assert day < rows[0]["n"] < day * 1.1 + 30 * 288 * 4
    assert clock.now() - rows[0]["oldest"] <= 30 * 24 * 3600 * 1000
    suspects = await store.one("SELECT count(*) AS n FROM heartbeats WHERE status = ?", (PeerStatus.SUSPECT.value,))
    assert suspects is not None and suspects["n"] == 30 * 24, "no change of status is thinned out"
    clock.advance(40 * day)
    await history.prune()
    left = await store.one("SELECT count(*) AS n FROM heartbeats")
    assert left is not None and left["n"] == 0
    await store.close()
