"""``peerctl schedules``: workflows that run at planned times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, local_time, print_fields, print_json, print_table
from peerd.cli.settings import Settings, call, pass_settings
from peerd.cli.workflows import parse_params

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import schedules_pb2


@click.group(cls=Noun, default="list")
def schedules() -> None:
    """Workflows that run at planned times; 'peerctl schedules' alone lists them."""


@schedules.command("list")
@pass_settings
def list_schedules(settings: Settings) -> None:
    """All schedules, with when each runs next."""
    found = call(settings, lambda peerd: peerd.schedules())
    if settings.as_json:
        print_json({"schedules": found})
        return
    rows = [
        (
            item.name,
            item.workflow_name,
            f"{item.definition.cron} {item.definition.timezone}",
            _next(item),
            _last(item.last) if item.HasField("last") else "never ran",
            item.reason or (f"{item.waiting} wait" if item.waiting else ""),
        )
        for item in found
    ]
    print_table(("NAME", "WORKFLOW", "WHEN", "NEXT", "LAST", "WHY NOT"), rows, empty="no schedules")


@schedules.command("show")
@click.argument("schedule")
@click.option(
    "--firings", "count", type=click.IntRange(min=0), default=10, help="How many of the newest; 10 by default."
)
@pass_settings
def show_schedule(settings: Settings, schedule: str, count: int) -> None:
    """One schedule: its rules, when it runs next, and what became of its last planned times."""

    async def fetch(peerd: Client) -> tuple[schedules_pb2.Schedule, Sequence[schedules_pb2.Firing]]:
        return await peerd.schedule(schedule), await peerd.firings(schedule, limit=count) if count else ()

    found, firings = call(settings, fetch)
    if settings.as_json:
        print_json({"schedule": found, "firings": list(firings)})
        return
    rules = found.definition
    version = f"version {found.workflow_version}" if found.workflow_version else "newest version"
    limit = f", at most {rules.catch_up_limit}" if rules.catch_up == "all" else ""
    fields = {
        "schedule": f"{found.name} ({_origin(found)})",
        "workflow": f"{found.workflow_name}, {version}",
        "when": f"{rules.cron} in {rules.timezone}" + (f", up to {rules.jitter} later" if rules.jitter else ""),
        "overlap": rules.overlap,
        "catch up": rules.catch_up + limit,
        "params": " ".join(f"{name}={value}" for name, value in sorted(rules.params.items())),
        "does not run": found.reason,
        "to do": found.next_action,
        "next": ", ".join(time.local for time in found.next),
    }
    print_fields(fields)
    if firings:
        click.echo()
        _print_firings(firings)


@schedules.command("next")
@click.argument("schedule")
@click.option("--count", type=click.IntRange(min=1, max=1000), default=10, help="How many; 10 by default.")
@pass_settings
def next_times(settings: Settings, schedule: str, count: int) -> None:
    """The next planned times, as local times of its zone."""
    found = call(settings, lambda peerd: peerd.schedule(schedule, next_count=count))
    if settings.as_json:
        print_json({"next": list(found.next)})
        return
    for time in found.next:
        late = f"  starts {local_time(time.starts_at)}" if time.starts_at != time.planned_at else ""
        click.echo(f"{time.local}{late}")
    if found.reason:
        click.echo(f"does not run: {found.reason}\nnext: {found.next_action}", err=True)


@schedules.command("firings")
@click.argument("schedule")
@click.option("--limit", type=click.IntRange(min=1), default=50, help="At most so many; 50 by default.")
@pass_settings
def list_firings(settings: Settings, schedule: str, limit: int) -> None:
    """What became of planned times, newest first."""
    found = call(settings, lambda peerd: peerd.firings(schedule, limit=limit))
    if settings.as_json:
        print_json({"firings": found})
    else:
        _print_firings(found)


@schedules.command("put")
@click.argument("workflow")
@click.option("--cron", required=True, help="Minute, hour, day of month, month, day of week: '30 2 * * *'.")
@click.option("--timezone", default="", help="Such as Europe/Zurich; UTC by default.")
@click.option("--name", default="", help="The workflow's name by default.")
@click.option("--overlap", type=click.Choice(("skip", "queue", "cancel_previous", "allow")), default="skip")
@click.option("--catch-up", type=click.Choice(("none", "last", "all")), default="last")
@click.option("--catch-up-limit", type=click.IntRange(1, 100), help="With --catch-up all, at most so many.")
@click.option("--jitter", default="", help="Begin up to so much later than planned, such as 5m.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", callback=parse_params, help="May be repeated.")
@click.option("--version", type=click.IntRange(min=1), help="Of the workflow; the newest that is stored by default.")
@click.option("--paused", is_flag=True, help="It does not run until it is resumed.")
@pass_settings
def put_schedule(
    settings: Settings,
    workflow: str,
    cron: str,
    timezone: str,
    name: str,
    overlap: str,
    catch_up: str,
    catch_up_limit: int | None,
    jitter: str,
    params: dict[str, str],
    version: int | None,
    paused: bool,
) -> None:
    """Let a stored WORKFLOW run at planned times, beside what its definition says."""
    from peerd.v1 import workflows_pb2

    definition = workflows_pb2.ScheduleDefinition(
        cron=cron,
        timezone=timezone,
        overlap=overlap,
        catch_up=catch_up,
        catch_up_limit=catch_up_limit or 0,
        jitter=jitter,
        params=params,
        paused=paused,
    )
    found = call(settings, lambda peerd: peerd.put_schedule(workflow, definition, name=name, version=version or 0))
    _say(settings, found, f"{found.name} runs {_next(found)}")


@schedules.command("pause")
@click.argument("schedule")
@click.option("--reason", default="", help="Why, for whoever reads it later.")
@pass_settings
def pause_schedule(settings: Settings, schedule: str, reason: str) -> None:
    """Let nothing of it run until it is resumed."""
    found = call(settings, lambda peerd: peerd.pause_schedule(schedule, reason=reason))
    _say(settings, found, f"{found.name} is paused")


@schedules.command("resume")
@click.argument("schedule")
@click.option("--skip-missed", is_flag=True, help="Run nothing of what was missed, whatever catch_up says.")
@pass_settings
def resume_schedule(settings: Settings, schedule: str, skip_missed: bool) -> None:
    """Go on; what was missed is treated as catch_up says."""
    found = call(settings, lambda peerd: peerd.resume_schedule(schedule, skip_missed=skip_missed))
    _say(settings, found, f"{found.name} goes on; next {_next(found)}")


@schedules.command("trigger")
@click.argument("schedule")
@pass_settings
def trigger_schedule(settings: Settings, schedule: str) -> None:
    """One run now, under the overlap rule; prints what becomes of it."""
    firing = call(settings, lambda peerd: peerd.trigger_schedule(schedule))
    if settings.as_json:
        print_json(firing)
        return
    click.echo(_last(firing))
    if firing.message:
        click.echo(f"{firing.reason}: {firing.message}", err=True)


@schedules.command("delete")
@click.argument("schedule")
@pass_settings
def delete_schedule(settings: Settings, schedule: str) -> None:
    """End it, with what it remembers; its executions stay."""
    call(settings, lambda peerd: peerd.delete_schedule(schedule))
    if settings.as_json:
        print_json({})
    else:
        click.echo(f"{schedule} is deleted")


def _say(settings: Settings, schedule: schedules_pb2.Schedule, line: str) -> None:
    if settings.as_json:
        print_json(schedule)
    else:
        click.echo(line)


def _next(schedule: schedules_pb2.Schedule) -> str:
    return schedule.next[0].local if schedule.next else "never"


def _origin(schedule: schedules_pb2.Schedule) -> str:
    from peerd.v1 import schedules_pb2

    made = schedule.origin == schedules_pb2.SCHEDULE_ORIGIN_DEFINITION
    return "from the definition" if made else "made by request"


def _last(firing: schedules_pb2.Firing) -> str:
    from peerd.v1 import schedules_pb2

    word = enum_word(schedules_pb2.FiringStatus, firing.status)
    number = f" as execution {firing.workflow_execution_id}" if firing.workflow_execution_id else ""
    return f"{word}{number}"


def _print_firings(firings: Sequence[schedules_pb2.Firing]) -> None:
    rows = []
    for firing in firings:
        why = ": ".join(word for word in (firing.reason, firing.message) if word)
        if firing.HasField("next_attempt_at"):
            why += f"; tried again {local_time(firing.next_attempt_at)}"
        rows.append((firing.local or "now", firing.cause, _last(firing), local_time(firing.since), why))
    print_table(("PLANNED", "CAUSE", "BECAME", "SINCE", "WHY"), rows, empty="no firings")
