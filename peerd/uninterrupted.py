"""Steps that go on to their end although nobody waits for it any more.

Whoever asked for one may go away at any moment: a stream breaks, a call runs into its deadline. A thread cannot be
interrupted at all, and a step of several parts must not be left between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(step: Awaitable[T]) -> T:
    """Await it; who is cancelled meanwhile is so only after its end, and holds until then what it holds.

    What the step raises after that concerns nobody any more.
    """
    running = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):  # told again what it knows
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # else asyncio logs that nobody asked for it
        raise
