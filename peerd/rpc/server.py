"""The two listeners of a daemon: the peer port with mutual TLS, and the unix socket for this machine's operator."""

from __future__ import annotations

import os
import socket as sockets
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.rpc.accepting import make_server
from peerd.rpc.authentication import LocalAuthentication, TlsAuthentication
from peerd.rpc.calls import OpenCalls
from peerd.rpc.channels import Channels
from peerd.rpc.credentials import ServerCredentials
from peerd.rpc.forward import ForwardInterceptor
from peerd.rpc.interceptor import CallerInterceptor, Observer
from peerd.rpc.listener import Listener
from peerd.rpc.members import Members
from peerd.rpc.rates import Rates

Register = Callable[[Any], None]
"""Adds a servicer to a server, such as ``lambda server: add_JobServiceServicer_to_server(jobs, server)``."""

_MAX_CONCURRENT_RPCS = 512


class RpcServer:
    """Serves the same services on both listeners."""

    def __init__(
        self,
        identity: Identity,
        members: Members,
        channels: Channels,
        clock: Clock,
        *,
        resolve: Callable[[str], PeerId],
        rates: Rates | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.calls = OpenCalls()
        """For ending the calls of a revoked peer."""
        self._health = health.aio.HealthServicer()
        self._members = members
        limited = rates or Rates()
        self._tls = CallerInterceptor(TlsAuthentication(members, clock), self.calls, clock, limited, observer)
        self._local = CallerInterceptor(LocalAuthentication(identity.peer_id), self.calls, clock, limited, observer)
        self._forward = ForwardInterceptor(identity.peer_id, channels, resolve)
        self._credentials = ServerCredentials(identity, members, clock)
        self._services: list[tuple[str, Register]] = []
        self._listeners: list[Listener] = []

    def register(self, services: Sequence[tuple[str, Register]]) -> None:
        """Serve (full service name, register function) on both listeners, with health and reflection."""
        self._services = list(services)

    async def start(self, *, listen: str, socket: Path) -> int:
        """Listen on both; returns the port. Raises INVALID_CONFIG when an address cannot be had."""
        most = limits.max_connections(len(self._members.anchors()))
        bound = listen

        async def open_peers() -> aio.Server:
            nonlocal bound
            server = self._server([self._tls], most)
            try:
                port = server.add_secure_port(bound, self._credentials.credentials())
            except RuntimeError as error:
                await server.stop(0)
                raise PeerdError(Reason.INVALID_CONFIG, f"cannot listen on {bound}: {error}") from error
            bound = f"{bound.rpartition(':')[0]}:{port}"
            await server.start()
            return server

        async def open_local() -> aio.Server:
            _prepare_socket(socket)
            server = self._server([self._forward, self._local], most)
            server.add_insecure_port(f"unix:{socket}")
            await server.start()
            os.chmod(socket, 0o600)
            return server

        for name, open_server in (("peers", open_peers), ("socket", open_local)):
            listener = Listener(name, open_server)
            self._listeners.append(listener)
            await listener.open()
        for name in ("", *(name for name, _ in self._services)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return int(bound.rpartition(":")[2])

    async def say_health(self, serving: Mapping[str, bool]) -> None:
        """What the health service answers of these services from now on, by their short names."""
        status = health_pb2.HealthCheckResponse
        for name, well in serving.items():
            await self._health.set(f"peerd.v1.{name}", status.SERVING if well else status.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones end within the grace, then abort them."""
        await self._health.enter_graceful_shutdown()
        for listener in self._listeners:
            await listener.close(grace_seconds)

    def _server(self, interceptors: Sequence[aio.ServerInterceptor], connections: int) -> aio.Server:
        server = make_server(interceptors, options=limits.server(connections), maximum_calls=_MAX_CONCURRENT_RPCS)
        standard = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        for _, register in self._services:
            register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*(name for name, _ in self._services), *standard), server)
        return server


def _prepare_socket(path: Path) -> None:
    """A directory that only its owner enters, and no stale socket file. Raises DAEMON_RUNNING or KEY_EXPOSED."""
    if len(os.fsencode(path)) > 100:
        raise PeerdError(
            Reason.INVALID_CONFIG,
            f"the socket path {path} is too long for the kernel (100 bytes)",
            next_action="set a shorter one with 'socket = ...' or PEERD_SOCKET",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    if mode & 0o007:
        raise PeerdError(
            Reason.KEY_EXPOSED,
            f"{path.parent} has mode {mode:04o}; whoever enters it commands this peer",
            next_action=f"chmod 700 {path.parent}",
        )
    if path.is_symlink() or (path.exists() and not path.is_socket()):
        raise PeerdError(
            Reason.INVALID_CONFIG,
            f"{path} is there and is no socket",
            next_action="move it away, or set another path with 'socket = ...' or PEERD_SOCKET",
        )
    if path.exists():
        with sockets.socket(sockets.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise PeerdError(Reason.DAEMON_RUNNING, f"a daemon answers on {path}")
