"""A sweep carries the policy of its start: what an organization may not dial any more is stopped, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peerd.errors import PeerdError, Reason
from peerd.v1 import nodes_pb2
from tests.nodes.house import OWN, House, calling, open_house
from tests.nodes.test_batches import SCANNED

NETWORKS = ["10.0.0.0/8", "192.168.0.0/16"]


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


def policy(**fields: object) -> nodes_pb2.OrganizationPolicy:
    return nodes_pb2.OrganizationPolicy(**{"allowed_networks": NETWORKS, "max_concurrent": 1, **fields})  # type: ignore[arg-type]


async def change(house: House, **fields: object) -> None:
    with calling(OWN):
        await house.organizations.UpdateOrganization(
            nodes_pb2.UpdateOrganizationRequest(org="acme", policy=policy(**fields)), None
        )


async def deactivate(house: House) -> None:
    with calling(OWN):
        await house.organizations.SetOrganizationActive(
            nodes_pb2.SetOrganizationActiveRequest(org="acme", active=False), None
        )


async def swept(house: House, targets: list[str], **fields: object) -> list[nodes_pb2.NodeRun]:
    """A sweep over these, four to a batch, one batch after the other; their runs."""
    await house.add("acme", policy(**fields))
    for target in targets:
        await house.scan(target, "acme")
    with calling(OWN):
        await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme", level=1), None)
    return [await newest(house, target) for target in targets]


async def newest(house: House, node: str) -> nodes_pb2.NodeRun:
    with calling(OWN):
        return (await house.nodes.ListNodeRuns(nodes_pb2.ListNodeRunsRequest(node=node), None)).runs[0]


async def reasons(house: House, runs: list[nodes_pb2.NodeRun]) -> list[str]:
    found = [await newest(house, run.node_id) for run in runs]
    return ["under way" if run.status == nodes_pb2.NODE_RUN_STATUS_RUNNING else run.reason for run in found]


def ten(network: str, number: int) -> list[str]:
    return [f"{network}.{index}" for index in range(1, number + 1)]


async def test_when_an_organization_is_made_inactive_everything_that_is_under_way_stops(house: House) -> None:
    runs = await swept(house, ten("10.0.0", 12), max_concurrent=3)
    single = await house.scan("10.0.9.9", "acme", protocol="sui")
    await house.end(runs[0], "running", "waiting")
    await deactivate(house)
    assert set(await reasons(house, [*runs, await newest(house, "10.0.9.9")])) == {"withdrawn"}
    assert sorted(house.executions.given_up) == sorted({*(run.job for run in runs), await house.job_of(single.run_id)})
    node = (await house.node("10.0.0.1")).node
    assert (node.status, node.message) == (nodes_pb2.NODE_STATUS_ERROR, "the organization was made inactive")


async def test_a_network_that_is_removed_stops_the_batches_with_it_and_all_that_has_not_begun(house: House) -> None:
    """Those that come last are given up first: a job whose predecessor ends would begin."""
    targets = [*ten("10.0.0", 8), "192.168.0.1", *ten("10.0.1", 7)]
    runs = await swept(house, targets)
    jobs = [run.job for run in runs]
    assert jobs == [f"batch-{number}" for number in (1, 2, 3, 4) for _ in range(4)]
    await house.end(runs[0], "running", "waiting")
    await change(house, allowed_networks=["10.0.0.0/8"])
    assert await reasons(house, runs) == ["under way"] * 4 + ["withdrawn"] * 12
    assert house.executions.given_up == ["batch-4", "batch-3", "batch-2"]
    assert "not in a network" in (await house.node("192.168.0.1")).node.message
    assert "of which one is not allowed: Target '192.168.0.1'" in (await house.node("10.0.0.5")).node.message
    await house.deliver_batch(runs[:4], {run.node_id: SCANNED for run in runs[:4]})
    await house.applying.look()
    assert await reasons(house, runs[:4]) == [""] * 4  # what had begun counts


async def test_a_batch_that_runs_with_a_node_that_may_not_be_dialed_any_more_is_stopped(house: House) -> None:
    runs = await swept(house, ["10.0.0.1", "192.168.0.1", *ten("10.0.1", 6)])
    await house.end(runs[0], "running", "waiting")
    await change(house, blocked_hosts=["192.168.0.1"])
    assert set(await reasons(house, runs)) == {"withdrawn"}
    assert house.executions.given_up == ["batch-2", "batch-1"]


async def test_what_is_on_its_way_home_comes_home_except_of_nodes_that_are_not_allowed(house: House) -> None:
    runs = await swept(house, ["10.0.0.1", "192.168.0.1", *ten("10.0.1", 6)])
    await house.end(runs[0], "completed", "waiting")
    await change(house, allowed_networks=["10.0.0.0/8"])
    await house.deliver_batch(runs[:4], {run.node_id: SCANNED for run in runs[:4]})
    await house.applying.look()
    assert await reasons(house, runs[:4]) == ["", "withdrawn", "", ""]
    assert house.executions.given_up == ["batch-2"]


@pytest.mark.parametrize(
    ("before", "after", "target", "protocol", "stopped"),
    [
        ({}, {"allowed_networks": [*NETWORKS, "172.16.0.0/12"]}, "10.0.0.1", "sui", False),
        ({}, {"daily_budget": 1, "cool_down": "1h"}, "node.example", "sui", False),
        ({}, {"allowed_networks": ["10.0.0.0/7", "192.0.0.0/8"]}, "node.example", "sui", False),
        ({}, {"allowed_networks": ["192.168.0.0/16"]}, "10.0.0.1", "sui", True),
        ({}, {"allowed_networks": ["10.0.0.0/8"]}, "10.0.0.1", "sui", False),
        ({}, {"allowed_networks": ["10.0.0.0/8"]}, "node.example", "sui", True),
        ({}, {"blocked_hosts": ["10.1.0.0/16"]}, "node.example", "sui", True),
        ({}, {"blocked_hosts": ["10.1.0.0/16"]}, "10.0.0.1", "sui", False),
        ({"blocked_hosts": ["10.1.0.0/16"]}, {}, "node.example", "sui", False),
        ({}, {"blocked_hosts": [".example"]}, "node.example", "sui", True),
        ({"allow_special": ["loopback"]}, {}, "node.example", "sui", True),
        ({}, {"allowed_protocols": ["filecoin"]}, "10.0.0.1", "sui", True),
        ({}, {"allowed_protocols": ["sui"]}, "10.0.0.1", "sui", False),
        ({}, {"allowed_protocols": ["sui"]}, "10.0.0.1", "", True),
        ({"allowed_protocols": ["sui"]}, {"allowed_protocols": ["sui", "filecoin"]}, "10.0.0.1", "", False),
        ({}, {"max_level": 1}, "10.0.0.1", "sui", True),
    ],
)
async def test_only_what_may_not_be_dialed_any_more_is_stopped(
    house: House, before: dict[str, object], after: dict[str, object], target: str, protocol: str, stopped: bool
) -> None:
    await house.add("acme", policy(**before))
    if protocol:
        assert (await house.scan(target, "acme", protocol=protocol, level=2)).run_id
    else:
        await house.discover((await house.scan(target, "acme")).node_id)
    run = await newest(house, target)
    await change(house, **after)
    assert await reasons(house, [run]) == (["withdrawn"] if stopped else ["under way"])
    assert house.executions.given_up == ([run.job] if stopped else [])


async def test_what_belongs_to_another_organization_goes_on(house: House) -> None:
    await house.add("acme")
    await house.add("other")
    await house.scan("10.0.0.1", "acme", protocol="sui")
    other = await house.scan("10.0.0.1", "other", protocol="sui")
    await deactivate(house)
    assert house.executions.given_up == [f"scan-{(await house.node(await acme_node(house))).node.node_id}"]
    row = await house.store.one("SELECT status FROM node_runs WHERE id = ?", (other.run_id,))
    assert row is not None
    assert row["status"] == "running"


async def acme_node(house: House) -> str:
    with calling(OWN):
        return (await house.nodes.ListNodes(nodes_pb2.ListNodesRequest(org="acme"), None)).nodes[0].node_id


async def test_a_policy_made_from_one_that_is_another_now_changes_nothing(house: House) -> None:
    with calling(OWN):
        await house.add("acme", policy(max_level=1))
        get = nodes_pb2.GetOrganizationRequest(org="acme")
        before = (await house.organizations.GetOrganization(get, None)).organization.policy
        block = nodes_pb2.UpdateOrganizationRequest(org="acme", policy=policy(blocked_hosts=["10.0.0.5"]))
        block.policy_before.CopyFrom(before)
        await house.organizations.UpdateOrganization(block, None)
        raised = nodes_pb2.UpdateOrganizationRequest(org="acme", policy=policy(max_level=2), policy_before=before)
        with pytest.raises(PeerdError) as caught:
            await house.organizations.UpdateOrganization(raised, None)
        assert caught.value.reason is Reason.STALE
        stored = (await house.organizations.GetOrganization(get, None)).organization.policy
        assert list(stored.blocked_hosts) == ["10.0.0.5/32"]
