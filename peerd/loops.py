"""Loops that run for the life of the daemon: one shape for all, so that none dies silently or spins."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from peerd.clock import Clock
from peerd.errors import PeerdError

_log = structlog.get_logger(__name__)


async def run_every(
    step: Callable[[], Awaitable[None]],
    *,
    seconds: float,
    clock: Clock,
    name: str,
    wake: asyncio.Event | None = None,
) -> None:
    """Call ``step`` now and then every ``seconds`` (10% jitter), and at once whenever ``wake`` is set.

    A step that raises is logged and tried again next time: one bad round must not end the loop. A ``PeerdError`` is
    an expected failure (a peer is away) and logged as such; anything else with its traceback.
    """
    while True:
        if wake is not None:
            wake.clear()
        try:
            await step()
        except PeerdError as error:
            _log.info("loop.step_failed", loop=name, reason=error.reason.text, message=error.message)
        except Exception:  # noqa: BLE001 - the loop outlives any single step; the traceback goes to the log
            _log.exception("loop.step_crashed", loop=name)
        pause = seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret
        if wake is None:
            await clock.sleep(pause)
        else:
            await sleep_or_wake(clock, pause, wake)


async def sleep_or_wake(clock: Clock, seconds: float, wake: asyncio.Event) -> None:
    """Return after so many seconds, or once the event is set."""
    tasks = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(wake.wait())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class Backoff:
    """Delays that double from ``first`` to ``limit`` seconds, with full jitter above a floor of half."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def next(self) -> float:
        """The next delay, in seconds."""
        delay = self._next
        self._next = min(self._limit, self._next * 2)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Start again from the first delay, after a success."""
        self._next = self._first
