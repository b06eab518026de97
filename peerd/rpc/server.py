"""The two listeners of a daemon: the peer port with mutual TLS, and the unix socket for this machine's operator."""

from __future__ import annotations

import os
import socket as sockets
import stat
from collections.abc import Callable, Sequence
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
from peerd.rpc.authentication import LocalAuthentication, TlsAuthentication
from peerd.rpc.calls import OpenCalls
from peerd.rpc.channels import Channels
from peerd.rpc.credentials import ServerCredentials
from peerd.rpc.forward import ForwardInterceptor
from peerd.rpc.interceptor import CallerInterceptor, Observer
from peerd.rpc.members import Members
from peerd.rpc.rates import Rates

Register = Callable[[Any], None]
"""Adds a servicer to a server, such as ``lambda server: add_JobServiceServicer_to_server(jobs, server)``."""

_MAX_CONCURRENT_RPCS = 1024


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
        limited = rates or Rates()
        tls = CallerInterceptor(TlsAuthentication(members, clock), self.calls, clock, limited, observer)
        local = CallerInterceptor(LocalAuthentication(identity.peer_id), self.calls, clock, limited, observer)
        forward = ForwardInterceptor(identity.peer_id, channels, resolve)
        self._peers = self._server([tls])
        self._local = self._server([forward, local])
        self._credentials = ServerCredentials(identity, members, clock)
        self._services: list[str] = []

    def register(self, services: Sequence[tuple[str, Register]]) -> None:
        """Add (full service name, register function) to both listeners, with health and reflection."""
        self._services = [name for name, _ in services]
        standard = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        for server in (self._peers, self._local):
            for _, register in services:
                register(server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            reflection.enable_server_reflection((*self._services, *standard), server)

    async def start(self, *, listen: str, socket: Path) -> int:
        """Listen on both; returns the port. Raises INVALID_CONFIG when an address cannot be had."""
        try:
            port = self._peers.add_secure_port(listen, self._credentials.credentials())
        except RuntimeError as error:
            raise PeerdError(Reason.INVALID_CONFIG, f"cannot listen on {listen}: {error}") from error
        _prepare_socket(socket)
        self._local.add_insecure_port(f"unix:{socket}")
        await self._local.start()
        os.chmod(socket, 0o600)
        await self._peers.start()
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let running ones end within the grace, then abort them."""
        await self._health.enter_graceful_shutdown()
        await self._peers.stop(grace_seconds)
        await self._local.stop(grace_seconds)

    def _server(self, interceptors: Sequence[aio.ServerInterceptor]) -> aio.Server:
        return aio.server(
            interceptors=interceptors, options=limits.SERVER, maximum_concurrent_rpcs=_MAX_CONCURRENT_RPCS
        )


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
