"""Telling watchers that an execution has changed, and what of it.

A watcher sleeps until its execution changes, waits a little so that a burst becomes one update, and reads the rows
that changed since the version it has. So a slow watcher costs nothing but its own delay, and many cost no writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from peerd.clock import Clock
from peerd.store import Store
from peerd.v1 import workflows_pb2
from peerd.workflows import views

LONGEST_PAUSE_BETWEEN_UPDATES = 0.1
"""Ten updates a second are as many as anybody reads."""


class Changes:
    """Who waits for which execution."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[asyncio.Event]] = {}

    def notify(self, execution_id: int) -> None:
        """Rows of this execution have changed."""
        for event in self._waiting.get(execution_id, ()):
            event.set()

    @contextmanager
    def watching(self, execution_id: int) -> Iterator[asyncio.Event]:
        """An event that is set at each change; clear it before reading the rows."""
        event = asyncio.Event()
        self._waiting.setdefault(execution_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[execution_id].discard(event)
            if not self._waiting[execution_id]:
                del self._waiting[execution_id]


async def watch_execution(
    store: Store, clock: Clock, changes: Changes, viewer: views.Viewer, execution_id: int, resume_token: int
) -> AsyncIterator[workflows_pb2.WatchExecutionResponse]:
    """First everything (or what changed since the token), then what changes, until it is final. Raises NOT_FOUND."""
    version = resume_token
    with changes.watching(execution_id) as changed:
        first = True
        while True:
            changed.clear()
            execution, newest = await views.read_execution(store, viewer, execution_id, since=version)
            if newest < version:  # a token from before the store was restored
                execution, newest = await views.read_execution(store, viewer, execution_id, since=0)
            if first or newest > version:
                *parts, last = views.pieces(execution)
                for part in parts:  # who is cut off between them gets all of it again
                    yield workflows_pb2.WatchExecutionResponse(execution=part, resume_token=version, more=True)
                yield workflows_pb2.WatchExecutionResponse(execution=last, resume_token=newest)
            first, version = False, newest
            if views.is_final(execution):
                return
            await changed.wait()
            await clock.sleep(LONGEST_PAUSE_BETWEEN_UPDATES)
