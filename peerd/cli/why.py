"""``peerctl why``: which peers would take a job, which one does, and what the others lack."""

from __future__ import annotations

import click

from peerd.cli.app import Verb
from peerd.cli.output import enum_word, local_time, print_json, short
from peerd.cli.settings import Settings, call, pass_settings


@click.command(cls=Verb)
@click.argument("execution", type=int)
@click.argument("job")
@pass_settings
def why(settings: Settings, execution: int, job: str) -> None:
    """Why JOB of EXECUTION is where it is, or nowhere: every peer's verdict now, and the smallest change that helps."""
    from peerd.v1 import workflows_pb2

    answer = call(settings, lambda peerd: peerd.explain_placement(execution, job))
    if settings.as_json:
        print_json(answer)
        return
    where = answer.peer_name or short(answer.peer_id)
    since = f", given to it {local_time(answer.placed_at)}" if answer.HasField("placed_at") else ""
    click.echo(f"{answer.node_id} is on {where}{since}; placed now:" if where else f"{answer.node_id} is on no peer")
    for verdict in answer.verdicts:
        name = verdict.peer_name or short(verdict.peer_id)
        word = enum_word(workflows_pb2.Verdict, verdict.verdict)
        reason = f"{verdict.reason}: " if verdict.reason else ""
        click.echo(f"{word:8} {name}: {reason}{verdict.message}")
        if verdict.next_action:
            click.echo(f"         next: {verdict.next_action}")
