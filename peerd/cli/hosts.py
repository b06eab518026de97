"""``peerctl hosts``: what scans saw, by host."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.inventory import WHERE, moment, print_ports
from peerd.cli.output import local_time, print_fields, print_json, print_json_line, print_table, short
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import inventory_pb2

_COLUMNS = (
    "address",
    "transport",
    "port",
    "state",
    "service",
    "product",
    "version",
    "hostnames",
    "certificate",
    "scanners",
    "first_seen",
    "last_seen",
)


@click.group(cls=Noun, default="list")
def hosts() -> None:
    """Hosts that scans saw; 'peerctl hosts' alone lists them."""


@hosts.command("list")
@click.option("--where", default="", help=WHERE)
@click.option("--at", type=moment, help="As it was then: a time, or how long ago.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_hosts(settings: Settings, where: str, at: datetime | None, limit: int) -> None:
    """Hosts of which some port is as the filter says, by address."""
    found = call(settings, lambda peerd: peerd.hosts(where, at=at, limit=limit))
    if settings.as_json:
        print_json({"hosts": found})
        return
    rows = [
        (
            host.address,
            ", ".join(host.hostnames),
            str(host.open_ports),
            f"AS{host.asn} {host.as_name}".strip() if host.HasField("asn") else "",
            host.country,
            ", ".join(host.organizations),
            local_time(host.last_seen),
        )
        for host in found
    ]
    print_table(("ADDRESS", "NAMES", "OPEN", "AS", "IN", "ORGANIZATION", "LAST SEEN"), rows, empty="no hosts")


@hosts.command("show")
@click.argument("address")
@click.option(
    "--depth",
    type=click.IntRange(0, 3),
    default=2,
    help="0 the host, 1 its ports, 2 what answers there (default), 3 who said so and related hosts.",
)
@click.option("--at", type=moment, help="As it was then: a time, or how long ago.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many ports; 1000 by default.")
@pass_settings
def show_host(settings: Settings, address: str, depth: int, at: datetime | None, limit: int) -> None:
    """One host, with what is around it."""
    found = call(settings, lambda peerd: peerd.host(address, depth=depth, at=at, limit=limit))
    if settings.as_json:
        print_json(found)
        return
    host = found.host
    print_fields(
        {
            "address": host.address,
            "state": "up" if host.up else "did not answer",
            "names": ", ".join(host.hostnames),
            "hardware address": ", ".join(host.macs),
            "system": ", ".join(host.systems),
            "organization": ", ".join(host.organizations),
            "autonomous system": f"AS{host.asn} {host.as_name}".strip() if host.HasField("asn") else "",
            "country": host.country,
            "first seen": local_time(host.first_seen),
            "last seen": local_time(host.last_seen),
        }
    )
    if found.ports:
        click.echo()
        print_ports(found.ports)
    if found.next_page_token:
        click.echo(f"there are more ports: --limit {10 * limit} shows so many, 'peerctl hosts export' all")
    if found.views:
        click.echo()
        _print_views(found.views)
    for related in found.related:
        click.echo(f"\nrelated: {related.address} through {related.through}")


def _print_views(views: Sequence[inventory_pb2.InventoryView]) -> None:
    rows = [
        (
            f"{view.number}/{view.transport}",
            view.state,
            short(view.scanner),
            view.vantage,
            view.tool,
            str(view.ingest_job_id),
            local_time(view.seen_at),
        )
        for view in views
    ]
    print_table(("PORT", "STATE", "SCANNER", "FROM", "TOOL", "JOB", "SEEN"), rows, empty="")


@hosts.command("export")
@click.option("--where", default="", help=WHERE)
@click.option("--at", type=moment, help="As it was then: a time, or how long ago.")
@click.option("--format", "form", type=click.Choice(("jsonl", "csv")), default="jsonl", help="jsonl by default.")
@pass_settings
def export(settings: Settings, where: str, at: datetime | None, form: str) -> None:
    """Every port, a line each, however many there are."""

    async def write(peerd: Client) -> None:
        if form == "csv" and not settings.as_json:
            click.echo(_csv_line(_COLUMNS))
        async for port in peerd.each_port(where, at=at):
            if form == "csv" and not settings.as_json:
                click.echo(_csv_line(_row(port)))
            else:
                print_json_line(port)

    call(settings, write)


def _row(port: inventory_pb2.InventoryPort) -> Sequence[str]:
    return (
        port.address,
        port.transport,
        str(port.number),
        port.state,
        port.service.name,
        port.service.product,
        port.service.version,
        " ".join(port.hostnames),
        port.certificate.sha256,
        " ".join(port.scanners),
        port.first_seen.ToJsonString(),
        port.last_seen.ToJsonString(),
    )


def _csv_line(cells: Sequence[str]) -> str:
    """One line of RFC 4180. What a spreadsheet would take for a formula is told to be text."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(
        f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in cells
    )
    return line.getvalue()
