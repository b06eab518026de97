"""The program that scans: what it lets through, and a real scan of loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from peerd.catalog.declaration import check_declaration, from_config
from peerd.catalog.model import HandIn
from peerd.clock import FakeClock, SystemClock
from peerd.config import ScansConfig
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.inventory.model import PortState, Record
from peerd.scans.formats import Format, read_scan
from peerd.scans.offering import COLLECTOR_SERVICE, SERVICE, collector_service, scan_services, scanner_service
from peerd.scans.scanner import (
    ALWAYS,
    KEY_VARIABLE,
    OPTIONS,
    Owner,
    arguments,
    parse_owner,
    parse_request,
    resolve_name,
    run,
    scope_of,
)
from peerd.scans.sealing import seal_scan
from peerd.scans.targets import Guard

needs_nmap = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and shutil.which("nmap") is None, reason="nmap is not installed"
)
LOOPBACK = ("127.0.0.0/8",)


def asked(**changes: Any) -> str:
    return json.dumps({"targets": ["127.0.0.1"], "ports": "22", **changes})


def test_nmap_gets_only_what_the_lists_hold() -> None:
    request = parse_request(asked(targets=["192.0.2.0/28", "2001:db8::1"], ports="22,8000-8100", options=list(OPTIONS)))
    targets = Guard(("192.0.2.0/24", "2001:db8::/32")).admit(request.targets, resolve_name)
    argv = arguments(request, targets, 4, nmap="/usr/bin/nmap", output=Path("output"))
    assert argv == [
        "/usr/bin/nmap", *ALWAYS, "-d3", "-sV", "--version-intensity", "2", "-Pn", "--script", "banner,ssl-cert",
        "-p", "22,8000-8100", "-oX", "output/scan.xml", "--", "192.0.2.0/28",
    ]  # fmt: skip
    six = arguments(request, targets, 6, nmap="/usr/bin/nmap", output=Path("output"))
    assert six[-1] == "2001:db8::1"
    assert "-d3" in argv
    wide = parse_request(asked(targets=["192.0.2.0/28", "2001:db8::1"], ports="1-1251"))
    assert "-d3" not in arguments(wide, targets, 4, nmap="/usr/bin/nmap", output=Path("output"))
    assert "-d3" in arguments(wide, targets, 6, nmap="/usr/bin/nmap", output=Path("output"))
    assert "-6" in six and "output/scan6.xml" in six
    assert scope_of(request, targets, 4) == "192.0.2.0/28 tcp:22,tcp:8000-8100"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        asked(flags=["-sU"]),
        asked(targets=[]),
        asked(targets="127.0.0.1"),
        asked(targets=[1]),
        asked(ports=""),
        asked(ports="22 -oN x"),
        asked(ports="-"),
        asked(ports="0"),
        asked(ports="65536"),
        asked(ports="9-1"),
        asked(ports="U:53"),
        asked(ports="22,"),
        asked(ports=22),
        asked(ports="1," * 600 + "1"),
        asked(options=["--script"]),
        asked(options=["-oN"]),
        asked(options=["versions", "shell"]),
        asked(options="versions"),
        asked(options=[["versions"]]),
    ],
)
def test_a_request_for_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PeerdError) as caught:
        parse_request(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_nothing_runs_where_nothing_is_allowed(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    spy = tmp_path / "nmap"
    spy.write_text(f"#!/bin/sh\ntouch {mark}\n")
    spy.chmod(0o755)
    for owner in (Owner(nmap=str(spy)), Owner(nmap=str(spy), allowed_networks=("0.0.0.0/0",))):
        with pytest.raises(PeerdError) as caught:
            run(parse_request(asked()), owner, tmp_path, clock=FakeClock(), resolve=resolve_name)
        assert caught.value.reason is Reason.TARGET_NOT_ALLOWED
    assert not mark.exists()
    run(
        parse_request(asked()), Owner(nmap=str(spy), allowed_networks=LOOPBACK), tmp_path, clock=FakeClock(),
        resolve=resolve_name,
    )  # fmt: skip
    assert mark.exists()


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 3", Reason.INTERNAL), ("exec sleep 30", Reason.DEADLINE_EXCEEDED)]
)
def test_an_nmap_that_fails_or_hangs_fails_the_job(script: str, reason: Reason, tmp_path: Path) -> None:
    program = tmp_path / "nmap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    owner = Owner(nmap=str(program), allowed_networks=LOOPBACK, seconds=0.5)
    with pytest.raises(PeerdError) as caught:
        run(parse_request(asked()), owner, tmp_path, clock=FakeClock(), resolve=resolve_name)
    assert caught.value.reason is reason
    assert not (tmp_path / "scan.json").exists()


def test_with_a_key_the_scan_is_signed_as_it_is_and_nmap_does_not_see_the_key(tmp_path: Path) -> None:
    program = tmp_path / "nmap"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -oX ]; do shift; done\nenv > "$2"\n')
    program.chmod(0o755)
    owner = Owner(nmap=str(program), allowed_networks=LOOPBACK)
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    clock = FakeClock()
    os.environ[KEY_VARIABLE] = "a key that was left behind"
    try:
        run(parse_request(asked()), owner, tmp_path, clock=clock, resolve=resolve_name, key=key)
    finally:
        del os.environ[KEY_VARIABLE]
    seen = (tmp_path / "scan.xml").read_bytes()
    assert b"PATH=" in seen and b"KEY" not in seen
    assert (tmp_path / "scan.signed.json").read_bytes() == seal_scan(key, seen, clock.now())
    with pytest.raises(PeerdError, match="no Ed25519 key"):
        run(parse_request(asked()), owner, tmp_path, clock=clock, resolve=resolve_name, key=b"nonsense")


def test_without_nmap_one_is_told_to_install_it(tmp_path: Path) -> None:
    owner = Owner(nmap=str(tmp_path / "none"), allowed_networks=LOOPBACK)
    with pytest.raises(PeerdError, match="is not there") as caught:
        run(parse_request(asked()), owner, tmp_path, clock=FakeClock(), resolve=resolve_name)
    assert "install nmap" in caught.value.next_action


def test_the_service_is_offered_only_where_its_owner_allows_networks() -> None:
    assert scanner_service(()) is None
    with pytest.raises(PeerdError):
        scanner_service(["everything"])
    declared = scanner_service(["127.0.0.0/8"], allowed_roles=["operator"])
    assert declared is not None
    assert (declared["name"], declared["network"], declared["allowed_roles"]) == (SERVICE, True, ["operator"])
    argv = declared["argv"]
    assert isinstance(argv, list)
    assert argv.count("${request}") == 1
    assert parse_owner(argv[-1]).allowed_networks == LOOPBACK
    assert collector_service("") is None
    taken = collector_service("http://127.0.0.1:9205")
    assert taken is not None and taken["name"] == COLLECTOR_SERVICE
    assert scan_services(ScansConfig()) == ()
    both = ScansConfig(allowed_networks=("127.0.0.0/8",), scan_roles=("operator",), ingest_url="http://127.0.0.1:9205")
    assert scan_services(both) == (declared, taken)
    me = Identity.generate().peer_id
    (signed,) = scan_services(ScansConfig(allowed_networks=("127.0.0.0/8",), hand_in_to=me))
    wish = check_declaration(from_config(signed), data_dir=Path("/var/lib/peerd")).hand_in
    assert wish == HandIn(to=me, format="nmap_xml", files=("*.xml",))
    (wrong,) = scan_services(ScansConfig(allowed_networks=("127.0.0.0/8",), hand_in_to="collector"))
    with pytest.raises(PeerdError, match=r"hand_in\.to"):
        check_declaration(from_config(wrong), data_dir=Path("/var/lib/peerd"))


@needs_nmap
def test_a_scan_of_loopback_by_the_declared_program(tmp_path: Path) -> None:
    declared = scanner_service(["127.0.0.0/8"])
    assert declared is not None
    (tmp_path / "output").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = [str(word) for word in declared["argv"]]  # type: ignore[attr-defined]

        def call(request: str) -> subprocess.CompletedProcess[str]:
            argv = [word.replace("${request}", request) for word in words]
            env = {"PATH": "/usr/bin:/bin", **declared["env"]}  # type: ignore[dict-item]
            return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

        assert words[0] == sys.executable
        done = call(asked(targets=["localhost", "127.0.0.1"], ports=str(port)))
        if "::1" in resolve_name("localhost"):
            assert done.returncode == 2 and "target_not_allowed" in done.stderr  # ::1 is in no network that is allowed
        done = call(asked(ports=str(port)))
        assert done.returncode == 0, done.stderr
        refused = call(asked(targets=["192.0.2.1"]))
    assert refused.returncode == 2
    assert refused.stderr.startswith("target_not_allowed: 192.0.2.1 is in no network")
    summary = json.loads((tmp_path / "output" / "scan.json").read_text())
    (scan,) = summary["scans"]
    assert scan["scope"] == f"127.0.0.1 tcp:{port}"
    assert 0 < scan["started_at_ms"] <= scan["ended_at_ms"] <= SystemClock().now()
    with (tmp_path / "output" / scan["file"]).open("rb") as stream:
        reading = read_scan(stream)
        ports = [item.port for item in reading if isinstance(item, Record) and item.port]
    assert reading.format is Format.NMAP_XML
    assert [(found.number, found.state) for found in ports] == [(port, PortState.OPEN)]
