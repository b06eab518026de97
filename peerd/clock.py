"""Time, handed in. Nothing else in peerd reads a clock, so tests move time instead of waiting for it.

Three of them. Wall-clock times are whole milliseconds since 1970 (UTC) in the store and in pure code; they order
nothing, they only tell people and bound signatures, and somebody may set the clock at any moment. Durations inside one
process come from ``monotonic``, in seconds. Leases, pauses and deadlines that are stored are times of ``steady``: the
wall clock as it was when this machine was started, plus what has passed since. It is never behind what it was before,
so that a pause does not last for years on a board whose clock starts in 1970 each time.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NewType, Protocol

Millis = NewType("Millis", int)
"""Milliseconds since 1970-01-01T00:00:00Z."""
DAY_MS = 86_400_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> Millis:
        """Wall-clock time."""
        ...

    def steady(self) -> Millis:
        """Near the wall clock, and not moved by setting it: it goes on evenly until the machine is started anew."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once that much time has passed."""
        ...


class SystemClock:
    """The machine's clock. ``anchor``: a file by which a later process of the same boot has the same steady time.

    That file was last modified at the steady time that was kept last; one of a later boot goes on from there at least.
    """

    def __init__(self, anchor: Path | None = None) -> None:
        self._anchor = anchor
        self._offset = _fresh_offset() if anchor is None else _anchored_offset(anchor)

    def now(self) -> Millis:
        return Millis(time.time_ns() // 1_000_000)

    def steady(self) -> Millis:
        return Millis(_since_boot() + self._offset)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def keep(self) -> None:
        """Have the steady time of a later boot be later than what it is now."""
        if self._anchor is not None:
            _keep(self._anchor, self.steady())


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, start: int = 1_700_000_000_000) -> None:
        self._now = start
        self._set_by = 0
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> Millis:
        return Millis(self._now)

    def steady(self) -> Millis:
        return Millis(self._now - self._set_by)

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, future))
        await future

    def set(self, ahead: float) -> None:
        """Somebody sets the wall clock, so many seconds ahead of what it was; no time passes."""
        self._now += round(ahead * 1000)
        self._set_by += round(ahead * 1000)

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever has slept long enough."""
        self._now += round(seconds * 1000)
        self._monotonic += seconds
        due = [future for wake_at, future in self._sleepers if wake_at <= self._monotonic]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._monotonic]
        for future in due:
            if not future.done():
                future.set_result(None)


def _since_boot() -> int:
    """Milliseconds, those of a suspended machine included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _fresh_offset() -> int:
    return time.time_ns() // 1_000_000 - _since_boot()


def _anchored_offset(anchor: Path) -> int:
    boot, offset = _BOOT_ID.read_text(encoding="ascii").strip(), _fresh_offset()
    try:
        kept = json.loads(anchor.read_text(encoding="utf-8"))
        if kept["boot"] == boot:
            return int(kept["offset"])
        offset = max(offset, anchor.stat().st_mtime_ns // 1_000_000 - _since_boot())
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # of no boot, or cut off by a power failure
        pass
    new = anchor.with_suffix(".new")
    anchor.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new.write_text(json.dumps({"boot": boot, "offset": offset}), encoding="utf-8")
    _keep(new, _since_boot() + offset)
    os.replace(new, anchor)
    return offset


def _keep(anchor: Path, steady: int) -> None:
    """Needs no room on the disk."""
    os.utime(anchor, ns=(steady * 1_000_000, steady * 1_000_000))


def to_datetime(millis: int) -> datetime:
    """The same moment as an aware datetime, for proto Timestamps and people."""
    return datetime.fromtimestamp(millis / 1000, tz=UTC)
