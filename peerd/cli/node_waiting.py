"""Waiting for discoveries, scans and sweeps, and saying what came of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from peerd.cli.output import colour_wanted, enum_word
from peerd.errors import PeerdError, Reason

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import nodes_pb2

_PAUSE_SECONDS = 0.3


async def wait_for_run(
    peerd: Client, node_id: str, run_id: int, timeout: float | None
) -> tuple[nodes_pb2.Node, nodes_pb2.NodeRun]:
    """The node and the run, once the run is over. Raises DEADLINE_EXCEEDED."""
    async for _ in _until(timeout, f"run {run_id}"):
        node = (await peerd.node(node_id)).node
        if node.running.run_id != run_id:
            break
    runs = await peerd.node_runs(node_id, limit=100)
    for run in runs:
        if run.run_id == run_id:
            return node, run
    raise PeerdError(Reason.NOT_FOUND, f"there is no run {run_id} any more")


async def wait_for_sweep(peerd: Client, sweep_id: int, timeout: float | None, *, quiet: bool) -> nodes_pb2.NodeSweep:
    """The sweep, once all its nodes are over; a bar where a person looks. Raises DEADLINE_EXCEEDED."""
    sweep = await peerd.sweep(sweep_id)
    if quiet or not sys.stderr.isatty():
        async for _ in _until(timeout, f"sweep {sweep_id}"):
            sweep = await peerd.sweep(sweep_id)
            if sweep.HasField("ended_at"):
                break
        return sweep
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, no_color=not colour_wanted()), transient=True) as progress:
        task = progress.add_task(f"sweep {sweep_id}", total=sweep.nodes)
        async for _ in _until(timeout, f"sweep {sweep_id}"):
            sweep = await peerd.sweep(sweep_id)
            progress.update(task, completed=sweep.scanned + sweep.failed)
            if sweep.HasField("ended_at"):
                break
    return sweep


async def _until(timeout: float | None, what: str) -> AsyncIterator[None]:
    """Turns with a pause between them."""
    now = asyncio.get_running_loop().time
    give_up_at = None if timeout is None else now() + timeout
    while True:
        yield
        if give_up_at is not None and now() >= give_up_at:
            raise PeerdError(Reason.DEADLINE_EXCEEDED, f"{what} is not over yet; it goes on without us")
        await asyncio.sleep(_PAUSE_SECONDS)


def answer_document(answer: nodes_pb2.NodeAnswer) -> dict[str, object]:
    """The answer in the words and the shape of the source: null where there is nothing to do next."""
    next_action = answer.next_action or None
    ids = {key: getattr(answer, key) for key in ("node_id", "org_id") if getattr(answer, key)}
    note = {"note": answer.note} if answer.note else {}
    if not answer.success:
        return {"error": answer.error, "next_action": next_action, **ids, **note, **_started(answer)}
    protocol = {"protocol": answer.protocol} if answer.protocol else {}
    return {
        "success": True,
        "status": answer.status,
        **ids,
        **protocol,
        "next_action": next_action,
        **note,
        **_started(answer),
    }


def _started(answer: nodes_pb2.NodeAnswer) -> dict[str, object]:
    if not answer.run_id:
        return {}
    return {"run_id": answer.run_id, "workflow_execution_id": answer.workflow_execution_id}


def discovery_document(node: nodes_pb2.Node, run: nodes_pb2.NodeRun) -> dict[str, object]:
    """What a discovery came to, in the same shape."""
    ids = {"node_id": node.node_id, "org_id": node.org_id}
    if failed(run):
        return {"error": run.message, "next_action": None, **ids, "reason": run.reason, "run_id": run.run_id}
    found = [
        {"protocol": item.protocol, "confidence": item.confidence, "version": item.version, "port": item.port}
        for item in run.recognitions
    ]
    return {
        "success": True,
        "status": "discovered",
        **ids,
        "protocol": run.protocol or node.protocol,
        "next_action": "run-scan",
        "run_id": run.run_id,
        "workflow_execution_id": run.workflow_execution_id,
        "peer": run.peer,
        "recognitions": found,
    }


def scan_document(run: nodes_pb2.NodeRun) -> dict[str, object]:
    """What a scan came to; beside the answer that began it."""
    if failed(run):
        return {"status": "error", "reason": run.reason, "message": run.message}
    return {"status": "scanned", "score": run.score, "risk": run.risk, "version": run.version, "peer": run.peer}


def failed(run: nodes_pb2.NodeRun) -> bool:
    """Whether it came to nothing."""
    from peerd.v1 import nodes_pb2

    return run.status == nodes_pb2.NODE_RUN_STATUS_FAILED


def say_answer(answer: nodes_pb2.NodeAnswer, org: str, *, otherwise: str) -> None:
    """The answer as a sentence, and what to type next: ``otherwise`` for what the source leaves without a next step."""
    if answer.success:
        what = "a scan of it is under way" if answer.status == "ready_to_scan" else "a discovery of it is under way"
        protocol = f" ({answer.protocol})" if answer.protocol else ""
        click.echo(f"node {answer.node_id}{protocol}: {what}, execution {answer.workflow_execution_id}")
        if answer.note:
            click.echo(f"note: {answer.note}")
        return
    click.echo(f"error: {answer.error}", err=True)
    if answer.note:
        click.echo(f"note: {answer.note}", err=True)
    match answer.next_action:
        case "run-discovery":
            click.echo(f"next: peerctl nodes discover {answer.node_id}", err=True)
        case "wait":
            click.echo("next: wait, or have the policy changed: peerctl orgs set " + org, err=True)
        case _:
            click.echo(f"next: {otherwise}", err=True)


def say_run(node: nodes_pb2.Node, run: nodes_pb2.NodeRun) -> None:
    """What a run came to, as a sentence."""
    from peerd.v1 import nodes_pb2

    kind, where = enum_word(nodes_pb2.NodeRunKind, run.kind), f" on {run.peer}" if run.peer else ""
    if failed(run):
        click.echo(f"error: {run.message}", err=True)
        click.echo(f"reason: {run.reason} ({kind} of {node.target}{where})", err=True)
        return
    version = f" {run.version}" if run.version else ""
    if kind == "discover":
        click.echo(f"{node.target} speaks {node.protocol}{version} (found{where})")
        for item in run.recognitions:
            click.echo(f"  {item.protocol}: {item.confidence:.2f}, port {item.port}")
        click.echo(f"next: peerctl nodes scan {node.target} --org {node.org_slug}")
    else:
        click.echo(f"{node.target}: {node.protocol}{version}, score {run.score}, risk {run.risk} (scanned{where})")
        click.echo(f"next: peerctl nodes report {node.node_id}")
