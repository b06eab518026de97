"""``peerctl inventory``: ports, services and certificates that scans saw, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, local_time, print_json, print_json_line, print_table, short
from peerd.cli.settings import Settings, call, duration, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import inventory_pb2

WHERE = "A filter such as 'network=10.0.0.0/8 AND port=443 AND product~nginx'."


def moment(text: str) -> datetime:
    """``2026-11-21``, ``2026-11-21T10:00`` (of this machine's zone unless it says one), or ``2h`` for two hours ago."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(_now(), tz=UTC) - timedelta(seconds=duration(text.removeprefix("-")))
    return found.astimezone(UTC)


def _now() -> float:
    from peerd.cli.output import now_seconds

    return now_seconds()


def of_service(service: inventory_pb2.InventoryServiceFacts) -> str:
    """In a few words."""
    words = [service.name + ("/tls" if service.tls else ""), service.product, service.version, service.extra]
    return " ".join(word for word in words if word)


def of_port(port: inventory_pb2.InventoryPort) -> str:
    """``443/tcp``."""
    return f"{port.number}/{port.transport}"


@click.group(cls=Noun, default="ports")
def inventory() -> None:
    """What scans saw; 'peerctl inventory' alone lists ports."""


@inventory.command("ports")
@click.option("--where", default="", help=WHERE)
@click.option("--at", type=moment, help="As it was then: a time, or how long ago.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_ports(settings: Settings, where: str, at: datetime | None, limit: int) -> None:
    """Ports, by address."""
    found = call(settings, lambda peerd: peerd.ports(where, at=at, limit=limit))
    if settings.as_json:
        print_json({"ports": found})
    else:
        print_ports(found)


def print_ports(ports: Sequence[inventory_pb2.InventoryPort]) -> None:
    """A table of them."""
    rows = [
        (
            port.address,
            of_port(port),
            port.state,
            of_service(port.service),
            port.certificate.common_name or short(port.certificate.sha256),
            str(len(port.scanners)),
            local_time(port.last_seen),
        )
        for port in ports
    ]
    print_table(("ADDRESS", "PORT", "STATE", "SERVICE", "CERTIFICATE", "SCANNERS", "LAST SEEN"), rows, empty="no ports")


@inventory.command("services")
@click.option("--where", default="", help=WHERE)
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_services(settings: Settings, where: str, limit: int) -> None:
    """What answers at ports, each once, with at how many."""
    found = call(settings, lambda peerd: peerd.seen_services(where, limit=limit))
    if settings.as_json:
        print_json({"services": found})
        return
    rows = [
        (
            str(one.service.service_id),
            one.service.name,
            one.service.product,
            one.service.version,
            "yes" if one.service.tls else "",
            str(one.ports),
        )
        for one in found
    ]
    print_table(("ID", "SERVICE", "PRODUCT", "VERSION", "TLS", "PORTS"), rows, empty="no services")


@inventory.command("certificates")
@click.option("--where", default="", help="A filter such as 'expires<2027-01-01 OR san=*.example.com'.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_certificates(settings: Settings, where: str, limit: int) -> None:
    """TLS certificates, each once, with at how many ports."""
    found = call(settings, lambda peerd: peerd.certificates(where, limit=limit))
    if settings.as_json:
        print_json({"certificates": found})
        return
    rows = [
        (
            short(one.certificate.sha256),
            one.certificate.common_name,
            ", ".join(one.certificate.subject_alternative_names),
            local_time(one.certificate.not_after),
            str(one.ports),
        )
        for one in found
    ]
    print_table(("SHA256", "NAME", "OTHER NAMES", "EXPIRES", "PORTS"), rows, empty="no certificates")


@inventory.command("diff")
@click.argument("earlier")
@click.argument("later", required=False)
@click.option("--jobs", is_flag=True, help="EARLIER and LATER are ingest jobs, not times.")
@click.option("--where", default="", help="Holds for what was before or for what is after.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def diff(settings: Settings, earlier: str, later: str | None, jobs: bool, where: str, limit: int) -> None:
    """What appeared, disappeared or changed between two times (LATER: now by default), or between two ingest jobs."""
    if jobs and not (later and later.isdecimal() and earlier.isdecimal()):
        raise click.UsageError("--jobs takes two numbers of ingest jobs; 'peerctl scans list' shows them")

    async def ask(peerd: Client) -> list[inventory_pb2.InventoryDifference]:
        if jobs:
            return await peerd.inventory_diff(
                earlier_job=int(earlier), later_job=int(later or 0), where=where, limit=limit
            )
        end = moment(later) if later else None
        return await peerd.inventory_diff(earlier=moment(earlier), later=end, where=where, limit=limit)

    found = call(settings, ask)
    if settings.as_json:
        print_json({"differences": found})
        return
    print_table(
        ("", "ADDRESS", "PORT", "BEFORE", "AFTER", "WHY"), [_difference(one) for one in found], empty="no differences"
    )


def _difference(one: inventory_pb2.InventoryDifference) -> Sequence[str]:
    from peerd.v1 import inventory_pb2

    port = one.after if one.HasField("after") else one.before

    def side(port: inventory_pb2.InventoryPort) -> str:
        return " ".join(word for word in (port.state, of_service(port.service)) if word)

    return (
        enum_word(inventory_pb2.InventoryChangeKind, one.kind),
        port.address,
        of_port(port),
        side(one.before),
        side(one.after),
        one.why,
    )


@inventory.command("splits")
@click.option("--where", default="", help=WHERE)
@click.option("--limit", type=click.IntRange(min=1), default=1000, help="At most so many; 1000 by default.")
@pass_settings
def list_splits(settings: Settings, where: str, limit: int) -> None:
    """Ports that one scanner sees and another one does not."""
    found = call(settings, lambda peerd: peerd.splits(where, limit=limit))
    if settings.as_json:
        print_json({"splits": found})
        return
    rows = [
        (
            one.port.address,
            of_port(one.port),
            view.state,
            short(view.scanner),
            view.vantage,
            view.tool,
            local_time(view.seen_at),
        )
        for one in found
        for view in one.views
    ]
    print_table(("ADDRESS", "PORT", "STATE", "SCANNER", "FROM", "TOOL", "SEEN"), rows, empty="all see the same")


@inventory.command("watch")
@click.option("--after", type=click.IntRange(min=0), help="Begin behind this change; 0: with the first that is kept.")
@pass_settings
def watch(settings: Settings, after: int | None) -> None:
    """Changes as they become known, until interrupted."""

    async def follow(peerd: Client) -> None:
        async for change in peerd.watch_inventory(after=after):
            if settings.as_json:
                print_json_line(change)
            else:
                click.echo(_change(change))

    call(settings, follow)


def _change(change: inventory_pb2.WatchInventoryResponse) -> str:
    from peerd.v1 import inventory_pb2

    words = [
        str(change.change_id),
        local_time(change.at),
        enum_word(inventory_pb2.InventoryChangeKind, change.kind),
        change.address,
        f"{change.number}/{change.transport}",
        change.state_after,
        of_service(change.service_after),
    ]
    return "  ".join(word for word in words if word)
