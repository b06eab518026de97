"""First in line on every call, of every shape: who calls, may they, and every error as a status.

Handlers below it raise :class:`PeerdError` and never see a context for refusals. An exception that is not one is our
bug: the caller gets ``internal``, the log the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from grpc import aio

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.caller import Caller, current
from peerd.rpc.calls import OpenCall, OpenCalls
from peerd.rpc.hangup import hang_up
from peerd.rpc.intake import Context, Intake
from peerd.rpc.rates import Rates
from peerd.rpc.rules import Rules
from peerd.rpc.status import to_status

_log = structlog.get_logger(__name__)


class Authentication(Protocol):
    """Tells the caller from what the transport says."""

    def caller(self, auth_context: Mapping[str, Sequence[bytes]]) -> Caller:
        """Raises PeerdError when it is nobody."""
        ...


class Observer(Protocol):
    """Is told of every call that ended."""

    def handled(self, method: str, code: str, seconds: float) -> None:
        """A call of that full method name ended with that status code, after so many seconds."""
        ...

    def refused(self, method: str, caller: Caller, request: object, error: PeerdError) -> None:
        """A call that would have changed something was refused."""
        ...


_LAST_WORD_SECONDS = 0.5
"""How long one whose call we end may take to hear why; then its connection goes."""

_UNLIMITED = ("/peerd.v1.DetectorService/",)
"""Their cost is bounded, and without them the caller would seem to be away."""


class CallerInterceptor(aio.ServerInterceptor):
    """Decides each call before its handler runs, and ends it when its caller is revoked."""

    def __init__(
        self, authentication: Authentication, calls: OpenCalls, clock: Clock, rates: Rates, observer: Observer | None
    ) -> None:
        self._authentication = authentication
        self._calls = calls
        self._clock = clock
        self._rates = rates
        self._observer = observer
        self._rules = Rules()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        # Whatever its shape, a call comes in as a stream of bytes: see intake.py.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler_call_details.method, handler), None, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            self._single(handler_call_details.method, handler), None, handler.response_serializer
        )

    def _single(self, method: str, handler: Any) -> Any:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        seconds = None if handler.request_streaming else limits.UNARY_SECONDS
        working = limits.LONG_SECONDS if method.startswith(limits.LONG_CALLS) else seconds

        async def handle(_: object, context: Context) -> Any:
            call = _Call(method, self._clock.monotonic())
            try:
                with self._admitted(call, context) as caller:
                    async with asyncio.timeout(seconds) as until:
                        await self._receive(call, handler, context, caller)
                        if working != seconds and working is not None:
                            until.reschedule(asyncio.get_running_loop().time() + working)
                        answer = await inner(call.request, context)
            except BaseException as error:  # noqa: BLE001 - every end of a call becomes a status
                await self._abort(context, error, call)
            self._ended(call, "OK")
            return answer

        return handle

    def _streaming(self, method: str, handler: Any) -> Any:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def handle(_: object, context: Context) -> None:
            # Written, not yielded: a caller that does not read holds us up in write(), where being ended reaches us.
            call = _Call(method, self._clock.monotonic())
            try:
                with self._admitted(call, context) as caller:
                    async with asyncio.timeout(limits.UNARY_SECONDS):
                        await self._receive(call, handler, context, caller)
                    answers = inner(call.request, context)
                    if inspect.isawaitable(answers):  # a handler that writes to the context itself, as health does
                        await answers
                    else:
                        async with contextlib.aclosing(answers):
                            async for response in answers:
                                await context.write(response)
                self._ended(call, "OK")
            except BaseException as error:  # noqa: BLE001 - every end of a call becomes a status
                await self._abort(context, error, call)

        return handle

    async def _receive(self, call: _Call, handler: Any, context: Context, caller: Caller) -> None:
        """Have the request, and let it pass or not. The request comes first: a refused change is written down."""
        intake = Intake(call.method, handler.request_deserializer, context, caller)
        call.request = intake if handler.request_streaming else await intake.one()
        self._rules.check(call.method, caller)

    @contextmanager
    def _admitted(self, call: _Call, context: Context) -> Iterator[Caller]:
        auth_context: Any = context.auth_context()
        caller = call.caller = self._authentication.caller(auth_context)
        if not caller.local:
            self._count(call.method, caller.peer_id, context)
        token = current.set(caller)
        try:
            with self._calls.track(caller.peer_id) as call.open:
                yield caller
        finally:
            try:
                current.reset(token)
            except ValueError:  # a generator closed by another task; its context is gone with it
                pass

    def _count(self, method: str, peer_id: PeerId, context: Context) -> None:
        probe = method.startswith(_UNLIMITED)
        if not probe:
            self._rates.check(peer_id, self._clock.monotonic())
        self._calls.take_slot(peer_id, limits.MAX_CALLS_OF_A_PEER + probe * limits.MAX_PROBES_OF_A_PEER)
        # Not when the handler has ended: an answer that its caller does not take is an open call still.
        done: Any = lambda _: self._calls.give_slot(peer_id)  # noqa: E731 - the stubs have another type for it
        context.add_done_callback(done)

    async def _abort(self, context: Context, error: BaseException, call: _Call) -> None:
        """End the call with the status of what happened. Always raises."""
        if isinstance(error, GeneratorExit | aio.AbortError):
            self._ended(call, _code_of(context))
            raise error
        refusal = _refusal(error, call)
        if refusal is None:
            self._ended(call, "CANCELLED")
            raise error
        self._ended(call, refusal.reason.code)
        if self._observer is not None and call.caller is not None:
            self._observer.refused(call.method, call.caller, call.request, refusal)
        if call.open is None or call.open.ended_with is None:
            await context.abort(*to_status(refusal))
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await context.abort(*to_status(refusal))
        except TimeoutError:
            _log.info("rpc.hung_up", method=call.method, connections=hang_up(context.peer()))
            raise asyncio.CancelledError from None

    def _ended(self, call: _Call, code: str) -> None:
        if self._observer is not None:
            self._observer.handled(call.method, code, self._clock.monotonic() - call.started)


@dataclass(slots=True)
class _Call:
    method: str
    started: float
    request: object = None
    caller: Caller | None = None
    open: OpenCall | None = None


def _code_of(context: Context) -> str:
    """What a handler that speaks for itself, as that of health, ended its call with."""
    code: Any = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code)
    return next((known.name for known in grpc.StatusCode if known.value[0] == number), "UNKNOWN")


def _refusal(error: BaseException, call: _Call) -> PeerdError | None:
    """What to tell the caller; None for what is not ours to explain."""
    if isinstance(error, asyncio.CancelledError):
        if call.open is None or call.open.ended_with is None:
            return None
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return call.open.ended_with
    if isinstance(error, PeerdError):
        return error
    if isinstance(error, NotImplementedError):  # what generated code says of a method that nobody wrote
        return PeerdError(Reason.UNIMPLEMENTED, f"{call.method} is not offered here")
    if isinstance(error, TimeoutError):
        return PeerdError(Reason.DEADLINE_EXCEEDED, f"{call.method} took too long")
    if isinstance(error, Exception):
        _log.exception("rpc.crashed", method=call.method, exc_info=error)
        return PeerdError(Reason.INTERNAL, f"{call.method} failed inside the daemon")
    return None
