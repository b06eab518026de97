"""Sweeps: how many at once, which nodes first, and what is left for others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peerd.errors import PeerdError, Reason
from peerd.nodes import asking, runs
from peerd.nodes.message_json import request_from_json
from peerd.nodes.messages import BatchRequest, Kind, Outcome, ProbeResult, Risk, ScanReport
from peerd.nodes.model import Policy
from peerd.nodes.sweeping import MOST_NODES, room
from peerd.v1 import nodes_pb2, workflows_pb2
from tests.nodes.house import OWN, House, calling, open_house

REPORT = ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM)
SCANNED = ProbeResult(kind=Kind.SCAN, outcome=Outcome.OK, scan=REPORT)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


def policy(**fields: int) -> nodes_pb2.OrganizationPolicy:
    return nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"], **fields)  # type: ignore[arg-type]


async def sweep(house: House, **fields: int) -> nodes_pb2.SweepNodesResponse:
    with calling(OWN):
        return await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme", **fields), None)  # type: ignore[arg-type]


async def swept(house: House) -> list[str]:
    """Targets of the newest sweep."""
    return [target for job in house.executions.definitions[-1].jobs for target in targets_of(job)]


def targets_of(job: workflows_pb2.JobDefinition) -> list[str]:
    """What a job's prober is told to probe."""
    request = request_from_json(job.params["request"])
    found = request.requests() if isinstance(request, BatchRequest) else [request]
    return [asked.target.host for asked in found]


async def test_a_sweep_leaves_a_place_and_all_together_are_never_more_than_may_be(house: House) -> None:
    await house.add("acme", policy(max_concurrent=4))
    for number in range(1, 21):
        await house.scan(f"10.0.0.{number}", "acme")
    first = await house.scan("10.0.1.1", "acme", protocol="sui")
    assert (await sweep(house)).sweep.nodes == 20
    jobs = [job for job in house.executions.definitions[-1].jobs if not job.needs]
    at_once = [request_from_json(job.params["request"]) for job in jobs]
    assert sum(asked.at_once if isinstance(asked, BatchRequest) else 1 for asked in at_once) == 2
    assert "leaves a place" in (await sweep(house)).error
    second = await house.scan("10.0.1.2", "acme", protocol="sui")
    assert second.success
    refused = await house.scan("10.0.1.3", "acme", protocol="sui")
    assert (refused.next_action, refused.error[:2]) == ("wait", "4 ")
    await house.deliver(first, SCANNED)
    await house.applying.look()
    assert (await house.scan("10.0.1.3", "acme")).success


async def test_an_organization_with_one_place_sweeps_with_it(house: House) -> None:
    await house.add("acme", policy(max_concurrent=1))
    await house.scan("10.0.0.1", "acme")
    assert (await sweep(house)).sweep.nodes == 1


async def test_nodes_that_fail_each_time_keep_no_others_from_their_turn(house: House) -> None:
    await house.add("acme", policy())
    for number in range(1, 6):
        await house.scan(f"10.0.0.{number}", "acme")
    seen = []
    for _ in range(3):
        answer = await sweep(house, limit=2)
        seen.append(await swept(house))
        for run in await open_runs(house):
            await house.end(run, "failed", "failed", reason="exit")
        await house.applying.look()
        assert answer.sweep.nodes == 2
    assert seen == [["10.0.0.1", "10.0.0.2"], ["10.0.0.3", "10.0.0.4"], ["10.0.0.5", "10.0.0.1"]]


async def test_nodes_that_are_not_allowed_any_more_keep_no_others_from_their_turn(house: House) -> None:
    await house.add("acme", policy())
    for number in range(1, 6):
        await house.scan(f"10.0.0.{number}", "acme")
    with calling(OWN):
        narrower = nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.4/31"])
        await house.organizations.UpdateOrganization(
            nodes_pb2.UpdateOrganizationRequest(org="acme", policy=narrower), None
        )
    answer = await sweep(house, limit=2)
    assert (answer.sweep.nodes, answer.sweep.left_out) == (2, 3)
    assert await swept(house) == ["10.0.0.4", "10.0.0.5"]


async def test_many_runs_of_one_node_are_still_in_the_budget(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_RUNS", 2)
    await house.add("acme", policy(daily_budget=5))
    for _ in range(5):
        run = await house.scan("10.0.0.1", "acme", protocol="sui")
        await house.end(run, "failed", "failed", reason="exit")
        await house.applying.look()
    assert "budget" in (await house.scan("10.0.0.1", "acme")).error
    house.clock.advance(24 * 3600 + 1)
    run = await house.scan("10.0.0.1", "acme")
    await house.end(run, "failed", "failed", reason="exit")
    await house.applying.look()
    row = await house.store.one("SELECT count(*) AS count FROM node_runs")
    assert row is not None
    assert row["count"] == 2


async def test_an_organization_has_so_many_nodes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_NODES", 2)
    await house.add("acme", policy())
    for number in (1, 2):
        await house.scan(f"10.0.0.{number}", "acme")
    with pytest.raises(PeerdError) as refused:
        await house.scan("10.0.0.3", "acme")
    assert refused.value.reason is Reason.OVERLOADED
    assert (await house.scan("10.0.0.2", "acme", protocol="sui")).success


async def test_a_policy_that_no_prober_could_be_given_is_refused_and_a_large_one_makes_smaller_sweeps(
    house: House,
) -> None:
    large = policy()
    large.blocked_hosts.extend(f"{'a' * 60}.{'b' * 60}.x{number}.example" for number in range(600))
    with pytest.raises(PeerdError) as refused:
        await house.add("acme", large)
    assert "characters" in refused.value.message
    assert room(Policy(), 1) == MOST_NODES
    assert room(Policy(blocked_hosts=("a" * 60,) * 1000), 1) < 300
    assert 300 * 9 < room(Policy(blocked_hosts=("a" * 60,) * 1000), 12) < MOST_NODES


async def open_runs(house: House) -> list[nodes_pb2.NodeRun]:
    rows = await house.store.all("SELECT id, workflow_execution_id FROM node_runs WHERE status = 'running'")
    return [nodes_pb2.NodeRun(run_id=row["id"], workflow_execution_id=row["workflow_execution_id"]) for row in rows]
