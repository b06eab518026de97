"""A machine that is closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from .machine import Machine

Make = Callable[[int], Awaitable[Machine]]


@pytest_asyncio.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes one at that moment."""
    made: list[Machine] = []

    async def make(start: int) -> Machine:
        one = Machine(tmp_path, start)
        await one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        await one.store.close()
