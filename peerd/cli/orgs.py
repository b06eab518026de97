"""``peerctl orgs``: in whose name nodes are discovered and scanned, and what they allow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from peerd.cli.app import Noun
from peerd.cli.output import local_time, print_fields, print_json, print_table
from peerd.cli.settings import Settings, call, pass_settings
from peerd.errors import PeerdError, Reason

if TYPE_CHECKING:
    from peerd.client import Client
    from peerd.v1 import nodes_pb2

F = TypeVar("F", bound=Callable[..., Any])

_CHANGED_MEANWHILE = 4
"""So often a change is made anew from what somebody else has made of a policy in between: both count."""

_LISTS = {
    "networks": ("allowed_networks", "--network", "CIDR", "A network that may be dialed."),
    "blocked": ("blocked_hosts", "--block", "HOST", "A host name (.x: all below x), address or CIDR never dialed."),
    "protocols": ("allowed_protocols", "--protocol", "NAME", "A protocol that may be looked for; all by default."),
    "special": ("allow_special", "--special", "KIND", "loopback or link-local: may be dialed in allowed networks."),
    "members": ("members", "--member", "PEER|ROLE", "Who may act for it; everybody with the grant by default."),
    "labels": ("labels", "--on-label", "LABEL", "Peers with this label probe."),
}


def policy_options(command: F) -> F:
    """What a policy is made of; lists replace what was there, and '' empties them."""
    for name, (_, option, metavar, text) in _LISTS.items():
        command = click.option(option, name, multiple=True, metavar=metavar, help=f"{text} May be repeated.")(command)
    for decorate in (
        click.option("--max-level", type=click.IntRange(1, 3), help="Highest scan level; 2 by default."),
        click.option("--cool-down", metavar="DURATION", help="Leave a scanned node alone so long; 24h by default."),
        click.option("--daily-budget", type=click.IntRange(min=0), help="Runs in 24 hours; 1000 by default."),
        click.option("--max-concurrent", type=click.IntRange(min=1), help="Runs at once; 10 by default."),
        click.option("--permission-by", help="Who permits level 3."),
        click.option("--permission-reference", help="Where that is written."),
        click.option("--on-peer", help="This peer probes."),
        click.option("--on-role", help="Peers with this role probe."),
    ):
        command = decorate(command)
    return command


@click.group(cls=Noun, default="list")
def orgs() -> None:
    """Organizations; 'peerctl orgs' alone lists them."""


@orgs.command("list")
@pass_settings
def list_orgs(settings: Settings) -> None:
    """All that this peer may act for."""
    found = call(settings, lambda peerd: peerd.organizations())
    if settings.as_json:
        print_json({"organizations": found})
        return
    rows = [
        (org.slug, org.org_id, "active" if org.active else "inactive", str(org.node_count), _networks(org.policy))
        for org in found
    ]
    print_table(("SLUG", "ID", "STATUS", "NODES", "NETWORKS"), rows, empty="no organizations")


@orgs.command("show")
@click.argument("org")
@pass_settings
def show_org(settings: Settings, org: str) -> None:
    """One organization with its policy, by UUID or slug."""
    found = call(settings, lambda peerd: peerd.organization(org))
    if settings.as_json:
        print_json({"organization": found})
        return
    policy = found.policy
    permission, bounds = policy.permission, f"{policy.daily_budget} in 24 hours, {policy.max_concurrent} at once"
    print_fields(
        {
            "organization": f"{found.slug} ({found.org_id})",
            "name": found.name,
            "description": found.description,
            "contact": found.contact_email,
            "status": "active" if found.active else "inactive",
            "nodes": str(found.node_count),
            "networks": _networks(policy),
            "blocked": ", ".join(policy.blocked_hosts),
            "special": ", ".join(policy.allow_special),
            "protocols": ", ".join(policy.allowed_protocols) or "all",
            "scans": f"up to level {policy.max_level}, {bounds}",
            "cool-down": policy.cool_down,
            "level 3": f"permitted by {permission.by}: {permission.reference}" if permission.reference else "",
            "members": ", ".join(policy.members) or "everybody with the grant",
            "probed by": _on(policy),
            "made": f"{local_time(found.created_at)} by {found.created_by}",
        }
    )


@orgs.command("add")
@click.argument("slug")
@click.option("--name", default="", help="The slug by default.")
@click.option("--description", default="")
@click.option("--email", default="", help="Whom to write to.")
@policy_options
@pass_settings
def add_org(settings: Settings, /, slug: str, name: str, description: str, email: str, **options: Any) -> None:
    """A new organization. Without --network nothing may be dialed in its name."""
    from peerd.v1 import nodes_pb2

    async def add(peerd: Client) -> nodes_pb2.Organization:
        policy = nodes_pb2.OrganizationPolicy()
        _apply(policy, await _with_peer_ids(peerd, options))
        return await peerd.add_organization(slug, policy, name=name, description=description, contact_email=email)

    found = call(settings, add)
    _say(settings, found, f"{found.slug} is {found.org_id}")


@orgs.command("set")
@click.argument("org")
@click.option("--name")
@click.option("--description")
@click.option("--email", help="Whom to write to.")
@policy_options
@pass_settings
def set_org(
    settings: Settings, /, org: str, name: str | None, description: str | None, email: str | None, **options: Any
) -> None:
    """Change what is given; everything else stays."""

    async def change(peerd: Client) -> nodes_pb2.Organization:
        update = partial(peerd.update_organization, org, name=name, description=description, contact_email=email)
        if all(value in (None, ()) for value in options.values()):
            return await update()
        given = await _with_peer_ids(peerd, options)

        async def once() -> nodes_pb2.Organization:
            before = (await peerd.organization(org)).policy
            policy = type(before)()
            policy.CopyFrom(before)
            _apply(policy, given)
            return await update(policy=policy, policy_before=before)

        for _ in range(_CHANGED_MEANWHILE):
            try:
                return await once()
            except PeerdError as error:
                if error.reason is not Reason.STALE:
                    raise
        return await once()

    found = call(settings, change)
    _say(settings, found, f"{found.slug} is changed")


@orgs.command("deactivate")
@click.argument("org")
@pass_settings
def deactivate_org(settings: Settings, org: str) -> None:
    """Let nothing be started in its name, and stop what is under way."""
    found = call(settings, lambda peerd: peerd.set_organization_active(org, False))
    _say(settings, found, f"{found.slug} is inactive")


@orgs.command("activate")
@click.argument("org")
@pass_settings
def activate_org(settings: Settings, org: str) -> None:
    """Let discoveries and scans be started in its name again."""
    found = call(settings, lambda peerd: peerd.set_organization_active(org, True))
    _say(settings, found, f"{found.slug} is active")


async def _with_peer_ids(peerd: Client, options: dict[str, Any]) -> dict[str, Any]:
    """Members as they are kept: peers by id, since names change; roles as they are. Raises AMBIGUOUS_NAME."""
    if not any(options["members"]):
        return options
    peers = await peerd.peers()
    roles = {role for peer in peers for role in peer.roles}
    ids = {peer.name: peer.peer_id for peer in peers}
    for entry in options["members"]:
        if entry in ids and entry in roles:
            raise PeerdError(
                Reason.AMBIGUOUS_NAME,
                f"--member {entry}: a peer and a role have that name",
                next_action=f"for the peer, give its id: {ids[entry]}",
            )
    return {**options, "members": tuple(ids.get(entry, entry) for entry in options["members"])}


def _apply(policy: nodes_pb2.OrganizationPolicy, options: dict[str, Any]) -> None:
    for name, (field, *_) in _LISTS.items():
        if options[name]:
            entries = [entry for entry in options[name] if entry]
            entity = policy.on.labels if field == "labels" else getattr(policy, field)
            del entity[:]
            entity.extend(entries)
    for field in ("max_level", "cool_down", "daily_budget", "max_concurrent"):
        if options[field] is not None:
            setattr(policy, field, options[field])
    for option, field in (("permission_by", "by"), ("permission_reference", "reference")):
        if options[option] is not None:
            setattr(policy.permission, field, options[option])
    if policy.HasField("permission") and not (policy.permission.by or policy.permission.reference):
        policy.ClearField("permission")
    for option, field in (("on_peer", "peer"), ("on_role", "role")):
        if options[option] is not None:
            setattr(policy.on, field, options[option])


def _networks(policy: nodes_pb2.OrganizationPolicy) -> str:
    return ", ".join(policy.allowed_networks) or "none: nothing may be dialed"


def _on(policy: nodes_pb2.OrganizationPolicy) -> str:
    chosen = [policy.on.peer, f"role {policy.on.role}" if policy.on.role else "", *policy.on.labels]
    return ", ".join(word for word in chosen if word) or "every peer that offers node-prober"


def _say(settings: Settings, organization: nodes_pb2.Organization, line: str) -> None:
    if settings.as_json:
        print_json({"organization": organization})
    else:
        click.echo(line)
