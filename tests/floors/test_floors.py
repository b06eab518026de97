from __future__ import annotations

import asyncio

import pytest

from peerd import failpoints
from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.loops import Backoff, run_every


def test_every_reason_stands_for_itself() -> None:
    assert len({reason.text for reason in Reason}) == len(Reason.__members__)
    assert all(reason.next_action for reason in Reason)
    assert all(Reason.from_text(reason.text) is reason for reason in Reason)


def test_an_unknown_reason_from_a_later_version_is_internal() -> None:
    assert Reason.from_text("something_new") is Reason.INTERNAL


def test_an_unlisted_failpoint_is_a_bug() -> None:
    with pytest.raises(LookupError, match="not listed"):
        failpoints.failpoint("no.such.place")


async def test_a_loop_survives_steps_that_raise_and_wakes_at_once() -> None:
    clock, wake, calls = FakeClock(), asyncio.Event(), asyncio.Queue[int]()
    count = 0

    async def step() -> None:
        nonlocal count
        count += 1
        calls.put_nowait(count)
        if count == 1:
            raise PeerdError(Reason.OVERLOADED, "expected")
        if count == 2:
            raise ZeroDivisionError

    task = asyncio.create_task(run_every(step, seconds=1000, clock=clock, name="test", wake=wake))
    for expected in (1, 2, 3):
        assert await asyncio.wait_for(calls.get(), 30) == expected
        wake.set()
    task.cancel()


def test_backoff_doubles_up_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(1, 4)
    delays = [backoff.next() for _ in range(4)]
    assert all(low / 2 <= delay <= low for delay, low in zip(delays, (1, 2, 4, 4), strict=True))
    backoff.reset()
    assert backoff.next() <= 1
