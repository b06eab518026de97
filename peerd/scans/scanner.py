"""The program of a job that scans ports: nmap, told nothing but what stands in the lists below.

    python -m peerd.scans.scanner REQUEST OUTPUT --owner JSON

REQUEST is JSON of whoever ordered the job: ``{"targets": ["192.0.2.0/28", "db.example.org"], "ports": "22,8000-8100",
"options": ["versions"]}``. The owner's part, ``{"allowed_networks": [...], "seconds": 600}``, comes from the service's
declaration, where no order can change it. nmap gets a list of arguments, never a shell, and addresses, never names.
OUTPUT gets ``scan.xml`` (and ``scan6.xml`` for IPv6) as nmap wrote it, and ``scan.json``: what was scanned, and how.
With a scanner's key in the variable ``SCANNER_KEY``, each is signed at once: ``scan.signed.json`` is for a collector.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerd.clock import Clock, SystemClock
from peerd.errors import PeerdError, Reason
from peerd.scans.sealing import seal_scan
from peerd.scans.targets import Guard, Resolve, Targets

OPTIONS: dict[str, tuple[str, ...]] = {
    "versions": ("-sV", "--version-intensity", "2"),
    "banners": ("--script", "banner"),
    "certificates": ("--script", "ssl-cert"),
    "assume-up": ("-Pn",),
}
"""What may be asked for, and the arguments that it is."""
ALWAYS = ("-n", "--unprivileged", "-sT", "--noninteractive", "--max-retries", "2")
"""No names are looked up, and nothing is sent but connections: what nmap may do is the same for every user."""
LIST_ALL = ("-d3",)
"""nmap counts closed ports together where there are more than 25 of a host, and then nobody can tell which one closed
since the last scan. With this it lists all."""
MAX_LISTED = 20_000
"""Addresses times ports up to which all are listed: 3 MB of XML."""
MAX_PORTS_TEXT = 1000
_PORTS = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*")
_FILES = {4: "scan.xml", 6: "scan6.xml"}
SUMMARY = "scan.json"
KEY_VARIABLE = "SCANNER_KEY"


@dataclass(frozen=True, kw_only=True)
class ScanRequest:
    """What whoever ordered the job asks for."""

    targets: tuple[str, ...]
    ports: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What the owner of the machine says."""

    allowed_networks: tuple[str, ...] = ()
    seconds: float = 600
    """How long one run of nmap may take."""
    nmap: str = "/usr/bin/nmap"


def parse_request(text: str) -> ScanRequest:
    """Raises INVALID_ARGUMENT naming what is wrong; unknown names are."""
    value = _object(text, "the request", {"targets", "ports", "options"})
    targets, ports, options = value.get("targets"), value.get("ports"), value.get("options", [])
    if not _texts(targets) or not targets:
        raise _invalid("'targets' must be a list of texts")
    if not isinstance(ports, str) or len(ports) > MAX_PORTS_TEXT or not _PORTS.fullmatch(ports):
        raise _invalid("'ports' must be numbers and ranges such as '22,8000-8100'")
    for piece in ports.split(","):
        first, _, last = piece.partition("-")
        if not 1 <= int(first) <= int(last or first) <= 65535:
            raise _invalid(f"'ports': {piece} is not within 1 and 65535, or ends before it begins")
    if not _texts(options) or not set(options) <= set(OPTIONS):
        raise _invalid(f"'options' may hold {', '.join(sorted(OPTIONS))}")
    return ScanRequest(targets=tuple(targets), ports=ports, options=tuple(dict.fromkeys(options)))


def parse_owner(text: str) -> Owner:
    """The owner's part. Raises INVALID_ARGUMENT."""
    value = _object(text, "the owner's part", {"allowed_networks", "seconds", "nmap"})
    if "allowed_networks" in value:
        value["allowed_networks"] = tuple(value["allowed_networks"])
    return Owner(**value)


def arguments(request: ScanRequest, targets: Targets, version: int, *, nmap: str, output: Path) -> list[str]:
    """How nmap is called for the addresses of one version of IP."""
    scripts = [OPTIONS[option][1] for option in request.options if OPTIONS[option][0] == "--script"]
    plain = [word for option in request.options if OPTIONS[option][0] != "--script" for word in OPTIONS[option]]
    return [
        nmap,
        *ALWAYS,
        *(["-6"] if version == 6 else []),
        *(LIST_ALL if targets.count(version) * _port_count(request.ports) <= MAX_LISTED else ()),
        *plain,
        *(["--script", ",".join(scripts)] if scripts else []),
        *("-p", request.ports, "-oX", str(output / _FILES[version]), "--"),
        *targets.of_version(version),
    ]


def _port_count(ports: str) -> int:
    ranges = (piece.partition("-") for piece in ports.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def scope_of(request: ScanRequest, targets: Targets, version: int) -> str:
    """What is looked at, as statements of scans say it: what such a scan does not show is closed or gone."""
    ports = ",".join(f"tcp:{piece}" for piece in request.ports.split(","))
    return f"{','.join(targets.of_version(version))} {ports}"


def run(
    request: ScanRequest, owner: Owner, output: Path, *, clock: Clock, resolve: Resolve, key: bytes = b""
) -> list[dict[str, Any]]:
    """Scan, sign, and say what was scanned. Raises PeerdError before anything is sent, or if nmap fails."""
    if key:
        seal_scan(key, b"", clock.now())  # a key that is none is said before anything is sent
    targets = Guard(owner.allowed_networks).admit(request.targets, resolve)
    scans: list[dict[str, Any]] = []
    for version in (4, 6):
        if not targets.of_version(version):
            continue
        argv = arguments(request, targets, version, nmap=owner.nmap, output=output)
        begun = clock.now()
        _call(argv, owner.seconds)
        file = output / _FILES[version]
        if key:
            file.with_suffix(".signed.json").write_bytes(seal_scan(key, file.read_bytes(), clock.now()))
        scans.append(
            {
                "file": file.name,
                "scope": scope_of(request, targets, version),
                "started_at_ms": begun,
                "ended_at_ms": clock.now(),
                "argv": argv,
            }
        )
    (output / SUMMARY).write_text(json.dumps({"scans": scans}, indent=2) + "\n", encoding="utf-8")
    return scans


def resolve_name(name: str) -> Sequence[str]:
    """All addresses that this machine finds for a name, each once. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _call(argv: Sequence[str], seconds: float) -> None:
    try:
        done = subprocess.run(
            argv,
            env={"PATH": "/usr/bin:/bin"},  # without the key
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise PeerdError(
            Reason.INVALID_CONFIG, f"{argv[0]} is not there", next_action="install nmap on that machine"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PeerdError(
            Reason.DEADLINE_EXCEEDED, f"nmap took longer than {seconds:g} seconds and was ended"
        ) from error
    if done.returncode:
        said = done.stderr[-500:].decode("utf-8", "backslashreplace").strip()
        raise PeerdError(Reason.INTERNAL, f"nmap ended with {done.returncode}: {said}")


def _object(text: str, what: str, known: set[str]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _invalid(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict) or not set(value) <= known:
        raise _invalid(f"{what} must be an object with {', '.join(sorted(known))}")
    return value


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _invalid(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_ARGUMENT, message)


def main(argv: Sequence[str]) -> int:
    """Scan; 0, or 2 with the refusal on stderr as ``reason: message``."""
    if len(argv) != 4 or argv[2] != "--owner":
        sys.stderr.write("usage: python -m peerd.scans.scanner REQUEST OUTPUT --owner JSON\n")
        return 2
    try:
        scans = run(
            parse_request(argv[0]),
            parse_owner(argv[3]),
            Path(argv[1]),
            clock=SystemClock(),
            resolve=resolve_name,
            key=os.environ.pop(KEY_VARIABLE, "").encode(),
        )
    except PeerdError as error:
        sys.stderr.write(f"{error}\n{error.next_action}\n")
        return 2
    for scan in scans:
        sys.stdout.write(f"{scan['file']}: {scan['scope']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
