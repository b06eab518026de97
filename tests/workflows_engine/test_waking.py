"""Turns and alarms of runners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from peerd.clock import FakeClock, Millis
from peerd.workflows.waking import Sleeper, Waking


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def waking(clock: FakeClock) -> AsyncIterator[Waking]:
    made = Waking(clock)
    ringing = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    yield made
    ringing.cancel()


def sleeper() -> Sleeper:
    return asyncio.get_running_loop().create_future()


async def rounds(count: int) -> None:
    """So many turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_thousand_that_wake_at_once_do_not_fill_one_turn_of_the_loop(waking: Waking) -> None:
    sleepers = [sleeper() for _ in range(1000)]
    for each in sleepers:
        waking.wake(each)
    seen = []
    while not sleepers[-1].done():
        await asyncio.sleep(0)  # what others get to do
        seen.append(sum(each.done() for each in sleepers))
    assert len(seen) >= 200
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 8
    assert [each.done() for each in sleepers] == [True] * 1000


async def test_turns_are_given_in_the_order_they_were_asked_for(waking: Waking) -> None:
    order: list[int] = []

    async def take(number: int) -> None:
        await waking.turn()
        order.append(number)

    await asyncio.gather(*(take(number) for number in range(20)))
    assert order == list(range(20))


async def test_alarms_ring_when_their_time_has_come_and_not_before(waking: Waking, clock: FakeClock) -> None:
    late, soon = sleeper(), sleeper()
    waking.wake_at(late, Millis(clock.now() + 60_000))
    await rounds(5)
    waking.wake_at(soon, Millis(clock.now() + 1_000))
    await rounds(5)
    clock.advance(0.9)
    await rounds(5)
    assert not soon.done()
    clock.advance(0.2)
    await rounds(5)
    assert soon.done()
    assert not late.done()
    clock.advance(60)
    await rounds(5)
    assert late.done()


async def test_setting_the_wall_clock_rings_no_alarm_and_delays_none(waking: Waking, clock: FakeClock) -> None:
    alarm = sleeper()
    waking.wake_at(alarm, Millis(clock.steady() + 60_000))
    await rounds(5)
    clock.set(3_600)
    clock.advance(59)
    await rounds(5)
    assert not alarm.done()
    clock.set(-7_200)
    clock.advance(1)
    await rounds(5)
    assert alarm.done()


async def test_whoever_was_woken_before_leaves_no_alarm_behind(waking: Waking, clock: FakeClock) -> None:
    for _ in range(10_000):
        gone = sleeper()
        waking.wake_at(gone, Millis(clock.now() + 86_400_000))
        gone.set_result(None)
    assert len(waking._alarms) <= 200
