"""What every nemesis works on: the fleet, the workload, the dice, and who was brought down and is to come back."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.fleet import Daemon, Fleet
from tests.e2e.wire import Wire
from tests.faults.clocks import WallClock
from tests.faults.proxy import Proxies
from tests.faults.workload import Asked, Workload

NAMES = ("c", "a", "b", "d", "e", "f", "g", "h")


@dataclass(kw_only=True)
class Scene:
    """One run of one nemesis."""

    fleet: Fleet
    workload: Workload
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    """Faults that were injected, by kind."""
    hit: Counter[str] = field(default_factory=Counter)
    """Failpoints at which a daemon died."""
    findings: list[str] = field(default_factory=list)
    """Promises that a nemesis itself saw broken."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a nemesis measured."""
    converged: list[float] = field(default_factory=list)
    """Seconds from each healing of the network until all saw all."""
    network: Wire | None = None
    """Set when each daemon is a host of its own."""
    proxies: Proxies | None = None
    """Set when all calls between daemons go through them."""
    clocks: dict[str, WallClock] = field(default_factory=dict)
    """By daemon; set when each has a wall clock of its own."""
    patience: Callable[[], float] = lambda: 1.0
    """So many times as long as promised may things take now."""
    _armed: dict[str, str] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)

    @property
    def wire(self) -> Wire:
        """The network between the daemons."""
        assert self.network is not None, "this nemesis needs a host for each daemon"
        return self.network

    @property
    def standing(self) -> list[Daemon]:
        """Daemons that run and that nobody else is about to break."""
        return [daemon for name, daemon in self.fleet.daemons.items() if daemon.alive and name not in self._busy]

    @contextmanager
    def breaking(self, daemon: Daemon) -> Iterator[None]:
        """Keep others from breaking it too, for so long."""
        self._busy.add(daemon.name)
        try:
            yield
        finally:
            self._busy.discard(daemon.name)

    async def start(self, daemon: Daemon, failpoint: str = "") -> None:
        """Start it; one that is to die at a failpoint may do so before it listens."""
        self._armed[daemon.name] = failpoint
        await asyncio.to_thread(daemon.start, failpoint=failpoint, wait=False)
        try:
            await asyncio.to_thread(daemon.wait_until_listening, 120)
        except AssertionError:
            if not failpoint or daemon.process is None or daemon.process.poll() != -signal.SIGKILL:
                raise

    async def bring_back_the_dead(self) -> int:
        """Start whoever died at a failpoint of his own; returns how many."""
        dead = [
            d for d in self.fleet.daemons.values() if d.process is not None and not d.alive and d.name not in self._busy
        ]
        for daemon in dead:
            with self.breaking(daemon):
                armed, code = self._armed.get(daemon.name, ""), daemon.wait()
                if not armed or code != -signal.SIGKILL:
                    raise AssertionError(f"{daemon.name} ended by itself with {code}:\n{daemon.tail()}")
                self.hit[armed.partition("@")[0]] += 1
                await self.start(daemon)
        return len(dead)

    async def heal(self) -> None:
        """Everybody runs, without failpoints."""
        await self.bring_back_the_dead()
        for daemon in self.fleet.daemons.values():
            if daemon.process is None:
                await self.start(daemon)
            elif self._armed.get(daemon.name):
                daemon.kill()
                await self.start(daemon)

    async def hand_in_while(self, breaking: Callable[[], Awaitable[None]], asked: list[Asked], spread: float) -> None:
        """Hand these in, over about so many seconds, while things are broken; all are acknowledged at the end."""

        async def one(entry: Asked, after: float) -> None:
            await asyncio.sleep(after)
            await self.workload.hand_in(entry, twice=self.rng.random() < 0.2)

        async with asyncio.TaskGroup() as tasks:
            for entry in asked:
                tasks.create_task(one(entry, self.rng.uniform(0, spread)))
            await breaking()
            await self.heal()


def say(text: str) -> None:
    """Progress goes to stderr; stdout is for the verdict."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
