"""The only way out: a name is resolved once, every address is judged, and only judged addresses are dialed.

Whoever asks for a connection gives an address, never a name, so a name that resolves to something else the next moment
changes nothing. The guard is asked again before every dial, every dial is recorded, and there are never more at once or
in a second than allowed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.nodes.messages import Connect
from peerd.nodes.probing.guard import Address, Guard, plain

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""A host name -> the texts of its addresses. Raises OSError."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connector = Callable[[Address, int], Awaitable[Streams]]
"""Opens one TCP connection to an address. Raises OSError."""

MAX_ADDRESSES = 16
"""Of one name; more are a sign that somebody wants to have a network scanned."""
MAX_AT_ONCE = 64
"""Open connections of one prober."""
CONNECT_SECONDS = 3.0
RESOLVE_SECONDS = 5.0


class NotAllowedError(Exception):
    """The guard refused a name or one of its addresses; the message says why."""


class NoConnectionError(OSError):
    """Nobody took the connection in time, as behind a firewall."""


class Dialer:
    """Resolves and connects, within the guard."""

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        connects_per_second: float,
        at_once: int = MAX_AT_ONCE,
        resolver: Resolver | None = None,
        connector: Connector | None = None,
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._interval = 1 / connects_per_second
        self._resolver = resolver or resolve
        self._connector = connector or connect
        self._next_at = 0.0
        self._slots = asyncio.Semaphore(at_once)
        self.connects: list[Connect] = []
        """Every address that was dialed, in order."""

    async def addresses(self, host: str) -> tuple[Address, ...]:
        """The addresses of a host, all of them allowed.

        Raises NotAllowedError if one is not: a name with an address outside is not to be trusted with the others.
        Raises PeerdError(NOT_FOUND) if there are none.
        """
        refusal = self._guard.host_refusal(host)
        if refusal is not None:
            raise NotAllowedError(refusal)
        found = await self._resolved(host)
        for address in found:
            refusal = self._guard.refusal(address)
            if refusal is not None:
                raise NotAllowedError(refusal)
        return found

    def record(self, address: Address, port: int) -> None:
        """Judge an address and record that it is dialed, by us or by a program of ours. Raises NotAllowedError."""
        refusal = self._guard.refusal(address)
        if refusal is not None:
            raise NotAllowedError(refusal)
        self.connects.append(Connect(address=str(address), port=port))

    async def _turn(self) -> None:
        """Wait until the rate allows one more."""
        now = self._clock.monotonic()
        begins = max(now, self._next_at)
        self._next_at = begins + self._interval
        if begins > now:
            await self._clock.sleep(begins - now)

    @asynccontextmanager
    async def connection(
        self, address: Address, port: int, seconds: float, *, tls: ssl.SSLContext | None = None, name: str = ""
    ) -> AsyncIterator[Streams]:
        """A connection, cut off at the end, and so many seconds after the dial; waiting for a turn is not counted.

        Raises OSError (ssl.SSLError included), TimeoutError, NotAllowedError.
        """
        async with self._slots:
            await self._turn()
            self.record(address, port)
            async with asyncio.timeout(seconds):
                reader, writer = await self._connected(address, port, min(seconds, CONNECT_SECONDS))
                try:
                    if tls is not None:
                        await writer.start_tls(tls, server_hostname=name or None, ssl_handshake_timeout=CONNECT_SECONDS)
                    yield reader, writer
                finally:
                    writer.transport.abort()

    async def _connected(self, address: Address, port: int, seconds: float) -> Streams:
        try:
            async with asyncio.timeout(seconds):
                return await self._connector(address, port)
        except TimeoutError as error:
            raise NoConnectionError(f"no connection in {seconds:g} s") from error

    async def _resolved(self, host: str) -> tuple[Address, ...]:
        try:
            return (plain(host),)
        except ValueError:
            pass
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                texts = await self._resolver(host)
        except TimeoutError as error:
            raise PeerdError(Reason.NOT_FOUND, f"no answer for {host} in {RESOLVE_SECONDS:.0f} s") from error
        except (OSError, UnicodeError) as error:
            raise PeerdError(Reason.NOT_FOUND, f"{host}: {error}") from error
        found = tuple(dict.fromkeys(plain(text) for text in texts))
        if not found:
            raise PeerdError(Reason.NOT_FOUND, f"{host} has no address")
        if len(found) > MAX_ADDRESSES:
            raise NotAllowedError(f"{host} has {len(found)} addresses; at most {MAX_ADDRESSES} are looked at")
        return found


async def connect(address: Address, port: int) -> Streams:
    """A TCP connection; the text of an address is never resolved."""
    return await asyncio.open_connection(str(address), port)


async def resolve(host: str) -> Sequence[str]:
    """What the machine's resolver says, once, in a thread that nobody waits for when it hangs."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def look_up() -> None:
        found: list[str] | OSError
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = [str(ip_address(info[4][0])) for info in infos]
        except (OSError, UnicodeError, ValueError) as error:
            found = error if isinstance(error, OSError) else OSError(str(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    return await answer
