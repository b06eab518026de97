"""uvicorn in the daemon's own loop: it takes no signals, and ends when the daemon ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from peerd.config import HttpConfig
from peerd.errors import PeerdError, Reason
from peerd.web.gate import is_loopback

_BACKLOG = 128
_HEAD_SECONDS = 10.0
"""For the head of a request to come; who only connects must not take the place of others."""


class _Protocol(H11Protocol):
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _came(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon takes them."""
        yield


class WebServer:
    """One listener."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._socket: socket.socket | None = None
        self._server: _Server | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self._config.listen.rpartition(":")[0])

    def bind(self) -> str:
        """Take the address; returns host:port as it is then. Raises INVALID_CONFIG."""
        self._check_tls()
        host, _, port = self._config.listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The protocol is named: asyncio sends at once (TCP_NODELAY) only where it is, and an answer has two parts.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host.strip("[]"), int(port)))
            made.listen(_BACKLOG)
        except (OSError, ValueError, OverflowError) as error:
            made.close()
            raise PeerdError(
                Reason.INVALID_CONFIG,
                f"cannot listen for HTTP on {self._config.listen}: {error}",
                next_action="set [http] listen (or PEERD_HTTP_LISTEN) to a free address, or to '' for none",
            ) from error
        made.setblocking(False)
        self._socket = made
        return f"{host}:{made.getsockname()[1]}"

    async def run(self, app: ASGIApp) -> None:
        """Serve until cancelled or stopped."""
        assert self._socket is not None  # noqa: S101 - bind() comes first
        config = uvicorn.Config(
            app,
            http=_Protocol,
            proxy_headers=False,  # who asks is whom we see; it decides how often
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=15,
            limit_concurrency=256,
            h11_max_incomplete_event_size=16 * 1024,
            ssl_certfile=self._config.tls_certificate or None,
            ssl_keyfile=self._config.tls_key or None,
        )
        self._server = _Server(config)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Take no more requests, and end."""
        if self._server is not None:
            self._server.should_exit = True
        elif self._socket is not None:
            self._socket.close()

    def _check_tls(self) -> None:
        """Raises INVALID_CONFIG when HTTPS is wanted and cannot be spoken."""
        certificate, key = self._config.tls_certificate, self._config.tls_key
        if not certificate and not key:
            return
        if not certificate or not key:
            raise PeerdError(Reason.INVALID_CONFIG, "[http] needs tls_certificate and tls_key, or neither")
        try:
            # An empty password, or a key that wants one would be asked for on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise PeerdError(
                Reason.INVALID_CONFIG,
                f"cannot use [http] tls_certificate {certificate} with tls_key {key}: {error.strerror or error}",
                next_action="name two PEM files that belong together, the key without a password",
            ) from error
