"""How a call is made: over the unix socket, with a deadline, retried while the connection is lost."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Self, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from peerd.errors import PeerdError, Reason, Violation

CALL_SECONDS = 30.0
"""Deadline of one call. A search across peers waits for the slowest, so it is generous."""

RETRY_DELAYS_SECONDS = (0.1, 0.3, 0.8)
"""Waits between tries on a lost connection: together longer than a daemon needs to restart its listener."""

STREAM_SECONDS = 300.0
"""Deadline of one stream; what lasts longer is taken up again where it was."""

RECONNECT_SECONDS = 30.0
"""How long a stream goes on trying to reach a daemon that went away."""

STOOD_SECONDS = 5.0
"""A stream that broke after so long had reached its daemon, though that may have had nothing to say."""

_RECONNECT_PAUSE_SECONDS = 0.3

PAGE_SIZE = 500

CALLS_AT_ONCE = 64
"""More wait for their turn here: a daemon refuses what goes beyond the calls that one connection may carry."""

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # an execution of 10,000 jobs with its edges is about 4 MB
_DETAILS_KEY = "grpc-status-details-bin"

# What to say when a status carries no reason of peerd's: the transport made it, or a newer daemon.
_REASON_OF_CODE = {
    grpc.StatusCode.UNAVAILABLE: Reason.DAEMON_NOT_REACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.INTERNAL: Reason.CONNECTION_LOST,
    grpc.StatusCode.UNKNOWN: Reason.CONNECTION_LOST,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Reason.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.NOT_AUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.TOO_LARGE,
}

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")


def default_socket(environment: Mapping[str, str] | None = None) -> Path:
    """Where this machine's daemon listens: PEERD_SOCKET, else run/peerd.sock in its data directory."""
    env = os.environ if environment is None else environment
    if socket := env.get("PEERD_SOCKET"):
        return Path(socket)
    if data_dir := env.get("PEERD_DATA_DIR"):
        return Path(data_dir) / "run" / "peerd.sock"
    if os.geteuid() == 0:
        return Path("/var/lib/peerd/run/peerd.sock")
    state_home = env.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state_home) / "peerd" / "run" / "peerd.sock"


class Calls:
    """A connection to one daemon."""

    def __init__(
        self, *, socket: str | Path | None = None, peer: str | None = None, timeout: float = CALL_SECONDS
    ) -> None:
        self._socket = Path(socket).absolute() if socket is not None else default_socket().absolute()
        self._metadata = (("peerd-peer", peer),) if peer else ()
        self._timeout = timeout
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._channel = aio.insecure_channel(
            f"unix:{self._socket}",
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()

    # How a call is made

    async def _call(self, method: aio.UnaryUnaryMultiCallable[RequestT, AnswerT], request: RequestT) -> AnswerT:
        """Call with a deadline over all tries; the request, and so its request id, is the same in each."""
        now = asyncio.get_running_loop().time
        give_up_at = now() + self._timeout
        delays = iter(RETRY_DELAYS_SECONDS)
        while True:
            try:
                async with self._places:
                    left = max(give_up_at - now(), 0.001)
                    return await method(request, timeout=left, metadata=self._metadata)
            except aio.AioRpcError as exc:
                error = self._error(exc)
                delay = next(delays, None)
                hopeless = not connection_lost(error) or not self._socket.exists()
                if hopeless or delay is None or now() + delay >= give_up_at:
                    raise error from exc
            await asyncio.sleep(delay)

    async def _all(
        self,
        method: aio.UnaryUnaryMultiCallable[RequestT, AnswerT],
        request: RequestT,
        items: Callable[[AnswerT], Iterable[ItemT]],
        limit: int | None = None,
    ) -> list[ItemT]:
        """All items of all pages, or the first ``limit``."""
        found: list[ItemT] = []
        while True:
            page = await self._call(method, request)
            found.extend(items(page))
            token: str = page.next_page_token  # type: ignore[attr-defined]  # every List answer has it
            if not token or (limit is not None and len(found) >= limit):
                return found[:limit]
            request.page_token = token  # type: ignore[attr-defined]  # and every List request this

    async def _lasting(
        self,
        open_stream: Callable[[float], aio.UnaryStreamCall[RequestT, AnswerT]],
        *,
        timeout: float | None,
        ends: bool = False,
    ) -> AsyncGenerator[AnswerT, None]:
        """What a stream says, beyond its deadline and restarts of the daemon, until the caller has heard enough.

        ``open_stream`` takes it up where it was, with a deadline in seconds. ``timeout`` is for all of it. With
        ``ends`` it is over when the daemon says so.
        """
        now = asyncio.get_running_loop().time
        give_up_at = None if timeout is None else now() + timeout
        lost_at: float | None = None
        while True:
            left = STREAM_SECONDS if give_up_at is None else min(STREAM_SECONDS, give_up_at - now())
            begun = now()
            call = open_stream(max(left, 0.001))
            try:
                async for answer in call:
                    lost_at = None
                    yield answer
                if ends:
                    return
            except aio.AioRpcError as exc:
                error = self._error(exc)
                if now() - begun > STOOD_SECONDS:
                    lost_at = None
                out_of_time = give_up_at is not None and now() >= give_up_at
                if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not out_of_time:
                    continue
                lost_at = now() if lost_at is None else lost_at
                if out_of_time or not connection_lost(error) or now() - lost_at > RECONNECT_SECONDS:
                    raise error from exc
            finally:
                call.cancel()
            # Ended early without a word, or lost: the daemon restarts. Do not spin while it does.
            await asyncio.sleep(_RECONNECT_PAUSE_SECONDS)

    def _error(self, exc: aio.AioRpcError) -> PeerdError:
        error = error_from_rpc(exc)
        if error.reason is not Reason.DAEMON_NOT_REACHABLE or error.metadata:
            return error
        if not self._socket.exists():
            return PeerdError(Reason.DAEMON_NOT_REACHABLE, f"there is no daemon's socket at {self._socket}")
        if not os.access(self._socket, os.R_OK | os.W_OK):
            return PeerdError(
                Reason.DAEMON_NOT_REACHABLE,
                f"this user may not open {self._socket}",
                next_action="call as the daemon's own user, or join the group that owns the socket",
            )
        return PeerdError(Reason.DAEMON_NOT_REACHABLE, f"nobody answers at {self._socket}")


def error_from_rpc(exc: aio.AioRpcError) -> PeerdError:
    """What the daemon said, rebuilt from its rich status; the code's own reason where there is none."""
    fallback = _REASON_OF_CODE.get(exc.code(), Reason.INTERNAL)
    status = _rich_status(exc)
    info, violations, retry_after = None, [], None
    for detail in status.details if status is not None else ():
        error_info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry_info = error_details_pb2.RetryInfo()
        if detail.Unpack(error_info) and error_info.domain == "peerd":
            info = error_info
        elif detail.Unpack(bad_request):
            violations = [Violation(field=v.field, message=v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry_info):
            retry_after = retry_info.retry_delay.ToTimedelta().total_seconds()
    message = (status.message if status is not None else None) or exc.details() or exc.code().name.lower()
    if info is None:
        return PeerdError(fallback, message, violations=violations, retry_after_seconds=retry_after)
    known = Reason.__members__.get(info.reason.upper())
    metadata = dict(info.metadata)
    next_action = metadata.pop("next_action", None)
    return PeerdError(
        known or fallback,
        message,
        next_action=next_action,
        violations=violations,
        metadata={**metadata, "reason": info.reason},
        retry_after_seconds=retry_after,
    )


def _rich_status(exc: aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in exc.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def connection_lost(error: PeerdError) -> bool:
    """Whether the call may not have reached the daemon, or reached it while it was going."""
    return error.reason in (Reason.DAEMON_NOT_REACHABLE, Reason.SHUTTING_DOWN)


def new_request_id() -> str:
    """For one change, however often it has to be asked for."""
    return str(uuid.uuid4())
