"""First in line on every call, of every shape: who calls, may they, and every error as a status.

Handlers below it raise :class:`PeerdError` and never see a context for refusals. An exception that is not one is our
bug: the caller gets ``internal``, the log the traceback.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
import structlog
from grpc import aio

from peerd.errors import PeerdError, Reason
from peerd.rpc import limits
from peerd.rpc.caller import Caller, current
from peerd.rpc.calls import OpenCall, OpenCalls
from peerd.rpc.rules import Rules
from peerd.rpc.status import to_status

_log = structlog.get_logger(__name__)

Context = aio.ServicerContext[Any, Any]


class Authentication(Protocol):
    """Tells the caller from what the transport says."""

    def caller(self, auth_context: Mapping[str, Sequence[bytes]]) -> Caller:
        """Raises PeerdError when it is nobody."""
        ...


class CallerInterceptor(aio.ServerInterceptor):
    """Decides each call before its handler runs, and ends it when its caller is revoked."""

    def __init__(self, authentication: Authentication, calls: OpenCalls) -> None:
        self._authentication = authentication
        self._calls = calls
        self._rules = Rules()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            wrapped: Any = self._streaming(method, inner)
        else:
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            wrapped = self._single(method, inner, None if handler.request_streaming else limits.UNARY_SECONDS)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _single(self, method: str, inner: Callable[[Any, Context], Awaitable[Any]], seconds: float | None) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            call: OpenCall | None = None
            try:
                with self._admitted(method, context) as call:
                    async with asyncio.timeout(seconds):
                        return await inner(request, context)
            except BaseException as error:  # noqa: BLE001 - every end of a call becomes a status
                await _abort(context, method, error, call)

        return handle

    def _streaming(self, method: str, inner: Callable[[Any, Context], Any]) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            call: OpenCall | None = None
            try:
                with self._admitted(method, context) as call:
                    answers = inner(request, context)
                    if inspect.isawaitable(answers):  # a handler that writes to the context itself, as health does
                        await answers
                        return
                    async for response in answers:
                        yield response
            except BaseException as error:  # noqa: BLE001 - every end of a call becomes a status
                await _abort(context, method, error, call)

        return handle

    @contextmanager
    def _admitted(self, method: str, context: Context) -> Iterator[OpenCall]:
        auth_context: Any = context.auth_context()
        caller = self._authentication.caller(auth_context)
        self._rules.check(method, caller)
        token = current.set(caller)
        try:
            with self._calls.track(caller.peer_id) as call:
                yield call
        finally:
            try:
                current.reset(token)
            except ValueError:  # a generator closed by another task; its context is gone with it
                pass


async def _abort(context: Context, method: str, error: BaseException, call: OpenCall | None) -> None:
    """End the call with the status of what happened. Always raises."""
    if isinstance(error, GeneratorExit | aio.AbortError):
        raise error
    if isinstance(error, asyncio.CancelledError):
        if call is None or call.ended_with is None:
            raise error
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        refusal = call.ended_with
    elif isinstance(error, PeerdError):
        refusal = error
    elif isinstance(error, TimeoutError):
        refusal = PeerdError(Reason.DEADLINE_EXCEEDED, f"{method} took too long")
    elif isinstance(error, Exception):
        _log.exception("rpc.crashed", method=method, exc_info=error)
        refusal = PeerdError(Reason.INTERNAL, f"{method} failed inside the daemon")
    else:
        raise error
    code, message, metadata = to_status(refusal)
    await context.abort(code, message, metadata)
