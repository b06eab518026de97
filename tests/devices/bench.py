"""Many simulated miners on one real daemon, for as long as you like: what they cost, and whether memory stays flat.

    scripts/bench-miners --miners 64 --minutes 30

The pseudo-terminals are served by this process, so that the daemon's share of a core is its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerd.client import Client
from peerd.clock import SystemClock
from peerd.devices.simulator.firmware import Board, Step, run
from peerd.devices.simulator.terminal import Identity, Terminal
from tests.e2e.fleet import Daemon, Fleet, run_async, wait_for

MOST_PERCENT = 15.0
"""Of one core: what is promised for 64 miners."""
MOST_GROWTH_KIB = 2048.0
"""In the second half: caches have filled by then. Half an hour of 64 miners that was kept somewhere would be 9 MB."""
_TICKS = os.sysconf("SC_CLK_TCK")
_BOOT_SECONDS = 20.0


class Farm:
    """Miners that print, on a thread."""

    def __init__(self, folder: Path, number: int, every: float, terminals: ExitStack) -> None:
        self._stop = threading.Event()
        self._due: list[tuple[float, int, bytes, Iterator[Step], Terminal]] = []
        self.sent_bytes = 0
        for index in range(number):
            identity = Identity(name=f"bench{index}", serial=f"BENCH-{index}", usb_path=f"1-{index}")
            terminal = terminals.enter_context(Terminal(folder, identity, SystemClock()))
            terminal.plug()
            steps = run(Board(wallet=f"bc1qbench.w{index}"), every)
            # Not all in one moment: boards are plugged in one after the other.
            self._next(time.monotonic() + 2 + index * every / number, index, steps, terminal)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _next(self, now: float, index: int, steps: Iterator[Step], terminal: Terminal) -> None:
        pause, data = next(steps)
        heapq.heappush(self._due, (now + pause, index, data, steps, terminal))

    def _run(self) -> None:
        while not self._stop.wait(max(0.0, self._due[0][0] - time.monotonic())):
            due, index, data, steps, terminal = heapq.heappop(self._due)
            terminal.send(data)
            self.sent_bytes += len(data)
            self._next(due, index, steps, terminal)

    def stop(self) -> None:
        """They print no more."""
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True)
class Sample:
    """Of the daemon, from /proc."""

    at: float
    cpu_seconds: float
    rss_kib: int
    descriptors: int
    threads: int


def sample(pid: int) -> Sample:
    """What it is now."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Sample(
        at=time.monotonic(),
        cpu_seconds=(int(words[11]) + int(words[12])) / _TICKS,
        rss_kib=int(status["VmRSS"].split()[0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
    )


async def onboard(daemon: Daemon) -> None:
    """A name for every device that mines and has none."""
    async with Client(socket=daemon.socket) as peerd:
        for device in await peerd.devices():
            if not device.name and device.outcome == "mining":
                await peerd.onboard_device(
                    device.dev_path, name=f"MINER_{device.serial_number}", currency="BTC", location_notes="bench"
                )


def well(daemon: Daemon) -> int:
    """How many mine, by the daemon's word."""
    return sum(device["health"] == "ok" for device in daemon.json("devices", "list")["devices"])


def grown_kib(samples: list[Sample]) -> float:
    """What memory grew by in the second half, as a straight line through it: single samples go up and down."""
    later = samples[len(samples) // 2 :]
    slope, _ = statistics.linear_regression([each.at for each in later], [each.rss_kib for each in later])
    return slope * (later[-1].at - later[0].at)


def measure(miners: int, minutes: float, every: float) -> dict[str, Any]:
    fleet = Fleet(("c",))
    farm = None
    try:
        usb = fleet.folder / "usb"
        usb.mkdir()
        fleet.found(configure={"c": f"\n[devices]\nsimulated = '{usb}'\n"})
        daemon = fleet["c"]
        assert daemon.process is not None
        pid = daemon.process.pid
        alone = [sample(pid)]
        time.sleep(min(20.0, minutes * 20))
        alone.append(sample(pid))
        with ExitStack() as terminals:
            farm = Farm(usb, miners, every, terminals)

            def all_well() -> bool:
                run_async(onboard(daemon))
                return well(daemon) == miners

            wait_for(all_well, _BOOT_SECONDS + 12 * every + miners, f"{miners} miners are well", pause=1)
            samples, sent = [sample(pid)], farm.sent_bytes
            steps = max(4, round(minutes * 2))
            for _ in range(steps):
                time.sleep(minutes * 60 / steps)
                samples.append(sample(pid))
            sent = farm.sent_bytes - sent
            still = well(daemon)
    finally:
        if farm is not None:
            farm.stop()
        fleet.close()
    first, last = samples[0], samples[-1]
    percent = 100 * (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at)
    grown = grown_kib(samples)
    return {
        "miners": miners,
        "still_well_at_the_end": still,
        "seconds": round(last.at - first.at),
        "bytes_a_second": round(sent / (last.at - first.at)),
        "percent_of_a_core": round(percent, 1),
        "percent_of_a_core_without_miners": round(
            100 * (alone[1].cpu_seconds - alone[0].cpu_seconds) / (alone[1].at - alone[0].at), 1
        ),
        "rss_kib_without_miners": alone[1].rss_kib,
        "rss_kib": [each.rss_kib for each in samples],
        "rss_grown_kib_in_the_second_half": round(grown),
        "descriptors": [first.descriptors, last.descriptors],
        "threads": [first.threads, last.threads],
        "kept": percent < MOST_PERCENT and still == miners and grown < MOST_GROWTH_KIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--miners", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two status reports of one miner")
    options = parser.parse_args()
    measured = measure(options.miners, options.minutes, options.every)
    print(json.dumps(measured, indent=2))
    sys.exit(0 if measured["kept"] else 1)


if __name__ == "__main__":
    main()
