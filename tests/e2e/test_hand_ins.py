"""A scan of loopback on one peer, signed by that peer, ingested on another: the example, on real daemons with nmap."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from peerd.failpoints import FAILPOINTS

from .fleet import Daemon, Fleet, wait_for
from .test_port_scans import open_ports, without_times
from .workflow import Run, start, tree

EXAMPLE = Path(__file__).parents[2] / "examples" / "scan-loopback.yaml"
ON_THE_WAY = [
    *("job.exit.before_commit", "job.exit.after_commit"),
    *(name for name in FAILPOINTS if name.startswith("scan_hand_in.")),
]
pytestmark = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and shutil.which("nmap") is None, reason="nmap is not installed"
)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """c orders, a scans, b collects."""
    made = Fleet(("c", "b", "a"))
    try:
        c, b, a = made["c"], made["b"], made["a"]
        c.peerd("init", "--name", "c", "--listen", f"{c.host}:{c.port}")
        c.start()
        c.peer_id = c.json("status")["peer_id"]
        made.join(b, role="collector")
        b.peer_id = b.json("status")["peer_id"]
        scans = f'\n[scans]\nallowed_networks = ["127.0.0.0/8"]\nhand_in_to = "{b.peer_id}"\n'
        made.join(a, role="scanner", configure=scans)
        a.peer_id = a.json("status")["peer_id"]
        made.wait_until_all_see_all()
        yield made
    finally:
        made.close()


def scan(fleet: Fleet, ports: list[int]) -> Run:
    """The example; with so many ports that nmap would not list the closed ones."""
    definition = yaml.load(EXAMPLE.read_text(), yaml.BaseLoader)
    return start(fleet, "c", definition, ports=",".join(("1-40", *map(str, ports))))


def collected(fleet: Fleet) -> list[dict[str, Any]]:
    """The ingest jobs of the collector, oldest first."""
    jobs: list[dict[str, Any]] = fleet["b"].json("scans", "list", "--oldest-first")["jobs"]
    return jobs


def ingested(fleet: Fleet, run: Run, count: int) -> dict[str, Any]:
    """The newest ingest job, once the workflow is over and the collector has so many."""
    assert run.wait(90) == "COMPLETED"
    wait_for(lambda: len(collected(fleet)) >= count, 90, "the scan is handed in", pause=0.2)
    fleet["b"].peerctl("scans", "watch", str(collected(fleet)[-1]["ingest_job_id"]))
    return collected(fleet)[-1]


def hand_ins(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("scans", "hand-ins")["hand_ins"]
    return found


def test_the_example_fills_the_inventory_with_what_the_peer_signed(fleet: Fleet) -> None:
    a, b = fleet["a"], fleet["b"]
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [server.getsockname()[1] for server in servers]
        run = scan(fleet, ports)
        job = ingested(fleet, run, 1)
        assert (job["state"], job["hosts"], job["ports"]) == ("INGEST_STATE_COMPLETED", "1", "42")
        assert (job["scanner"], job["submitted_by"], job["vantage"]) == (a.peer_id, a.peer_id, a.peer_id)
        assert set(tree(run.home)) == {"scan/scan.json", "scan/scan.xml"}, "no key, no signature: only what nmap saw"
        (sent,) = hand_ins(a)
        assert (sent["state"], sent["to_name"], sent["ingest_job_id"]) == (
            *("HAND_IN_STATE_HANDED_IN", "b"),
            job["ingest_job_id"],
        )
        assert "handed in" in a.peerctl("scans", "hand-ins").stdout
        assert open_ports(fleet) == dict.fromkeys(ports, "open")
        before = b.json("hosts", "show", "127.0.0.1", "--depth", "2")
        # Once more: nothing but when it was last seen is different.
        second = ingested(fleet, scan(fleet, ports), 2)
        after = b.json("hosts", "show", "127.0.0.1", "--depth", "2")
        assert without_times(after) == without_times(before)
        assert after != before
        first = str(job["ingest_job_id"])
        between = ("inventory", "diff", "--jobs", first, str(second["ingest_job_id"]))
        assert b.json(*between)["differences"] == []
        servers[0].close()
        third = ingested(fleet, scan(fleet, ports), 3)
    assert open_ports(fleet) == {ports[0]: "closed", ports[1]: "open"}
    between = ("inventory", "diff", "--jobs", str(second["ingest_job_id"]), str(third["ingest_job_id"]))
    difference = b.peerctl(*between).stdout
    assert str(ports[0]) in difference and str(ports[1]) not in difference


def test_a_scan_waits_for_a_collector_that_is_away(fleet: Fleet) -> None:
    a, b = fleet["a"], fleet["b"]
    count = len(collected(fleet))
    b.kill()
    assert scan(fleet, []).wait(90) == "COMPLETED"
    wait_for(lambda: int(hand_ins(a)[0]["attempts"]) > 0, 90, "it was tried", pause=0.2)
    (waiting, *_) = hand_ins(a)
    assert waiting["state"] == "HAND_IN_STATE_WAITING" and waiting["reason"] and waiting["next_action"]
    a.kill()
    b.start()
    a.start()
    wait_for(lambda: hand_ins(a)[0]["state"] == "HAND_IN_STATE_HANDED_IN", 90, "it is handed in", pause=0.2)
    assert len(collected(fleet)) == count + 1


@pytest.mark.parametrize("name", ON_THE_WAY)
def test_a_scan_counts_once_though_its_peer_dies_at_every_failpoint(fleet: Fleet, name: str) -> None:
    a = fleet["a"]
    if not a.alive:  # after a test that failed
        a.wait()
        a.start()
    count = len(collected(fleet))
    a.kill()
    a.start(failpoint=name)
    run = scan(fleet, [])
    wait_for(lambda: not a.alive, 90, f"it dies at {name}")
    a.wait()
    a.start()
    job = ingested(fleet, run, count + 1)
    wait_for(lambda: hand_ins(a)[0]["state"] == "HAND_IN_STATE_HANDED_IN", 90, "that is known", pause=0.2)
    sent = hand_ins(a)[0]
    assert (sent["scan_id"], sent["ingest_job_id"]) == (job["scan_id"], job["ingest_job_id"])
    assert len(collected(fleet)) == count + 1
    assert len({one["scan_id"] for one in collected(fleet)}) == count + 1
