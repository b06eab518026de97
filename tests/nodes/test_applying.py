"""Runs end once and alone: whatever is wrong with one, or with where its scan goes, the others end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from peerd.errors import PeerdError, Reason
from peerd.nodes.messages import FailureReason, Kind, Outcome, ProbeResult, Risk, ScanReport
from peerd.v1 import nodes_pb2
from tests.nodes.house import OWN, House, calling, open_house

REPORT = ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM)
SCANNED = ProbeResult(kind=Kind.SCAN, outcome=Outcome.OK, scan=REPORT)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


@pytest.mark.parametrize("fault", [PeerdError(Reason.OVERLOADED, "1000 wait"), RuntimeError("a mistake of ours")])
async def test_a_run_that_cannot_be_ended_now_keeps_no_other_waiting(house: House, fault: Exception) -> None:
    await house.add("acme")
    first = await house.scan("10.0.0.1", "acme", protocol="sui")
    second = await house.scan("10.0.0.2", "acme", protocol="sui")
    house.intake.refusals[first.run_id] = fault
    for run in (first, second):
        await house.deliver(run, SCANNED)
    await house.applying.look()
    assert (await house.node("10.0.0.2")).node.status == nodes_pb2.NODE_STATUS_SCANNED
    assert (await house.node("10.0.0.1")).node.HasField("running")
    house.intake.refusals.clear()
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.status == nodes_pb2.NODE_STATUS_SCANNED
    assert [scan.run_id for scan in house.intake.scans] == [second.run_id, first.run_id]


async def test_a_scan_that_the_inventory_never_takes_is_a_scan_and_says_so(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    house.intake.refusals[run.run_id] = PeerdError(Reason.SCAN_CONFLICT, "another scan has that id")
    await house.deliver(run, SCANNED)
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.status == nodes_pb2.NODE_STATUS_SCANNED
    with calling(OWN):
        listed = await house.nodes.ListNodeRuns(nodes_pb2.ListNodeRunsRequest(node="10.0.0.1"), None)
    assert listed.runs[0].message == "not in the inventory: another scan has that id"


@pytest.mark.parametrize("status", ["running", "completed"])
async def test_a_run_that_is_overdue_is_lost_and_what_waits_behind_its_job_goes_on(house: House, status: str) -> None:
    """Also when its job has completed, and its peer goes away with what it found."""
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.end(run, status, "waiting")
    await house.applying.look()
    house.clock.set(3600)
    await house.applying.look()
    house.clock.advance(179)
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.HasField("running")
    assert house.executions.given_up == []
    house.clock.advance(2)
    await house.applying.look()
    node = (await house.node("10.0.0.1")).node
    assert (node.status, node.reason) == (nodes_pb2.NODE_STATUS_ERROR, "lost")
    assert house.executions.given_up == [await house.job_of(run.run_id)]
    await house.applying.look()
    assert len(house.executions.given_up) == 1


async def test_an_answer_that_is_not_believed_is_not_kept_as_a_report(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.deliver(run, b"{not json", "# Scan")
    await house.applying.look()
    with calling(OWN), pytest.raises(PeerdError) as refused:
        await house.nodes.GetNodeReport(nodes_pb2.GetNodeReportRequest(node="10.0.0.1", run_id=run.run_id), None)
    assert refused.value.reason is Reason.NOT_FOUND


async def test_what_others_wrote_moves_no_cursor(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.deliver(run, replace(SCANNED, scan=replace(REPORT, version="1.0\x1b[2J")), "# Scan\n\x1b[31mred\n")
    await house.applying.look()
    node = (await house.node("10.0.0.1")).node
    assert node.version == "1.0 [2J"
    with calling(OWN):
        found = await house.nodes.GetNodeReport(nodes_pb2.GetNodeReportRequest(node="10.0.0.1"), None)
    assert found.markdown == "# Scan\n [31mred\n"


async def test_a_prober_that_does_not_know_the_protocol_is_named_as_what_to_mend(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    reason = FailureReason.UNKNOWN_PROTOCOL
    await house.deliver(run, ProbeResult(kind=Kind.SCAN, outcome=Outcome.FAILED, reason=reason, message="no sui here"))
    await house.applying.look()
    node = (await house.node("10.0.0.1")).node
    assert (node.reason, node.message) == ("unknown_protocol", "no sui here")
    assert "protocols_dir" in node.next_action
