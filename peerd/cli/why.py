"""``peerctl why``: one page about a job: its state, what it waits for, the peers, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Verb
from peerd.cli.output import enum_word, local_time, print_json, short, styled
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.v1 import workflows_pb2


@click.command(cls=Verb)
@click.argument("execution", metavar="EXECUTION")
@click.argument("job", required=False)
@pass_settings
def why(settings: Settings, execution: str, job: str | None) -> None:
    """Why JOB of EXECUTION (also written EXECUTION/JOB) is where it is, or nowhere.

    Its state, the reason and since when, what it waits for, every peer's verdict now with the smallest change that
    helps, what to do next, and what happened to it.
    """
    number, node = _names(execution, job)
    answer = call(settings, lambda peerd: peerd.explain(number, node))
    if settings.as_json:
        print_json(answer)
        return
    for line in page(answer):
        click.echo(line)


def _names(execution: str, job: str | None) -> tuple[int, str]:
    number, slash, node = execution.partition("/")
    if bool(slash) == (job is not None) or not number.isascii() or not number.isdigit():
        raise click.UsageError("name the execution and its job: 'peerctl why 7 make' or 'peerctl why 7/make'")
    return int(number), job or node


def page(answer: workflows_pb2.ExplainJobResponse) -> Iterator[str]:
    """The lines of the page."""
    where = answer.peer_name or short(answer.peer_id)
    since = f", given to it {local_time(answer.placed_at)}" if answer.HasField("placed_at") else ""
    yield f"{answer.node_id} is on {where}{since}" if where else f"{answer.node_id} is on no peer"
    yield from _state(answer)
    yield from _edges(answer)
    yield from _verdicts(answer)
    if answer.events:
        yield "what happened:"
    for event in answer.events:
        yield f"  {local_time(event.at)}  {event.kind}: {event.message}"


def _state(answer: workflows_pb2.ExplainJobResponse) -> Iterator[str]:
    from peerd.cli.tree import lasted
    from peerd.cli.tree import why as words_of
    from peerd.v1 import workflows_pb2

    if not answer.HasField("job"):
        return
    job = answer.job
    status = enum_word(workflows_pb2.WorkflowJobStatus, job.status)
    since = f" since {local_time(job.since)}" if job.since.seconds else ""
    waited = f" (for {lasted(job.since, job.ended_at)})" if job.since.seconds and not job.ended_at.seconds else ""
    yield f"  state   {styled(status)}{since}{waited}"
    if words := words_of(job):
        yield f"  reason  {words}"
    if answer.HasField("away_since"):
        until = local_time(answer.lease_until)
        yield f"  lease   its peer does not answer since {local_time(answer.away_since)}; run out at {until}"
    yield f"  next    {job.next_action or 'nothing to do'}"


def _edges(answer: workflows_pb2.ExplainJobResponse) -> Iterator[str]:
    from peerd.cli.tree import edge_lines
    from peerd.v1 import workflows_pb2

    jobs = {job.node_id: job for job in answer.upstream}
    if answer.inputs:
        yield "takes:"
    for edge in answer.inputs:
        source = jobs.get(edge.source_node_id)
        state = enum_word(workflows_pb2.WorkflowJobStatus, source.status) if source is not None else ""
        about = f"  ({edge.source_node_id} is {state}, on {source.executor_name or 'no peer'})" if source else ""
        first, *rest = edge_lines(edge)
        yield f"  {first}{about}"
        yield from (f"  {line}" for line in rest)
    if answer.outputs:
        yield "gives:"
    for edge in answer.outputs:
        yield from (f"  {line}" for line in edge_lines(edge))


def _verdicts(answer: workflows_pb2.ExplainJobResponse) -> Iterator[str]:
    from peerd.v1 import workflows_pb2

    if answer.verdicts:
        yield "placed now:"
    for verdict in answer.verdicts:
        name = verdict.peer_name or short(verdict.peer_id)
        word = enum_word(workflows_pb2.Verdict, verdict.verdict)
        reason = f"{verdict.reason}: " if verdict.reason else ""
        yield f"  {word:8} {name}: {reason}{verdict.message}"
        if verdict.next_action:
            yield f"           next: {verdict.next_action}"
