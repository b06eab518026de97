"""Who says nothing, or too little, or too often: how long a daemon puts up with it."""

from __future__ import annotations

import time

import pytest

from tests.e2e.fleet import wait_for
from tests.e2e.load import busier
from tests.hostile.caller import GoodCaller, longest_p99_ms
from tests.hostile.target import Target
from tests.hostile.wire import ACK, GOAWAY, PING, SETTINGS, Connection, frame

pytestmark = pytest.mark.timeout(400)

HANDSHAKE_SECONDS = 8.0
"""grpc.server_handshake_timeout_ms."""
PINGED_SECONDS = 15.0
"""grpc.keepalive_time_ms and grpc.http2.ping_timeout_ms."""
MARGIN_SECONDS = 3.0
"""On a machine with nothing else to do."""


def seconds_until_closed(connections: list[Connection], most: float, margin: float, drip: bytes = b"") -> float:
    """When the last of them was hung up on; a byte goes out on each from time to time."""
    begun = time.monotonic()
    left, drops = list(connections), iter(drip)
    while left:
        assert time.monotonic() - begun < most + margin * busier(), f"{len(left)} are held still"
        byte = bytes(drop for drop in [next(drops, None)] if drop is not None)
        for connection in left:
            connection.send(byte)
        left = [connection for connection in left if not connection.closed_within(0.001)]
        time.sleep(0.05)
    return time.monotonic() - begun


def close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


def test_a_thousand_silent_connections_are_hung_up_on_and_hold_nobody_up(victim: Target) -> None:
    with GoodCaller(victim) as caller:
        idle = [victim.as_stranger() for _ in range(1000)]
        fds = victim.fds()
        assert fds < 600, "more connections were taken than the listener may"
        seconds_until_closed(idle, HANDSHAKE_SECONDS, MARGIN_SECONDS)
        close(idle)
    assert caller.failed == 0
    assert caller.p99_ms < longest_p99_ms()


def test_who_says_too_little_is_hung_up_on_in_time_and_not_before(victim: Target) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400)
    mute = victim.as_member()  # HTTP/2 begins, but no ping is answered
    mute.greet()
    slow = [victim.as_stranger() for _ in range(5)]
    silent_members = [victim.as_member() for _ in range(5)]  # through TLS, but HTTP/2 never begins
    took = seconds_until_closed(slow + silent_members, HANDSHAKE_SECONDS, MARGIN_SECONDS, hello)
    assert took > HANDSHAKE_SECONDS / 2, "one that is merely slow was not waited for"
    seconds_until_closed([mute], PINGED_SECONDS - took, 2 * MARGIN_SECONDS)
    close([mute, *slow, *silent_members])


def test_what_a_connection_may_carry_is_announced(victim: Target) -> None:
    with victim.as_member() as connection:
        connection.greet()
        said: dict[int, int] = {}

        def told() -> bool:
            connection.read(0.1)
            for kind, flags, _, payload in connection.frames():
                if kind == SETTINGS and not flags & ACK:
                    for start in range(0, len(payload), 6):
                        said[int.from_bytes(payload[start : start + 2])] = int.from_bytes(
                            payload[start + 2 : start + 6]
                        )
            return bool(said)

        wait_for(told, 30, "the settings came")
    assert said[3] == 128, "MAX_CONCURRENT_STREAMS"
    assert said[6] == 16 * 1024, "MAX_HEADER_LIST_SIZE"


def test_too_many_pings_end_the_connection_and_not_the_peer(victim: Target) -> None:
    with victim.as_member() as connection:
        connection.greet()
        gone: list[bytes] = []

        def told() -> bool:
            connection.send(frame(PING, 0, 0, bytes(8)))
            ended = connection.read(0.02) is None
            gone.extend(payload for kind, _, _, payload in connection.frames() if kind == GOAWAY)
            return ended

        wait_for(told, 60, "it is told to go")
    assert any(b"too_many_pings" in payload for payload in gone)
    with victim.as_member() as connection:
        connection.greet()
        assert connection.read(30)
