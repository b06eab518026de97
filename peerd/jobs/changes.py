"""Tells the shells, after a commit, which job has changed: the executor, the reporter, whoever waits for an end.

In memory only. Nothing depends on hearing it: after a restart everyone looks into the store first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peerd.identity.peer_id import PeerId
from peerd.jobs.model import JobStatus


@dataclass(frozen=True, kw_only=True)
class Change:
    """A committed change of one job."""

    job_execution_id: int
    orchestrator: PeerId
    status: JobStatus
    stopping: bool = False
    """The wish to end its process is durable now."""


class Changes:
    """Who wants to know."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Change], None]] = []

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Call this on the event loop for every change from now on."""
        self._listeners.append(listener)

    def tell(self, change: Change) -> None:
        """A change was committed."""
        for listener in tuple(self._listeners):
            listener(change)

    @contextmanager
    def watching(self, job_execution_id: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever this job changes."""
        event = asyncio.Event()

        def hear(change: Change) -> None:
            if change.job_execution_id == job_execution_id:
                event.set()

        self._listeners.append(hear)
        try:
            yield event
        finally:
            self._listeners.remove(hear)
