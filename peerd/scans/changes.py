"""Tells who watches, after a commit, which ingest job has changed. In memory only: nothing depends on hearing it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Changes:
    """Who wants to know."""

    def __init__(self) -> None:
        self._watching: dict[int, set[asyncio.Event]] = {}
        self._work: list[Callable[[], None]] = []

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call this whenever there may be something to process."""
        self._work.append(wake)

    def tell(self, ingest_job_id: int) -> None:
        """A change of that job was committed."""
        for event in self._watching.get(ingest_job_id, ()):
            event.set()

    def work(self) -> None:
        """Some job can be processed."""
        for wake in self._work:
            wake()

    @contextmanager
    def watching(self, ingest_job_id: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever this job changes."""
        event = asyncio.Event()
        events = self._watching.setdefault(ingest_job_id, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events:
                self._watching.pop(ingest_job_id, None)
