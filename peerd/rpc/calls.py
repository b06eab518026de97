"""Calls that run now, by caller, so that a revoked peer's open calls end within a second.

Cancelling a handler's task by itself would send no status: the client would hang until its own deadline. So the
reason is noted first, and the interceptor, which catches the cancellation, aborts the call with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId


class OpenCall:
    """One running handler, and why it is being ended, if it is."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self.ended_with: PeerdError | None = None

    def end(self, error: PeerdError) -> None:
        """Interrupt the handler; its caller gets the error."""
        if self.ended_with is None:
            self.ended_with = error
            self._task.cancel()


class OpenCalls:
    """All running handlers."""

    def __init__(self) -> None:
        self._calls: defaultdict[PeerId, set[OpenCall]] = defaultdict(set)
        self._slots: Counter[PeerId] = Counter()

    @contextmanager
    def track(self, peer_id: PeerId) -> Iterator[OpenCall]:
        """Count the current task as a call of that peer."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers run in tasks
        call = OpenCall(task)
        self._calls[peer_id].add(call)
        try:
            yield call
        finally:
            self._calls[peer_id].discard(call)
            if not self._calls[peer_id]:
                del self._calls[peer_id]

    def end_calls(self, peer_id: PeerId, error: PeerdError) -> int:
        """End every open call of a peer with the error; returns how many."""
        calls = list(self._calls.get(peer_id, ()))
        for call in calls:
            call.end(error)
        return len(calls)

    def take_slot(self, peer_id: PeerId, most: int) -> None:
        """Count one more call of that peer, until :meth:`give_slot`. Raises OVERLOADED beyond so many."""
        if self._slots[peer_id] >= most:
            raise PeerdError(
                Reason.OVERLOADED, f"{most} calls of {peer_id} are open here already", retry_after_seconds=1.0
            )
        self._slots[peer_id] += 1

    def give_slot(self, peer_id: PeerId) -> None:
        """One that was taken is over: its answer is out, or its caller gone."""
        self._slots[peer_id] -= 1
        if not self._slots[peer_id]:
            del self._slots[peer_id]
