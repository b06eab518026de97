"""A gRPC server that no single call can end.

grpcio (1.85) decodes the path of a call in the loop that accepts calls. A path that is not UTF-8 raises there, and the
whole listener is gone: one HEADERS frame of one member. Methods that are registered by name never come that way. So
whatever is not registered is refused here, with its name unread, and the accept loop never sees it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any

import structlog
from grpc import aio

_log = structlog.get_logger(__name__)

_core: Any = importlib.import_module("grpc._cython.cygrpc")
_NEEDED = ("AioServer", "_handle_rpc", "_schedule_rpc_coro")
_server: Any = importlib.import_module("grpc.aio._server")


class _NoMethods:
    """What stands in for the table of handlers when a call names none of them."""

    def resolve_handler(self, details: object) -> None:
        return None


def _guarded() -> Any:
    """The class of server that does so; made late, for another grpcio may not have what it takes."""

    class Accepting(_core.AioServer):  # type: ignore[misc]
        """Lets the accept loop have calls of registered methods only."""

        def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
            if method is not None:
                made: asyncio.Future[Any] = super()._make_request_call_future(method)
                return made
            return asyncio.get_running_loop().create_task(self._refuse_others())

        async def _refuse_others(self) -> None:
            """Answer UNIMPLEMENTED until the server ends, which the accept loop must hear of: so it is not caught."""
            loop, refusing = asyncio.get_running_loop(), set[asyncio.Task[None]]()
            while True:
                state = await self._request_call()
                refusal = _core._handle_rpc("", _NoMethods(), (), state, loop, False)
                task = loop.create_task(_core._schedule_rpc_coro(refusal, state, loop, ""))
                refusing.add(task)
                task.add_done_callback(refusing.discard)

    class Guarded(_server.Server):  # type: ignore[misc]
        """grpcio's asyncio server around that accept loop."""

        def __init__(self, interceptors: Sequence[aio.ServerInterceptor], options: Any, maximum: int) -> None:
            self._loop = asyncio.get_running_loop()
            self._server = Accepting(self._loop, None, (), tuple(interceptors), tuple(options), maximum)

    return Guarded


def make_server(
    interceptors: Sequence[aio.ServerInterceptor], *, options: Sequence[tuple[str, int | str]], maximum_calls: int
) -> aio.Server:
    """A server that is not started yet; to be called where the event loop runs."""
    if all(hasattr(_core, name) for name in _NEEDED):
        server: aio.Server = _guarded()(interceptors, options, maximum_calls)
        return server
    # Another grpcio than the one this was written for: it serves all the same, and is opened again when it ends.
    _log.warning("rpc.unguarded", grpcio=getattr(_core, "__version__", ""))
    return aio.server(interceptors=interceptors, options=options, maximum_concurrent_rpcs=maximum_calls)
