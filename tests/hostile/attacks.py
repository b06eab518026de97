"""The attacks. Each takes a target, a door into it and a seeded generator, and says how many messages it sent.

A call or connection that ought to be over and is not within the time is a hang, and raises :class:`HangError`.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tests.hostile.messages import Method, all_methods, bad_request, gzip_bomb, swarms
from tests.hostile.target import Target
from tests.hostile.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    call_headers,
    data,
    frame,
    grpc_message,
    header_block,
    integer,
    open_call,
    settings,
)

Door = Callable[[], Connection]
Attack = Callable[[Target, Door, random.Random], int]

STATUS = b"/peerd.v1.DaemonService/GetStatus"
_METHODS: list[Method] = all_methods()
_ANSWER_SECONDS = 60.0
_DEADLINE = (b"grpc-timeout", b"1S")


class HangError(AssertionError):
    """Something that had to end did not."""


def dials(door: Door) -> Connection:
    """A connection, though the listener may be opening again at this moment."""
    until = time.monotonic() + 60
    while True:
        try:
            return door()
        except OSError:
            if time.monotonic() > until:
                raise HangError("nobody listens") from None
            time.sleep(0.02)


def tls_rubbish(target: Target, _: Door, rng: random.Random) -> int:
    """Records that are none, at the peer port, by a stranger."""
    hello = b"\x16\x03\x01" + struct.pack("!H", 200) + b"\x01\x00\x00\xc4\x03\x03" + rng.randbytes(194)
    for content in (
        rng.randbytes(rng.randint(1, 2000)),
        hello,
        hello[: rng.randint(1, 200)],
        b"\x16\x03\x01\xff\xff" + rng.randbytes(500),
        b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n",
        PREFACE + settings(),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"",
    ):
        with dials(target.as_stranger) as connection:
            connection.send(content)
            connection.read(0.005)
    return 8


def not_http2(target: Target, door: Door, rng: random.Random) -> int:
    """Inside the connection, but no HTTP/2 from the first byte on; it must be ended."""
    for content in (b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"X", rng.randbytes(100), PREFACE + rng.randbytes(500)):
        with dials(door) as connection:
            connection.send(content)
            connection.read(0.02)
    return 4


def rubbish_frames(target: Target, door: Door, rng: random.Random) -> int:
    """Frames of any type, flags, stream and content."""
    count = rng.randint(1, 20)
    with dials(door) as connection:
        connection.greet()
        for _ in range(count):
            payload = rng.randbytes(rng.choice((0, 1, 4, 5, 6, 8, 100)))
            if not connection.send(frame(rng.randrange(14), rng.randrange(256), rng.randrange(8), payload)):
                break
        connection.read(0.002)
    return count


def lying_frames(target: Target, door: Door, rng: random.Random) -> int:
    """Frames whose length or content no implementation may accept."""
    wrong = [
        frame(SETTINGS, 0, 0, b"12345"),
        frame(SETTINGS, 0, 1, b""),
        frame(SETTINGS, 1, 0, b"123456"),
        settings((5, 1), (4, 2**32 - 1), (2, 7)),
        frame(PING, 0, 0, b"1234567"),
        frame(PING, 0, 1, b"12345678"),
        frame(WINDOW_UPDATE, 0, 0, bytes(4)),
        frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 2**31 - 1)) * 3,
        frame(RST_STREAM, 0, 0, bytes(4)),
        frame(RST_STREAM, 0, 1, bytes(3)),
        frame(PRIORITY, 0, 1, bytes(4)),
        frame(DATA, 8, 1, b"\xff"),
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS | 8, 1, b"\xff\x00"),
        frame(DATA, 0, 1, b"", length=2**24 - 1),
        frame(CONTINUATION, 0, 1, b"x"),
        frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)),
        frame(HEADERS, END_HEADERS, 2, header_block(call_headers(STATUS))),
    ]
    for content in rng.sample(wrong, 4):
        with dials(door) as connection:
            connection.greet()
            connection.send(content)
            connection.read(0.005)
    return 4


def header_bombs(target: Target, door: Door, rng: random.Random) -> int:
    """Header lists that are endless, huge once unpacked, or no HPACK at all."""
    big = header_block([(b"x-big", b"v" * 3900)], indexed=True)
    for content in (
        frame(HEADERS, END_HEADERS, 1, header_block(call_headers(STATUS)) + big + b"\xbe" * 12_000),
        frame(HEADERS, END_HEADERS, 1, header_block(call_headers(STATUS, *[(b"x", b"y" * 100)] * 140))),
        frame(HEADERS, END_HEADERS, 1, b"\x3f" + b"\xff" * 20),
        frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\xff" * 12),
        frame(HEADERS, END_HEADERS, 1, b"\x00\x85" + rng.randbytes(5) + b"\xff" * 40),
        frame(HEADERS, END_HEADERS, 1, b"\x00" + integer(2**31, 7) + b"x" * 64),
        frame(HEADERS, 0, 1, header_block(call_headers(STATUS)))
        + frame(CONTINUATION, 0, 1, header_block([(b"x", b"y" * 4000)])) * 100,
        frame(HEADERS, 0, 1, header_block(call_headers(STATUS))) + frame(CONTINUATION, 0, 1) * 2000,
    ):
        with dials(door) as connection:
            connection.greet()
            connection.send(content)
            connection.read(0.005)
    return 8


def floods(target: Target, door: Door, rng: random.Random) -> int:
    """Frames that ask for an answer each, from one who never reads."""
    kind = rng.choice(
        (
            frame(PING, 0, 0, bytes(8)),
            settings((3, 100)),
            settings(*[(100, 1)] * 2700),
            frame(PRIORITY, 0, 1, bytes(5)),
            frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1)),
        )
    )
    with dials(door) as connection:
        connection.greet()
        connection.sock.settimeout(0.5)
        for _ in range(10):
            if not connection.send(kind * 10):
                break
    return 100


def odd_calls(target: Target, door: Door, rng: random.Random) -> int:
    """Headers of a call that are wrong; each call must be over soon."""
    whole = grpc_message(b"")
    odd = [
        open_call(1, b"/no.such.Service/Method"),
        open_call(1, b"no slash"),
        open_call(1, b"/"),
        open_call(1, b"/" + b"a" * 7000),
        open_call(1, b"/\xff\xfe/\x80"),
        open_call(1, STATUS, (b"x-odd", b"\xff\xfe\x00")),
        open_call(1, STATUS, (b"x-odd-bin", b"!!!! no base64")),
        open_call(1, STATUS, (b"grpc-timeout", b"99999999999H")),
        open_call(1, STATUS, (b"grpc-timeout", b"nonsense")),
        open_call(1, STATUS, (b"grpc-encoding", b"lzma")),
        open_call(1, STATUS, (b"peerd-peer", b"\xff\xff")),
        open_call(1, STATUS, (b"peerd-peer", b"nobody")),
        open_call(1, STATUS, (b":path", STATUS)),
        frame(HEADERS, END_HEADERS, 1, header_block([(b":method", b"GET"), (b":path", STATUS)])),
        frame(HEADERS, END_HEADERS, 1, header_block([(b":path", STATUS)])),
    ]
    for head in rng.sample(odd, 5):
        with dials(door) as connection:
            connection.greet()
            connection.send(head + data(1, whole))
            if connection.answered({1}, _ANSWER_SECONDS):
                raise HangError(f"no end of {head[:60]!r}")
    return 5


def grpc_framing(target: Target, door: Door, rng: random.Random) -> int:
    """Messages whose prefix lies, or that are not compressed as they say."""
    zipped = (b"grpc-encoding", b"gzip")
    bodies: list[tuple[bytes, tuple[tuple[bytes, bytes], ...]]] = [
        (b"", ()),
        (b"\x00", ()),
        (b"\x00\x00\x00\x00", ()),
        (grpc_message(b"abc", length=1000), ()),
        (grpc_message(b"abc", length=2**32 - 1), ()),
        (grpc_message(b"abc", length=1), ()),
        (grpc_message(b"abc", compressed=1), ()),
        (grpc_message(b"abc", compressed=1), (zipped,)),
        (grpc_message(gzip_bomb(1000)[:-6], compressed=1), (zipped,)),
        (grpc_message(b"", compressed=1), (zipped,)),
        (grpc_message(b"abc", compressed=7), ()),
        (grpc_message(b"") * 50, ()),
        (rng.randbytes(200), ()),
    ]
    with dials(door) as connection:
        connection.greet()
        streams = set()
        for number, (body, more) in enumerate(rng.sample(bodies, len(bodies))):
            stream = 2 * number + 1
            path = rng.choice((STATUS, b"/peerd.v1.TransferService/Offer", b"/grpc.health.v1.Health/Watch"))
            streams.add(stream)
            connection.send(open_call(stream, path, _DEADLINE, *more) + data(stream, body))
        if connection.answered(streams, _ANSWER_SECONDS):
            raise HangError("a call with a broken message goes on")
    return len(bodies)


def bad_protos(target: Target, door: Door, rng: random.Random) -> int:
    """Rubbish to one method after the other, 50 calls on a connection."""
    with dials(door) as connection:
        connection.greet()
        streams = set()
        for number in range(50):
            method = rng.choice(_METHODS)
            stream = 2 * number + 1
            streams.add(stream)
            connection.send(
                open_call(stream, method.path, _DEADLINE) + data(stream, grpc_message(bad_request(rng, method)))
            )
        left = connection.answered(streams, _ANSWER_SECONDS)
        if left:
            raise HangError(f"{len(left)} of 50 calls go on")
    return 50


def oversize(target: Target, door: Door, rng: random.Random) -> int:
    """More than 4 MiB, announced rightly."""
    with dials(door) as connection:
        connection.greet()
        connection.send(open_call(1, rng.choice(_METHODS).path, _DEADLINE))
        connection.send(data(1, grpc_message(b"\x0a" * (5 * 1024**2))))
        if connection.answered({1}, _ANSWER_SECONDS):
            raise HangError("an oversize message is not refused")
    return 1


def bombs(target: Target, door: Door, rng: random.Random, *, count: int = 1, plain_bytes: int = 200 * 2**20) -> int:
    """Small messages that are huge once unpacked."""
    bomb = gzip_bomb(plain_bytes)
    for _ in range(count):
        with dials(door) as connection:
            connection.greet()
            connection.send(open_call(1, STATUS, _DEADLINE, (b"grpc-encoding", b"gzip")))
            connection.send(data(1, grpc_message(bomb, compressed=1)))
            if connection.answered({1}, _ANSWER_SECONDS):
                raise HangError("a bomb is not refused")
    return count


def rapid_resets(target: Target, door: Door, rng: random.Random, *, count: int = 500) -> int:
    """Calls that are opened and taken back at once."""
    sent = 0
    while sent < count:
        with dials(door) as connection:
            connection.greet()
            for stream in range(1, 2 * min(500, count - sent), 2):
                path = rng.choice(_METHODS).path
                sent += 1
                if not connection.send(open_call(stream, path) + frame(RST_STREAM, 0, stream, struct.pack("!I", 8))):
                    break
            connection.read(0.005)
    return sent


def swarm(target: Target, _: Door, rng: random.Random) -> int:
    """A request that parses, full of empty messages; through the operator's socket, by a proper client."""
    chosen = [
        (method, content) for method in rng.sample(_METHODS, 20) for content in swarms(method.request, 2**22 - 64)
    ]
    for method, content in chosen[:1]:
        with grpc.insecure_channel(f"unix:{target.daemon.socket}") as channel:
            call_raw(channel, method, content)
    return len(chosen[:1])


def call_raw(channel: grpc.Channel, method: Method, content: bytes) -> grpc.StatusCode:
    """How the call of that method with these bytes ends."""
    path = method.path.decode()
    calls: Any = (channel.unary_unary, channel.unary_stream, channel.stream_unary, channel.stream_stream)
    call = calls[2 * method.request_streaming + method.response_streaming](path)
    try:
        answer = call(iter([content]) if method.request_streaming else content, timeout=_ANSWER_SECONDS)
        if method.response_streaming:
            list(answer)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not method.response_streaming:
            raise HangError(f"{path} did not answer") from error
        return code
    return grpc.StatusCode.OK


MIXTURE: tuple[Attack, ...] = (
    not_http2,
    rubbish_frames,
    lying_frames,
    header_bombs,
    floods,
    odd_calls,
    grpc_framing,
    bad_protos,
    oversize,
    swarm,
)
"""By a member and by the operator's socket."""


def doors(target: Target) -> tuple[Door, Door]:
    """The two ways in."""
    return target.as_member, target.as_operator


def mixture(target: Target, rng: random.Random, messages: int) -> Iterator[tuple[str, int]]:
    """All attacks in turn, at either door, until so many messages were sent: which attack, and how many of them."""
    sent = 0
    while sent < messages:
        for attack in (tls_rubbish, *rng.sample(MIXTURE, len(MIXTURE))):
            number = attack(target, rng.choice(doors(target)), rng)
            sent += number
            yield attack.__name__, number
            if sent >= messages:
                return


def warm_up(target: Target, messages: int) -> None:
    """A bit of everything before anything is measured: memory that is taken once and kept is no leak."""
    rng = random.Random(0)
    for _ in mixture(target, rng, messages):
        pass
    for door in doors(target):
        bombs(target, door, rng)
        rapid_resets(target, door, rng)
    with grpc.insecure_channel(f"unix:{target.daemon.socket}") as channel:
        for method in _METHODS:
            for content in swarms(method.request, 2**22 - 64):
                call_raw(channel, method, content)
