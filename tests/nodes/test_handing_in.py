"""Scans of nodes are handed in to a real desk: signed by this peer, once, and with what they looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.nodes.ending import NodeScan
from peerd.nodes.handing_in import HandingIn
from peerd.nodes.message_json import to_json
from peerd.nodes.messages import Connect, Kind, OpenPort, Outcome, ProbeResult, Risk, ScanReport
from tests.scans.desk import Desk

PORTS = (OpenPort(number=9000, address="10.0.0.1", service="http"), OpenPort(number=22, address="192.0.2.7"))
REPORT = ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM, ports=PORTS)
DIALED = tuple(Connect(address="10.0.0.1", port=port) for port in (443, 9000))
SCANNED = ProbeResult(kind=Kind.SCAN, outcome=Outcome.OK, scan=REPORT, addresses=("10.0.0.1",), connects=DIALED)


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, FakeClock())
    await made.start()
    yield made
    await made.store.close()


async def hand_in(desk: Desk, result: ProbeResult, run_id: int = 1) -> None:
    intake = HandingIn(desk.me.peer_id, desk.scans.signer, desk.scans.receiving)
    scan = NodeScan(
        run_id=run_id,
        node_id="n",
        organization="acme",
        scanner_peer_id="b" * 52,
        document=to_json(result).encode(),
    )
    await desk.store.write(lambda tx: intake.hand_in(tx, scan))


async def test_what_it_saw_of_the_host_is_ingested_once_and_what_it_dialed_is_its_scope(desk: Desk) -> None:
    await hand_in(desk, SCANNED)
    await hand_in(desk, SCANNED)
    await desk.work()
    assert [row[1:] for row in await desk.seen()] == [("10.0.0.1", 9000)]
    job = await desk.job()
    assert (job.organization, job.vantage, job.scope) == ("acme", "b" * 52, "10.0.0.1 tcp:443,9000")
    with pytest.raises(PeerdError) as refused:
        await desk.job(2)
    assert refused.value.reason is Reason.NOT_FOUND


async def test_a_scan_id_that_is_taken_is_a_conflict_and_a_host_that_nothing_is_known_of_is_no_scan(desk: Desk) -> None:
    await hand_in(desk, SCANNED)
    with pytest.raises(PeerdError) as refused:
        await hand_in(desk, replace(SCANNED, connects=DIALED[:1]))
    assert refused.value.reason is Reason.SCAN_CONFLICT
    await hand_in(desk, replace(SCANNED, addresses=()), run_id=2)
    with pytest.raises(PeerdError):
        await desk.job(2)


async def test_ports_that_differ_by_address_make_no_scope(desk: Desk) -> None:
    second = Connect(address="10.0.0.2", port=443)
    await hand_in(desk, replace(SCANNED, addresses=("10.0.0.1", "10.0.0.2"), connects=(*DIALED, second)))
    await desk.work()
    assert (await desk.job()).scope == ""
