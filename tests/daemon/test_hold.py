"""A clock that jumps ahead makes nothing old at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.space.hold import HOLD_MS, Hold, Look, look

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_jump_ahead_holds_for_three_days_and_a_restart_changes_nothing(clock: FakeClock, tmp_path: Path) -> None:
    hold = Hold(clock, tmp_path / "look")
    assert hold.moment() == clock.now()
    clock.advance(10 * 60)
    assert hold.moment() == clock.now()
    clock.set(YEAR)
    assert hold.moment() is None
    for _ in range(71):
        clock.advance(HOUR)
        hold = Hold(clock, tmp_path / "look")
        assert hold.moment() is None
    clock.advance(HOUR)
    assert hold.moment() == clock.now()


def test_a_jump_while_no_daemon_ran_is_seen(clock: FakeClock, tmp_path: Path) -> None:
    assert Hold(clock, tmp_path / "look").moment() == clock.now()
    clock.set(YEAR)
    assert Hold(clock, tmp_path / "look").moment() is None


@pytest.mark.parametrize("seconds", [-YEAR, -DAY, 0.5 * HOUR])
def test_setting_it_back_or_a_little_ahead_holds_nothing(clock: FakeClock, tmp_path: Path, seconds: float) -> None:
    hold = Hold(clock, tmp_path / "look")
    hold.moment()
    clock.set(seconds)
    assert hold.moment() == clock.now()


def test_time_that_really_passes_holds_nothing_unless_it_is_very_long(clock: FakeClock, tmp_path: Path) -> None:
    hold = Hold(clock, tmp_path / "look")
    hold.moment()
    clock.advance(20 * DAY)
    assert hold.moment() == clock.now()
    clock.advance(31 * DAY)
    assert hold.moment() is None


def test_a_new_boot_with_the_wrong_clock_ends_no_hold() -> None:
    """A boot makes the steady clock what the wrong wall clock says."""
    right = 1_700_000_000_000
    wrong = right + round(YEAR * 1000)
    held = look(look(None, right, right), wrong, right)
    assert held.left == HOLD_MS
    assert look(held, wrong + 1000, wrong + 1000).left == HOLD_MS - round(DAY * 1000)


def test_a_damaged_file_is_a_first_look(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "look").write_text("{")
    assert Hold(clock, tmp_path / "look").moment() == clock.now()
    assert look(Look(wall=0, steady=0), 1000, 1000) == Look(wall=1000, steady=1000)
