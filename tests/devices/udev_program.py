"""Runs under umockdev-wrapper: real pyudev, pseudo-terminals made by umockdev, a real store. Prints what it measured.

One process, so that every descriptor and task is its own to count. Every opening of a port is recorded with its owner.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from peerd.clock import SystemClock
from peerd.config import DevicesConfig
from peerd.devices import onboarding, repository
from peerd.devices.devices import Devices
from peerd.devices.model import Device, Miner, Status
from peerd.devices.serial_line import open_line
from peerd.store import Store, open_store
from peerd.v1 import devices_pb2

CYCLES = int(os.environ.get("CYCLES", "5"))


class Bed:
    """A test bed in another process, as hardware is: its library does not like threads that open what it makes."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.devices.udev_bed"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.environ["UMOCKDEV_DIR"] = self._answer()

    def plug(self, number: int, vendor: str, serial: str) -> str:
        """A device at that port, each time as another tty; returns its path."""
        return self._order(f"plug {number} {vendor} {serial}")

    def again(self, number: int) -> None:
        """The same event once more."""
        self._order(f"again {number}")

    def unplug(self, number: int) -> None:
        """Pull it out."""
        self._order(f"unplug {number}")

    def say(self, number: int, transcript: str) -> None:
        """Let it print that."""
        self._order(f"say {number} {transcript}")

    def _order(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.005)
    return time.monotonic() - began


class Scene:
    """The store, and what is looked at in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.opened: list[tuple[str, str]] = []

    async def at(self, path: str) -> Device | Miner | None:
        return await self.store.write(lambda tx: repository.occupant(tx, path))

    async def status(self, name: str) -> Status:
        found = await self.store.write(lambda tx: repository.find_miner(tx, name))
        assert found is not None
        return found.status

    @asynccontextmanager
    async def opens(self, path: str, receive: Callable[[bytes], None], *, reset: bool) -> AsyncIterator[Any]:
        """Open it as the daemon does, and note who has the lease."""
        rows = await self.store.all("SELECT owner FROM device_leases WHERE dev_path = ?", (path,))
        what = await self.at(path)
        self.opened.append((rows[0]["owner"] if rows else "", what.status.value if what is not None else ""))
        async with open_line(path, receive, reset=reset) as gone:
            yield gone


async def scene(folder: Path) -> dict[str, Any]:
    clock = SystemClock()
    store = await open_store(folder / "peerd.db", clock)
    here, bed = Scene(store), Bed()
    devices = Devices(DevicesConfig(watch=("10c4",)), store, clock, opens=here.opens)
    task = asyncio.ensure_future(devices.run())
    measured: dict[str, Any] = {}
    await until(_soon(lambda: devices.started), "it looks")

    other, path = bed.plug(9, "1546", "GPS"), bed.plug(1, "10c4", "SN-1")

    async def listed() -> bool:
        return await here.at(path) is not None

    measured["listed"] = await until(listed, "listed")
    await until(_soon(lambda: here.opened), "opened")
    await _settled(devices, path)
    bed.say(1, "new-device")

    async def heard() -> bool:
        what = await here.at(path)
        return what is not None and what.outcome == "mining" and what.status is Status.INACTIVE

    await until(heard, "heard to mine")
    request = devices_pb2.OnboardDeviceRequest(device=path, name="MINER_010", currency="BTC")
    await store.write(lambda tx: onboarding.onboard(tx, request, taken=""))
    devices.named(path)
    await until(_soon(lambda: len(here.opened) > 1), "looked at again")
    await _settled(devices, path)
    bed.say(1, "already-mining")
    await until(lambda: _is(here, Status.ACTIVE), "Active without a replug")
    await until(_soon(lambda: ("monitor", "active") in here.opened), "the monitor has the port")

    bed.unplug(1)

    async def away() -> bool:  # a port that fails is Inactive already, a moment before udev says that it is gone
        return await _is(here, Status.INACTIVE) and not await store.all("SELECT 1 FROM miners WHERE dev_path NOT NULL")

    measured["inactive"] = await until(away, "Inactive")
    gone = await store.all("SELECT dev_path, port_path FROM miners")
    measured["paths"] = [gone[0]["dev_path"], gone[0]["port_path"]]
    opened = len(here.opened)
    path = bed.plug(1, "10c4", "SN-1")
    await until(_soon(lambda: len(here.opened) > opened), "opened again")
    await _settled(devices, path)
    bed.say(1, "new-device")
    await until(lambda: _is(here, Status.ACTIVE), "Active again")
    bed.unplug(1)
    await until(lambda: _is(here, Status.INACTIVE), "Inactive again")

    for _ in range(3):  # threads and their wake-ups come by and by
        await _cycle(here, bed)
    before = await _looked(_held)
    tasks = await _looked(lambda: len(asyncio.all_tasks()))
    began = time.monotonic()
    times = [await _cycle(here, bed) for _ in range(CYCLES)]
    measured["seconds_a_cycle"] = (time.monotonic() - began) / CYCLES
    # How fast it is when nobody else has the processor: the best of them all.
    measured["listed"] = min(measured["listed"], *(came for came, _ in times))
    measured["inactive"] = min(measured["inactive"], *(went for _, went in times))
    # What goes on at one moment or another comes and goes: the least now is not more than the most then.
    measured["descriptors"] = min(await _looked(_held)) - max(before)
    measured["tasks"] = max(0, min(await _looked(lambda: len(asyncio.all_tasks()))) - max(tasks))
    measured["leases"] = len(await store.all("SELECT * FROM device_leases"))
    measured["miners"] = len(await store.all("SELECT * FROM miners"))
    measured["devices"] = len(await store.all("SELECT * FROM unconfigured_devices"))
    measured["opened"] = sorted(set(here.opened))
    measured["unwatched"] = [port.path for port in devices.unwatched()] == [other]
    task.cancel()
    await asyncio.wait({task})
    await store.close()
    return measured


async def _looked(measure: Callable[[], int]) -> list[int]:
    """It, again and again for a while."""
    found = []
    for _ in range(40):
        found.append(measure())
        await asyncio.sleep(0.005)
    return found


async def _cycle(here: Scene, bed: Bed) -> tuple[float, float]:
    """In, with its event twice, and out again; the seconds until each was known."""
    path = bed.plug(1, "10c4", "SN-1")
    bed.again(1)

    async def seated() -> bool:
        what = await here.at(path)
        return isinstance(what, Miner) and what.status is Status.INITIALIZING

    async def gone() -> bool:
        return await here.at(path) is None

    came = await until(seated, "Initializing")
    bed.unplug(1)
    return came, await until(gone, "nobody is there")


async def _settled(devices: Devices, path: str) -> None:
    """The port is really open: what comes earlier is lost, as on a real line."""

    async def is_open() -> bool:
        keeper = devices.keeper(path)
        return keeper is not None and keeper.reads

    await until(is_open, "open")


async def _is(here: Scene, status: Status) -> bool:
    return await here.status("MINER_010") is status


def _soon(condition: Callable[[], Any]) -> Callable[[], Any]:
    async def look() -> bool:
        return bool(condition())

    return look


def _held() -> int:
    """Descriptors, but for sockets: the test bed's library makes one at each opening of a port, and keeps it."""
    links = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return sum("socket:" not in os.path.realpath(link) for link in links)


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(scene(Path(sys.argv[1])))), flush=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the store's threads would keep it
