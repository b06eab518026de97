"""SerialLine: one open port, held by nobody else, whose bytes come on the event loop.

The seam over pyserial-asyncio: ports are opened in a thread, since that may block for seconds, with TIOCEXCL and flock.
DTR and RTS stay as the kernel sets them, both on, which an ESP32's reset circuit does not see; they also stay at the
end (no HUPCL). Only ``reset`` drives them.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import serial
import serial_asyncio
import structlog

from peerd.errors import PeerdError, Reason

_log = structlog.get_logger(__name__)

BAUD = 115200
_RESET_SECONDS = 0.1
"""EN low for so long, as esptool does it."""
_OPEN_SECONDS = 10.0


class Opens(Protocol):
    """What opens ports: the seam for tests and other libraries."""

    def __call__(self, path: str, receive: Callable[[bytes], None], *, reset: bool) -> Any:
        """An async context that yields a future which ends, with the reason, when the port is gone."""
        ...


class _Receiver(asyncio.Protocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(str(exc) if exc is not None else "closed")


@asynccontextmanager
async def open_line(
    path: str, receive: Callable[[bytes], None], *, reset: bool = False
) -> AsyncIterator[asyncio.Future[str]]:
    """Hold the port. Raises DEVICE_BUSY when somebody else has it, DEVICE_GONE when it cannot be opened."""
    port = await _opened(path, reset)
    try:
        receiver = _Receiver(receive)
        transport = serial_asyncio.SerialTransport(asyncio.get_running_loop(), receiver, port)
    except BaseException:
        port.close()
        raise
    try:
        yield receiver.gone
    finally:
        if not transport.is_closing():  # a second end of one that failed just now would stumble
            transport.abort()
        await receiver.gone  # on the next turn of the loop, and then it is closed


async def _opened(path: str, reset: bool) -> serial.Serial:
    """In a thread, and closed there again if nobody waits for it any more."""
    work = asyncio.ensure_future(asyncio.to_thread(_open, path, reset))
    try:
        async with asyncio.timeout(
            _OPEN_SECONDS
        ):  # wait_for of Python 3.11 loses a cancellation that comes with the end
            return await asyncio.shield(work)
    except BaseException as error:
        work.add_done_callback(_close_late)
        if isinstance(error, TimeoutError):
            raise PeerdError(Reason.DEVICE_GONE, f"{path} did not open in {_OPEN_SECONDS:.0f} s") from error
        raise


def _close_late(work: asyncio.Future[serial.Serial]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().close()


def _open(path: str, reset: bool) -> serial.Serial:
    try:
        port = serial.Serial(path, BAUD, timeout=0, write_timeout=0, exclusive=True)
    except (OSError, termios.error) as error:  # pulled out while it opens, it fails with either, or its own OSError
        busy = "exclusively lock" in str(error) or getattr(error, "errno", None) == errno.EBUSY
        said = "somebody else has it open" if busy else str(error)
        raise PeerdError(Reason.DEVICE_BUSY if busy else Reason.DEVICE_GONE, f"{path}: {said}") from error
    try:
        _exclude_others(port)
        attributes = termios.tcgetattr(port.fileno())
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, attributes)
        if reset:
            _reset(port)
    except (OSError, termios.error) as error:
        port.close()
        raise PeerdError(Reason.DEVICE_GONE, f"{path}: {error}") from error
    except BaseException:
        port.close()
        raise
    return port


def _exclude_others(port: serial.Serial) -> None:
    """Later openings by programs that do not lock fail, too; not for root, and not with drivers that lack it."""
    try:
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        _log.debug("devices.no_tiocexcl", path=port.name)


def _reset(port: serial.Serial) -> None:
    """RTS alone pulls EN down; a board without those lines, or a pseudo-terminal, does not mind."""
    try:
        port.dtr, port.rts = False, True
        time.sleep(_RESET_SECONDS)  # in the thread that opens it
        port.rts = False
    except OSError as error:
        _log.info("devices.no_reset_lines", path=port.name, message=str(error))
