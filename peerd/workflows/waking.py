"""Wakes runners a few at a time, so that thousands that have something to do do not hold up everybody else.

One turn of an event loop runs all that is ready. When a peer goes away, every execution that has to do with it wants
to take a step; when a group of transactions is committed, all that waited for it go on. Their steps are short, all of
them together are not: each waits here for its turn, and between two turns calls are answered.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from peerd.clock import Clock, Millis
from peerd.loops import sleep_or_wake

_AT_ONCE = 4
"""A step takes some 0.3 ms."""
_FEW = 100

Sleeper = asyncio.Future[None]


class Waking:
    """Turns for those who want one now, alarms for those who want one later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: deque[Sleeper] = deque()
        self._alarms: list[tuple[Millis, int, Sleeper]] = []
        self._count = 0
        self._most = _FEW
        self._sooner = asyncio.Event()

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        sleeper: Sleeper = asyncio.get_running_loop().create_future()
        self.wake(sleeper)
        await sleeper

    def wake(self, sleeper: Sleeper) -> None:
        """Let it go on when it is its turn."""
        self._queue.append(sleeper)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._give)

    def wake_at(self, sleeper: Sleeper, moment: Millis) -> None:
        """The same, once the steady clock shows that time; nothing if it has gone on before."""
        self._count += 1
        if len(self._alarms) > self._most:
            self._drop_those_gone_on()
        heapq.heappush(self._alarms, (moment, self._count, sleeper))
        if self._alarms[0][2] is sleeper:
            self._sooner.set()

    async def run(self) -> None:
        """Ring the alarms, until cancelled."""
        while True:
            self._sooner.clear()
            self._ring()
            if not self._alarms:
                await self._sooner.wait()
                continue
            pause = max(0.0, (self._alarms[0][0] - self._clock.steady()) / 1000)
            await sleep_or_wake(self._clock, pause, self._sooner)

    def _ring(self) -> None:
        now = self._clock.steady()
        while self._alarms and (self._alarms[0][0] <= now or self._alarms[0][2].done()):
            sleeper = heapq.heappop(self._alarms)[2]
            if not sleeper.done():
                self.wake(sleeper)

    def _drop_those_gone_on(self) -> None:
        """Each rest of a runner leaves an alarm, which may be a day away."""
        self._alarms = [entry for entry in self._alarms if not entry[2].done()]
        heapq.heapify(self._alarms)
        self._most = max(_FEW, 2 * len(self._alarms))

    def _give(self) -> None:
        given = 0
        while self._queue and given < _AT_ONCE:
            sleeper = self._queue.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                given += 1
        if self._queue:
            asyncio.get_running_loop().call_soon(self._give)
