"""``peerctl invite`` and ``peerctl invites``: how a machine becomes a member.

``invite`` prints the token and nothing else on stdout, so that it can be piped to where it is needed. It is shown
once: the daemon keeps only its public key.
"""

from __future__ import annotations

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, local_time, print_json, print_table, short
from peerd.cli.peers import GRANTS, grant_numbers, grant_words
from peerd.cli.settings import Settings, call, comma_list, duration, pass_settings


@click.group(cls=Noun, default="create")
def invite() -> None:
    """Invite a machine: 'peerctl invite --role worker --grants observe,execute --ttl 15m'."""


@invite.command("create")
@click.option("--role", "roles", multiple=True, help="A role the machine gets; may be repeated.")
@click.option(
    "--grants", type=comma_list(*GRANTS[:3]), default="observe,execute", show_default=True, help="What it may do here."
)
@click.option("--ttl", type=duration, default="15m", show_default=True, help="How long the invite stands.")
@pass_settings
def create_invite(settings: Settings, roles: tuple[str, ...], grants: list[str], ttl: float) -> None:
    """Print a token that admits one machine."""
    answer = call(
        settings, lambda peerd: peerd.invite(grants=grant_numbers(grants), roles=roles, ttl_seconds=max(1, round(ttl)))
    )
    if settings.as_json:
        print_json(answer)
        return
    click.echo(answer.token)
    click.echo(f"good for one machine until {local_time(answer.expires_at)}", err=True)
    click.echo("next: on that machine, 'peerd join TOKEN' and then 'peerd run'", err=True)


@click.group(cls=Noun, default="list")
def invites() -> None:
    """The invites made here; 'peerctl invites' alone lists them."""


@invites.command("list")
@pass_settings
def list_invites(settings: Settings) -> None:
    """All invites and what became of them."""
    found = call(settings, lambda peerd: peerd.invites())
    if settings.as_json:
        print_json({"invites": found})
        return
    from peerd.v1 import mesh_pb2

    rows = [
        (
            short(item.invite_id),
            enum_word(mesh_pb2.InviteStatus, item.status),
            ",".join(item.roles),
            grant_words(item.grants),
            local_time(item.expires_at),
            short(item.joiner),
        )
        for item in found
    ]
    print_table(("INVITE", "STATUS", "ROLES", "GRANTS", "EXPIRES", "USED BY"), rows, empty="no invites")


@invites.command("revoke")
@click.argument("invite_id")
@pass_settings
def revoke_invite(settings: Settings, invite_id: str) -> None:
    """Withdraw a pending invite."""
    answer = call(settings, lambda peerd: peerd.revoke_invite(invite_id))
    if settings.as_json:
        print_json(answer)
    else:
        click.echo(f"invite {short(answer.invite_id)} is withdrawn")
