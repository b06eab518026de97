"""One HTTP/1.1 request over one connection of the dialer.

h11 does the protocol: it has no sockets, so nothing but the dialer ever connects. The alternatives httpx and aiohttp
both resolve and connect inside their pools, follow proxies of the environment, and unpack compressed bodies, each of
which would have to be switched off and watched. Here there are no redirects, no cookies, no proxies and no compression,
headers and bodies have a cap, and everything has one deadline.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum

import h11

from peerd.nodes.probing.dialer import Dialer, Streams
from peerd.nodes.probing.guard import Address
from peerd.nodes.protocols.values import shown

PROBE_SECONDS = 5.0
"""Of one request, from dialing to the last byte."""
MAX_BODY = 1024 * 1024
MAX_METRICS_BODY = 4 * 1024 * 1024
_MAX_HEADERS = 64 * 1024
_MAX_HINTS = 8
"""Interim replies (1xx) before the one that counts."""
_KEPT_RAW = 512
_USER_AGENT = "peerd-prober"


class Transfer(StrEnum):
    """How an exchange went."""

    REPLIED = "replied"  # a whole HTTP reply
    CUT = "cut"  # a reply whose body is longer than the cap
    REFUSED = "refused"  # nothing listens
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed out"
    RESET = "reset"
    CLOSED = "closed"  # without a whole reply
    NOT_HTTP = "not HTTP"
    TLS_FAILED = "TLS failed"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a request goes."""

    address: Address
    port: int
    host: str
    """As it was asked for: in the Host header and, if it is a name, in the TLS handshake."""
    tls: bool = False

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def where(self) -> str:
        """Address and port for people."""
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class TlsSeen:
    """The TLS of a connection."""

    version: str
    """Such as ``TLSv1.3``."""
    certificate: bytes
    """DER."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What came of a request."""

    transfer: Transfer
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    body: bytes = b""
    raw: bytes = b""
    """The first bytes that came, whatever they were."""
    tls: TlsSeen | None = None
    detail: str = ""

    def header(self, name: str) -> str:
        """The first of that name, which is lower case; empty if there is none."""
        return next((value for key, value in self.headers if key == name), "")


def tls_context() -> ssl.SSLContext:
    """Speaks TLS with anybody: it is looked at, not relied on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class HttpClient:
    """Sends requests and never raises for what a server does."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._tls = tls_context()

    async def get(self, endpoint: Endpoint, path: str, *, cap: int = MAX_BODY) -> Exchange:
        """GET a path."""
        return await self._send(endpoint, "GET", path, b"", cap)

    async def post_json(self, endpoint: Endpoint, path: str, body: bytes) -> Exchange:
        """POST a JSON text."""
        return await self._send(endpoint, "POST", path, body, MAX_BODY)

    async def _send(self, endpoint: Endpoint, method: str, path: str, body: bytes, cap: int) -> Exchange:
        seen = _Seen()
        try:
            async with self._dialer.connection(
                endpoint.address,
                endpoint.port,
                PROBE_SECONDS,
                tls=self._tls if endpoint.tls else None,
                name=endpoint.host,
            ) as streams:
                seen.look(streams)
                return await _exchange(streams, endpoint, method, path, body, cap, seen)
        except TimeoutError:
            return seen.failed(Transfer.TIMED_OUT)
        except ssl.SSLError as error:
            return seen.failed(Transfer.TLS_FAILED, error.reason or str(error))
        except ValueError as error:  # a name that TLS takes for none
            return seen.failed(Transfer.TLS_FAILED, str(error))
        except ConnectionRefusedError:
            return seen.failed(Transfer.REFUSED)
        except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError) as error:
            closed = endpoint.tls and seen.tls is None
            return seen.failed(Transfer.TLS_FAILED if closed else Transfer.RESET, str(error))
        except OSError as error:
            return seen.failed(Transfer.UNREACHABLE, error.strerror or str(error))


class _Seen:
    """What is known of a connection while it goes on."""

    def __init__(self) -> None:
        self.raw = b""
        self.tls: TlsSeen | None = None

    def look(self, streams: Streams) -> None:
        secure = streams[1].get_extra_info("ssl_object")
        if secure is not None:
            self.tls = TlsSeen(version=secure.version() or "", certificate=secure.getpeercert(binary_form=True) or b"")

    def failed(self, transfer: Transfer, detail: str = "") -> Exchange:
        return Exchange(transfer=transfer, raw=self.raw, tls=self.tls, detail=shown(detail))


async def _exchange(
    streams: Streams, endpoint: Endpoint, method: str, path: str, body: bytes, cap: int, seen: _Seen
) -> Exchange:
    reader, writer = streams
    machine = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=_MAX_HEADERS)
    headers = [
        ("Host", endpoint.authority),
        ("User-Agent", _USER_AGENT),
        ("Accept", "application/json, text/plain, */*;q=0.5"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    if body:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    request = machine.send(h11.Request(method=method, target=path, headers=headers)) or b""
    if body:
        request += machine.send(h11.Data(data=body)) or b""
    writer.write(request + (machine.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    status, received = 0, bytearray()
    reply_headers: tuple[tuple[str, str], ...] = ()
    came, hints = 0, 0
    while True:
        try:
            event = machine.next_event()
        except h11.RemoteProtocolError as error:
            transfer = Transfer.CLOSED if not seen.raw or status else Transfer.NOT_HTTP
            return seen.failed(transfer, str(error))
        if event is h11.NEED_DATA:
            piece = await reader.read(65536)
            came += len(piece)
            if came > cap + 2 * _MAX_HEADERS:  # chunk headers without end
                event = h11.PAUSED
            else:
                if len(seen.raw) < _KEPT_RAW:
                    seen.raw = (seen.raw + piece)[:_KEPT_RAW]
                machine.receive_data(piece)
                continue
        if isinstance(event, h11.Response):
            status = event.status_code
            reply_headers = tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in event.headers
            )
        elif isinstance(event, h11.Data):
            received += event.data
        elif isinstance(event, h11.InformationalResponse):
            hints += 1
            if hints > _MAX_HINTS:
                event = h11.PAUSED
        finished = isinstance(event, h11.EndOfMessage)
        if finished or event is h11.PAUSED or len(received) > cap:
            whole = finished and len(received) <= cap
            return Exchange(
                transfer=Transfer.REPLIED if whole else Transfer.CUT,
                status=status,
                headers=reply_headers,
                body=bytes(received[:cap]),
                raw=seen.raw,
                tls=seen.tls,
            )
