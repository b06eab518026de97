"""``peerd doctor``: looks at everything on this machine that peerd depends on, and says what to do about it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import grpc

from peerd import __version__
from peerd.client import Client
from peerd.clock import DAY_MS, SystemClock
from peerd.config import Config
from peerd.daemon.hardware import detect_hardware
from peerd.daemon.secret_files import secret_flaws
from peerd.datadir import DataDir
from peerd.errors import PeerdError
from peerd.jobs.runner import ProcessRunner
from peerd.jobs.runner.containers.finding import find_engine
from peerd.scans import hand_ins
from peerd.scans.repository import look
from peerd.store import quarantine
from peerd.store.copies import read_only
from peerd.store.failures import RAISED
from peerd.v1 import registry_pb2

_MIN_SQLITE = (3, 37, 0)
"""STRICT tables, https://sqlite.org/stricttables.html"""
_MAX_OFFSET_MS = 2_000
_FAILED_DAYS = 7
_STA_UNSYNC = 0x0040
"""adjtimex(2): nobody keeps this clock right."""


class Verdict(Enum):
    """How a check turned out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check."""

    name: str
    verdict: Verdict
    message: str
    next_action: str = ""


async def examine(config: Config, *, devices: Path = Path("/dev"), units: Path | None = None) -> list[Finding]:
    """All checks, each on its own: one that cannot be made is a finding, too."""
    peers = await _peers(config)
    found = [
        _versions(),
        _sqlite(),
        *_modes(config),
        _store(config),
        *_quarantine(config),
        *_scans(config),
        _disk(config),
        *_ports(config, peers is not None),
        *(
            Finding(name=f"secret {name}", verdict=Verdict.WARN, message=message, next_action=action)
            for name, message, action in secret_flaws(config)
        ),
    ]
    found += [
        _clock(peers),
        *await _isolation(config),
        await _runners(),
        await _engine(config),
        _serial(devices),
        _unit(units),
    ]
    return found


async def _peers(config: Config) -> list[registry_pb2.Peer] | None:
    """What the daemon says of the peers; None if it does not run."""
    if not config.socket.exists():
        return None
    try:
        async with Client(socket=config.socket, timeout=5) as peerd:
            return list(await peerd.peers())
    except PeerdError:
        return None


def _versions() -> Finding:
    python = ".".join(str(part) for part in sys.version_info[:3])
    message = f"peerd {__version__}, Python {python}, grpc {grpc.__version__}"
    return Finding(name="versions", verdict=Verdict.OK, message=message)


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info < _MIN_SQLITE:
        return Finding(
            name="sqlite",
            verdict=Verdict.FAIL,
            message=f"SQLite {sqlite3.sqlite_version} has no STRICT tables",
            next_action="use a Python that brings SQLite 3.37 or later",
        )
    return Finding(name="sqlite", verdict=Verdict.OK, message=f"SQLite {sqlite3.sqlite_version}")


def _modes(config: Config) -> Iterator[Finding]:
    folder = DataDir(config.data_dir)
    if not folder.initialized:
        yield Finding(
            name="identity",
            verdict=Verdict.FAIL,
            message=f"there is no peer in {config.data_dir}",
            next_action="run 'peerd init' or 'peerd join TOKEN' first",
        )
        return
    for name, path, wanted in (
        ("data directory", config.data_dir, 0o700),
        ("identity key", folder.identity_key, 0o600),
    ):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                name=name,
                verdict=Verdict.FAIL,
                message=f"{path} has mode {mode:04o}; others can read it",
                next_action=f"chmod {wanted:o} {path}",
            )
        else:
            yield Finding(name=name, verdict=Verdict.OK, message=f"{path} has mode {mode:04o}")


def _store(config: Config) -> Finding:
    path = DataDir(config.data_dir).store
    if not path.exists():
        return Finding(name="store", verdict=Verdict.WARN, message="there is no store yet")
    try:
        with closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except RAISED as error:
        verdict = str(error)
    if verdict != "ok":
        return Finding(
            name="store",
            verdict=Verdict.FAIL,
            message=f"{path} is damaged: {verdict}",
            next_action="stop the daemon and restore the newest backup: 'peerd restore FILE'",
        )
    return Finding(name="store", verdict=Verdict.OK, message=f"{path} is whole, {path.stat().st_size} bytes")


def _quarantine(config: Config) -> Iterator[Finding]:
    """Rows that were put aside because they could not be read."""
    path = DataDir(config.data_dir).store
    if not path.exists():
        return
    since = int(SystemClock().now()) - quarantine.SHOWN_DAYS * DAY_MS
    try:
        with closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            rows = connection.execute(
                "SELECT source, key, error FROM quarantine WHERE at > ? ORDER BY id DESC", (since,)
            ).fetchall()
    except RAISED:
        return  # no store of this version; what is wrong with it says the check of the store
    if not rows:
        yield Finding(name="damaged rows", verdict=Verdict.OK, message="none were found")
        return
    named = "; ".join(f"{source} {key}: {error}" for source, key, error in rows[:3])
    named += f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
    days = quarantine.SHOWN_DAYS
    yield Finding(
        name="damaged rows",
        verdict=Verdict.WARN,
        message=f"{len(rows)} could not be read and were put aside in the last {days} days: {named}",
        next_action=quarantine.NEXT_ACTION,
    )


def _scans(config: Config) -> Iterator[Finding]:
    """Ingest jobs that wait, are tried again, or failed lately."""
    path = DataDir(config.data_dir).store
    if not path.exists():
        return
    since = int(SystemClock().now()) - _FAILED_DAYS * DAY_MS
    try:
        with closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            seen = look(connection, since)
            undelivered, refused = hand_ins.look(connection, since)
    except RAISED:
        return  # as above
    if undelivered or refused:
        yield Finding(
            name="hand-ins",
            verdict=Verdict.WARN,
            message=f"{undelivered} scans of jobs could not be handed in yet, {refused} were refused in the last "
            f"{_FAILED_DAYS} days",
            next_action="see why: 'peerctl scans hand-ins'",
        )
    message = f"{seen.waiting} wait to be processed, {seen.failed} failed in the last {_FAILED_DAYS} days"
    if seen.troubled:
        message = f"{message}; {seen.troubled} cannot be processed now and are tried again"
        action = "see why: 'peerctl scans list'"
        yield Finding(name="scans", verdict=Verdict.WARN, message=message, next_action=action)
    elif seen.failed:
        action = "see why: 'peerctl scans list --state failed'"
        yield Finding(name="scans", verdict=Verdict.WARN, message=message, next_action=action)
    else:
        yield Finding(name="scans", verdict=Verdict.OK, message=message)


def _disk(config: Config) -> Finding:
    place = next(folder for folder in (config.data_dir, *config.data_dir.parents) if folder.exists())
    disk = config.transfers.reserve.look(place)
    message = f"{disk.free_bytes} bytes free of {disk.total_bytes}; {disk.reserve_bytes} are kept in reserve"
    if not disk.has_room():
        action = "free disk space, or lower [transfers] min_free_bytes and min_free_fraction"
        return Finding(name="disk", verdict=Verdict.FAIL, message=message, next_action=action)
    verdict = Verdict.WARN if not disk.has_room(disk.reserve_bytes) else Verdict.OK
    return Finding(name="disk", verdict=verdict, message=message)


def _ports(config: Config, running: bool) -> Iterator[Finding]:
    for name, listen in (("peer port", config.peer.listen), ("http port", config.http.listen)):
        if not listen or listen.endswith(":0"):
            continue
        if running:
            yield Finding(name=name, verdict=Verdict.OK, message=f"{listen} is held by the daemon, which runs")
            continue
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
            except (OSError, ValueError, OverflowError) as error:
                yield Finding(
                    name=name,
                    verdict=Verdict.FAIL,
                    message=f"{listen} cannot be had: {error}",
                    next_action=f"stop what holds it, or set another address in {config.data_dir / 'peerd.toml'}",
                )
            else:
                yield Finding(name=name, verdict=Verdict.OK, message=f"{listen} is free")


def _clock(peers: list[registry_pb2.Peer] | None) -> Finding:
    offsets = {peer.name: peer.clock_offset_ms for peer in peers or () if peer.HasField("clock_offset_ms")}
    if offsets:
        name, worst = max(offsets.items(), key=lambda entry: abs(entry[1]))
        message = f"differs by {worst / 1000:.3f} s from {name}, of {len(offsets)} peers the furthest"
        if abs(worst) > _MAX_OFFSET_MS:
            action = "let this machine and that one follow a time server"
            return Finding(name="clock", verdict=Verdict.FAIL, message=message, next_action=action)
        return Finding(name="clock", verdict=Verdict.OK, message=message)
    status = _kernel_clock_status()
    if status is not None and status & _STA_UNSYNC:
        return Finding(
            name="clock",
            verdict=Verdict.WARN,
            message="nobody keeps this clock right, and no peer is there to compare it with",
            next_action="install a time client, such as systemd-timesyncd or chrony",
        )
    return Finding(name="clock", verdict=Verdict.OK, message="is kept right; no peer is there to compare it with")


def _kernel_clock_status() -> int | None:
    """The status word of adjtimex(2); None where it cannot be asked."""

    class Timex(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            ("numbers", ctypes.c_long * 4),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_long * 32),
        )

    answer = Timex()
    try:
        return None if ctypes.CDLL(None).adjtimex(ctypes.byref(answer)) < 0 else int(answer.status)
    except (OSError, AttributeError):
        return None


async def _isolation(config: Config) -> list[Finding]:
    runner = await ProcessRunner.probe(sandbox=config.jobs.sandbox, hidden=[], limits=config.jobs.limits)
    return [_sandbox(runner), _limits(runner)]


def _sandbox(runner: ProcessRunner) -> Finding:
    if runner.isolation == registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP:
        return Finding(name="isolation", verdict=Verdict.OK, message="jobs run in bubblewrap, which works here")
    return Finding(
        name="isolation",
        verdict=Verdict.WARN,
        message="jobs run without isolation: only services with fixed commands are run",
        next_action="install the package bubblewrap, and allow unprivileged user namespaces",
    )


def _limits(runner: ProcessRunner) -> Finding:
    message = f"jobs are kept to their limits by {runner.limits_text}"
    if runner.limits == registry_pb2.LIMITS_LEVEL_CGROUP:
        return Finding(name="limits", verdict=Verdict.OK, message=message)
    return Finding(
        name="limits",
        verdict=Verdict.WARN,
        message="jobs are kept to their limits by looking at them now and then: no control groups can be used here",
        next_action="have 'peerd install' write the unit with systemd 254 or later, or run it as root without systemd",
    )


async def _runners() -> Finding:
    hardware = await detect_hardware()
    names = ", ".join(f"{runner.name} {runner.version}".strip() for runner in hardware.runners)
    return Finding(name="runners", verdict=Verdict.OK, message=names)


async def _engine(config: Config) -> Finding:
    found = await find_engine(config.containers.socket)
    if found is None:
        wanted = any(service.get("kind") == "SERVICE_KIND_CONTAINER" for service in config.services)
        where = f" at {config.containers.socket}" if config.containers.socket else ""
        return Finding(
            name="containers",
            verdict=Verdict.WARN if wanted or where else Verdict.OK,
            message=f"no container engine answers{where}; container services are refused",
            next_action="install podman and start podman.socket, or docker, where the daemon may open the socket"
            if wanted or where
            else "",
        )
    message = f"{found.words} at {found.socket}{', rootless' if found.facts.rootless else ''}"
    if not found.facts.limits_memory:
        return Finding(
            name="containers",
            verdict=Verdict.WARN,
            message=f"{message}; it cannot limit memory here",
            next_action="let the machine use control groups of version 2, or run the engine as root",
        )
    return Finding(name="containers", verdict=Verdict.OK, message=message)


def _serial(devices: Path) -> Finding:
    ports = sorted([*devices.glob("ttyUSB*"), *devices.glob("ttyACM*")])
    closed = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            name="serial ports",
            verdict=Verdict.WARN,
            message=f"may not be opened: {', '.join(str(port) for port in closed)}",
            next_action="add the daemon's user to the group dialout (usermod -aG dialout USER) and start it again",
        )
    message = f"{len(ports)} can be opened" if ports else "none are plugged in"
    return Finding(name="serial ports", verdict=Verdict.OK, message=message)


def _unit(units: Path | None) -> Finding:
    path = (units or Path("/etc/systemd/system")) / "peerd.service"
    if path.exists():
        return Finding(name="systemd unit", verdict=Verdict.OK, message=str(path))
    return Finding(
        name="systemd unit",
        verdict=Verdict.WARN,
        message="the daemon is not started with the machine",
        next_action="peerd install, then: systemctl daemon-reload && systemctl enable --now peerd",
    )


def examine_now(config: Config) -> list[Finding]:
    """The same, from a program without a loop."""
    return asyncio.run(examine(config))
