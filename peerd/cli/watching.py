"""An execution while it runs: a live table where a person looks, one line per change everywhere else.

The plain view prints states, not bytes: it goes into logs, and a log of every megabyte would hide what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from peerd.cli.failures import WorkFailed
from peerd.cli.output import (
    colour_wanted,
    duration,
    enum_word,
    print_json,
    print_json_line,
    seconds_of,
    short,
    size,
    style_of,
    styled,
)
from peerd.cli.settings import Settings, call
from peerd.cli.tree import lasted, moved, whole_time, why

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peerd.client import Client
    from peerd.v1 import workflows_pb2

_ENDED = frozenset({"completed", "failed", "skipped", "cancelled"})


def follow(settings: Settings, execution_id: int, *, quiet: bool = False) -> None:
    """Watch until the execution is final. Raises WorkFailed unless it completed."""
    from peerd.v1 import workflows_pb2

    if quiet and not settings.as_json:
        click.echo(execution_id)

    async def watch(peerd: Client) -> workflows_pb2.Execution:
        if quiet:
            return await peerd.wait(execution_id, timeout=settings.timeout)
        if settings.as_json:
            return await _json_lines(peerd, execution_id, settings.timeout)
        if sys.stdout.isatty():
            return await _live(peerd, execution_id, settings.timeout)
        return await _plain(peerd, execution_id, settings.timeout)

    try:
        last = call(settings, watch)
    except KeyboardInterrupt:
        click.echo(f"\nexecution {execution_id} goes on without us", err=True)
        click.echo(f"next: peerctl executions watch {execution_id}, or cancel {execution_id}", err=True)
        raise
    status = enum_word(workflows_pb2.ExecutionStatus, last.status)
    if settings.as_json:
        if quiet:
            print_json(last)
    else:
        for line in _ending(last, status):
            click.echo(line)
    if last.status != workflows_pb2.EXECUTION_STATUS_COMPLETED:
        raise WorkFailed


def _ending(execution: workflows_pb2.Execution, status: str) -> Iterator[str]:
    took = whole_time(execution)
    yield f"execution {execution.workflow_execution_id} {styled(status)} after {took}"
    if execution.error:
        yield f"error: {execution.error}"
    if any(not edge.destination_node_id for edge in execution.edges) and status == "completed":
        yield f"delivered to {execution.delivery_directory}"


async def _json_lines(peerd: Client, execution_id: int, timeout: float | None) -> workflows_pb2.Execution:
    async for execution in peerd.watch(execution_id, timeout=timeout):
        print_json_line(execution)
        last = execution
    return last


async def _plain(peerd: Client, execution_id: int, timeout: float | None) -> workflows_pb2.Execution:
    seen: dict[int, tuple[str, ...]] = {}
    first = True
    async for execution in peerd.watch(execution_id, timeout=timeout):
        if first:
            click.echo(f"execution {execution.workflow_execution_id} of {execution.workflow_name}")
            first = False
        for line in changes(execution, seen):
            click.echo(line)
        last = execution
    return last


def changes(execution: workflows_pb2.Execution, seen: dict[int, tuple[str, ...]]) -> Iterator[str]:
    """One line for each job that changed since ``seen``, which is brought up to date."""
    from peerd.v1 import workflows_pb2

    begun = seconds_of(execution.created_at)
    edges = {edge.edge_id: edge for edge in execution.edges}
    for job in execution.jobs:
        status = enum_word(workflows_pb2.WorkflowJobStatus, job.status)
        peer = job.executor_name or short(job.executor_peer_id) or "-"
        now = (status, peer, str(job.attempt), why(job))
        if seen.get(job.workflow_job_id) == now:
            continue
        seen[job.workflow_job_id] = now
        after = duration(seconds_of(job.since) - begun) if job.since.seconds else ""
        came, went = moved(job, edges)
        words = [f"{after:>7}", job.node_id, peer, status]
        if status in _ENDED and (came or went):
            words.append(f"in {size(came)}, out {size(went)}")
        if job.attempt > 1:
            words.append(f"attempt {job.attempt}")
        if now[3]:
            words.append(now[3])
        yield "  ".join(words)


async def _live(peerd: Client, execution_id: int, timeout: float | None) -> workflows_pb2.Execution:
    from rich.console import Console
    from rich.live import Live

    from peerd.v1 import workflows_pb2

    last = workflows_pb2.Execution()
    console = Console(no_color=not colour_wanted(), highlight=False)
    # get_renderable is asked at each refresh, so elapsed times move between two updates.
    with Live(get_renderable=lambda: _live_view(last), console=console, refresh_per_second=8) as live:
        async for execution in peerd.watch(execution_id, timeout=timeout):
            last = execution
            live.refresh()
    return last


def _live_view(execution: workflows_pb2.Execution) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from peerd.v1 import workflows_pb2

    edges = {edge.edge_id: edge for edge in execution.edges}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("JOB", "PEER", "STATE", "IN", "OUT", "ELAPSED", ""):
        table.add_column(heading, justify="right" if heading in ("IN", "OUT", "ELAPSED") else "left")
    ended = 0
    for job in execution.jobs:
        status = enum_word(workflows_pb2.WorkflowJobStatus, job.status)
        ended += status in _ENDED
        came, went = moved(job, edges)
        table.add_row(
            job.node_id,
            job.executor_name or short(job.executor_peer_id),
            Text(status, style=style_of(status)),
            size(came),
            size(went),
            lasted(job.started_at, job.ended_at),
            Text(why(job), style="dim", overflow="ellipsis", no_wrap=True),
        )
    state = enum_word(workflows_pb2.ExecutionStatus, execution.status)
    carried = sum(edge.bytes for edge in execution.edges)
    took = whole_time(execution)
    summary = Table.grid(padding=(0, 2))
    summary.add_row(
        Text(f"{execution.workflow_name} {state}"),
        ProgressBar(total=max(len(execution.jobs), 1), completed=ended, width=20),
        Text(f"{ended} of {len(execution.jobs)} jobs  {size(carried)} moved  {took}"),
    )
    return Group(table, summary)
