"""When a peer counts as there: by cases."""

from __future__ import annotations

import pytest

from peerd.clock import Millis
from peerd.registry.liveness import MAX_FAILURES, Liveness, answered, failed

START = Liveness(since=Millis(0))
OFFLINE_MS = 10_000


def play(events: str, *, step: int = 2_000) -> Liveness:
    """``a`` an answer, ``f`` a failure, one every two seconds."""
    state, now = START, 0
    for event in events:
        now += step
        if event == "a":
            state = answered(state, Millis(now))
        else:
            state = failed(state, Millis(now), "no answer", offline_ms=OFFLINE_MS)
    return state


@pytest.mark.parametrize(
    ("events", "online", "since"),
    [
        ("", False, 0),
        ("f", False, 0),
        ("a", True, 2_000),
        ("aaa", True, 2_000),
        ("af", True, 2_000),
        ("aff", True, 2_000),
        ("afff", False, 8_000),
        ("affff", False, 8_000),
        ("affaff", True, 2_000),
        ("afffa", True, 10_000),
        ("fffa", True, 8_000),
    ],
)
def test_a_peer_is_there_from_the_first_answer_until_three_failures(events: str, online: bool, since: int) -> None:
    state = play(events)
    assert (state.online, state.since) == (online, since)


def test_one_failure_is_enough_after_ten_seconds_without_contact() -> None:
    state = answered(START, Millis(1_000))
    assert failed(state, Millis(10_999), "late", offline_ms=OFFLINE_MS).online
    gone = failed(state, Millis(11_000), "late", offline_ms=OFFLINE_MS)
    assert (gone.online, gone.since, gone.why) == (False, 11_000, "late")


def test_what_was_last_seen_and_why_it_is_away_are_kept() -> None:
    state = play("a" + "f" * MAX_FAILURES)
    assert (state.last_seen, state.why, state.failures) == (2_000, "no answer", MAX_FAILURES)
    assert play("").why == "was not heard of since this daemon started"


def test_an_answer_brings_its_load_and_a_mere_contact_keeps_it() -> None:
    state = answered(START, Millis(1), running_jobs=3)
    assert answered(state, Millis(2)).running_jobs == 3
    assert answered(state, Millis(2), running_jobs=0).running_jobs == 0
