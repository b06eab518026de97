"""Steady time: the same for all processes of a boot, whatever the wall clock is set to, and later after each boot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peerd import clock
from peerd.clock import DAY_MS, SystemClock

NOW = 1_790_000_000_000
HOUR = 3_600_000
Boot = Callable[[str, int, int], SystemClock]


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """A process on a machine that was started so long ago, with the wall clock at that."""
    boot_id, anchor = tmp_path / "boot_id", tmp_path / "run" / "steady"

    def start(name: str, up: int, wall: int) -> SystemClock:
        boot_id.write_text(f"{name}\n")
        monkeypatch.setattr(clock, "_BOOT_ID", boot_id)
        monkeypatch.setattr(clock, "_since_boot", lambda: up)
        monkeypatch.setattr(clock, "_fresh_offset", lambda: wall - up)
        return SystemClock(anchor)

    return start


def test_processes_of_one_boot_have_one_steady_time_whatever_the_clock_is_set_to(boot: Boot) -> None:
    assert boot("one", 5_000, NOW).steady() == NOW
    assert boot("one", 65_000, NOW + DAY_MS).steady() == NOW + 60_000
    assert boot("one", 65_000, NOW - DAY_MS).steady() == NOW + 60_000


async def test_what_is_to_be_tried_again_in_a_minute_is_so_after_a_boot_with_the_clock_in_the_past(boot: Boot) -> None:
    before = boot("one", 30 * DAY_MS, 30 * DAY_MS)  # a board without a battery: it is 1970 when it starts
    await before.keep()
    due = before.steady() + 60_000
    assert due - 60_000 <= boot("two", 9_000, 9_000).steady() < due
    assert boot("two", 80_000, NOW).steady() >= due
    assert boot("three", 9_000, 9_000).steady() >= due - 60_000, "also when the second was cut off at once"


async def test_time_in_which_a_machine_was_off_has_passed(boot: Boot) -> None:
    await boot("one", HOUR, NOW).keep()
    assert boot("two", 5_000, NOW + DAY_MS).steady() == NOW + DAY_MS


def test_an_anchor_that_was_cut_off_by_a_power_failure_is_made_anew(boot: Boot, tmp_path: Path) -> None:
    boot("one", HOUR, NOW)
    (tmp_path / "run" / "steady").write_text("{")
    assert boot("one", HOUR, NOW + HOUR).steady() == NOW + HOUR
