"""HTTP/2 written by hand, so that it can be written wrongly: frames, headers, gRPC messages, and connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from peerd.clock import SystemClock
from peerd.identity.certificates import anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4

_PATIENCE_SECONDS = 60
"""For what a daemon on a busy machine does at once on another."""

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; ``length`` may lie."""
    size = len(payload) if length is None else length
    return struct.pack("!I", size)[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", key, value) for key, value in pairs))


def integer(value: int, prefix: int) -> bytes:
    """An HPACK integer below so many bits that are taken."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((value,))
    out, value = bytearray((most,)), value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def header_block(headers: Sequence[Header], *, indexed: bool = False) -> bytes:
    """Headers as literals; ``indexed`` fills the table of the other side with them."""
    first = 0x40 if indexed else 0x00
    return b"".join(
        bytes((first,)) + integer(len(name), 7) + name + integer(len(value), 7) + value for name, value in headers
    )


def call_headers(path: bytes, *more: Header) -> list[Header]:
    """What a gRPC call begins with."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path),
        (b":authority", b"peer"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


def open_call(stream: int, path: bytes, *more: Header) -> bytes:
    """A HEADERS frame that opens a call."""
    return frame(HEADERS, END_HEADERS, stream, header_block(call_headers(path, *more)))


def grpc_message(payload: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix; ``length`` may lie."""
    return struct.pack("!BI", compressed, len(payload) if length is None else length) + payload


def data(stream: int, payload: bytes, *, end: bool = True) -> bytes:
    """DATA frames of at most 16 KiB."""
    pieces = [payload[start : start + 16384] for start in range(0, len(payload), 16384)] or [b""]
    last = len(pieces) - 1
    return b"".join(
        frame(DATA, END_STREAM if end and n == last else 0, stream, piece) for n, piece in enumerate(pieces)
    )


class Connection:
    """A connected socket that knows whether the other side still holds it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.statuses: dict[int, bytes] = {}
        """The grpc-status of each stream that ended with one, b"" where it has none."""

    def send(self, content: bytes) -> bool:
        """False when the other side hung up."""
        try:
            self.sock.sendall(content)
        except OSError:
            return False
        return True

    def greet(self, *pairs: tuple[int, int]) -> bool:
        """Preface and SETTINGS; without a header table, so that :func:`_status` can read."""
        return self.send(PREFACE + settings((1, 0), *pairs))

    def read(self, seconds: float) -> bytes | None:
        """Whatever comes within that time: b"" when nothing did, None at the end of the connection."""
        self.sock.settimeout(max(0.001, seconds))
        try:
            got = self.sock.recv(65536)
        except TimeoutError:
            return b""
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(_PATIENCE_SECONDS)
        self.received += got
        return got or None

    def closed_within(self, seconds: float) -> bool:
        """Whether the other side ends the connection in that time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.read(left) is None:
                return True
        return False

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The whole frames among what was received: kind, flags, stream, payload. They are taken off."""
        while len(self.received) >= 9:
            size = int.from_bytes(self.received[:3])
            if len(self.received) < 9 + size:
                return
            kind, flags, stream = self.received[3], self.received[4], int.from_bytes(self.received[5:9])
            payload = bytes(self.received[9 : 9 + size])
            del self.received[: 9 + size]
            yield kind, flags, stream, payload

    def answered(self, streams: set[int], seconds: float) -> set[int]:
        """Of these streams, those that did not end in that time. Pings and settings are acknowledged meanwhile."""
        open_streams, until = set(streams), time.monotonic() + seconds
        while open_streams and (left := until - time.monotonic()) > 0:
            if self.read(left) is None:
                return set()
            for kind, flags, stream, payload in self.frames():
                if kind == GOAWAY:
                    last = int.from_bytes(payload[:4])
                    open_streams = {one for one in open_streams if one <= last}
                elif kind == PING and not flags & ACK:
                    self.send(frame(PING, ACK, 0, payload))
                elif kind == SETTINGS and not flags & ACK:
                    self.send(frame(SETTINGS, ACK, 0))
                if kind == HEADERS and flags & END_STREAM:
                    self.statuses[stream] = _status(payload)
                if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
                    open_streams.discard(stream)
        return open_streams

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status(block: bytes) -> bytes:
    """The value of grpc-status in a block of headers, where all is spelled out."""
    _, _, rest = block.partition(b"grpc-status")
    return rest[1 : 1 + rest[0]] if rest else b""


class Member:
    """One who holds a member's key and means no good."""

    def __init__(self, identity: Identity, callee: str) -> None:
        self.peer_id = identity.peer_id
        leaf = issue_leaf(identity, SystemClock())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.set_alpn_protocols(["h2"])
        self._context.load_verify_locations(cadata=anchor_pem(PeerId(callee)).decode())
        self._callee = callee
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "leaf.pem"
            file.touch(mode=0o600)
            file.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
            self._context.load_cert_chain(file)

    def connect(self, port: int) -> Connection:
        """Through the handshake, with nothing said yet."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS)
        try:
            return Connection(self._context.wrap_socket(plain, server_hostname=self._callee))
        except BaseException:
            plain.close()
            raise


def connect_plain(port: int) -> Connection:
    """TCP to the peer port, without a word of TLS."""
    return Connection(socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS))


def connect_unix(path: Path) -> Connection:
    """The operator's socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_PATIENCE_SECONDS)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return Connection(sock)
