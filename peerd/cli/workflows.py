"""``peerctl workflows``: check a definition, see where its jobs would run, store it, run it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from peerd.cli.app import Noun
from peerd.cli.failures import WorkFailed
from peerd.cli.output import local_time, print_fields, print_json, print_table, short
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import workflows_pb2

T = TypeVar("T")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Noun, default="list")
def workflows() -> None:
    """Definitions: check, plan, store, run; 'peerctl workflows' alone lists what is stored."""


@workflows.command("validate")
@click.argument("file", type=_FILE)
@pass_settings
def validate(settings: Settings, file: Path) -> None:
    """List everything that is wrong with FILE, with line and column."""
    from peerd.cli.definition_file import read_definition

    source = read_definition(file)
    answer = call(settings, lambda peerd: peerd.validate(source))
    if settings.as_json:
        print_json(answer)
    elif answer.problems:
        _print_problems(file, answer.problems, err=False)
    else:
        jobs = len(answer.definition.jobs)
        click.echo(f"{file}: {answer.definition.name} is sound: {jobs} job{'s' if jobs != 1 else ''}")
    if answer.problems:
        raise WorkFailed


@workflows.command("plan")
@click.argument("file", type=_FILE)
@pass_settings
def plan(settings: Settings, file: Path) -> None:
    """Where each job of FILE would run now, and why not elsewhere."""
    answer = _with_source(settings, file, lambda peerd, source: peerd.plan(source))
    if settings.as_json:
        print_json(answer)
    else:
        _print_plan(answer)
    if any(not job.peer_id and not job.waits for job in answer.jobs):
        raise WorkFailed


@workflows.command("graph")
@click.argument("file", type=_FILE)
@click.option("--format", "form", type=click.Choice(("mermaid", "dot")), default="mermaid", help="For which program.")
@pass_settings
def graph(settings: Settings, file: Path, form: str) -> None:
    """The graph of FILE as text."""
    from peerd.v1 import workflows_pb2

    wanted = workflows_pb2.GraphFormat.Value(f"GRAPH_FORMAT_{form.upper()}")
    text = _with_source(settings, file, lambda peerd, source: peerd.graph(source, wanted))
    if settings.as_json:
        print_json({"format": form, "text": text})
    else:
        click.echo(text, nl=False)


@workflows.command("put")
@click.argument("file", type=_FILE)
@pass_settings
def put(settings: Settings, file: Path) -> None:
    """Store FILE; the same content gives the same version."""
    stored = _with_source(settings, file, lambda peerd, source: peerd.put_workflow(source))
    if settings.as_json:
        print_json(stored)
    else:
        click.echo(f"{stored.name} version {stored.version} is stored as {stored.workflow_id}")
        if stored.definition.HasField("schedule"):
            click.echo(f"it runs at planned times: 'peerctl schedules show {stored.name}'", err=True)


@workflows.command("list")
@pass_settings
def list_workflows(settings: Settings) -> None:
    """Stored workflows, the newest version of each."""
    found = call(settings, lambda peerd: peerd.workflows())
    if settings.as_json:
        print_json({"workflows": found})
        return
    rows = [
        (item.workflow_id, item.name, str(item.version), str(item.job_count), local_time(item.created_at))
        for item in found
    ]
    print_table(("ID", "NAME", "VERSION", "JOBS", "STORED"), rows, empty="no workflows")


@workflows.command("show")
@click.argument("workflow")
@click.option("--version", "version", type=click.IntRange(min=1), help="The newest by default.")
@pass_settings
def show(settings: Settings, workflow: str, version: int | None) -> None:
    """A stored workflow with its parameters and its definition."""
    answer = call(settings, lambda peerd: peerd.workflow(workflow, version=version or 0))
    if settings.as_json:
        print_json(answer)
        return
    import yaml
    from google.protobuf.json_format import MessageToDict

    print_fields(
        {
            "workflow": f"{answer.name} version {answer.version}",
            "id": answer.workflow_id,
            "digest": answer.digest.hex(),
            "stored": local_time(answer.created_at),
        }
    )
    if answer.definition.params or answer.definition.parameters:
        from peerd.cli.parameters import print_parameters

        click.echo()
        print_parameters(answer.definition)
    definition = MessageToDict(answer.definition, preserving_proto_field_name=True)
    click.echo("\n" + yaml.safe_dump(definition, sort_keys=False, allow_unicode=True).rstrip())


def parse_params(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE, any number of times."""
    params = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
        params[name] = content
    return params


@workflows.command("run")
@click.argument("workflow", metavar="FILE|NAME")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", callback=parse_params, help="May be repeated.")
@click.option("--request-id", default="", metavar="ID", help="Repeating a run with the same id starts nothing new.")
@click.option("--keep", is_flag=True, help="Retention never takes its files, here or where its jobs run.")
@click.option("--watch", is_flag=True, help="Show how it goes until it ends.")
@click.option("--wait", is_flag=True, help="Say nothing until it ends.")
@pass_settings
def run(
    settings: Settings, workflow: str, params: dict[str, str], request_id: str, keep: bool, watch: bool, wait: bool
) -> None:
    """Start an execution of a definition file or a stored workflow, and print its id."""
    from peerd.cli.definition_file import looks_like_file
    from peerd.cli.watching import follow

    if looks_like_file(workflow) or Path(workflow).is_file():
        started = _with_source(
            settings,
            Path(workflow),
            lambda peerd, source: peerd.run(source, params=params, request_id=request_id, keep=keep),
        )
    else:
        started = call(
            settings, lambda peerd: peerd.run(workflow=workflow, params=params, request_id=request_id, keep=keep)
        )
    if watch or wait:
        follow(settings, started.workflow_execution_id, quiet=wait and not watch)
    elif settings.as_json:
        print_json(started)
    else:
        click.echo(started.workflow_execution_id)
        click.echo(f"next: peerctl executions watch {started.workflow_execution_id}", err=True)


def _with_source(
    settings: Settings,
    file: Path,
    act: Callable[[Client, workflows_pb2.DefinitionSource], Coroutine[object, object, T]],
) -> T:
    """Do something with a definition file; if it is refused as unsound, show its problems by line."""
    from peerd.cli.definition_file import read_definition
    from peerd.errors import PeerdError, Reason

    source = read_definition(file)

    async def attempt(peerd: Client) -> T:
        try:
            return await act(peerd, source)
        except PeerdError as exc:
            if exc.reason is Reason.INVALID_DEFINITION:
                problems = (await peerd.validate(source)).problems
                _print_problems(file, problems, err=True)
                if problems:
                    exc.violations = ()  # said already, and better
            raise

    return call(settings, attempt)


def _print_problems(file: Path, problems: Iterable[workflows_pb2.Problem], *, err: bool) -> None:
    for problem in problems:
        field = f" ({problem.field})" if problem.field else ""
        click.echo(f"{file}:{problem.line}:{problem.column}: {problem.reason}: {problem.message}{field}", err=err)
        if problem.next_action:
            click.echo(f"    next: {problem.next_action}", err=err)


def _print_plan(answer: workflows_pb2.PlanWorkflowResponse) -> None:
    rows = []
    for job in answer.jobs:
        where = job.peer_name or short(job.peer_id) or "nobody"
        when = (
            "later"
            if job.waits and job.rule
            else "waits for it"
            if job.waits
            else "now"
            if job.peer_id
            else "cannot run"
        )
        rows.append((job.node_id, where, when, job.rule))
    print_table(("JOB", "PEER", "WHEN", "WHY"), rows, empty="no jobs")
    for job in answer.jobs:
        for refusal in job.refusals:
            name = refusal.peer_name or short(refusal.peer_id)
            click.echo(f"{job.node_id} not on {name}: {refusal.reason}: {refusal.message}")
            if refusal.next_action and not job.peer_id:
                click.echo(f"    next: {refusal.next_action}")
    if answer.edges:
        click.echo()
    from peerd.cli.tree import edge_end

    for edge in answer.edges:
        source = edge_end(edge.source_node_id, edge.source_kind, edge.source_path)
        destination = edge_end(edge.destination_node_id, edge.destination_kind, edge.destination_path)
        click.echo(f"{edge.edge_id}: {source} -> {destination}")
