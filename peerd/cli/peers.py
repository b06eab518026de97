"""``peerctl peers``: who belongs to the mesh and how each machine is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from peerd.cli.app import Noun
from peerd.cli.output import age, enum_word, local_time, print_fields, print_json, print_table, short, size
from peerd.cli.settings import Settings, call, comma_list, pass_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from peerd.client import Client, PeerList
    from peerd.v1 import mesh_pb2, registry_pb2

GRANTS = ("observe", "execute", "operate", "admin")


def grant_numbers(words: Iterable[str]) -> list[int]:
    """``observe`` as GRANT_OBSERVE."""
    from peerd.v1 import access_pb2

    return [access_pb2.Grant.Value(f"GRANT_{word.upper()}") for word in words]


def grant_words(grants: Iterable[int]) -> str:
    """GRANT_OBSERVE and GRANT_EXECUTE as ``observe,execute``."""
    from peerd.v1 import access_pb2

    return ",".join(enum_word(access_pb2.Grant, grant) for grant in grants)


@click.group(cls=Noun, default="list")
def peers() -> None:
    """The machines of the mesh; 'peerctl peers' alone lists them."""


STATUSES = ("online", "suspect", "maintenance", "offline", "left", "revoked")


@peers.command("list")
@click.option("--role", default="", help="Only peers with this role.")
@click.option("--label", default="", help="Only peers with this label.")
@click.option("--group", default="", help="Only peers of this group.")
@click.option("--region", default="", help="Only peers in this region.")
@click.option("--status", type=click.Choice(STATUSES), help="Only peers with this status.")
@click.option("--where", default="", metavar="EXPRESSION", help="Such as 'gpus>=1 AND memory_gb>=16'; docs/peers.md.")
@click.option("--text", default="", metavar="WORDS", help="Only peers of which all these words are said somewhere.")
@click.option("--all", "include_forgotten", is_flag=True, help="Forgotten peers, too.")
@pass_settings
def list_peers(settings: Settings, /, status: str | None, **asked: Any) -> None:
    """The peers, and why each is as it is."""
    from peerd.v1 import registry_pb2

    wanted = registry_pb2.PeerStatus.Value(f"PEER_STATUS_{(status or 'unspecified').upper()}")

    async def ask(peerd: Client) -> tuple[PeerList, list[str]]:
        found = await peerd.peers(status=wanted, **asked)
        known = set() if found or not asked["role"] else {role for peer in await peerd.peers() for role in peer.roles}
        return found, sorted(known)

    found, roles = call(settings, ask)
    if settings.as_json:
        print_json({"peers": found})
        return
    print_table(HEADINGS, [_row(peer) for peer in found], empty="no peers")
    if roles:
        click.echo(f"there are the roles {', '.join(roles)}", err=True)
    for peer in found:
        for warning in peer.warnings:
            click.echo(f"{peer.name}: {warning.reason}: {warning.message}\n    next: {warning.next_action}", err=True)


HEADINGS = ("NAME", "STATUS", "SINCE", "ROLES", "GRANTS", "JOBS", "CPU", "LATENCY", "ISOLATION", "PEER ID", "WHY")


def _row(peer: registry_pb2.Peer) -> tuple[str, ...]:
    from peerd.v1 import registry_pb2

    mark = " *" if peer.self else " (external)" if peer.external else ""
    return (
        peer.name + mark,
        enum_word(registry_pb2.PeerStatus, peer.status),
        age(peer.status_since),
        ",".join(peer.roles),
        grant_words(peer.grants),
        str(peer.running_jobs),
        f"{peer.sample.cpu_percent:.0f}%" if peer.HasField("sample_at") else "",
        f"{peer.latency_ms:.1f}ms" if peer.HasField("latency_ms") else "",
        enum_word(registry_pb2.IsolationLevel, peer.isolation),
        short(peer.peer_id),
        peer.status_reason,
    )


@peers.command("show")
@click.argument("peer")
@pass_settings
def show_peer(settings: Settings, peer: str) -> None:
    """One peer, by name, id or unique beginning of the id."""
    answer = call(settings, lambda peerd: peerd.peer(peer))
    if settings.as_json:
        print_json(answer)
    else:
        _print_peer(answer)


def _print_peer(peer: registry_pb2.Peer) -> None:
    from peerd.v1 import registry_pb2

    hardware, sample, location = peer.hardware, peer.sample, peer.location
    cpu = f"{hardware.cpu_model} ({hardware.cpu_cores} cores)" if hardware.cpu_cores else ""
    place = f"{location.latitude:g}, {location.longitude:g}" if location.HasField("latitude") else ""
    print_fields(
        {
            "name": peer.name + (" (this daemon)" if peer.self else ""),
            "peer id": peer.peer_id,
            "status": enum_word(registry_pb2.PeerStatus, peer.status),
            "since": local_time(peer.status_since),
            "why": peer.status_reason,
            "maintenance": peer.maintenance.reason or ("yes" if peer.HasField("maintenance") else ""),
            "last seen": local_time(peer.last_seen_at),
            "latency": f"{peer.latency_ms:.1f} ms" if peer.HasField("latency_ms") else "",
            "clock offset": f"{peer.clock_offset_ms:.0f} ms" if peer.HasField("clock_offset_ms") else "",
            "joined": local_time(peer.joined_at),
            "founder": "yes" if peer.founder else "",
            "external": f"beats to {short(peer.via_peer_id)}" if peer.external else "",
            "roles": ", ".join(peer.roles),
            "grants": grant_words(peer.grants),
            "labels": ", ".join(peer.labels),
            "groups": ", ".join(peer.groups),
            "region": location.region,
            "location": place,
            "profile": f"version {peer.profile_version}" if peer.profile_version else "",
            "addresses": ", ".join(peer.addresses),
            "hostname": peer.hostname,
            "platform": peer.platform,
            "version": peer.peerd_version,
            "isolation": enum_word(registry_pb2.IsolationLevel, peer.isolation),
            "limits": f"kept by {enum_word(registry_pb2.LimitsLevel, peer.limits)}" if peer.limits else "",
            "cpu": cpu,
            "memory": size(hardware.memory_bytes) if hardware.memory_bytes else "",
            "disks": ", ".join(f"{disk.path} {size(disk.total_bytes)}" for disk in hardware.disks),
            "gpus": ", ".join(f"{gpu.vendor} {gpu.model}" for gpu in hardware.gpus),
            "serial ports": ", ".join(port.path for port in hardware.serial_ports),
            "runners": ", ".join(f"{runner.name} {runner.version}".strip() for runner in hardware.runners),
            "running jobs": str(peer.running_jobs),
            "cpu load": f"{sample.cpu_percent:.0f}%" if peer.HasField("sample_at") else "",
            "memory free": size(sample.memory_available_bytes) if sample.memory_total_bytes else "",
            "disk free": size(sample.disk_free_bytes) if sample.disk_total_bytes else "",
        }
    )
    for warning in peer.warnings:
        click.echo(f"{warning.reason}: {warning.message}\n    next: {warning.next_action}")


@peers.command("heartbeats")
@click.argument("peer")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, help="At most so many, newest first.")
@pass_settings
def list_heartbeats(settings: Settings, peer: str, limit: int) -> None:
    """What this daemon measured of a peer with each probe."""
    from peerd.v1 import registry_pb2

    found = call(settings, lambda peerd: peerd.heartbeats(peer, limit=limit))
    if settings.as_json:
        print_json({"heartbeats": found})
        return

    def measured(beat: registry_pb2.Heartbeat, field: str, unit: str) -> str:
        return f"{getattr(beat, field):.1f}{unit}" if beat.HasField(field) else ""  # type: ignore[arg-type]

    rows = [
        (
            local_time(beat.at),
            enum_word(registry_pb2.PeerStatus, beat.status),
            measured(beat, "latency_ms", "ms") or "no answer",
            measured(beat, "clock_offset_ms", "ms"),
            str(beat.running_jobs) if beat.HasField("running_jobs") else "",
            measured(beat, "cpu_percent", "%"),
            measured(beat, "memory_percent", "%"),
            measured(beat, "disk_percent", "%"),
        )
        for beat in found
    ]
    print_table(("AT", "STATUS", "LATENCY", "OFFSET", "JOBS", "CPU", "MEMORY", "DISK"), rows, empty="no heartbeats")


@peers.command("drain")
@click.argument("peer")
@click.option("--reason", default="", help="Why, for whoever wonders.")
@pass_settings
def drain_peer(settings: Settings, peer: str, reason: str) -> None:
    """Let a peer finish its jobs and take no new ones, until 'resume'. It may be away: it obeys when it is back."""
    answer = call(settings, lambda peerd: peerd.drain(peer, reason=reason))
    _say(settings, answer, f"{answer.name} takes no new jobs; {answer.running_jobs} still run there")


@peers.command("resume")
@click.argument("peer")
@pass_settings
def resume_peer(settings: Settings, peer: str) -> None:
    """End a peer's maintenance."""
    answer = call(settings, lambda peerd: peerd.resume(peer))
    _say(settings, answer, f"{answer.name} takes jobs again")


@peers.command("rename")
@click.argument("peer")
@click.argument("name")
@pass_settings
def rename_peer(settings: Settings, peer: str, name: str) -> None:
    """Call a peer NAME, everywhere, whatever it calls itself."""
    answer = call(settings, lambda peerd: peerd.rename(peer, name))
    _say(settings, answer, f"{short(answer.peer_id)} is called {answer.name}")


@peers.command("forget")
@click.argument("peer")
@pass_settings
def forget_peer(settings: Settings, peer: str) -> None:
    """Leave a peer that is gone out of lists. One that comes back is listed again."""
    answer = call(settings, lambda peerd: peerd.forget(peer))
    _say(settings, answer, f"{answer.name} is forgotten")


def _say(settings: Settings, answer: Message, text: str) -> None:
    if settings.as_json:
        print_json(answer)
    else:
        click.echo(text)


@peers.command("roles")
@click.argument("peer")
@click.argument("roles", type=comma_list())
@pass_settings
def change_roles(settings: Settings, peer: str, roles: list[str]) -> None:
    """Give a peer exactly these ROLES, such as worker,scanner."""

    async def change(peerd: Client) -> mesh_pb2.MemberRecord:
        known = await peerd.peer(peer)
        return await peerd.admit(known.peer_id, grants=known.grants, roles=roles)

    record = call(settings, change)
    _say(settings, record, f"{short(record.subject)} has the roles {','.join(record.roles) or 'none'}")


@peers.command("grants")
@click.argument("peer")
@click.argument("grants", type=comma_list(*GRANTS))
@pass_settings
def change_grants(settings: Settings, peer: str, grants: list[str]) -> None:
    """Give a peer exactly these GRANTS, such as observe,execute."""

    async def change(peerd: Client) -> mesh_pb2.MemberRecord:
        known = await peerd.peer(peer)
        return await peerd.admit(known.peer_id, grants=grant_numbers(grants), roles=known.roles)

    record = call(settings, change)
    _say(settings, record, f"{short(record.subject)} has the grants {grant_words(record.grants) or 'none'}")


@peers.command("replace")
@click.argument("old")
@click.argument("new")
@pass_settings
def replace_peer(settings: Settings, old: str, new: str) -> None:
    """A machine was reinstalled: NEW (its new id) gets the grants and roles of OLD, and OLD is revoked."""
    answer = call(settings, lambda peerd: peerd.replace_peer(old, new))
    record = answer.admitted
    text = f"{record.subject} has {grant_words(record.grants)}; {short(answer.revoked.subject)} is revoked"
    _say(settings, answer, text)


@peers.command("admit")
@click.argument("peer_id")
@click.option("--grants", type=comma_list(*GRANTS), required=True, help="Such as observe,execute.")
@click.option("--role", "roles", multiple=True, help="May be repeated.")
@click.option("--address", "addresses", multiple=True, metavar="HOST:PORT", help="Where to reach it; may be repeated.")
@pass_settings
def admit_peer(
    settings: Settings, peer_id: str, grants: list[str], roles: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    """Make a peer a member by its id, or change a member's grants and roles."""
    record = call(
        settings,
        lambda peerd: peerd.admit(peer_id, grants=grant_numbers(grants), roles=roles, addresses=addresses),
    )
    if settings.as_json:
        print_json(record)
    else:
        click.echo(f"{record.subject} is a member with {grant_words(record.grants) or 'no grants'}")


@peers.command("revoke")
@click.argument("peer")
@click.option("--reason", default="", help="Why, for whoever reads it later.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def revoke_peer(settings: Settings, peer: str, reason: str, yes: bool) -> None:
    """End a membership. Final: that key never comes back."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("revoking is final: say --yes when there is nobody to ask")
        click.confirm(f"Revoke {peer} for good?", abort=True, err=True)
    record = call(settings, lambda peerd: peerd.revoke(peer, reason=reason))
    if settings.as_json:
        print_json(record)
    else:
        click.echo(f"{record.subject} is revoked")
