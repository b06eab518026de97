"""What a definition says of when it runs: its schedule and its concurrency group, with rules and defaults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from peerd.cron import parse_plan
from peerd.v1 import workflows_pb2
from peerd.workflows.params import references, value_flaw
from peerd.workflows.problems import FieldPath, Problem, ProblemReason
from peerd.workflows.quantities import parse_duration

OVERLAPS = ("skip", "queue", "cancel_previous", "allow")
CATCH_UPS = ("none", "last", "all")
CONFLICTS = ("queue", "skip", "cancel_running")
DEFAULT_CATCH_UP_LIMIT = 10
MAX_CATCH_UP_LIMIT = 100
MAX_JITTER = 24 * 3_600_000
MAX_GROUP_LIMIT = 1000
MAX_GROUP = 255
_PLANNED = re.compile(r"\$\{schedule\.([A-Za-z0-9_.-]*)(\}?)")


def schedule_problems(
    schedule: workflows_pb2.ScheduleDefinition, path: FieldPath, params: frozenset[str]
) -> Iterator[Problem]:
    """Everything wrong with a schedule of a workflow with these parameters."""
    if not schedule.cron:
        hint = "write minute, hour, day of month, month and day of week: '30 2 * * *'"
        message = "a schedule needs a cron expression"
        yield Problem(reason=ProblemReason.MISSING, message=message, path=(*path, "cron"), next_action=hint)
    for field, cron, zone in (("cron", schedule.cron, ""), ("timezone", "* * * * *", schedule.timezone)):
        try:
            parse_plan(cron or "* * * * *", zone)
        except ValueError as error:
            hint = "docs/schedules.md shows what may stand there"
            yield Problem(reason=ProblemReason.BAD_VALUE, message=str(error), path=(*path, field), next_action=hint)
    yield from _choice(schedule.overlap, OVERLAPS, (*path, "overlap"))
    yield from _choice(schedule.catch_up, CATCH_UPS, (*path, "catch_up"))
    if schedule.catch_up_limit > MAX_CATCH_UP_LIMIT:
        message = f"{schedule.catch_up_limit} is more than {MAX_CATCH_UP_LIMIT}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "catch_up_limit"))
    if schedule.catch_up_limit and schedule.catch_up != "all":
        message = "it has a meaning with catch_up: all only"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=(*path, "catch_up_limit"))
    if schedule.jitter:
        try:
            if parse_duration(schedule.jitter) > MAX_JITTER:
                message = f"{schedule.jitter} is longer than a day"
                yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "jitter"))
        except ValueError as error:
            yield Problem(reason=ProblemReason.BAD_DURATION, message=str(error), path=(*path, "jitter"))
    for name, value in schedule.params.items():
        yield from _param(name, value, (*path, "params", name), params)


def _param(name: str, value: str, path: FieldPath, params: frozenset[str]) -> Iterator[Problem]:
    if name not in params:
        yield Problem(
            reason=ProblemReason.UNKNOWN_PARAM, message=f"{name!r} is no parameter of this workflow", path=path
        )
    if flaw := value_flaw(value):
        yield Problem(reason=ProblemReason.BAD_VALUE, message=f"the value {flaw}", path=path)
    for found in _PLANNED.finditer(value):
        if found[1] not in ("time", "date") or not found[2]:
            hint = "write ${schedule.time} or ${schedule.date}"
            message = f"{found[0]!r} is not known"
            yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=path, next_action=hint)


def schedule_params(given: Mapping[str, str], *, local: str) -> dict[str, str]:
    """The parameters of a run that is planned for this local time, 2026-03-29T03:00:00+02:00."""
    known = {"time": local, "date": local[:10]}
    return {name: _PLANNED.sub(lambda found: known[found[1]], value) for name, value in given.items()}


def with_defaults(schedule: workflows_pb2.ScheduleDefinition) -> workflows_pb2.ScheduleDefinition:
    """The same with every default written out."""
    whole = workflows_pb2.ScheduleDefinition()
    whole.CopyFrom(schedule)
    whole.timezone = schedule.timezone or "UTC"
    whole.overlap = schedule.overlap or "skip"
    whole.catch_up = schedule.catch_up or "last"
    whole.catch_up_limit = schedule.catch_up_limit or DEFAULT_CATCH_UP_LIMIT
    return whole


def concurrency_problems(
    concurrency: workflows_pb2.ConcurrencyDefinition, path: FieldPath, params: frozenset[str]
) -> Iterator[Problem]:
    """Everything wrong with what is said of a group."""
    group = concurrency.group
    here = (*path, "group")
    if not group:
        yield Problem(reason=ProblemReason.MISSING, message="a concurrency group needs a name", path=here)
    elif len(group) > MAX_GROUP or not group.isprintable() or group != group.strip():
        message = f"it has surrounding space, characters that cannot be shown, or more than {MAX_GROUP}"
        yield Problem(reason=ProblemReason.BAD_VALUE, message=message, path=here)
    for name in references(group):
        if name is None:
            message = "it holds a reference without a name or its closing brace"
            yield Problem(reason=ProblemReason.BAD_PARAM_REFERENCE, message=message, path=here)
        elif name not in params:
            message = f"${{params.{name}}} refers to no parameter of this workflow"
            yield Problem(reason=ProblemReason.UNKNOWN_PARAM, message=message, path=here)
    if concurrency.limit > MAX_GROUP_LIMIT:
        message = f"{concurrency.limit} is more than {MAX_GROUP_LIMIT}"
        yield Problem(reason=ProblemReason.OUT_OF_RANGE, message=message, path=(*path, "limit"))
    yield from _choice(concurrency.on_conflict, CONFLICTS, (*path, "on_conflict"))


def _choice(word: str, choices: tuple[str, ...], path: FieldPath) -> Iterator[Problem]:
    if word and word not in choices:
        message = f"{word[:80]!r} is not one of {', '.join(choices)}"
        near = difflib.get_close_matches(word[:80], choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        yield Problem(reason=ProblemReason.BAD_CHOICE, message=message, path=path, next_action=hint)
