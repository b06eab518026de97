"""Tells systemd how we are, by its datagram protocol. https://www.freedesktop.org/software/systemd/man/sd_notify.html"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import structlog

from peerd.clock import Clock

_log = structlog.get_logger(__name__)


class Notifier:
    """Silent where nobody listens, which is everywhere but under a service manager."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        self._address = env.get("NOTIFY_SOCKET", "")
        watchdog = env.get("WATCHDOG_USEC", "")
        mine = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(watchdog) / 1_000_000 if watchdog.isdigit() and mine else 0.0
        """How long systemd waits for a sign of life; 0 when it does not."""

    def ready(self, status: str) -> None:
        """All is up."""
        self._send("READY=1", f"STATUS={status}")

    def stopping(self, seconds: float) -> None:
        """It ends, and may take so long."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round((seconds + 5) * 1_000_000)}")

    def alive(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    async def watch(self, clock: Clock, is_well: Callable[[], Awaitable[bool]]) -> None:
        """Give signs of life as long as all is well. Returns at once where none is asked for."""
        while self.watchdog_seconds:
            try:
                well = await is_well()
            except Exception:  # noqa: BLE001 - whatever it is: not well; the supervisor decides what follows
                _log.exception("notify.cannot_tell")
                well = False
            if well:
                self.alive()
            else:
                _log.error("notify.unwell")
            await clock.sleep(self.watchdog_seconds / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # An abstract socket is written with @ and addressed with a zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            try:
                wire.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                _log.warning("notify.failed", error=error.strerror)
