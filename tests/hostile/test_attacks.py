"""Whatever comes over either socket: the daemon lives, others are answered in time, memory and descriptors return."""

from __future__ import annotations

import random
from collections import Counter

import grpc
import pytest

from tests.e2e.load import busier
from tests.hostile.attacks import (
    MIXTURE,
    STATUS,
    Attack,
    bombs,
    call_raw,
    dials,
    doors,
    mixture,
    rapid_resets,
    tls_rubbish,
)
from tests.hostile.caller import GoodCaller, longest_p99_ms
from tests.hostile.messages import all_methods, swarms
from tests.hostile.target import Target
from tests.hostile.wire import Connection, data, grpc_message, open_call

pytestmark = pytest.mark.timeout(400)

OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
SEED = 20261121


def status_of_call(connection: Connection, stream: int = 1, path: bytes = STATUS, message: bytes = b"") -> int:
    """How a call ended, as a number of gRPC's."""
    connection.send(open_call(stream, path, (b"grpc-timeout", b"30S")) + data(stream, grpc_message(message)))
    assert not connection.answered({stream}, 60), path
    return int(connection.statuses[stream])


@pytest.mark.parametrize("door", ["member", "operator"])
@pytest.mark.parametrize("attack", [tls_rubbish, *MIXTURE], ids=lambda attack: attack.__name__)
def test_each_attack_ends_and_a_good_call_is_answered_after_it(victim: Target, attack: Attack, door: str) -> None:
    opened = doors(victim)[door == "operator"]
    attack(victim, opened, random.Random(SEED))
    with dials(opened) as connection:
        connection.greet()
        assert status_of_call(connection) == OK


def test_a_good_caller_is_answered_in_time_during_all_of_it(victim: Target) -> None:
    rng, sent = random.Random(SEED), Counter[str]()
    with GoodCaller(victim) as caller:
        for attack, number in mixture(victim, rng, 300):
            sent[attack] += number
    assert sum(sent.values()) >= 300
    assert (caller.failed, caller.calls > 50) == (0, True)
    assert caller.p99_ms < longest_p99_ms()


def test_five_thousand_rapid_resets(victim: Target) -> None:
    with GoodCaller(victim) as caller:
        for door in doors(victim):
            assert rapid_resets(victim, door, random.Random(SEED), count=2500) == 2500
    assert caller.failed == 0
    assert caller.p99_ms < longest_p99_ms()


def test_a_bomb_is_refused_before_it_fills_the_memory(victim: Target) -> None:
    for door in doors(victim):
        bombs(victim, door, random.Random(SEED))  # the first one may leave buffers behind
    victim.forget_peak()
    before = victim.rss()
    for door in doors(victim):
        bombs(victim, door, random.Random(SEED), count=3, plain_bytes=300 * 2**20)
    assert victim.peak() - before < 64 * 2**20


def test_every_method_refuses_rubbish_with_a_status(victim: Target) -> None:
    for door in doors(victim):
        with dials(door) as connection:
            connection.greet()
            for number, method in enumerate(all_methods()):
                stream = 2 * number + 1
                assert status_of_call(connection, stream, method.path, b"\xff" * 4) == INVALID_ARGUMENT, method.path


def test_swarms_of_empty_messages_are_refused_and_hold_nobody_up_for_long(victim: Target) -> None:
    """Regression: one Ping with two million empty updates, which any member may send, stopped a daemon for a minute."""
    refused = Counter[grpc.StatusCode]()
    with GoodCaller(victim) as caller, grpc.insecure_channel(f"unix:{victim.daemon.socket}") as channel:
        for method in all_methods():
            for content in swarms(method.request, 4 * 2**20 - 64):
                refused[call_raw(channel, method, content)] += 1
    assert set(refused) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
    assert refused[grpc.StatusCode.RESOURCE_EXHAUSTED] > 30
    assert (caller.failed, caller.longest_ms < 10_000 * busier()) == (0, True)


@pytest.mark.parametrize("door", ["member", "operator"])
def test_a_path_that_is_no_text_ends_no_call_but_its_own(victim: Target, door: str) -> None:
    """Regression: it ended the listener, for the accept loop of grpcio decoded it."""
    opened = doors(victim)[door == "operator"]
    with dials(opened) as other:
        other.greet()
        assert status_of_call(other) == OK
        for path in (b"/\xff\xfe", b"/no.such.Service/Method", b"\x80"):
            with dials(opened) as connection:
                connection.greet()
                assert status_of_call(connection, path=path) == UNIMPLEMENTED
        assert status_of_call(other, stream=3) == OK
    assert "rpc.listener_failed" not in victim.log()
