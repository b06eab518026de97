"""A step that was begun comes to its end, whoever waits for it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from peerd.uninterrupted import uninterrupted


async def test_the_result_is_that_of_the_step() -> None:
    assert await uninterrupted(asyncio.to_thread(lambda: 7)) == 7
    with pytest.raises(KeyError):
        await uninterrupted(failing())


@pytest.mark.parametrize("times", [1, 3])
async def test_who_is_cancelled_holds_what_it_holds_until_the_step_is_over(times: int) -> None:
    lock, may_end, done = asyncio.Lock(), asyncio.Event(), list[str]()

    async def step() -> None:
        await may_end.wait()
        done.append("step")

    async def holder() -> None:
        async with lock:
            await uninterrupted(step())
            done.append("never")

    waiting = asyncio.ensure_future(holder())
    for _ in range(times):
        await asyncio.sleep(0.01)
        waiting.cancel()
    await asyncio.sleep(0.01)
    assert lock.locked() and not waiting.done()
    may_end.set()
    await asyncio.wait([waiting])
    assert waiting.cancelled() and not lock.locked() and done == ["step"]


async def test_an_error_after_that_is_not_complained_about() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    waiting = asyncio.ensure_future(uninterrupted(failing(0.05)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    del waiting
    gc.collect()
    assert complaints == []


async def failing(after: float = 0) -> None:
    await asyncio.sleep(after)
    raise KeyError
