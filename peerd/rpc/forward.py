"""Through the local socket to any peer: metadata ``peerd-peer: NAME`` sends a call on, as this peer.

Any method that this version knows, any shape: bytes go in and come out unparsed, and a status passes unchanged with
its details. Only the unix socket has this; the other peer decides by this peer's grants as if it had called by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.rpc.channels import Channels
from peerd.rpc.status import DETAILS_KEY, fit_message, from_rpc_error, to_status

METADATA_KEY = "peerd-peer"
_TRANSPORT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Codes that the connection may have made: we say what they mean."""


class ForwardInterceptor(aio.ServerInterceptor):
    """Stands before the caller interceptor of the unix socket."""

    def __init__(self, self_id: PeerId, channels: Channels, resolve: Callable[[str], PeerId]) -> None:
        self._self_id = self_id
        self._channels = channels
        self._resolve = resolve

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())
        name = metadata.get(METADATA_KEY)
        if not name:
            return await continuation(handler_call_details)
        method = handler_call_details.method

        async def pipe(requests: AsyncIterator[bytes], context: aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
            try:
                peer_id = self._resolve(name if isinstance(name, str) else name.decode())
                channel = self._channels.channel(peer_id)
            except PeerdError as error:
                await context.abort(*to_status(error))
            passing: Any = channel.stream_stream(method)
            call = passing(requests, timeout=context.time_remaining())
            try:
                async for response in call:
                    yield response
            except aio.AioRpcError as error:
                await _pass_on(context, error, peer_id)
            finally:
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(pipe)


async def _pass_on(context: aio.ServicerContext[Any, Any], error: aio.AioRpcError, peer_id: PeerId) -> None:
    trailing = tuple((key, value) for key, value in error.trailing_metadata() or ())
    if any(key == DETAILS_KEY for key, _ in trailing):
        await context.abort(error.code(), error.details() or "", trailing)
    if error.code() in _TRANSPORT:
        await context.abort(*to_status(from_rpc_error(error, peer_id)))
    # Some other service's own words, such as those of health: as they are.
    await context.abort(error.code(), fit_message(error.details() or ""))
