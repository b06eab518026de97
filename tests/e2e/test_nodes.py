"""Nodes of organizations on real daemons against real servers on loopback: both scenarios of the source word for word,
probing from another peer than the one asked, one scan for many requests, sweeps over kills. What was dialed is written
down by the servers, outside of peerd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from peerd.client import Client
from peerd.failpoints import FAILPOINTS
from peerd.v1 import nodes_pb2
from tests.nodes.servers import SUI, Asked, Page, http

from .fleet import Daemon, Fleet, wait_for

T = TypeVar("T")

pytestmark = pytest.mark.timeout(300)

OF_NODES = [name for name in FAILPOINTS if name.startswith("nodes.")]
NET = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 250}"
"""Of this test process, so that two do not serve at one address."""
OUTSIDE = f"{NET.rpartition('.')[0]}.251.1"
PROBER = f"""
[nodes]
prober = true
allowed_networks = ["{NET}.0/24"]
allow_special = ["loopback"]
max_running = 2
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "nodes" / "sweep.sh"
NETWORK = ("--network", "127.0.0.0/8", "--special", "loopback")


class Sites:
    """A Sui node on many loopback addresses, and how often each was asked for its chain."""

    def __init__(self, hosts: list[str]) -> None:
        self.asked: Counter[str] = Counter()
        self.dialed: Counter[str] = Counter()
        self._hosts = hosts
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for host in self._hosts:
                await stack.enter_async_context(await asyncio.start_server(self._handler(host), host, 9000))
            self._ready.set()
            await self._stop.wait()

    def _handler(self, host: str) -> Any:
        def site(asked: Asked) -> Page:
            if b"sui_getChainIdentifier" in asked.body:
                self.asked[host] += 1
            return SUI(asked)

        serve = http(site)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.dialed[host] += 1
            with contextlib.suppress(ConnectionError):  # a port scan hangs up at once
                await serve(reader, writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        return handle

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    made = Sites([f"{NET}.{number}" for number in range(1, 180)] + [OUTSIDE])
    yield made
    made.close()


@pytest.fixture(scope="module")
def probers() -> Iterator[Fleet]:
    """c, which probes nothing itself, and a and b, which do."""
    made = Fleet(("c", "a", "b"))
    try:
        made.found(configure={"a": PROBER, "b": PROBER})
        yield made
    finally:
        made.close()


def document(daemon: Daemon, *args: str, code: int = 0) -> dict[str, Any]:
    answer = json.loads(daemon.peerctl(*args, "-o", "json", code=code).stdout)
    assert isinstance(answer, dict)
    return answer


def ask(daemon: Daemon, call: Callable[[Client], Awaitable[T]]) -> T:
    """What tests poll is asked in this process: an interpreter for each look would take all of a small machine."""

    async def asked() -> T:
        async with Client(socket=daemon.socket) as peerd:
            return await call(peerd)

    return asyncio.run(asked())


def is_scanned(daemon: Daemon, target: str, org: str) -> bool:
    found = ask(daemon, lambda peerd: peerd.node(target, org=org)).node
    return found.status == nodes_pb2.NODE_STATUS_SCANNED


def test_both_scenarios_of_the_source(probers: Fleet, sites: Sites) -> None:
    c = probers["c"]
    org_id = document(c, "orgs", "add", "myorg", *NETWORK)["organization"]["org_id"]

    # 1. Initial scan attempt
    first = document(c, "nodes", "scan", f"{NET}.1", "--org", "myorg", code=1)
    node_id = first["node_id"]
    assert first == {
        "error": "Protocol not provided and node requires discovery",
        "next_action": "run-discovery",
        "node_id": node_id,
        "org_id": org_id,
    }
    # 2. Run discovery for the node: it is updated and its status becomes 'discovered'
    found = document(c, "nodes", "discover", node_id, "--host", f"{NET}.1")
    assert (found["status"], found["protocol"], found["next_action"]) == ("discovered", "sui", "run-scan")
    assert found["peer"] in ("a", "b")
    node = document(c, "nodes", "show", f"{NET}.1", "--org", "myorg", "--runs", "0")["node"]
    assert (node["status"], node["protocol"], node["ip"]) == ("NODE_STATUS_DISCOVERED", "sui", f"{NET}.1")
    # 3. Re-run scan: it proceeds with the discovered protocol
    ready = document(c, "nodes", "scan", f"{NET}.1", "--org", org_id, "--wait")
    scan = ready.pop("scan")
    assert ready == {
        "success": True,
        "status": "ready_to_scan",
        "node_id": node_id,
        "org_id": org_id,
        "protocol": "sui",
        "next_action": None,
        "run_id": ready["run_id"],
        "workflow_execution_id": ready["workflow_execution_id"],
    }
    assert scan["status"] == "scanned"
    assert scan["peer"] in ("a", "b")

    # Scenario 2: with the protocol, discovery is skipped
    direct = document(c, "nodes", "scan", f"{NET}.2", "--org", "myorg", "--protocol", "sui", "--wait")
    assert (direct["status"], direct["next_action"], direct["scan"]["status"]) == ("ready_to_scan", None, "scanned")
    assert [run["kind"] for run in document(c, "nodes", "show", f"{NET}.2")["runs"]] == ["NODE_RUN_KIND_SCAN"]

    # And what follows from them
    report = document(c, "nodes", "report", node_id)
    assert report["result"]["scan"]["protocol"] == "sui"
    assert f"{NET}.1" in c.peerctl("nodes", "report", f"{NET}.1", "--org", "myorg").stdout
    again = document(c, "nodes", "scan", f"{NET}.1", "--org", "myorg", code=1)
    assert "cool-down" in again["error"]
    assert again["next_action"] == "wait"
    shown = document(c, "nodes", "show", node_id)
    assert [item["event"] for item in shown["history"]] == ["created", "discovered", "scanned"]
    audited = [(entry["method"], entry["target"]) for entry in document(c, "audit", "list")["entries"]]
    assert any(method == "ScanNode" and f"{NET}.2" in target for method, target in audited)
    assert sum(method == "EndNodeRun" and node_id in target for method, target in audited) == 2
    listed = document(c, "nodes", "list", "--org", "myorg", "--status", "scanned", "--protocol", "sui")["nodes"]
    assert [item["target"] for item in listed] == [f"{NET}.1", f"{NET}.2"]


def test_what_a_scan_saw_is_in_the_inventory(probers: Fleet, sites: Sites) -> None:
    """Through an ingest job of its own, as a scan that this peer has signed."""
    c, host = probers["c"], f"{NET}.50"
    document(c, "orgs", "add", "listed", *NETWORK)
    scan = document(c, "nodes", "scan", host, "--org", "listed", "--protocol", "sui", "--wait")
    jobs = document(c, "scans", "list")["jobs"]
    (job,) = [job for job in jobs if job["scan_id"] == f"node-scan-{scan['run_id']}"]
    c.peerctl("scans", "watch", job["ingest_job_id"])
    shown = document(c, "hosts", "show", host, "--depth", "3")
    assert "listed" in json.dumps(shown)
    ports = document(c, "inventory", "ports", "--where", f"address={host} AND organization=listed AND port=9000")
    (port,) = ports["ports"]
    assert (port["number"], port["state"]) == (9000, "open")


def test_the_example_makes_an_organization_sweeps_it_and_shows_what_it_found(
    probers: Fleet, sites: Sites, tmp_path: Path
) -> None:
    c, silent = probers["c"], f"{NET}.200"
    ctl = tmp_path / "peerctl"
    ctl.write_text(f'#!/bin/sh\nexec {sys.executable} -m peerd.cli "$@"\n')
    ctl.chmod(0o755)
    environment = os.environ | {"PEERD_SOCKET": str(c.socket), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [EXAMPLE, "example", "127.0.0.0/8", f"{NET}.51", f"{NET}.52", silent],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert "3: 2 scanned, 1 failed" in done.stdout
    assert f"# Scan of {NET}.51" in done.stdout
    assert f"# Scan of {NET}.52" in done.stdout
    listed = {node["target"]: node for node in document(c, "nodes", "list", "--org", "example")["nodes"]}
    assert listed[silent]["reason"] == "unreachable"


def test_refusals_in_the_words_of_the_source(probers: Fleet) -> None:
    c = probers["c"]
    document(c, "orgs", "add", "asleep", *NETWORK)
    document(c, "orgs", "deactivate", "asleep")
    unknown = "00000000-0000-4000-8000-000000000000"
    cases = [
        (("scan", f"{NET}.1"), "Organization ID is required for target scanning"),
        (("scan", f"{NET}.1", "--org", "no-such"), "Invalid organization ID format - must be a valid UUID"),
        (("scan", f"{NET}.1", "--org", unknown), "Organisation not found"),
        (("scan", f"{NET}.1", "--org", "asleep"), "Organisation is not active"),
        (("discover", "no-uuid", "--host", f"{NET}.1"), "Invalid node ID format"),
        (("discover", unknown, "--host", f"{NET}.1"), "Node not found"),
    ]
    for args, error in cases:
        assert document(c, "nodes", *args, code=1) == {"error": error, "next_action": None}
        assert f"error: {error}\nnext: " in c.peerctl("nodes", *args, code=1).stderr, "a person is told where to look"
    document(c, "orgs", "activate", "asleep")
    nope = document(c, "nodes", "scan", f"{NET}.1", "--org", "asleep", "--protocol", "nope", code=1)
    assert nope == {"error": "Protocol 'nope' not found", "next_action": None}
    said = c.peerctl("nodes", "scan", f"{NET}.1", "--org", "asleep", code=1).stderr
    assert "next: peerctl nodes discover " in said
    node_id = said.split()[-1]
    other = document(c, "nodes", "discover", node_id, "--host", f"{NET}.9", code=1)
    assert other["error"].startswith(f"Host '{NET}.9' is not the target of this node")
    assert document(c, "protocols", "list")["protocols"]


def test_only_networks_that_both_allow_are_dialed(probers: Fleet, sites: Sites) -> None:
    """The organization allows all of loopback, the peers that probe one network of it."""
    c = probers["c"]
    document(c, "orgs", "add", "both", *NETWORK)
    outside = document(c, "nodes", "scan", OUTSIDE, "--org", "both", "--protocol", "sui", "--wait", code=1)
    assert (outside["scan"]["status"], outside["scan"]["reason"]) == ("error", "not_allowed")
    assert sites.dialed[OUTSIDE] == 0
    named = document(c, "nodes", "scan", "localhost:9000", "--org", "both", "--protocol", "sui", "--wait", code=1)
    assert named["scan"]["reason"] == "not_allowed"
    document(c, "orgs", "set", "both", "--network", "127.0.99.0/24")
    refused = document(c, "nodes", "scan", f"{NET}.3", "--org", "both", "--protocol", "sui", code=1)
    assert "not in a network" in refused["error"]


def test_twenty_requests_at_once_are_one_node_and_one_scan(probers: Fleet, sites: Sites) -> None:
    c = probers["c"]
    document(c, "orgs", "add", "twenty", *NETWORK)

    async def twenty(peerd: Client) -> list[nodes_pb2.NodeAnswer]:
        calls = (peerd.scan_node(f"{NET}.5", org="twenty", protocol="sui") for _ in range(20))
        return list(await asyncio.gather(*calls))

    answers = ask(c, twenty)
    assert all(answer.success for answer in answers)
    assert len({(answer.node_id, answer.run_id) for answer in answers}) == 1
    wait_for(lambda: is_scanned(c, f"{NET}.5", "twenty"), 60, "it is scanned")
    assert sites.asked[f"{NET}.5"] == 1
    assert len(document(c, "nodes", "list", "--org", "twenty")["nodes"]) == 1


def test_an_organization_is_there_for_its_members_only(probers: Fleet) -> None:
    c, a, b = probers["c"], probers["a"], probers["b"]
    document(c, "orgs", "add", "closed", *NETWORK, "--member", a.peer_id)
    document(c, "nodes", "scan", f"{NET}.6", "--org", "closed", code=1)
    seen = document(a, "nodes", "list", "--org", "closed", "--peer", "c")["nodes"]
    assert [node["target"] for node in seen] == [f"{NET}.6"]
    strange = document(b, "nodes", "scan", f"{NET}.6", "--org", "closed", "--peer", "c", code=1)
    assert strange["error"] == "Invalid organization ID format - must be a valid UUID"
    stranger = document(b, "nodes", "discover", seen[0]["node_id"], "--peer", "c", code=1)
    assert stranger["error"] == "Node not found"
    everything = document(b, "nodes", "list", "--peer", "c")["nodes"]
    assert seen[0]["node_id"] not in {node["node_id"] for node in everything}


@pytest.mark.parametrize("failpoint", OF_NODES)
def test_a_kill_anywhere_leaves_one_scan_applied_once(probers: Fleet, sites: Sites, failpoint: str) -> None:
    c = probers["c"]
    org, target = failpoint.replace(".", "-").replace("_", "-"), f"{NET}.{40 + OF_NODES.index(failpoint)}"
    document(c, "orgs", "add", org, *NETWORK)
    c.stop()
    c.start(failpoint=failpoint)
    assert c.process is not None
    c.peerctl("nodes", "scan", target, "--org", org, "--protocol", "sui", code=None)
    c.wait(60)
    c.start()
    # Asked again, as whoever got no answer does. What was applied before the kill cools down.
    document_again = json.loads(
        c.peerctl("nodes", "scan", target, "--org", org, "--protocol", "sui", "-o", "json", code=None).stdout
    )
    assert document_again.get("success") or "cool-down" in document_again["error"]
    wait_for(lambda: is_scanned(c, target, org), 60, "it is scanned")
    shown = document(c, "nodes", "show", target, "--org", org)
    assert [item["event"] for item in shown["history"]] == ["created", "protocol_given", "scanned"]
    assert len(shown["runs"]) == 1
    assert sites.asked[target] == 1


def test_a_sweep_survives_the_kill_of_a_prober_and_of_the_orchestrator(probers: Fleet, sites: Sites) -> None:
    c, b = probers["c"], probers["b"]
    probers.wait_until_all_see_all(60)  # what was restarted before this is back: both are to probe
    document(c, "orgs", "add", "swept", *NETWORK, "--max-concurrent", "4")
    targets = [f"{NET}.{number}" for number in range(10, 40)]
    for target in targets:
        assert not ask(c, lambda peerd, target=target: peerd.scan_node(target, org="swept")).success  # type: ignore[misc]
    sweep = document(c, "nodes", "sweep", "--org", "swept", "--no-wait")["sweep"]
    sweep["sweep_id"] = int(sweep["sweep_id"])
    assert sweep["nodes"] == len(targets)

    def ended() -> int:
        found = ask(c, lambda peerd: peerd.sweep(sweep["sweep_id"]))
        return found.scanned + found.failed

    wait_for(lambda: ended() >= 8, 60, "the first are over")
    b.kill()
    c.kill()
    c.start()
    b.start()
    wait_for(lambda: ended() == len(targets), 120, "all are over", pause=0.3)
    over = document(c, "nodes", "show-sweep", str(sweep["sweep_id"]))["sweep"]
    assert (over["scanned"], over["failed"]) == (len(targets), 0), over
    assert set(over["peers"]) == {"a", "b"}
    assert {target: sites.asked[target] for target in targets} == dict.fromkeys(targets, 1)
    execution = c.json("executions", "show", str(sweep["workflow_execution_id"]))
    wait_for(
        lambda: c.json("executions", "show", str(sweep["workflow_execution_id"]))["status"].endswith("COMPLETED"),
        60,
        "the execution is completed",
    )
    assert len(execution["jobs"]) == -(-len(targets) // 4), "four nodes in a job"
    nothing = document(c, "nodes", "sweep", "--org", "swept", code=1)
    assert nothing == {"error": "No node is due", "next_action": "wait"}


@pytest.mark.parametrize("failpoint", [name for name in OF_NODES if ".apply." in name])
def test_a_kill_while_a_batch_is_applied_leaves_each_of_its_nodes_scanned_once(
    probers: Fleet, sites: Sites, failpoint: str
) -> None:
    c = probers["c"]
    org = f"batch-{failpoint.replace('.', '-').replace('_', '-')}"
    document(c, "orgs", "add", org, *NETWORK, "--max-concurrent", "1")
    first = 60 + 8 * OF_NODES.index(failpoint)
    targets = [f"{NET}.{number}" for number in range(first, first + 8)]
    for target in targets:
        ask(c, lambda peerd, target=target: peerd.scan_node(target, org=org))  # type: ignore[misc]
    c.stop()
    c.start(failpoint=failpoint)
    c.peerctl("nodes", "sweep", "--org", org, "--no-wait", code=None)
    c.wait(60)
    c.start()
    wait_for(lambda: all(is_scanned(c, target, org) for target in targets), 60, "all are scanned", pause=0.3)
    for target in targets:
        shown = document(c, "nodes", "show", target, "--org", org)
        assert [item["event"] for item in shown["history"]] == ["created", "discovered", "scanned"]
        assert [run["job"] for run in shown["runs"]] == [f"batch-{1 + targets.index(target) // 4}"]
    assert {target: sites.asked[target] for target in targets} == dict.fromkeys(targets, 1)


def test_what_an_organization_may_not_dial_any_more_is_not_dialed_by_a_sweep_that_began_before(
    probers: Fleet, sites: Sites
) -> None:
    c = probers["c"]
    document(c, "orgs", "add", "narrowed", "--network", f"{NET}.0/24", "--special", "loopback", "--max-concurrent", "1")
    targets = [f"{NET}.{number}" for number in range(96, 136)]
    for target in targets:
        ask(c, lambda peerd, target=target: peerd.scan_node(target, org="narrowed"))  # type: ignore[misc]
    sweep = document(c, "nodes", "sweep", "--org", "narrowed", "--no-wait")["sweep"]
    wait_for(lambda: sites.asked[targets[0]] > 0, 60, "the first batch is under way")
    document(c, "orgs", "set", "narrowed", "--network", f"{NET}.96/28")  # to 111: four of the ten batches
    over = document(c, "nodes", "show-sweep", str(sweep["sweep_id"]))["sweep"]
    assert over["reasons"]["withdrawn"] >= not_begun(sites, targets), "all that had not begun, at once"
    wait_for(lambda: has_ended(c, sweep), 60, "what had begun comes to its end")
    again = document(c, "nodes", "sweep", "--org", "narrowed")["sweep"]
    assert again["left_out"] == 24
    for target in targets[:16]:
        assert is_scanned(c, target, "narrowed")
    assert {target: sites.dialed[target] for target in targets[16:]} == dict.fromkeys(targets[16:], 0)
    shown = document(c, "nodes", "show", targets[-1], "--org", "narrowed")
    assert "not in a network" in shown["node"]["message"]


def test_an_organization_that_is_made_inactive_dials_nothing_more(probers: Fleet, sites: Sites) -> None:
    c = probers["c"]
    document(c, "orgs", "add", "ended", *NETWORK, "--max-concurrent", "1")
    targets = [f"{NET}.{number}" for number in range(140, 180)]
    for target in targets:
        ask(c, lambda peerd, target=target: peerd.scan_node(target, org="ended"))  # type: ignore[misc]
    sweep = document(c, "nodes", "sweep", "--org", "ended", "--no-wait")["sweep"]
    wait_for(lambda: sites.asked[targets[0]] > 0, 60, "the first is under way")
    document(c, "orgs", "deactivate", "ended")
    untouched = not_begun(sites, targets)
    nodes = document(c, "nodes", "list", "--org", "ended", "--status", "error")["nodes"]
    assert {node["reason"] for node in nodes} == {"withdrawn"}
    assert len(nodes) >= untouched > 0, "all that had not begun"
    wait_for(lambda: has_ended(c, sweep), 60, "the execution ends")
    document(c, "orgs", "activate", "ended")
    document(c, "nodes", "scan", targets[-1], "--org", "ended", "--protocol", "sui", "--wait")
    others = targets[-untouched:-1]
    assert {target: sites.dialed[target] for target in others} == dict.fromkeys(others, 0)
    assert sites.asked[targets[-1]] == 1


def not_begun(sites: Sites, targets: list[str]) -> int:
    """How many nodes of a sweep are in batches of four that nobody can have begun with: neither dialed nor the next."""
    begun = [number // 4 for number, target in enumerate(targets) if sites.dialed[target]]
    return len(targets) - 4 * (max(begun) + 2)


def has_ended(daemon: Daemon, sweep: dict[str, Any]) -> bool:
    """Its execution, and each of its nodes."""
    status: str = daemon.json("executions", "show", str(sweep["workflow_execution_id"]))["status"]
    found = ask(daemon, lambda peerd: peerd.sweep(int(sweep["sweep_id"])))
    return status.endswith(("COMPLETED", "FAILED", "CANCELLED")) and found.scanned + found.failed == found.nodes
