"""Steps that go on to their end although nobody waits for it any more.

Whoever asked for one may go away at any moment: a stream breaks, a call runs into its deadline. A thread cannot be
interrupted at all, and a step of several parts must not be left between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(step: Awaitable[T]) -> T:
    """Await it; who is cancelled meanwhile is so only after its end, and holds until then what it holds."""
    running = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            await _over(running)
        raise


async def _over(running: asyncio.Future[T]) -> None:
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:  # it is told again what it knows
        pass
