"""Requests over a real store: one node and one run for one target, isolation of organizations, results applied once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from peerd.errors import PeerdError, Reason
from peerd.nodes import repository
from peerd.nodes.message_json import request_from_json
from peerd.nodes.messages import FailureReason, Kind, Outcome, ProbeRequest, ProbeResult, Recognition, Risk, ScanReport
from peerd.nodes.model import Organization
from peerd.store import Tx
from peerd.v1 import nodes_pb2
from tests.nodes.house import NETWORKS, OTHER, OWN, House, calling, open_house

SUI = Recognition(protocol="sui", confidence=0.9, version="1.60.0", port=9000)
FOUND = ProbeResult(kind=Kind.DISCOVER, outcome=Outcome.OK, recognitions=(SUI,))
REPORT = ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM, version="1.60.1")
SCANNED = ProbeResult(kind=Kind.SCAN, outcome=Outcome.OK, scan=REPORT, recognitions=(SUI,))
UNKNOWN = "99999999-9999-4999-8999-999999999999"


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


async def test_the_first_scenario_of_the_source(house: House) -> None:
    org_id = await house.add("myorg")
    first = await house.scan("10.0.0.1", "myorg")
    assert (first.error, first.next_action) == ("Protocol not provided and node requires discovery", "run-discovery")
    assert first.org_id == org_id
    started = await house.discover(first.node_id, host="10.0.0.1")
    assert (started.success, started.status) == (True, "discovery_started")
    await house.deliver(started, FOUND)
    await house.applying.look()
    found = await house.node("10.0.0.1")
    assert (found.node.status, found.node.protocol) == (nodes_pb2.NODE_STATUS_DISCOVERED, "sui")
    ready = await house.scan("10.0.0.1", org_id.upper())
    assert (ready.status, ready.protocol, ready.next_action) == ("ready_to_scan", "sui", "")
    await house.deliver(ready, SCANNED)
    await house.applying.look()
    done = await house.node(first.node_id)
    assert [item.event for item in done.history] == ["created", "discovered", "scanned"]
    assert (done.node.score.score, done.node.score.risk, done.node.version) == (70, "MEDIUM", "1.60.1")
    assert [scan.organization for scan in house.intake.scans] == ["myorg"]


async def test_a_result_is_applied_once(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.deliver(run, SCANNED)
    await asyncio.gather(*(house.applying.look() for _ in range(5)))
    found = await house.node("10.0.0.1")
    assert [item.event for item in found.history] == ["created", "protocol_given", "scanned"]
    assert len(house.intake.scans) == 1


async def test_a_job_that_ended_counts_when_its_files_are_here(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.end(run, "completed", "sending")
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.running.run_id == run.run_id
    await house.end(run, "completed", "failed")
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.reason == "transfer"


async def test_what_failed_is_an_error_with_its_reason(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.end(run, "failed", "waiting", reason="lost", message="beta has forgotten it")
    await house.applying.look()
    node = (await house.node("10.0.0.1")).node
    assert (node.status, node.reason, node.message) == (
        nodes_pb2.NODE_STATUS_ERROR,
        "lost",
        "beta has forgotten it",
    )
    again = await house.scan("10.0.0.1", "acme")
    assert again.note == "Node in error state - will retry"
    dns = ProbeResult(kind=Kind.SCAN, outcome=Outcome.FAILED, reason=FailureReason.DNS_FAILED, message="no such name")
    await house.deliver(again, dns)
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.message == "DNS resolution failed: no such name"


async def test_a_job_whose_peer_went_away_is_lost_and_what_comes_later_does_not_count(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")

    def begin(tx: Tx) -> None:
        tx.execute("UPDATE workflow_jobs SET status = 'running', started_at = ?, executor_peer_id = ?", (tx.now, OTHER))

    await house.store.write(begin)
    await house.applying.look()
    house.clock.advance(179)
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.running.run_id == run.run_id
    house.clock.advance(2)
    await house.applying.look()
    await house.deliver(run, SCANNED)
    await house.applying.look()
    found = await house.node("10.0.0.1")
    assert (found.node.status, found.node.reason) == (nodes_pb2.NODE_STATUS_ERROR, "lost")
    assert [item.event for item in found.history] == ["created", "protocol_given", "scan_failed"]


async def test_results_that_are_missing_or_too_large_are_errors(house: House) -> None:
    await house.add("acme")
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    await house.end(run, "completed", "delivered")
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.reason == "bad_result"
    again = await house.scan("10.0.0.1", "acme")
    await house.deliver(again, b"x" * 5 * 1024**2)
    await house.applying.look()
    assert (await house.node("10.0.0.1")).node.reason == "bad_result"


async def test_twenty_requests_at_once_make_one_node_and_one_scan(house: House) -> None:
    await house.add("acme")
    spellings = ["10.0.0.1", "::ffff:10.0.0.1", "http://10.0.0.1/", " 10.0.0.1. "] * 5
    answers = await asyncio.gather(*(house.scan(text, "acme", protocol="sui") for text in spellings))
    assert all(answer.success for answer in answers)
    assert len({answer.node_id for answer in answers}) == 1
    assert len({answer.run_id for answer in answers}) == 1
    assert len(house.executions.definitions) == 1
    noted = [answer.note for answer in answers]
    assert noted.count("") == 1
    assert noted.count("a scan of this node is under way") == 19


async def test_the_job_gets_what_the_policy_says_and_no_reference_to_a_parameter(house: House) -> None:
    policy = nodes_pb2.OrganizationPolicy(
        allowed_networks=["10.0.0.0/8"],
        blocked_hosts=[".evil.example"],
        allow_special=["loopback"],
        max_level=3,
        permission=nodes_pb2.ScanPermission(by="${params.x}", reference="r"),
    )
    policy.on.role = "scanner"
    await house.add("acme", policy)
    await house.scan("[::ffff:10.0.0.1]:9000", "acme", protocol="SUI", level=3)
    (definition,) = house.executions.definitions
    (job,) = definition.jobs
    assert (job.service, job.on.role) == ("node-prober", "scanner")
    assert "$" not in job.params["request"]
    request = request_from_json(job.params["request"])
    assert isinstance(request, ProbeRequest)
    assert (request.target.host, request.target.port, request.protocol) == ("10.0.0.1", 9000, "sui")
    assert request.permission is not None
    assert request.permission.by == "${params.x}"
    assert (request.allowed_networks, request.blocked_hosts) == (("10.0.0.0/8",), (".evil.example",))


async def test_a_request_that_is_repeated_has_one_answer(house: House) -> None:
    await house.add("acme")
    first = await house.scan("10.0.0.1", "acme", protocol="sui", request_id="r1")
    assert await house.scan("10.0.0.1", "acme", protocol="sui", request_id="r1") == first
    assert len(house.executions.definitions) == 1


async def test_bad_input_makes_no_node(house: House) -> None:
    await house.add("acme")
    for target, fields in (
        ("0x7f.1", {}),
        ("192.168.0.1", {"protocol": "sui"}),
        ("10.0.0.1", {"protocol": "nope"}),
        ("10.0.0.1", {"protocol": "sui", "level": 3}),
        ("10.0.0.1", {"protocol": "sui", "level": 7}),
    ):
        answer = await house.scan(target, "acme", **fields)
        assert answer.error
        assert not answer.node_id
    for org in ("", "nope", UNKNOWN):
        assert not (await house.scan("10.0.0.1", org, protocol="sui")).success
    assert await house.store.all("SELECT 1 FROM nodes") == []


async def test_an_inactive_organization_starts_nothing(house: House) -> None:
    await house.add("acme")
    with calling(OWN):
        await house.organizations.SetOrganizationActive(
            nodes_pb2.SetOrganizationActiveRequest(org="acme", active=False), None
        )
    assert (await house.scan("10.0.0.1", "acme", protocol="sui")).error == "Organisation is not active"


async def test_cool_down_budget_and_places(house: House) -> None:
    policy = nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"], daily_budget=2, max_concurrent=1)
    await house.add("acme", policy)
    run = await house.scan("10.0.0.1", "acme", protocol="sui")
    assert "under way" in (await house.scan("10.0.0.2", "acme", protocol="sui")).error
    await house.deliver(run, SCANNED)
    await house.applying.look()
    assert "cool-down" in (await house.scan("10.0.0.1", "acme")).error
    second = await house.scan("10.0.0.2", "acme")
    assert second.success
    await house.deliver(second, SCANNED)
    await house.applying.look()
    assert "budget of 2" in (await house.scan("10.0.0.3", "acme", protocol="sui")).error
    house.clock.advance(24 * 3600 + 1)
    assert (await house.scan("10.0.0.1", "acme")).success


async def test_a_clock_that_was_far_ahead_locks_nobody_out_when_it_is_right_again(house: House) -> None:
    await house.add("acme", nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"], daily_budget=2))
    house.clock.set(365 * 24 * 3600)
    for target in ("10.0.0.1", "10.0.0.2"):
        await house.deliver(await house.scan(target, "acme", protocol="sui"), SCANNED)
        await house.applying.look()
    assert "budget of 2" in (await house.scan("10.0.0.3", "acme", protocol="sui")).error
    house.clock.set(-365 * 24 * 3600)
    house.clock.advance(1)
    assert (await house.scan("10.0.0.1", "acme")).success
    with calling(OWN):
        answer = await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme"), None)
    assert (answer.error, answer.sweep.nodes) == ("", 1)


async def test_a_sweep_is_one_execution_in_lanes_of_what_is_due(house: House) -> None:
    policy = nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"], daily_budget=6, max_concurrent=3)
    await house.add("acme", policy)
    for number in range(1, 9):
        await house.scan(f"10.0.0.{number}", "acme")
    with calling(OWN):
        answer = await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme"), None)
        assert (answer.sweep.nodes, answer.sweep.left_out) == (6, 2)
        assert "budget" in answer.sweep.left_out_reason
        (definition,) = house.executions.definitions
        assert [list(job.needs) for job in definition.jobs] == [[], [], ["batch-1"]]
        assert [job.when for job in definition.jobs] == ["", "", "always()"]
        assert "under way" in (await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme"), None)).error
        runs = [
            (await house.nodes.ListNodeRuns(nodes_pb2.ListNodeRunsRequest(node=f"10.0.0.{number}"), None)).runs[0]
            for number in range(1, 7)
        ]
        assert [run.job for run in runs] == [f"batch-{number}" for number in (1, 1, 2, 2, 3, 3)]
        for batch in (runs[:2], runs[2:4]):
            await house.deliver_batch(batch, {run.node_id: SCANNED for run in batch})
        await house.applying.look()
        request = nodes_pb2.GetSweepRequest(sweep_id=answer.sweep.sweep_id)
        halfway = (await house.nodes.GetSweep(request, None)).sweep
        assert (halfway.scanned, halfway.failed, halfway.HasField("ended_at")) == (4, 0, False)
        await house.end(runs[-1], "failed", "waiting", reason="lost", message="x")
        await house.applying.look()
        over = (await house.nodes.GetSweep(request, None)).sweep
    assert (over.scanned, over.failed, dict(over.risks), dict(over.reasons)) == (4, 2, {"MEDIUM": 4}, {"lost": 2})
    assert over.HasField("ended_at")
    assert dict(over.peers) == {"beta": 6}


# Organizations do not see each other


async def test_no_rpc_shows_or_changes_what_is_another_organizations(house: House) -> None:
    org_id = await house.add("acme")
    await house.add("other")
    node_id = (await house.scan("10.0.0.1", "acme")).node_id
    run = await house.discover(node_id)
    await house.deliver(run, FOUND)
    await house.applying.look()
    await house.scan("10.0.0.1", "other")
    sweep = await _sweep(house, "acme")
    assert sweep
    before = await house.node(node_id)
    own = (await house.scan("10.0.0.1", "other")).node_id
    assert own != node_id
    tried = {
        "ScanNode": lambda: house.scan("10.0.0.1", "other"),
        "DiscoverNode": lambda: house.discover(node_id, org="other"),
        "SweepNodes": lambda: _sweep(house, "other"),
        "GetSweep": lambda: _call(house, nodes_pb2.GetSweepRequest(org="other", sweep_id=sweep)),
        "GetNode": lambda: _call(house, nodes_pb2.GetNodeRequest(org="other", node=node_id)),
        "ListNodes": lambda: _call(house, nodes_pb2.ListNodesRequest(org="other")),
        "ListNodeRuns": lambda: _call(house, nodes_pb2.ListNodeRunsRequest(org="other", node=node_id)),
        "GetNodeReport": lambda: _call(house, nodes_pb2.GetNodeReportRequest(org="other", node=node_id)),
    }
    of_nobody = {"ListProtocols", "GetProtocol"}
    methods = nodes_pb2.DESCRIPTOR.services_by_name["NodeService"].methods_by_name
    assert set(tried) | of_nobody == set(methods)
    for attempt in tried.values():
        shown = await _shown(attempt)
        assert node_id not in shown
        assert org_id not in shown
    assert await house.node(node_id) == before


async def test_a_peer_that_is_no_member_is_told_that_there_is_no_organization(house: House) -> None:
    policy = nodes_pb2.OrganizationPolicy(members=["scanners", "c" * 52])
    policy.MergeFrom(NETWORKS)
    org_id = await house.add("acme", policy)
    node_id = (await house.scan("10.0.0.1", "acme")).node_id
    org = "acme"
    attempts: dict[str, Message] = {
        "UpdateOrganization": nodes_pb2.UpdateOrganizationRequest(org=org, name="x"),
        "SetOrganizationActive": nodes_pb2.SetOrganizationActiveRequest(org=org),
        "GetOrganization": nodes_pb2.GetOrganizationRequest(org=org_id),
        "ListOrganizations": nodes_pb2.ListOrganizationsRequest(),
        "ScanNode": nodes_pb2.ScanNodeRequest(org=org_id, target="10.0.0.1", protocol="sui"),
        "DiscoverNode": nodes_pb2.DiscoverNodeRequest(node_id=node_id),
        "SweepNodes": nodes_pb2.SweepNodesRequest(org=org),
        "GetSweep": nodes_pb2.GetSweepRequest(sweep_id=1),
        "GetNode": nodes_pb2.GetNodeRequest(node=node_id),
        "ListNodes": nodes_pb2.ListNodesRequest(),
        "ListNodeRuns": nodes_pb2.ListNodeRunsRequest(node="10.0.0.1"),
        "GetNodeReport": nodes_pb2.GetNodeReportRequest(node=node_id),
    }
    services = nodes_pb2.DESCRIPTOR.services_by_name
    methods = {name for service in services.values() for name in service.methods_by_name}
    assert set(attempts) == methods - {"ListProtocols", "GetProtocol", "AddOrganization"}
    for request in attempts.values():
        shown = await _shown(lambda request=request: _call(house, request, OTHER))  # type: ignore[misc]
        assert node_id not in shown
        assert org_id not in shown
        assert "acme" not in shown
    assert house.executions.definitions == []
    house.around.roles_of[OTHER] = frozenset({"scanners"})
    assert org_id in await _shown(lambda: _call(house, nodes_pb2.ListOrganizationsRequest(), OTHER))


async def test_a_node_is_found_without_looking_at_every_organization(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await house.add(f"org{number}")
    node_id = (await house.scan("10.0.0.1", "org7")).node_id
    read: list[str] = []
    made = repository.to_organization

    def noted(row: sqlite3.Row) -> Organization:
        read.append(row["slug"])
        return made(row)

    monkeypatch.setattr(repository, "to_organization", noted)
    assert (await house.node(node_id)).node.org_slug == "org7"
    assert (await house.node("10.0.0.1")).node.node_id == node_id
    assert set(read) == {"org7"}


async def test_organizations_are_named_once_and_their_policies_are_checked(house: House) -> None:
    await house.add("acme")
    for slug, reason in (
        ("acme", Reason.ALREADY_EXISTS),
        ("Acme", Reason.INVALID_NAME),
        (UNKNOWN, Reason.INVALID_NAME),
    ):
        with pytest.raises(PeerdError) as refused:
            await house.add(slug)
        assert refused.value.reason is reason
    wrong = nodes_pb2.OrganizationPolicy(
        allowed_networks=["10.0.0.1/8", "x"],
        blocked_hosts=["0x7f.1", "a:80"],
        allowed_protocols=["nope"],
        max_level=4,
        cool_down="soon",
        daily_budget=10**7,
        allow_special=["multicast"],
        permission=nodes_pb2.ScanPermission(by="x"),
    )
    with pytest.raises(PeerdError) as refused:
        await house.add("other", wrong)
    assert {violation.field.removeprefix("policy.") for violation in refused.value.violations} == {
        "allowed_networks[0]",
        "allowed_networks[1]",
        "blocked_hosts[0]",
        "blocked_hosts[1]",
        "allowed_protocols[0]",
        "max_level",
        "cool_down",
        "daily_budget",
        "allow_special[0]",
        "permission",
    }
    with calling(OWN):
        rows = await house.organizations.ListOrganizations(nodes_pb2.ListOrganizationsRequest(page_size=1), None)
    assert [item.slug for item in rows.organizations] == ["acme"]


async def test_lists_have_pages_and_filters(house: House) -> None:
    await house.add("acme")
    for number in range(1, 6):
        await house.scan(f"10.0.0.{number}", "acme", protocol="sui" if number % 2 else "")
    seen: list[str] = []
    token = ""
    while True:
        page = await _call(house, nodes_pb2.ListNodesRequest(page_size=2, page_token=token))
        seen += [node.target for node in page.nodes]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"10.0.0.{number}" for number in range(1, 6)]
    fresh = nodes_pb2.ListNodesRequest(statuses=[nodes_pb2.NODE_STATUS_NEW])
    assert [node.target for node in (await _call(house, fresh)).nodes] == ["10.0.0.2", "10.0.0.4"]
    sui = await _call(house, nodes_pb2.ListNodesRequest(protocol="SUI"))
    assert [node.target for node in sui.nodes] == ["10.0.0.1", "10.0.0.3", "10.0.0.5"]
    assert all(node.running.run_id for node in sui.nodes)
    with pytest.raises(PeerdError) as refused:
        await _call(house, nodes_pb2.ListNodesRequest(statuses=[77]))  # type: ignore[list-item]
    assert refused.value.reason is Reason.INVALID_ARGUMENT


async def _sweep(house: House, org: str) -> int:
    answer = await _call(house, nodes_pb2.SweepNodesRequest(org=org))
    return int(answer.sweep.sweep_id)


async def _call(house: House, request: Message, caller: Any = OWN) -> Any:
    name = request.DESCRIPTOR.name.removesuffix("Request")
    servicer: Any = house.nodes if hasattr(type(house.nodes), name) else house.organizations
    with calling(caller):
        return await getattr(servicer, name)(request, None)


async def _shown(attempt: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    try:
        return str(await attempt())
    except PeerdError as error:
        return f"{error.message} {error.next_action}"
