"""``peerctl peers``: who belongs to the mesh and how each machine is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import age, enum_word, local_time, print_fields, print_json, print_table, short
from peerd.cli.settings import Settings, call, comma_list, pass_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peerd.v1 import registry_pb2

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


@peers.command("list")
@click.option("--role", default="", help="Only peers with this role.")
@click.option("--label", default="", help="Only peers with this label.")
@click.option("--status", type=click.Choice(["online", "offline", "revoked"]), help="Only peers with this status.")
@pass_settings
def list_peers(settings: Settings, role: str, label: str, status: str | None) -> None:
    """All peers, and why each is as it is."""
    from peerd.v1 import registry_pb2

    wanted = registry_pb2.PeerStatus.Value(f"PEER_STATUS_{(status or 'unspecified').upper()}")
    found = call(settings, lambda peerd: peerd.peers(role=role, label=label, status=wanted))
    if settings.as_json:
        print_json({"peers": found})
        return
    rows = [
        (
            peer.name + (" *" if peer.self else ""),
            enum_word(registry_pb2.PeerStatus, peer.status),
            age(peer.status_since),
            ",".join(peer.roles),
            grant_words(peer.grants),
            str(peer.running_jobs),
            enum_word(registry_pb2.IsolationLevel, peer.isolation),
            short(peer.peer_id),
            peer.status_reason,
        )
        for peer in found
    ]
    print_table(
        ("NAME", "STATUS", "SINCE", "ROLES", "GRANTS", "JOBS", "ISOLATION", "PEER ID", "WHY"), rows, empty="no peers"
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

    print_fields(
        {
            "name": peer.name + (" (this daemon)" if peer.self else ""),
            "peer id": peer.peer_id,
            "status": enum_word(registry_pb2.PeerStatus, peer.status),
            "since": local_time(peer.status_since),
            "why": peer.status_reason,
            "last seen": local_time(peer.last_seen_at),
            "founder": "yes" if peer.founder else "",
            "roles": ", ".join(peer.roles),
            "grants": grant_words(peer.grants),
            "labels": ", ".join(peer.labels),
            "groups": ", ".join(peer.groups),
            "addresses": ", ".join(peer.addresses),
            "platform": peer.platform,
            "version": peer.peerd_version,
            "isolation": enum_word(registry_pb2.IsolationLevel, peer.isolation),
            "running jobs": str(peer.running_jobs),
        }
    )


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
