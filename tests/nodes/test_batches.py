"""Sweeps probe several nodes in one job: how they are divided, probed within bounds, and told apart when home."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from peerd.clock import SystemClock
from peerd.nodes import batches
from peerd.nodes.batches import probe_all
from peerd.nodes.definition import Batch, Probe, batches_of, lanes_of, least_batch
from peerd.nodes.examining import Outside
from peerd.nodes.message_json import line_from_json, request_from_json, result_from_json, to_json
from peerd.nodes.messages import (
    BatchNode,
    BatchRequest,
    Kind,
    Outcome,
    Owner,
    ProbeRequest,
    ProbeResult,
    Recognition,
    Risk,
    ScanReport,
    Target,
)
from peerd.nodes.model import Node, NodeStatus
from peerd.nodes.prober import main
from peerd.v1 import nodes_pb2
from tests.nodes.house import OWN, House, calling, open_house
from tests.nodes.probing import OWNER, request
from tests.nodes.servers import SUI, Asked, Page, http, servers

SEEN = Recognition(protocol="sui", confidence=0.9)
SCANNED = ProbeResult(
    kind=Kind.SCAN,
    outcome=Outcome.OK,
    recognitions=(SEEN,),
    scan=ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM),
)
HOSTS = [f"127.61.40.{number}" for number in range(1, 13)]


def probes(number: int, level: int = 1) -> list[Probe]:
    return [
        Probe(
            node=Node(
                node_id=f"n{index}", org_id="o", target=f"h{index}", host=f"h{index}", port=None, status=NodeStatus.NEW
            ),
            kind=Kind.SCAN,
            level=level,
        )
        for index in range(number)
    ]


# How they are divided


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("places", [1, 2, 3, 4, 7, 9, 12, 13, 99, 999])
@pytest.mark.parametrize("number", [1, 2, 9, 20, 500, 5000])
def test_every_node_is_in_one_batch_and_never_more_are_probed_at_once_than_there_are_places(
    number: int, places: int, level: int
) -> None:
    asked = probes(number, level)
    made = list(batches_of(asked, places))
    assert [probe for batch in made for probe in batch.probes] == asked
    assert sum(batch.at_once for batch in made if not batch.after) <= places
    by_job: dict[str, Batch] = {}
    for batch in made:
        if batch.after:  # the one that waits takes the places of the one before it, and each is waited for by one
            before = by_job.pop(batch.after)
            assert batch.at_once == before.at_once
            assert batch.seconds_before == before.seconds_before + before.longest_seconds
        by_job[batch.job] = batch
        assert batch.longest_seconds <= 10 * 60


def test_a_large_sweep_uses_every_place_and_starts_a_program_for_a_dozen_nodes() -> None:
    made = list(batches_of(probes(500), 9))
    assert sum(batch.at_once for batch in made if not batch.after) == 9
    assert len(made) == 42
    assert [lanes_of(places) for places in (1, 4, 10, 20)] == [[1], [2, 1, 1], [4, 3, 3], [4, 4, 4, 4, 4]]
    assert least_batch(9, 1) == 12


def test_few_nodes_keep_all_lanes_at_work() -> None:
    assert [len(batch.probes) for batch in batches_of(probes(12), 3)] == [2] * 6
    assert [len(batch.probes) for batch in batches_of(probes(9), 9)] == [3] * 3


# How they are probed


def batch_of(hosts: list[str], at_once: int, **changes: Any) -> BatchRequest:
    whole = request(hosts[0], kind=Kind.SCAN, protocol="sui", **changes)
    nodes = tuple(BatchNode(node_id=host, target=Target(host=host, port=9000), protocol="sui") for host in hosts)
    return BatchRequest.of(whole, nodes, at_once=at_once)


class Crowd:
    """Sui nodes that count who asks them, and how many of them are asked at once."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def site(self, host: str) -> object:
        def answer(asked: Asked) -> Page:
            now = SystemClock().monotonic()
            self.first.setdefault(host, now)
            self.last[host] = now
            if b"sui_getChainIdentifier" in asked.body:
                self.asked[host] += 1
            return SUI(asked)

        return http(answer)

    @property
    def most_at_once(self) -> int:
        """The most hosts whose first and last question have a moment in common."""
        return max(
            sum(self.first[other] <= moment <= self.last[other] for other in self.first)
            for moment in self.first.values()
        )


async def test_each_node_of_a_batch_is_asked_once_and_so_many_at_a_time_as_it_says(tmp_path: Path) -> None:
    crowd = Crowd()
    async with servers() as running:
        for host in HOSTS[1:]:
            await running.start(host, 9000, crowd.site(host))  # type: ignore[arg-type]
        code = await asyncio.to_thread(main, [to_json(batch_of(HOSTS, 3)), str(tmp_path), "--owner", to_json(OWNER)])
    assert code == 0
    assert crowd.asked == dict.fromkeys(HOSTS[1:], 1)
    assert 2 <= crowd.most_at_once <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
    lines = [line_from_json(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line.node_id for line in lines] == HOSTS
    results = [result_from_json(line.result) for line in lines]
    assert [result.reason for result in results] == ["unreachable", *[None] * 11]
    assert all(result.scan is not None and result.scan.protocol == "sui" for result in results[1:])
    assert all(f"# Scan of {line.node_id}" in line.report for line in lines[1:])
    assert {connect.address for connect in results[1].connects} == {HOSTS[1]}


async def test_the_guard_is_asked_for_each_of_them(tmp_path: Path) -> None:
    crowd = Crowd()
    mixed = [HOSTS[0], "10.9.9.9", HOSTS[1]]
    async with servers() as running:
        for host in HOSTS[:2]:
            await running.start(host, 9000, crowd.site(host))  # type: ignore[arg-type]
        lines = await probe_all(
            batch_of(mixed, 2, blocked_hosts=(HOSTS[1],)), OWNER, Outside(clock=SystemClock(), nmap="")
        )
    results = [result_from_json(line.result) for line in lines]
    assert [result.reason for result in results] == [None, "not_allowed", "not_allowed"]
    assert set(crowd.first) == {HOSTS[0]}
    assert [len(result.connects) for result in results[1:]] == [0, 0]


async def test_what_the_owner_allows_in_a_second_is_for_all_of_a_batch_together() -> None:
    """Each of four may dial a quarter as fast: fast ones together never dial faster than one could."""
    crowd, clock = Crowd(), SystemClock()
    slow = Owner(allowed_networks=OWNER.allowed_networks, allow_special=OWNER.allow_special, connects_per_second=20.0)
    async with servers() as running:
        for host in HOSTS[:4]:
            await running.start(host, 9000, crowd.site(host))  # type: ignore[arg-type]
        began = clock.monotonic()
        lines = await probe_all(batch_of(HOSTS[:4], 4), slow, Outside(clock=clock, nmap=""))
        took = clock.monotonic() - began
    results = [result_from_json(line.result) for line in lines]
    dialed = [len(result.connects) for result in results]
    assert all(result.scan is not None for result in results)
    assert took >= (max(dialed) - 1) / (20.0 / 4) - 0.1
    assert sum(dialed) / took <= 20.0 + 4  # each dials its first at once


async def test_a_fault_of_ours_with_one_node_is_its_result_and_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def probe(asked: ProbeRequest, owner: Owner, outside: Outside) -> ProbeResult:
        if asked.target.host == HOSTS[1]:
            raise RuntimeError("a mistake")
        return ProbeResult(kind=asked.kind, outcome=Outcome.OK)

    monkeypatch.setattr(batches, "probe", probe)
    lines = await probe_all(batch_of(HOSTS[:3], 2), OWNER, Outside(clock=SystemClock()))
    assert [result_from_json(line.result).reason for line in lines] == [None, "internal", None]
    assert "RuntimeError: a mistake" in result_from_json(lines[1].result).message
    assert "RuntimeError: a mistake" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": []}, "request.nodes: 0 is not between 1 and 64"),
        ({"nodes": [{"node_id": str(index), "target": {"host": "h"}} for index in range(65)]}, "65 is not between"),
        ({"nodes": [{"node_id": "a", "target": {"host": "h"}}] * 2}, "the same node_id"),
        ({"nodes": [{"target": {"host": "h"}}]}, "node_id"),
        ({"at_once": 0}, "request.at_once: 0 is not between 1 and 8"),
        ({"at_once": 9}, "request.at_once: 9 is not between 1 and 8"),
        ({"target": {"host": "h"}}, "unknown field 'target'"),
    ],
)
def test_a_batch_that_is_none_is_a_result_that_stands_for_all(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    asked = {**dataclasses.asdict(batch_of(HOSTS, 1)), **changes}
    assert main([json.dumps(asked), str(tmp_path)]) == 0
    result = result_from_json((tmp_path / "result.json").read_bytes())
    assert result.reason == "invalid_request"
    assert message in result.message
    assert not (tmp_path / "results.jsonl").exists()


def test_a_batch_survives_the_way() -> None:
    batch = batch_of(HOSTS, 3)
    assert request_from_json(to_json(batch)) == batch
    assert [asked.target.host for asked in batch.requests()] == HOSTS


# What comes home


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        yield found


async def swept(house: House, number: int) -> list[nodes_pb2.NodeRun]:
    """A sweep of so many nodes at one place; their runs."""
    await house.add("acme", nodes_pb2.OrganizationPolicy(allowed_networks=["10.0.0.0/8"], max_concurrent=1))
    for index in range(1, number + 1):
        await house.scan(f"10.0.0.{index}", "acme")
    with calling(OWN):
        await house.nodes.SweepNodes(nodes_pb2.SweepNodesRequest(org="acme"), None)
        return [
            (await house.nodes.ListNodeRuns(nodes_pb2.ListNodeRunsRequest(node=f"10.0.0.{index}"), None)).runs[0]
            for index in range(1, number + 1)
        ]


async def reasons(house: House, runs: list[nodes_pb2.NodeRun]) -> list[str]:
    found = []
    for run in runs:
        node = (await house.node(run.node_id)).node
        found.append("under way" if node.HasField("running") else node.reason)
    return found


async def test_what_is_wrong_with_one_line_is_of_one_node(house: House) -> None:
    runs = await swept(house, 8)
    batch = [run for run in runs if run.job == "batch-1"]
    assert len(batch) == 4
    there, twice, no_json, missing = batch
    more = b'\xff\n{"node_id": "%s"}\n' % missing.node_id.encode()
    more += to_json(line_from_json(json.dumps({"node_id": no_json.node_id, "result": "{", "report": ""}))).encode()
    more += b"\n" + json.dumps({"node_id": twice.node_id, "result": "{", "report": ""}).encode() + b"\n"
    more += json.dumps({"node_id": runs[-1].node_id, "result": to_json(SCANNED), "report": ""}).encode()
    await house.deliver_batch(batch, {there.node_id: SCANNED, twice.node_id: SCANNED}, more=more)
    await house.applying.look()
    assert await reasons(house, batch) == ["", "", "bad_result", "bad_result"]
    assert "says nothing of this node" in (await house.node(missing.node_id)).node.message
    assert await reasons(house, runs[4:]) == ["under way"] * 4  # a batch tells of its own nodes only
    with calling(OWN):
        report = await house.nodes.GetNodeReport(nodes_pb2.GetNodeReportRequest(node=there.node_id), None)
    assert report.markdown == "# Scan"


async def test_a_prober_that_cannot_read_a_batch_says_so_of_all_its_nodes(house: House) -> None:
    runs = (await swept(house, 8))[:4]
    refusal = ProbeResult(kind=Kind.SCAN, outcome=Outcome.FAILED, reason=None, message="older than you")
    await house.deliver(runs[0], refusal)
    await house.applying.look()
    assert {(await house.node(run.node_id)).node.message for run in runs} == {"older than you"}


async def test_a_batch_that_is_lost_ends_all_its_nodes_at_once_and_is_given_up_once(house: House) -> None:
    runs = await swept(house, 8)
    await house.end(runs[0], "running", "waiting")
    await house.applying.look()
    house.clock.advance(4 * 60 + 60 + 60 - 1)
    await house.applying.look()
    assert await reasons(house, runs) == ["under way"] * 8
    house.clock.advance(2)
    await house.applying.look()
    assert await reasons(house, runs) == ["lost"] * 4 + ["under way"] * 4
    assert house.executions.given_up == ["batch-1"]
    await house.deliver_batch(runs[:4], {run.node_id: SCANNED for run in runs[:4]})
    await house.applying.look()
    assert await reasons(house, runs[:4]) == ["lost"] * 4


async def test_of_a_batch_one_that_cannot_be_ended_now_waits_alone(house: House) -> None:
    batch = (await swept(house, 8))[:4]
    house.intake.refusals[batch[0].run_id] = RuntimeError("a mistake of ours")
    await house.deliver_batch(batch, {run.node_id: SCANNED for run in batch})
    await house.applying.look()
    assert await reasons(house, batch) == ["under way", "", "", ""]
    house.intake.refusals.clear()
    await house.applying.look()
    assert {(await house.node(run.node_id)).node.status for run in batch} == {nodes_pb2.NODE_STATUS_SCANNED}
