"""``peerctl graph``: how what scans saw hangs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.failures import WorkFailed
from peerd.cli.output import print_json, print_table
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.v1 import inventory_pb2


@click.group(cls=Noun)
def graph() -> None:
    """Hosts, ports, services, certificates, names, networks, organizations: what is joined with what."""


@graph.command("neighbours")
@click.argument("node")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="At most so many; 100 by default.")
@pass_settings
def neighbours(settings: Settings, node: str, limit: int) -> None:
    """What NODE is joined with: host:192.0.2.7, port:192.0.2.7/tcp/443, network:192.0.2.0/24, hostname:NAME ..."""
    edges = call(settings, lambda peerd: peerd.neighbours(node, limit=limit))
    if settings.as_json:
        print_json({"edges": edges})
    else:
        _print(edges)


@graph.command("path")
@click.argument("begin")
@click.argument("end")
@click.option("--depth", type=click.IntRange(1, 8), default=8, help="At most so many edges; 8 by default.")
@pass_settings
def path(settings: Settings, begin: str, end: str, depth: int) -> None:
    """A shortest path between two nodes; exit 1 if none was found."""
    found = call(settings, lambda peerd: peerd.find_path(begin, end, depth=depth))
    if settings.as_json:
        print_json(found)
    elif found.found:
        _print(found.edges)
    else:
        rest = "" if found.complete else ", and not everything within reach was looked at"
        click.echo(f"no path within {depth} edges; {found.looked_at} nodes were looked at{rest}", err=True)
    if not found.found:
        raise WorkFailed


def _print(edges: Sequence[inventory_pb2.GraphEdge]) -> None:
    rows = [(_node(edge.left, edge.left_label), edge.relation, _node(edge.right, edge.right_label)) for edge in edges]
    print_table(("FROM", "", "TO"), rows, empty="nothing")


def _node(name: str, label: str) -> str:
    return f"{name} ({label})" if label else name
