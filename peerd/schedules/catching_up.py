"""verdicts(schedule, now): which planned times run now, and why the others never will. Pure.

Those looked at in time run. What nobody looked at in time - the daemon was down, the clock was set forward, the
schedule was paused - is missed, and ``catch_up`` says what of it runs all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peerd.clock import Millis
from peerd.schedules.model import LATE_AFTER_MS, Cause, Schedule

LISTED = 1000
"""Of more missed times the older ones share one row."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """On one planned time."""

    planned_at: Millis
    runs: Cause | None = None
    # For one that does not run: stable.
    reason: str = ""
    message: str = ""
    missed_since: Millis | None = None


def verdicts(schedule: Schedule, now: int) -> list[Verdict]:
    """On every planned time that has come and was not decided on, oldest first."""
    assert schedule.plan is not None  # noqa: S101 - the caller looks for schedules with a plan
    passed = schedule.plan.passed(schedule.decided_until, now, newest=LISTED)
    due = _due(schedule, passed.listed, now)
    in_time = {planned for planned, start in due.items() if _in_time(schedule, start, now)}
    missed = [planned for planned, start in due.items() if planned not in in_time and start > schedule.skip_until]
    caught_up = _caught_up(schedule, missed, bool(in_time))
    found = []
    for planned, start in due.items():
        if planned in in_time:
            found.append(Verdict(planned_at=planned, runs=Cause.SCHEDULE))
        elif planned in caught_up:
            found.append(Verdict(planned_at=planned, runs=Cause.CATCH_UP))
        else:
            reason, message = _why_missed(schedule, start)
            found.append(Verdict(planned_at=planned, reason=reason, message=message))
    if passed.first_unlisted is not None and found:
        since = passed.first_unlisted
        message = f"all planned times from {schedule.local(since)} to this one: {found[0].message}"
        found[0] = Verdict(planned_at=found[0].planned_at, reason="late", message=message, missed_since=since)
    return found


def all_missed(schedule: Schedule, now: int, *, reason: str, message: str) -> list[Verdict]:
    """The same when nothing of it is to run."""
    return [
        Verdict(planned_at=verdict.planned_at, reason=reason, message=message, missed_since=verdict.missed_since)
        for verdict in (verdicts(schedule, now) if schedule.plan is not None else [])
    ]


def _due(schedule: Schedule, listed: Iterable[Millis], now: int) -> dict[Millis, Millis]:
    """Those that have come, with when they could begin: none before an earlier one, whatever its jitter."""
    due: dict[Millis, Millis] = {}
    start = Millis(0)
    if schedule.plan is not None and schedule.plan.first_after(schedule.decided_until - 1) == schedule.decided_until:
        start = schedule.starts_at(schedule.decided_until)
    for planned in listed:
        start = max(start, schedule.starts_at(planned))
        if start > now:
            break
        due[planned] = start
    return due


def _in_time(schedule: Schedule, start: int, now: int) -> bool:
    return now - start <= LATE_AFTER_MS and start > schedule.skip_until and not _was_paused(schedule, start)


def _was_paused(schedule: Schedule, moment: int) -> bool:
    return schedule.pause_began <= moment < schedule.pause_ended


def _caught_up(schedule: Schedule, missed: list[Millis], superseded: bool) -> frozenset[Millis]:
    match schedule.definition.catch_up:
        case "all":
            return frozenset(missed[-schedule.definition.catch_up_limit :])
        case "last" if not superseded:
            return frozenset(missed[-1:])
        case _:
            return frozenset()


def _why_missed(schedule: Schedule, start: int) -> tuple[str, str]:
    if start <= schedule.skip_until:
        return "skipped", "missed, and whoever resumed the schedule wanted none of it"
    rule = f"catch_up is {schedule.definition.catch_up}"
    if schedule.definition.catch_up == "all":
        return "catch_up_limit", f"missed, and more than {schedule.definition.catch_up_limit} later ones were, too"
    if _was_paused(schedule, start):
        return "paused", f"the schedule was paused, and {rule}"
    return "late", f"nobody looked in time: peerd did not run, or the clock was set forward; {rule}"
