"""A scan of loopback on one peer, signed with a registered key, ingested on another: real daemons with a real nmap."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .fleet import Fleet, free_port
from .workflow import Run, start, tree

EXAMPLE = Path(__file__).parents[2] / "examples" / "scan-with-key.yaml"
pytestmark = [
    pytest.mark.skipif(
        os.environ.get("PEERD_REQUIRE_ALL") != "1" and shutil.which("nmap") is None, reason="nmap is not installed"
    ),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """c orders, a scans, b collects."""
    made = Fleet(("c", "a", "b"))
    try:
        c, a, b = made["c"], made["a"], made["b"]
        c.peerd("init", "--name", "c", "--listen", f"{c.host}:{c.port}")
        c.start()
        c.peer_id = c.json("status")["peer_id"]
        key = Ed25519PrivateKey.generate()
        file = made.folder / "scanner.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.chmod(0o600)
        made.join(
            a,
            role="scanner",
            configure='\n[scans]\nallowed_networks = ["127.0.0.0/8"]\n'
            f'\n[secrets.scanner-key]\nfile = "{file}"\nservices = ["port-scan"]\nallowed_peers = ["{c.peer_id}"]\n',
        )
        b.http_listen = f"127.0.0.1:{free_port()}"
        made.join(b, role="collector", configure=f'\n[scans]\ningest_url = "http://{b.http_listen}"\n')
        made.wait_until_all_see_all()
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        b.peerctl("scanners", "add", "a", public)
        yield made
    finally:
        made.close()


def scan(fleet: Fleet, ports: list[int], **changes: Any) -> tuple[Run, str]:
    """The example, changed where its scan job differs; so many ports that nmap would not list the closed ones."""
    definition = yaml.load(EXAMPLE.read_text(), yaml.BaseLoader)
    definition["jobs"][0].update(changes)
    run = start(fleet, "c", definition, ports=",".join(("1-40", *map(str, ports))))
    return run, run.wait(90)


def open_ports(fleet: Fleet) -> dict[int, str]:
    shown = fleet["b"].json("hosts", "show", "127.0.0.1", "--depth", "1")
    return {port["number"]: port["state"] for port in shown["ports"] if port["number"] > 40}


def test_the_example_fills_the_inventory_of_the_collector(fleet: Fleet) -> None:
    with ExitStack() as stack:
        # Ports that no other process of these tests is given, also when one of them is closed.
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", free_port()))) for _ in range(2)]
        ports = [server.getsockname()[1] for server in servers]
        run, status = scan(fleet, ports)
        assert status == "COMPLETED"
        home = tree(run.home)
        (job,) = json.loads(home["ingest/ingest.json"])["jobs"]
        assert (job["state"], job["host_count"], job["port_count"]) == ("completed", 1, 42)
        assert set(home) == {"ingest/ingest.json", "scan/scan.json", "scan/scan.xml"}
        assert open_ports(fleet) == dict.fromkeys(ports, "open")
        before = fleet["b"].json("hosts", "show", "127.0.0.1", "--depth", "2")
        # Once more: nothing but when it was last seen is different.
        assert scan(fleet, ports)[1] == "COMPLETED"
        after = fleet["b"].json("hosts", "show", "127.0.0.1", "--depth", "2")
        assert without_times(after) == without_times(before)
        assert after != before
        second, first = (job["ingest_job_id"] for job in fleet["b"].json("scans", "list")["jobs"])
        assert fleet["b"].json("inventory", "diff", "--jobs", str(first), str(second))["differences"] == []
        servers[0].close()
        assert scan(fleet, ports)[1] == "COMPLETED"
    assert open_ports(fleet) == {ports[0]: "closed", ports[1]: "open"}
    third = fleet["b"].json("scans", "list")["jobs"][0]["ingest_job_id"]
    difference = fleet["b"].peerctl("inventory", "diff", "--jobs", str(second), str(third)).stdout
    assert str(ports[0]) in difference and str(ports[1]) not in difference


def test_what_the_owner_of_the_scanner_does_not_allow_is_not_scanned(fleet: Fleet) -> None:
    jobs = len(fleet["b"].json("scans", "list")["jobs"])
    request = json.dumps({"targets": ["192.0.2.1"], "ports": "${params.ports}"})
    run, status = scan(fleet, [22], params={"request": request})
    assert status == "FAILED"
    assert "target_not_allowed: 192.0.2.1 is in no network" in _said(fleet, run)
    assert len(fleet["b"].json("scans", "list")["jobs"]) == jobs


def test_a_scan_that_nobody_signed_is_not_taken(fleet: Fleet) -> None:
    jobs = len(fleet["b"].json("scans", "list")["jobs"])
    definition = yaml.load(EXAMPLE.read_text(), yaml.BaseLoader)
    del definition["jobs"][0]["secrets"]
    run = start(fleet, "c", definition, ports="22")
    assert run.wait(90) == "FAILED"
    assert len(fleet["b"].json("scans", "list")["jobs"]) == jobs


def _said(fleet: Fleet, run: Run) -> str:
    done: subprocess.CompletedProcess[str] = fleet["c"].peerctl("logs", str(run.id), "scan", "--stderr")
    return done.stdout


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if not key.endswith(("_at", "last_seen", "last_open"))
        }
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value
