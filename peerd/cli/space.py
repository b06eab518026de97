"""``peerctl du`` and ``peerctl gc``: what this peer's data takes on the disk, and removing what is over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Verb
from peerd.cli.output import enum_word, local_time, print_fields, print_json, print_table, short, size
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.v1 import space_pb2

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """An age, such as 12h, in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)([smhd])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age; write it like 90m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


@click.command(cls=Verb)
@pass_settings
def du(settings: Settings) -> None:
    """What the data directory takes, by part, by orchestrator and by execution."""
    usage = call(settings, lambda peerd: peerd.usage())
    if settings.as_json:
        print_json(usage)
        return
    print_fields(
        {
            "disk": f"{size(usage.free_bytes)} free of {size(usage.disk_bytes)}; {size(usage.reserve_bytes)} stay free",
            **{area.name: size(area.bytes) for area in usage.areas},
        }
    )
    click.echo()
    rows = [
        (each.name or short(each.peer_id), size(each.bytes), str(each.executions), _quota(each.quota_bytes))
        for each in usage.orchestrators
    ]
    print_table(("ORCHESTRATOR", "SIZE", "EXECUTIONS", "QUOTA"), rows, empty="no files of workflows")
    if usage.executions:
        click.echo()
        largest = [
            (
                str(each.workflow_execution_id),
                each.orchestrator_name or short(each.orchestrator_peer_id),
                size(each.bytes),
            )
            for each in usage.executions
        ]
        print_table(("EXECUTION", "ORCHESTRATOR", "SIZE"), largest, empty="")


@click.command(cls=Verb)
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option(
    "--older-than", callback=_seconds, metavar="AGE", help="Instead of the configured ages: 90m, 12h, 7d, 0s."
)
@click.option("--execution", "executions", type=int, multiple=True, metavar="ID", help="Only this; may be repeated.")
@pass_settings
def gc(settings: Settings, dry_run: bool, older_than: float | None, executions: tuple[int, ...]) -> None:
    """Remove files of executions and jobs that are over, as retention does by itself from time to time."""
    answer = call(
        settings,
        lambda peerd: peerd.collect_garbage(
            dry_run=dry_run, older_than_seconds=older_than, execution_ids=list(executions)
        ),
    )
    if settings.as_json:
        print_json(answer)
        return
    rows = [_row(each) for each in answer.removals]
    if rows:
        print_table(("WHAT", "ORCHESTRATOR", "EXECUTION", "JOB", "NAME", "ENDED", "SIZE"), rows, empty="")
    if answer.count > len(answer.removals):
        click.echo(f"and {answer.count - len(answer.removals)} more")
    verb = "would be removed" if dry_run else "removed"
    what = "1 directory" if answer.count == 1 else f"{answer.count} directories"
    click.echo(f"{what} with {size(answer.bytes)} {verb}" if answer.count else "nothing is over")


def _row(each: space_pb2.Removal) -> tuple[str, ...]:
    from peerd.v1.space_pb2 import RemovalKind

    return (
        enum_word(RemovalKind, each.kind),
        short(each.orchestrator_peer_id),
        str(each.workflow_execution_id),
        str(each.job_execution_id or "-"),
        each.name,
        local_time(each.ended_at),
        size(each.bytes),
    )


def _quota(count: int) -> str:
    return size(count) if count else "-"
