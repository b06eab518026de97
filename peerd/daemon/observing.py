"""What is done when a call has ended: it is counted, and a refused change is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from google.protobuf.message import Message

from peerd.errors import PeerdError, Reason
from peerd.rpc.caller import Caller
from peerd.store import Store
from peerd.store.audit import changes_state, record

_MAX_WAITING = 1000
"""Refusals that wait to be written; a flood of them is not worth more."""


class CallObserver:
    """Implements :class:`peerd.rpc.interceptor.Observer`."""

    def __init__(self, store: Store, *, count: Callable[[str, str, float], None] | None = None) -> None:
        self._store = store
        self._count = count
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls = 0
        """That have ended since the daemon started."""

    def handled(self, method: str, code: str, seconds: float) -> None:
        self.calls += 1
        if self._count is not None:
            self._count(method, code, seconds)

    def refused(self, method: str, caller: Caller, request: object, error: PeerdError) -> None:
        if not changes_state(request) or error.reason is Reason.RATE_LIMITED or len(self._tasks) >= _MAX_WAITING:
            return
        assert isinstance(request, Message)  # noqa: S101 - changes_state() saw to it
        self._later(self._write(request, caller.peer_id, error.reason.text))

    async def _write(self, request: Message, caller: str, reason: str) -> None:
        with suppress(PeerdError):  # a store that takes no writes any more: the daemon ends
            await self._store.write(lambda tx: record(tx, request, caller=caller, result=reason))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Write what waits."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
