"""A proxy of every peer that repeats, delays, reorders and loses calls.

It has the keys of all peers, so it ends their TLS: to a caller it is the callee, to the callee it is the caller. What
it does to a call that changes something is what a bad network with an eager client library would do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from peerd.clock import SystemClock
from peerd.identity.key import load_identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.authentication import TlsAuthentication
from peerd.rpc.channels import Channels
from peerd.rpc.credentials import ServerCredentials
from peerd.v1 import catalog_pb2, detector_pb2, jobs_pb2, mesh_pb2, profiles_pb2, registry_pb2, transfers_pb2
from tests.e2e.fleet import Fleet, free_port
from tests.rpc.test_trust_on_the_wire import Table

_FILES = (catalog_pb2, detector_pb2, jobs_pb2, mesh_pb2, profiles_pb2, registry_pb2, transfers_pb2)
_METHODS: Mapping[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Mischief:
    """How likely each thing is, from 0 to 1, and how long delays are."""

    repeat: float = 0.3
    """The same request twice, one after the other or both at once."""
    repeat_late: float = 0.05
    """The same request once more, seconds later, when nobody waits for its answer."""
    delay: float = 0.4
    delay_seconds: float = 0.3
    lose_request: float = 0.03
    lose_answer: float = 0.08
    cut_stream: float = 0.1
    """A stream ends after some messages."""


@dataclass
class Proxies:
    """One for each daemon, on a port of its own."""

    fleet: Fleet
    rng: random.Random
    mischief: Mischief = field(default_factory=Mischief)
    counts: Counter[str] = field(default_factory=Counter)
    _servers: list[aio.Server] = field(default_factory=list)
    _channels: dict[PeerId, Channels] = field(default_factory=dict)
    _late: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen for everybody, and set what each daemon advertises; it counts from their next start."""
        clock, table = SystemClock(), Table()
        identities = {}
        for daemon in self.fleet.daemons.values():
            identity = load_identity(daemon.data / "identity.key")
            identities[daemon.name] = identity
            table.active[identity.peer_id] = frozenset()
            table.places[identity.peer_id] = f"{daemon.host}:{daemon.port}"
        for daemon in self.fleet.daemons.values():
            identity = identities[daemon.name]
            self._channels[identity.peer_id] = Channels(identity, table, clock)
            server = aio.server(options=limits.CLIENT)
            server.add_generic_rpc_handlers([_Handler(self, identity.peer_id, TlsAuthentication(table, clock))])
            port = free_port()
            server.add_secure_port(f"127.0.0.1:{port}", ServerCredentials(identity, table, clock).credentials())
            await server.start()
            self._servers.append(server)
            daemon.environ["PEERD_PEER_ADVERTISE"] = f"127.0.0.1:{port}"

    async def close(self) -> None:
        """End all."""
        for task in self._late:
            task.cancel()
        for server in self._servers:
            await server.stop(0)
        for channels in self._channels.values():
            await channels.close()

    def calm(self) -> None:
        """Pass everything on as it is from now on."""
        self.mischief = Mischief(repeat=0, repeat_late=0, delay=0, lose_request=0, lose_answer=0, cut_stream=0)

    def happens(self, what: str) -> bool:
        """Throw the dice."""
        if self.rng.random() >= getattr(self.mischief, what):
            return False
        self.counts[what] += 1
        return True

    def channel(self, caller: PeerId, callee: PeerId) -> aio.Channel:
        """The caller's own connection to the callee."""
        return self._channels[caller].channel(callee)

    def later(self, call: Any, request: bytes) -> None:
        """Send it once more when everybody has forgotten it."""

        async def send() -> None:
            await asyncio.sleep(self.rng.uniform(1, 15))
            try:
                await call(request, timeout=_DEADLINE_SECONDS)
            except aio.AioRpcError:
                return

        task = asyncio.ensure_future(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


class _Handler(grpc.GenericRpcHandler):
    """Any method of any peer, on its way to one of them."""

    def __init__(self, proxies: Proxies, callee: PeerId, authentication: TlsAuthentication) -> None:
        self._proxies = proxies
        self._callee = callee
        self._authentication = authentication

    def service(self, handler_call_details: Any) -> Any:
        method = _METHODS.get(handler_call_details.method)
        if method is None:
            return None
        path = handler_call_details.method

        async def single(request: bytes, context: Any) -> Any:
            return await self._single(path, request, context)

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for answer in self._stream(path, requests, context):
                yield answer

        if method.client_streaming or method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(single)

    def _caller(self, context: Any) -> PeerId:
        return self._authentication.caller(context.auth_context()).peer_id

    async def _single(self, path: str, request: bytes, context: Any) -> Any:
        proxies = self._proxies
        call: Any = proxies.channel(self._caller(context), self._callee).unary_unary(path)
        if proxies.happens("delay"):
            await asyncio.sleep(proxies.rng.uniform(0, proxies.mischief.delay_seconds))
        if proxies.happens("lose_request"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost on the way")
        if proxies.happens("repeat_late"):
            proxies.later(call, request)
        times = 2 if proxies.happens("repeat") else 1
        at_once = proxies.rng.random() < 0.5
        answers: list[Any] = []
        if at_once:
            calls = [call(request, timeout=_DEADLINE_SECONDS) for _ in range(times)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        else:
            for _ in range(times):
                answers += await asyncio.gather(call(request, timeout=_DEADLINE_SECONDS), return_exceptions=True)
        if proxies.happens("lose_answer"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return await _pass_on(answers[-1], context)

    async def _stream(self, path: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        proxies = self._proxies
        left = proxies.rng.randint(0, 20) if proxies.happens("cut_stream") else 10**9

        async def limited() -> AsyncIterator[bytes]:
            nonlocal left
            async for request in requests:
                left -= 1
                if left < 0:
                    call.cancel()
                    return
                yield request

        start: Any = proxies.channel(self._caller(context), self._callee).stream_stream(path)
        call = start(limited())
        try:
            async for answer in call:
                yield answer
        except (aio.AioRpcError, asyncio.CancelledError) as error:
            if left < 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was cut")
            await _pass_on(error, context)


async def _pass_on(answer: Any, context: Any) -> Any:
    if isinstance(answer, aio.AioRpcError):
        await context.abort(answer.code(), answer.details() or "", tuple(answer.trailing_metadata() or ()))
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def mischief(proxies: Proxies | None, seconds: float) -> None:
    """Be a bad network for so long, then a good one."""
    assert proxies is not None, "this nemesis needs all calls to go through proxies"
    await asyncio.sleep(seconds)
    proxies.calm()
