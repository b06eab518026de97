"""Time, handed in. Nothing else in peerd reads a clock, so tests move time instead of waiting for it.

Wall-clock times are whole milliseconds since 1970 (UTC) in the store and in pure code; they order nothing, they
only tell people and bound signatures. Durations come from ``monotonic``, in seconds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import NewType, Protocol

Millis = NewType("Millis", int)
"""Milliseconds since 1970-01-01T00:00:00Z."""
DAY_MS = 86_400_000


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> Millis:
        """Wall-clock time."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once that much time has passed."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> Millis:
        return Millis(time.time_ns() // 1_000_000)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, start: int = 1_700_000_000_000) -> None:
        self._now = start
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> Millis:
        return Millis(self._now)

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever has slept long enough."""
        self._now += round(seconds * 1000)
        self._monotonic += seconds
        due = [future for wake_at, future in self._sleepers if wake_at <= self._monotonic]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._monotonic]
        for future in due:
            if not future.done():
                future.set_result(None)


def to_datetime(millis: int) -> datetime:
    """The same moment as an aware datetime, for proto Timestamps and people."""
    return datetime.fromtimestamp(millis / 1000, tz=UTC)
