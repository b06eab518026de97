"""Inflow: what comes from an open port, in batches, with an upper limit."""

from __future__ import annotations

import asyncio
from typing import Any

from peerd.clock import Clock

_FLUSH_SECONDS = 0.2
"""Bytes that come within so long are looked at together: a wake-up for each would cost more than the work."""
MOST_PENDING = 16 * 1024
"""Bytes, all looked at in one turn of the event loop; a line at 115200 baud brings 12 KiB a second, a device with USB
of its own a hundred times that, if it likes. What comes faster is dropped."""


class Inflow:
    """Of one port."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._data = asyncio.Event()
        self._pending = bytearray()
        self._lost = False

    def receive(self, data: bytes) -> None:
        """Something came."""
        room = MOST_PENDING - len(self._pending)
        self._pending += data[:room]
        self._lost = self._lost or len(data) > room
        self._data.set()

    def lost(self) -> bool:
        """Whether something is missing after what ``next`` gave last."""
        lost, self._lost = self._lost, False
        return lost

    async def next(self, gone: asyncio.Future[str], deadline: float | None, wake: asyncio.Event) -> bytes:
        """What came; nothing once the port is gone, the deadline has come, or ``wake`` is set."""
        if not self._pending:
            waits: set[asyncio.Future[Any]] = {
                asyncio.ensure_future(self._data.wait()),
                asyncio.ensure_future(wake.wait()),
            }
            if deadline is not None:
                waits.add(asyncio.ensure_future(self._clock.sleep(max(0.0, deadline - self._clock.monotonic()))))
            try:
                await asyncio.wait({*waits, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if self._data.is_set() and not gone.done():
                await self._clock.sleep(_FLUSH_SECONDS)
        self._data.clear()
        data = bytes(self._pending)
        self._pending.clear()
        return data
