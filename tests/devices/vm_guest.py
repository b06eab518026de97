"""What scripts/vm-devices runs in its virtual machine: one daemon, a miner on a real USB bus. Prints what it measured.

The processor is emulated, so that seconds are those of a slow computer. Each promise that is not kept ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pyudev

from peerd.client import Client
from peerd.devices.simulator.firmware import Board, boot, mine
from tests.devices.vm_board import Gadget, Printing, Wire, until
from tests.e2e.fleet import Daemon, run_async

ACTIVE, INITIALIZING, INACTIVE = (f"DEVICE_STATUS_{name}" for name in ("ACTIVE", "INITIALIZING", "INACTIVE"))
NAME, MAC = "MINER_010", "34:85:18:AA:BB:0C"
SLOWER = 8.0
"""What is promised to be done in a second may take an eighth of what the daemon takes to start, seconds elsewhere."""
UDEV_SECONDS = 60.0
ACTIVE_SECONDS = 90.0
START_SECONDS = 240.0
SPEED = 2.0
CYCLES, CALM = 10, 3
"""So many times, and after how many what is opened once is open."""
BOARD = Board(wallet="bc1qvirtual.machine", password="hush-pool-78")


class Scene:
    """The daemon, the two devices, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon("vm", folder / "vm", 7373, folder / "log")
        self.daemon.forked = False  # how long an interpreter takes to start is the measure of all else
        self.miner = Gadget(0, "303a", "1001", MAC)
        self.other = Gadget(1, "1546", "01a8", "RECEIVER")
        self.wire = Wire(folder / "wire")
        self.soon = 0.0
        """Seconds: at most so long after udev's event, or after a pull."""

    def start(self) -> float:
        """Start the daemon; how long that took."""
        began = time.monotonic()
        self.daemon.start(wait=False)
        self.daemon.wait_until_listening(START_SECONDS)
        took = time.monotonic() - began
        self.soon = took / SLOWER
        return took

    def ask(self, call: Callable[[Client], Awaitable[object]]) -> None:
        """As an operator does, but for the time that an interpreter takes to start."""

        async def asked() -> None:
            async with Client(socket=self.daemon.socket, timeout=UDEV_SECONDS) as peerd:
                await call(peerd)

        run_async(asked())

    def devices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.json("devices", "list")["devices"]
        return found

    def at(self, path: str) -> dict[str, Any]:
        """What is plugged in there."""
        return next((device for device in self.devices() if path and device["dev_path"] == path), {})

    def named(self) -> dict[str, Any]:
        """The miner."""
        return next((device for device in self.devices() if device["name"] == NAME), {})

    def is_now(self, status: str) -> Callable[[], bool]:
        """Whether the miner is; to be asked again and again."""
        return lambda: self.named()["status"] == status

    def gone(self) -> bool:
        """Whether it is Inactive without a path."""
        found = self.named()
        return (found["status"], found["dev_path"], found["port_path"]) == (INACTIVE, "", "")

    def held(self) -> Counter[str]:
        """What the daemon has open, and how often."""
        assert self.daemon.process is not None
        folder, found = Path(f"/proc/{self.daemon.process.pid}/fd"), Counter[str]()
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found[os.readlink(entry).partition("[")[0]] += 1
        return found

    def ttys_held(self) -> list[str]:
        return [path for path in self.held() if path.startswith("/dev/ttyACM")]

    def rows(self, query: str) -> list[Any]:
        """What its store says."""
        with closing(sqlite3.connect(self.daemon.data / "peerd.db")) as store:
            return store.execute(query).fetchall()


def say(text: str) -> None:
    """How far it is, for people."""
    print(f"{time.monotonic():8.1f} {text}", file=sys.stderr, flush=True)


def plug(scene: Scene) -> tuple[float, float]:
    """Put the miner in; seconds until udev says so, and from then until it is listed."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context())
    monitor.filter_by("tty")
    monitor.start()
    began = time.monotonic()
    scene.miner.plug()
    while (event := monitor.poll(timeout=UDEV_SECONDS)) is not None and event.action != "add":
        pass
    assert event is not None, "udev says nothing"
    added = time.monotonic()
    until(lambda: scene.at(event.device_node), scene.soon, "it is listed")
    return added - began, time.monotonic() - added


def judge(scene: Scene) -> dict[str, Any]:
    daemon, miner = scene.daemon, scene.miner
    measured: dict[str, Any] = {"kernel": platform.release()}
    say("starts the daemon")
    measured["start_seconds"] = scene.start()
    measured["limit_seconds"] = scene.soon
    scene.other.plug()
    until(lambda: scene.at(scene.other.tty()), START_SECONDS, "the receiver is listed")
    assert not scene.at(scene.other.tty())["watched"]
    receiver = scene.other.address()

    say("plugs in a new miner")
    measured["udev_seconds"], measured["listed_seconds"] = plug(scene)
    path, lines = miner.tty(), [miner.address()]
    by_id = [link.name for link in Path("/dev/serial/by-id").iterdir() if os.path.realpath(link) == path]
    assert len(by_id) == 1, "udev has made one name for it"
    measured["by_id"] = by_id[0]
    device = scene.at(path)
    assert (device["vendor_id"], device["product_id"], device["serial_number"]) == ("303a", "1001", MAC)
    with Printing(miner, chain(boot(BOARD), mine(BOARD, 2.0)), speed=SPEED):
        until(lambda: scene.at(path).get("outcome") == "mining", ACTIVE_SECONDS, "it is heard to mine")
        until(lambda: not scene.ttys_held(), ACTIVE_SECONDS, "discovery is done with it")
        device = scene.at(path)
        assert (device["pool_url"], device["firmware_version"]) == ("public-pool.io:21496", "V1.8.3")
        say("gives it a name")
        began = time.monotonic()
        scene.ask(lambda peerd: peerd.onboard_device(path, name=NAME, currency="BTC"))
        until(scene.is_now(ACTIVE), ACTIVE_SECONDS, "Active without a replug")
        measured["onboarded_to_active_seconds"] = time.monotonic() - began
        until(lambda: scene.named()["health"] == "ok", ACTIVE_SECONDS, "it is well")
        assert scene.ttys_held() == [path]
        say("pulls it out")
        miner.unplug()
        measured["inactive_seconds"] = until(scene.gone, scene.soon, "Inactive, without a path")
    assert not scene.ttys_held()

    say("plugs it in again")
    plug(scene)
    lines.append(miner.address())
    assert scene.named()["status"] == INITIALIZING
    with Printing(miner, chain(boot(BOARD), mine(BOARD, 2.0)), speed=SPEED):
        measured["replugged_to_active_seconds"] = until(scene.is_now(ACTIVE), ACTIVE_SECONDS, "Active again")
        say("kills the daemon")
        daemon.kill()
        scene.start()
        until(scene.is_now(ACTIVE), ACTIVE_SECONDS, "Active after a kill")
        miner.unplug()
        until(scene.gone, scene.soon, "Inactive")

    say("pulls it out while it is looked at, again and again")
    held, slowest = list[Counter[str]](), 0.0
    for _ in range(CYCLES):
        plug(scene)
        lines.append(miner.address())
        until(scene.is_now(INITIALIZING), scene.soon, "Initializing")
        until(scene.ttys_held, scene.soon, "the port is open")
        miner.unplug()
        slowest = max(slowest, until(scene.gone, scene.soon, "Inactive"))
        until(lambda: not scene.ttys_held(), scene.soon, "closed")
        held.append(scene.held())
    measured["slowest_inactive_seconds"] = slowest
    more = held[-1] - held[CALM]
    measured["descriptors"] = [sum(held[CALM].values()), sum(held[-1].values())]
    assert sum(more.values()) < CYCLES - CALM - 1, f"open after each cycle: {more}"
    assert not scene.rows("SELECT * FROM device_leases")
    measured["line_states"] = sorted({state for address in lines for state in scene.wire.line_states(address)})
    assert set(measured["line_states"]) <= {"0", "3"}, "one of the lines alone is a reset"
    for address in lines:
        states = scene.wire.line_states(address)
        assert states.count("3") and "0" not in states[states.index("3") :], f"switched off again: {states}"
    measured["receiver_line_states"] = scene.wire.line_states(receiver)
    assert "3" not in measured["receiver_line_states"], "what no rule is for was never opened"

    say("resets it: now the wire must show it")
    plug(scene)
    scene.ask(lambda peerd: peerd.reset_device(NAME))
    until(lambda: "2" in scene.wire.line_states(miner.address()), ACTIVE_SECONDS, "the reset line was pulled")
    stored = b"".join(file.read_bytes() for file in daemon.data.glob("peerd.db*"))
    assert BOARD.password.encode() not in stored
    return measured


def main() -> None:
    folder = Path("/run/scene")
    shutil.copytree("/mnt/share/vm", folder / "vm", symlinks=True)
    scene = Scene(folder)
    try:
        measured = judge(scene)
    except BaseException:
        print(scene.daemon.tail(), scene.rows("SELECT * FROM miners"), scene.held(), file=sys.stderr)
        print(*Path("/sys/class/tty").glob("ttyACM*"), *Path("/dev").glob("ttyACM*"), file=sys.stderr)
        say("and that is all")
        raise
    finally:
        scene.wire.close()
        if scene.daemon.alive:
            scene.daemon.kill()
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in measured.items()}
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
