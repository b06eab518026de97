"""One listener of a daemon, opened again when it breaks down: a daemon that nobody can call is no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from grpc import aio

_log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 0.2
"""Between two tries to have the address again."""
_LOOK_SECONDS = 3600.0


class Listener:
    """A server, and how to make another one in its place."""

    def __init__(self, name: str, open_server: Callable[[], Awaitable[aio.Server]]) -> None:
        self._name = name
        self._open_server = open_server
        self._server: aio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Serve. What the first opening raises is the caller's to explain."""
        self._server = await self._open_server()
        self._watching = asyncio.create_task(self._watch(self._server))

    async def close(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones end within the grace, then abort them."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _watch(self, server: aio.Server) -> None:
        while True:
            try:
                # With a timeout, for without one to cancel the waiting would cancel the server's own future.
                running = await server.wait_for_termination(_LOOK_SECONDS)
            except Exception:  # noqa: BLE001 - whatever ended it, there has to be another
                _log.exception("rpc.listener_failed", listener=self._name)
                await server.stop(0)  # what failed still holds its calls and connections
            else:
                if running:
                    continue
                return
            server = self._server = await self._again()

    async def _again(self) -> aio.Server:
        while True:
            try:
                server = await self._open_server()
            except Exception:  # noqa: BLE001 - the address may still be taken by what failed
                _log.exception("rpc.listener_not_open", listener=self._name)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                _log.warning("rpc.listener_open_again", listener=self._name)
                return server
