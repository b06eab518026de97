"""The program that a job runs, as a process: what it reads, writes and answers with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import SystemClock
from peerd.nodes.message_json import result_from_json, to_json
from peerd.nodes.messages import Kind, Owner, Permission, Special
from peerd.nodes.prober import main
from tests.nodes import servers as sites
from tests.nodes.probing import LOOPBACK, OWNER, request, run
from tests.nodes.servers import as_json, http, pages, servers

HOSTS = 60
EXAMPLES = Path(__file__).parents[2] / "examples" / "protocols"


async def program(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "peerd.nodes.prober", *arguments),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


async def test_the_program_scans_and_writes_result_and_report(tmp_path: Path) -> None:
    async with servers() as running:
        await running.start("127.61.10.1", 8545, http(sites.ETHEREUM))
        asked = request("127.61.10.1", kind=Kind.SCAN, level=2, protocol="ethereum")
        (tmp_path / "request.json").write_text(to_json(asked))

        code, errors = await program(str(tmp_path / "request.json"), str(tmp_path / "out"), "--owner", to_json(OWNER))

    assert (code, errors) == (0, "")
    result = result_from_json((tmp_path / "out" / "result.json").read_bytes())
    assert result.scan is not None
    assert result.scan.version == "Geth/v1.13.14-stable-2bd6bd01"
    assert "# Scan of 127.61.10.1" in (tmp_path / "out" / "report.md").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.md", "result.json"]


async def test_without_an_owner_nothing_is_allowed(tmp_path: Path) -> None:
    code, _ = await program(to_json(request("127.61.10.2")), str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert code == 0
    assert (result["outcome"], result["reason"]) == ("failed", "not_allowed")
    assert "this peer does not allow" in result["message"]
    assert result["connects"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "guess"}, "'guess' is none of discover, scan"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"target": {"host": ""}}, "the target's host"),
        ({"target": {"host": "a\r\nHost: b"}}, "the target's host"),
        ({"target": {"host": "fe80::1%eth0"}}, "the target's host"),
        ({"target": {"host": "a" * 300}}, "the target's host"),
        ({"target": {"host": "h", "port": 0}}, "port"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": 1e9}, "deadline_seconds"),
        ({"connects_per_second": 0}, "connects_per_second"),
        ({"kind": "scan", "level": 7}, "must be 1, 2, or 3"),
        ({"allowed_networks": ["10.0.0.0/40"]}, "allowed network of the organization"),
        ({"allowed_networks": ["10.0.0.1/8"]}, "has host bits set"),
        ({"allow_special": ["multicast"]}, "multicast"),
    ],
)
def test_a_bad_request_is_a_result_that_says_so(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    asked = {**json.loads(to_json(request("192.0.2.1"))), **changes}
    assert main([json.dumps(asked), str(tmp_path)]) == 0
    result = result_from_json((tmp_path / "result.json").read_bytes())
    assert result.reason == "invalid_request"
    assert message in result.message


def test_a_request_that_is_no_json_or_not_there_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "big").write_text(" " * 300_000)
    for given in ("{", str(tmp_path / "nowhere"), str(tmp_path / "big")):
        assert main([given, str(tmp_path)]) == 0
        assert result_from_json((tmp_path / "result.json").read_bytes()).reason == "invalid_request"


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["{", str(tmp_path / "file" / "out")]) == 2
    assert "peerd-prober:" in capsys.readouterr().err


async def test_the_program_needs_neither_grpc_nor_the_store() -> None:
    code = "import sys, peerd.nodes.prober; print([m for m in sys.modules if m.startswith(('grpc', 'peerd.store'))])"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    output, _ = await process.communicate()
    assert output.strip() == b"[]"


async def test_the_example_protocol_is_found_and_scanned() -> None:
    owner = Owner(
        allowed_networks=LOOPBACK,
        allow_special=(Special.LOOPBACK,),
        protocols_directory=str(EXAMPLES),
        connects_per_second=5000,
    )
    node = pages(
        {
            "/status": as_json({"chain": {"name": "mine-main"}, "version": "v1.2.3", "peers": 0}),
            "/admin/keys": as_json(["one"]),
        }
    )
    async with servers() as running:
        await running.start("127.61.10.3", 7000, http(node))
        found = await run(request("127.61.10.3"), owner)
        scanned = await run(
            request("127.61.10.3", kind=Kind.SCAN, level=3, permission=Permission(by="me", reference="here")), owner
        )

    assert [(one.protocol, one.version) for one in found.recognitions] == [("mine", "1.2.3")]
    assert scanned.scan is not None
    assert [one.id for one in scanned.scan.findings] == ["exposed-keys", "unhealthy-peers"]


async def test_protocol_files_that_are_wrong_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('name = "bad"')
    result = await run(request("127.61.10.4"), Owner(protocols_directory=str(tmp_path)))
    assert result.reason == "internal"
    assert "bad.toml: probes" in result.message


async def test_many_hosts_are_discovered_at_once_within_bounds() -> None:
    """Hosts of all kinds, 20 at a time: every one judged rightly, with a bounded number of connections."""
    kinds = [
        ("sui", 9000, sites.SUI),
        ("ethereum", 8545, sites.ETHEREUM),
        ("arweave", 1984, sites.ARWEAVE),
        ("", 0, None),
    ]
    hosts = [(f"127.62.{number // 250}.{number % 250 + 1}", *kinds[number % len(kinds)]) for number in range(HOSTS)]
    at_once = asyncio.Semaphore(20)
    clock = SystemClock()

    async def judged(host: str, expected: str, port: int) -> bool:
        async with at_once:
            result = await run(request(host, port or 9000, deadline_seconds=60.0))
        assert len(result.connects) < 40
        return [one.protocol for one in result.recognitions] == ([expected] if expected else [])

    async with servers() as running:
        for host, _, port, site in hosts:
            if site is not None:
                await running.start(host, port, http(site))
        began = clock.monotonic()
        async with asyncio.timeout(100):
            right = await asyncio.gather(*(judged(host, name, port) for host, name, port, _ in hosts))
        seconds = clock.monotonic() - began
    assert all(right)
    print(f"{HOSTS} hosts in {seconds:.1f} s")
