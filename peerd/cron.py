"""Cron expressions in time zones: which moments a plan means. Pure, but for the zone files.

The rules are those of Debian's cron, by cronsim; docs/schedules.md says them in words. An expression whose minute and
hour are both fixed names times of a day: one that daylight saving skips comes at the first minute after the gap, one
that it repeats comes the first time only. With a ``*`` in front of the minute or the hour an expression goes along with
the real hours instead: what does not exist is left out, what comes twice is used twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from peerd.clock import Millis, to_datetime

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_MAX_EXPRESSION = 200
_LEAP_CYCLE = datetime(2000, 1, 1, tzinfo=UTC)
"""From here on every expression that ever means anything has a time within fifty years."""
_FIRST_WINDOW = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Passed:
    """Planned times of a while that is over."""

    listed: tuple[Millis, ...]
    """Oldest first; only the newest when there are many."""
    first_unlisted: Millis | None = None
    """The first of all, if it is not among them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An expression in a zone."""

    expression: str
    zone: ZoneInfo

    def after(self, moment: int) -> Iterator[Millis]:
        """The planned times later than that, in order; ends where there is none for fifty years."""
        last = moment
        for found in CronSim(self.expression, to_datetime(moment - moment % 1000).astimezone(self.zone)):
            at = round(found.timestamp()) * 1000
            if at > last:  # from within a repeated hour the first results lie before it
                last = at
                yield Millis(at)

    def first_after(self, moment: int) -> Millis | None:
        """The next planned time."""
        return next(self.after(moment), None)

    def passed(self, after: int, until: int, *, newest: int) -> Passed:
        """The planned times later than ``after`` up to ``until``; however many, only the newest are listed."""
        window = _FIRST_WINDOW
        while True:
            start = max(after, until - window)
            found = list(takewhile(lambda at: at <= until, self.after(start)))
            if start <= after and len(found) <= newest:
                return Passed(listed=tuple(found))
            if len(found) >= newest:
                listed = tuple(found[-newest:])
                first = self.first_after(after)
                return Passed(listed=listed, first_unlisted=first if first is not None and first < listed[0] else None)
            window *= 2

    def local(self, moment: int) -> str:
        """The same as the zone's own time, with its offset: 2026-03-29T03:00:00+02:00."""
        return to_datetime(moment).astimezone(self.zone).isoformat(timespec="seconds")


def parse_plan(expression: str, timezone: str) -> Plan:
    """The plan, in UTC if no zone is named. Raises ValueError with a sentence that may be shown."""
    plan = Plan(expression=_expression(expression), zone=_zone(timezone or "UTC"))
    if plan.first_after(round(_LEAP_CYCLE.timestamp()) * 1000) is None:
        raise ValueError(f"{expression!r} never comes")
    return plan


def _expression(text: str) -> str:
    fields = text.split()
    if len(text) > _MAX_EXPRESSION:
        raise ValueError(f"a cron expression has at most {_MAX_EXPRESSION} characters")
    if len(fields) != 5:
        raise ValueError(f"{text!r} has {len(fields)} fields, not the five of minute, hour, day, month, day of week")
    try:
        CronSim(text, _LEAP_CYCLE)
    except CronSimError as error:
        raise ValueError(f"{text!r} is no cron expression: {str(error)[:1].lower()}{str(error)[1:]}") from error
    return " ".join(fields)


def _zone(name: str) -> ZoneInfo:
    if _ZONE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, LookupError):  # a directory, no zone file, or none of that name
            pass
    raise ValueError(f"{name[:80]!r} is no time zone; write it like Europe/Zurich")
