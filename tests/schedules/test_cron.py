"""Plans against an independent reading of the rules, minute by minute around the changes of clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

import pytest

from peerd.clock import to_datetime
from peerd.cron import parse_plan

from .machine import NEW_YORK, ZURICH, at

CHANGES = [(ZURICH, "2026-03-29"), (ZURICH, "2026-10-25"), (NEW_YORK, "2026-03-08"), (NEW_YORK, "2026-11-01")]
MINUTE = 60_000


def numbers(field: str, most: int) -> set[int]:
    """The part of the language that the reference needs: ``*``, ``*/n``, lists."""
    if field.startswith("*"):
        return set(range(0, most, int(field[2:] or 1)))
    return {int(part) for part in field.split(",")}


def reference(expression: str, zone: str, start: int, end: int) -> list[int]:
    """What the table in docs/schedules.md says, for expressions that come every day."""
    minute, hour, *_ = expression.split()
    minutes, hours = numbers(minute, 60), numbers(hour, 24)
    here = ZoneInfo(zone)
    if "*" in (minute[0], hour[0]):  # the real hours
        moments = range(start + MINUTE - start % MINUTE, end + 1, MINUTE)
        local = {moment: to_datetime(moment).astimezone(here) for moment in moments}
        return [moment for moment, time in local.items() if time.minute in minutes and time.hour in hours]
    found = set()
    day = to_datetime(start).astimezone(here).replace(tzinfo=None, hour=0, minute=0) - timedelta(days=1)
    for _ in range(10):
        for h in hours:
            for m in minutes:
                time = day.replace(hour=h, minute=m)
                while (
                    time.replace(tzinfo=here).astimezone(ZoneInfo("UTC")).astimezone(here).replace(tzinfo=None) != time
                ):
                    time += timedelta(minutes=1)  # it does not exist
                found.add(round(time.replace(tzinfo=here).timestamp() * 1000))
        day += timedelta(days=1)
    return sorted(moment for moment in found if start < moment <= end)


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/15 * * * *",
        "30 * * * *",
        "0 */2 * * *",
        "*/20 1,2 * * *",
        "30 2 * * *",
        "0,30 1,2,3 * * *",
        "0 3 * * *",
        "59 1 * * *",
    ],
)
def test_a_plan_is_what_the_table_says_from_wherever_one_looks(zone: str, day: str, expression: str) -> None:
    plan = parse_plan(expression, zone)
    noon = at(f"{day} 12:00", zone)
    start, end = noon - 36 * 60 * MINUTE, noon + 36 * 60 * MINUTE
    expected = reference(expression, zone, start, end)
    assert list(plan.passed(start, end, newest=10_000).listed) == expected
    for moment in range(noon - 13 * 60 * MINUTE, noon, 7 * MINUTE + 1234):  # a restart at any moment changes nothing
        later = [planned for planned in expected if planned > moment][:3]
        assert list(islice(plan.after(moment), len(later))) == later


def test_no_zone_names_a_moment_twice_or_out_of_order() -> None:
    for zone in [*sorted(available_timezones())[::25], "Australia/Lord_Howe", "America/Havana", "Africa/Cairo"]:
        for expression in ("*/10 * * * *", "0 0,2 * * *", "30 */3 * * *"):
            plan = parse_plan(expression, zone)
            for start in ("2026-03-27", "2026-10-23"):
                found = list(islice(plan.after(at(start, zone)), 200))
                assert found == sorted(set(found)), (zone, expression)
                assert all(moment % MINUTE == 0 for moment in found)


def test_however_much_has_passed_only_the_newest_are_listed() -> None:
    plan = parse_plan("*/5 * * * *", "UTC")
    until = at("2026-06-01 00:02")
    passed = plan.passed(at("1990-01-01 00:01"), until, newest=100)
    assert len(passed.listed) == 100 and passed.listed[-1] == at("2026-06-01 00:00")
    assert passed.listed[0] == at("2026-05-31 15:45") and passed.first_unlisted == at("1990-01-01 00:05")
    assert plan.passed(until - 10 * MINUTE, until, newest=2).first_unlisted is None
    assert plan.passed(until, until - 10 * MINUTE, newest=2).listed == ()


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("0 2 * *", "", "has 4 fields"),
        ("0 0 2 * * *", "", "has 6 fields"),
        ("0 24 * * *", "", "bad hour"),
        ("@daily", "", "has 1 fields"),
        ("0 0 31 2 *", "", "bad day-of-month"),
        ("0 0 * 2 mon#5,mon#6", "", "bad day-of-week"),
        ("0 " + "1," * 200 + "1 * * *", "", "at most 200"),
        ("0 2 * * *", "Europe/Zürich", "no time zone"),
        ("0 2 * * *", "Europe", "no time zone"),
        ("0 2 * * *", "../../etc/passwd", "no time zone"),
        ("0 2 * * *", "/etc/localtime", "no time zone"),
        ("0 2 * * *", "Europe/Nowhere", "no time zone"),
        ("0 2 * * *", "x" * 4000, "no time zone"),
    ],
)
def test_what_is_no_plan_is_refused_with_a_sentence(expression: str, zone: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_plan(expression, zone)


def test_days_are_chosen_as_cron_chooses_them() -> None:
    both = parse_plan("0 12 13 * fri", "UTC").after(at("2026-01-31"))  # neither begins with a star: one is enough
    assert [to_datetime(moment).strftime("%a %d") for moment in islice(both, 3)] == ["Fri 06", "Fri 13", "Fri 20"]
    last = parse_plan("0 12 L * *", "UTC").after(at("2026-01-31 13:00"))
    assert [to_datetime(moment).day for moment in islice(last, 2)] == [28, 31]
    second_monday = parse_plan("0 12 * * 1#2", "UTC").after(at("2026-01-01"))
    assert [datetime.date(to_datetime(moment)).day for moment in islice(second_monday, 2)] == [12, 9]
