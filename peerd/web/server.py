"""uvicorn in the daemon's own loop: it takes no signals, and ends when the daemon ends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from peerd.config import HttpConfig
from peerd.errors import PeerdError, Reason
from peerd.web.gate import is_loopback

_BACKLOG = 128


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
        host, _, port = self._config.listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
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
