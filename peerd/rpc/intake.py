"""Requests as they come in: bounded in size and in the time they take, and parsed where a refusal can be told.

grpcio would wait for the message of a unary call for ever, answer nothing when there is none, and a message that does
not parse would be its own error, with a traceback, before any of our code. So every call comes here as a stream of
bytes, and becomes messages under the eyes of the interceptor.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from grpc import aio

from peerd.errors import PeerdError, Reason
from peerd.rpc import limits
from peerd.rpc.caller import Caller
from peerd.rpc.swarms import check_entries

Context = aio.ServicerContext[Any, Any]

_SMALL = ("/grpc.health.v1.Health/",)


class Intake:
    """The requests of one call."""

    def __init__(self, method: str, parse: Callable[[bytes], Any], context: Context, caller: Caller) -> None:
        small = caller.invite or method.startswith(_SMALL)
        self._method = method
        self._parse = parse
        message_type = getattr(parse, "__self__", None)  # it is the FromString of generated code
        self._descriptor: Descriptor | None = getattr(message_type, "DESCRIPTOR", None)
        self._context = context
        self._most = limits.MAX_SMALL_MESSAGE_BYTES if small else limits.MAX_MESSAGE_BYTES
        self._idle = None if caller.local else limits.REQUEST_IDLE_SECONDS

    async def one(self) -> Any:
        """The request of a call that has just one. Raises INVALID_ARGUMENT when there is none."""
        raw: Any = await self._context.read()
        if raw is aio.EOF:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"{self._method} was called without a request")
        try:
            return self._parsed([raw])
        finally:
            del raw

    def __aiter__(self) -> Intake:
        return self

    async def __anext__(self) -> Any:
        async with asyncio.timeout(self._idle):
            raw: Any = await self._context.read()
        if raw is aio.EOF:
            raise StopAsyncIteration
        try:
            return self._parsed([raw])
        finally:
            del raw

    def _parsed(self, only: list[bytes]) -> Any:
        """The message. A refusal keeps frames, and these must not keep 4 MiB until the next full garbage collection."""
        raw = only.pop()
        try:
            return self._read(raw)
        except Exception as error:
            traceback.clear_frames(error.__traceback__.tb_next if error.__traceback__ else None)  # they have all ended
            raise
        finally:
            del raw

    def _read(self, raw: bytes) -> Any:
        if len(raw) > self._most:
            raise PeerdError(Reason.TOO_LARGE, f"{self._method} takes messages of at most {self._most} bytes")
        try:
            if self._descriptor is not None:
                check_entries(self._method, self._descriptor, raw)
            return self._parse(raw)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"the request of {self._method} cannot be read") from error
