"""``peerctl nodes``: discover and scan the nodes of organizations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from peerd.cli import node_waiting as waiting
from peerd.cli.app import Noun
from peerd.cli.failures import WorkFailed
from peerd.cli.output import enum_word, local_time, print_fields, print_json, print_table
from peerd.cli.settings import Settings, call, comma_list, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import nodes_pb2, workflows_pb2

F = TypeVar("F", bound=Callable[..., Any])

org_option = click.option("--org", default="", envvar="PEERCTL_ORG", help="UUID or slug; PEERCTL_ORG by default.")
level_option = click.option("--level", type=click.Choice(["1", "2", "3"]), help="How deep; 1 by default.")


def on_options(command: F) -> F:
    """Which peers probe, instead of what the organization's policy says."""
    for decorate in (
        click.option("--on-peer", default="", help="Probe from this peer (name or id)."),
        click.option("--on-role", default="", help="Probe from a peer with this role."),
        click.option("--on-label", multiple=True, help="Probe from a peer with this label. May be repeated."),
    ):
        command = decorate(command)
    return command


@click.group(cls=Noun, default="list")
def nodes() -> None:
    """Nodes of organizations; 'peerctl nodes' alone lists them."""


@nodes.command("scan")
@click.argument("target")
@org_option
@click.option("--protocol", default="", help="As discovered by default.")
@level_option
@on_options
@click.option("--wait", is_flag=True, help="Until it is over; fails if the scan does.")
@pass_settings
def scan(
    settings: Settings,
    target: str,
    org: str,
    protocol: str,
    level: str | None,
    on_peer: str,
    on_role: str,
    on_label: tuple[str, ...],
    wait: bool,
) -> None:
    """Scan TARGET for an organization, or learn what has to happen first."""
    on = _placement(on_peer, on_role, on_label)

    async def ask(
        peerd: Client,
    ) -> tuple[nodes_pb2.NodeAnswer, tuple[nodes_pb2.Node, nodes_pb2.NodeRun] | None]:
        answer = await peerd.scan_node(target, org=org, protocol=protocol, level=int(level or 0), on=on)
        over = None
        if wait and answer.success:
            over = await waiting.wait_for_run(peerd, answer.node_id, answer.run_id, settings.timeout)
        return answer, over

    answer, over = call(settings, ask)
    if settings.as_json:
        document = waiting.answer_document(answer)
        print_json({**document, "scan": waiting.scan_document(over[1])} if over is not None else document)
    else:
        look = f"peerctl orgs list has the organizations, peerctl orgs show {org} says what it allows"
        waiting.say_answer(answer, org, otherwise=look if org else "give --org; peerctl orgs list has them")
        if over is not None:
            waiting.say_run(*over)
    if not answer.success or (over is not None and waiting.failed(over[1])):
        raise WorkFailed


@nodes.command("discover")
@click.argument("node")
@click.option("--host", default="", help="The node's own; any other is refused.")
@org_option
@on_options
@click.option("--no-wait", is_flag=True, help="Do not wait for what it finds.")
@pass_settings
def discover(
    settings: Settings,
    node: str,
    host: str,
    org: str,
    on_peer: str,
    on_role: str,
    on_label: tuple[str, ...],
    no_wait: bool,
) -> None:
    """Find out which protocol NODE (a UUID) speaks."""
    on = _placement(on_peer, on_role, on_label)

    async def ask(
        peerd: Client,
    ) -> tuple[nodes_pb2.NodeAnswer, tuple[nodes_pb2.Node, nodes_pb2.NodeRun] | None]:
        answer = await peerd.discover_node(node, org=org, host=host, on=on)
        over = None
        if answer.success and not no_wait:
            over = await waiting.wait_for_run(peerd, answer.node_id, answer.run_id, settings.timeout)
        return answer, over

    answer, over = call(settings, ask)
    if settings.as_json:
        document = waiting.answer_document(answer) if over is None else waiting.discovery_document(*over)
        print_json(document)
    elif over is None:
        waiting.say_answer(answer, org, otherwise="peerctl nodes list has the nodes, and their ids")
    else:
        waiting.say_run(*over)
    if not answer.success or (over is not None and waiting.failed(over[1])):
        raise WorkFailed


@nodes.command("sweep")
@org_option
@click.option("--protocol", default="", help="Only nodes of this protocol.")
@level_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=None, help="At most so many, those tried longest ago first."
)
@on_options
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@pass_settings
def sweep(
    settings: Settings,
    org: str,
    protocol: str,
    level: str | None,
    limit: int | None,
    on_peer: str,
    on_role: str,
    on_label: tuple[str, ...],
    no_wait: bool,
) -> None:
    """Discover and scan all nodes of an organization that are due, as one workflow execution."""
    on = _placement(on_peer, on_role, on_label)

    async def ask(peerd: Client) -> nodes_pb2.SweepNodesResponse:
        answer = await peerd.sweep_nodes(org=org, protocol=protocol, level=int(level or 0), limit=limit or 0, on=on)
        if answer.HasField("sweep") and not no_wait:
            over = await waiting.wait_for_sweep(peerd, answer.sweep.sweep_id, settings.timeout, quiet=settings.as_json)
            answer.sweep.CopyFrom(over)
        return answer

    answer = call(settings, ask)
    if not answer.HasField("sweep"):
        if settings.as_json:
            print_json({"error": answer.error, "next_action": answer.next_action or None})
        else:
            click.echo(f"error: {answer.error}", err=True)
        raise WorkFailed
    if settings.as_json:
        print_json({"sweep": answer.sweep})
    else:
        _say_sweep(answer.sweep)


@nodes.command("show-sweep")
@click.argument("sweep_id", type=click.IntRange(min=1))
@org_option
@pass_settings
def show_sweep(settings: Settings, sweep_id: int, org: str) -> None:
    """How far a sweep is."""
    found = call(settings, lambda peerd: peerd.sweep(sweep_id, org=org))
    if settings.as_json:
        print_json({"sweep": found})
    else:
        _say_sweep(found)


@nodes.command("list")
@org_option
@click.option("--status", type=comma_list("new", "discovered", "scanned", "error"), default="", help="Only these.")
@click.option("--protocol", default="", help="Only this one.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_nodes(settings: Settings, org: str, status: Sequence[str], protocol: str, limit: int) -> None:
    """Nodes with their status and score."""
    from peerd.v1 import nodes_pb2

    statuses = [nodes_pb2.NodeStatus.Value(f"NODE_STATUS_{word.upper()}") for word in status]
    found = call(settings, lambda peerd: peerd.nodes(org=org, statuses=statuses, protocol=protocol, limit=limit))
    if settings.as_json:
        print_json({"nodes": found})
        return
    rows = [
        (
            node.target,
            node.org_slug,
            enum_word(nodes_pb2.NodeStatus, node.status),
            node.protocol or "?",
            f"{node.score.score} {node.score.risk}" if node.HasField("score") else "",
            local_time(node.score.scanned_at) if node.HasField("score") else "",
            node.node_id,
            node.message or (node.next_action if node.HasField("running") else ""),
        )
        for node in found
    ]
    print_table(("TARGET", "ORG", "STATUS", "PROTOCOL", "SCORE", "SCANNED", "ID", "WHY"), rows, empty="no nodes")


@nodes.command("show")
@click.argument("node")
@org_option
@click.option("--runs", "count", type=click.IntRange(0, 1000), default=10, help="Newest runs to list; 10 by default.")
@pass_settings
def show_node(settings: Settings, node: str, org: str, count: int) -> None:
    """One node, by UUID or target: what is known of it, its history, its discoveries and scans."""
    from peerd.v1 import nodes_pb2

    async def fetch(peerd: Client) -> tuple[nodes_pb2.GetNodeResponse, list[nodes_pb2.NodeRun]]:
        found = await peerd.node(node, org=org)
        return found, await peerd.node_runs(found.node.node_id, org=org, limit=count) if count else []

    found, runs = call(settings, fetch)
    if settings.as_json:
        print_json({"node": found.node, "history": list(found.history), "runs": runs})
        return
    shown = found.node
    print_fields(
        {
            "node": shown.node_id,
            "target": shown.target,
            "organization": f"{shown.org_slug} ({shown.org_id})",
            "status": enum_word(nodes_pb2.NodeStatus, shown.status),
            "since": local_time(shown.since),
            "protocol": f"{shown.protocol} {shown.version}".strip(),
            "reason": shown.reason,
            "message": shown.message,
            "score": f"{shown.score.score} of 100, risk {shown.score.risk}" if shown.HasField("score") else "",
            "next": shown.next_action,
        }
    )
    if found.history:
        click.echo()
        rows = [
            (
                local_time(item.at),
                enum_word(nodes_pb2.NodeStatus, item.from_status) or "-",
                enum_word(nodes_pb2.NodeStatus, item.to_status),
                item.event,
                item.caller,
                item.detail,
            )
            for item in found.history
        ]
        print_table(("AT", "FROM", "TO", "EVENT", "BY", "DETAIL"), rows, empty="")
    if runs:
        click.echo()
        lines = [
            (
                str(run.run_id),
                enum_word(nodes_pb2.NodeRunKind, run.kind),
                enum_word(nodes_pb2.NodeRunStatus, run.status),
                run.peer,
                f"{run.score} {run.risk}" if run.risk else "",
                local_time(run.started_at),
                run.message,
            )
            for run in runs
        ]
        print_table(("RUN", "KIND", "STATUS", "PEER", "SCORE", "STARTED", "WHY"), lines, empty="")


@nodes.command("report")
@click.argument("node")
@org_option
@click.option("--run", "run_id", type=click.IntRange(min=1), help="Of this run; the newest scan by default.")
@pass_settings
def report(settings: Settings, node: str, org: str, run_id: int | None) -> None:
    """What the newest scan of a node found."""
    found = call(settings, lambda peerd: peerd.node_report(node, org=org, run_id=run_id or 0))
    if settings.as_json:
        print_json({"run": found.run, "result": json.loads(found.json)})
    else:
        click.echo(found.markdown.rstrip("\n") or found.json)


def _placement(peer: str, role: str, labels: Sequence[str]) -> workflows_pb2.Placement | None:
    from peerd.v1 import workflows_pb2

    if not (peer or role or labels):
        return None
    return workflows_pb2.Placement(peer=peer, role=role, labels=labels)


def _say_sweep(found: nodes_pb2.NodeSweep) -> None:
    ended = found.HasField("ended_at")
    print_fields(
        {
            "sweep": f"{found.sweep_id}, execution {found.workflow_execution_id}" + ("" if ended else ", under way"),
            "nodes": f"{found.nodes}: {found.scanned} scanned, {found.failed} failed",
            "left out": f"{found.left_out}: {found.left_out_reason}" if found.left_out else "",
            "risk": _counts(found.risks),
            "failed for": _counts(found.reasons),
            "probed by": _counts(found.peers),
            "took": f"{found.ended_at.seconds - found.started_at.seconds} s" if ended else "",
        }
    )


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
