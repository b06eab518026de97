"""``peerctl executions``: the runs of workflows that this peer owns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, local_time, print_json, print_table
from peerd.cli.settings import Settings, call, comma_list, pass_settings
from peerd.cli.workflows import parse_params

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import workflows_pb2

_STATUSES = ("pending", "running", "completed", "failed", "cancelled")


@click.group(cls=Noun, default="list")
def executions() -> None:
    """Runs of workflows; 'peerctl executions' alone lists them, newest first."""


@executions.command("list")
@click.option("--status", "statuses", type=comma_list(*_STATUSES), default="", help="Only these, such as failed.")
@click.option("--workflow", default="", help="Only executions of this workflow.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@pass_settings
def list_executions(settings: Settings, statuses: list[str], workflow: str, limit: int | None) -> None:
    """Executions, newest first."""
    from peerd.cli.tree import lasted
    from peerd.v1 import workflows_pb2

    wanted = [workflows_pb2.ExecutionStatus.Value(f"EXECUTION_STATUS_{word.upper()}") for word in statuses]
    found = call(settings, lambda peerd: peerd.executions(statuses=wanted, workflow=workflow, limit=limit))
    if settings.as_json:
        print_json({"executions": found})
        return
    rows = [
        (
            str(item.workflow_execution_id),
            item.workflow_name,
            enum_word(workflows_pb2.ExecutionStatus, item.status),
            str(item.job_count),
            local_time(item.created_at),
            lasted(item.started_at, item.ended_at),
            item.error or item.reason,
        )
        for item in found
    ]
    print_table(("ID", "WORKFLOW", "STATUS", "JOBS", "CREATED", "TOOK", "WHY"), rows, empty="no executions")


@executions.command("show")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@pass_settings
def show_execution(settings: Settings, execution_id: int) -> None:
    """One execution as a tree of its jobs."""

    async def fetch(peerd: Client) -> tuple[workflows_pb2.Execution, dict[str, str]]:
        execution = await peerd.execution(execution_id)
        names = {} if settings.as_json else {peer.peer_id: peer.name for peer in await peerd.peers()}
        return execution, names

    execution, names = call(settings, fetch)
    if settings.as_json:
        print_json(execution)
        return
    from peerd.cli.tree import tree

    for line in tree(execution, names):
        click.echo(line)


@executions.command("events")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.option("--job", default="", help="Only what is about this job and its edges.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest.")
@pass_settings
def list_events(settings: Settings, execution_id: int, job: str, limit: int | None) -> None:
    """What happened to an execution, oldest first."""
    found = call(settings, lambda peerd: peerd.events(execution_id, node_id=job, limit=limit))
    if settings.as_json:
        print_json({"events": found})
        return
    rows = [(str(item.seq), local_time(item.at), item.node_id or "-", item.kind, item.message) for item in found]
    print_table(("NO", "AT", "JOB", "WHAT", ""), rows, empty="no events")


GRAPH_FORMATS = ("mermaid", "dot")


@executions.command("graph")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.option("--format", "form", type=click.Choice(GRAPH_FORMATS), default="mermaid", help="For which program.")
@pass_settings
def graph_execution(settings: Settings, execution_id: int, form: str) -> None:
    """The graph of an execution with its states, as text."""
    from peerd.v1 import workflows_pb2

    wanted = workflows_pb2.GraphFormat.Value(f"GRAPH_FORMAT_{form.upper()}")
    text = call(settings, lambda peerd: peerd.graph(execution_id, wanted))
    if settings.as_json:
        print_json({"format": form, "text": text})
    else:
        click.echo(text, nl=False)


@executions.command("fetch")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--files", multiple=True, metavar="PATTERN", help="Only these, such as '**/*.csv'; may be repeated.")
@pass_settings
def fetch_files(settings: Settings, execution_id: int, directory: Path, files: tuple[str, ...]) -> None:
    """Copy what was delivered to Local Peer into DIRECTORY of this machine."""
    written = call(settings, lambda peerd: peerd.fetch(execution_id, directory, files=files))
    if settings.as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(str(path))
    if not written:
        click.echo("nothing was delivered", err=True)


@executions.command("watch")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@pass_settings
def watch_execution(settings: Settings, execution_id: int) -> None:
    """Follow an execution to its end; with -o json one document per change and line."""
    from peerd.cli.watching import follow

    follow(settings, execution_id)


@executions.command("cancel")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.option("--reason", default="", help="Why, for whoever reads it later.")
@click.option("--wait", is_flag=True, help="Return when all has stopped.")
@pass_settings
def cancel_execution(settings: Settings, execution_id: int, reason: str, wait: bool) -> None:
    """End an execution: its jobs are stopped wherever they run."""
    from peerd.v1 import workflows_pb2

    async def cancel(peerd: Client) -> workflows_pb2.Execution:
        answer = await peerd.cancel(execution_id, reason=reason)
        return await peerd.wait(execution_id, timeout=settings.timeout) if wait else answer

    execution = call(settings, cancel)
    if settings.as_json:
        print_json(execution)
        return
    status = enum_word(workflows_pb2.ExecutionStatus, execution.status)
    if status in ("pending", "running"):
        click.echo(f"execution {execution_id} is being cancelled")
        if execution.reason:
            click.echo(f"waits for {execution.reason}")
    else:
        click.echo(f"execution {execution_id} is {status}")


@executions.command("rerun")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.option("--from", "jobs", multiple=True, metavar="JOB", help="This job and all that builds on it; repeatable.")
@click.option("--failed", is_flag=True, help="Only what did not complete, and what builds on it.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", callback=parse_params, help="Changed ones.")
@click.option("--request-id", default="", metavar="ID", help="Repeating it with the same id starts nothing new.")
@click.option("--keep", is_flag=True, help="Retention never takes its files, here or where its jobs run.")
@click.option("--watch", is_flag=True, help="Show how it goes until it ends.")
@click.option("--wait", is_flag=True, help="Say nothing until it ends.")
@pass_settings
def rerun_execution(
    settings: Settings,
    execution_id: int,
    jobs: tuple[str, ...],
    failed: bool,
    params: dict[str, str],
    request_id: str,
    keep: bool,
    watch: bool,
    wait: bool,
) -> None:
    """Run an execution that has ended again, and print the id of the new one.

    With --from or --failed the jobs before are not run: their files are sent again from where they are.
    """
    from peerd.cli.watching import follow

    run = call(
        settings,
        lambda peerd: peerd.rerun(
            execution_id, from_jobs=jobs, failed=failed, params=params, request_id=request_id, keep=keep
        ),
    )
    if watch or wait:
        follow(settings, run.id, quiet=wait and not watch)
    elif settings.as_json:
        print_json(run.last)
    else:
        click.echo(run.id)
        click.echo(f"next: peerctl executions watch {run.id}", err=True)


@executions.command("keep")
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.option("--release", is_flag=True, help="Leave its files to retention again.")
@pass_settings
def keep_execution(settings: Settings, execution_id: int, release: bool) -> None:
    """Save an execution's files from retention, here and where its jobs ran."""
    execution = call(settings, lambda peerd: peerd.keep(execution_id, keep=not release))
    if settings.as_json:
        print_json(execution)
    elif execution.files_removed:
        click.echo(f"execution {execution_id}: its files are gone already; its jobs' directories may still be there")
    else:
        click.echo(f"execution {execution_id} is {'kept' if execution.kept else 'left to retention'}")
