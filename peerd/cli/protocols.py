"""``peerctl protocols``: what nodes may speak."""

from __future__ import annotations

import click

from peerd.cli.app import Noun
from peerd.cli.output import print_fields, print_json, print_table
from peerd.cli.settings import Settings, call, pass_settings


@click.group(cls=Noun, default="list")
def protocols() -> None:
    """The protocols that this peer knows; 'peerctl protocols' alone lists them."""


@protocols.command("list")
@pass_settings
def list_protocols(settings: Settings) -> None:
    """All of them."""
    found = call(settings, lambda peerd: peerd.protocols())
    if settings.as_json:
        print_json({"protocols": found})
        return
    rows = [
        (item.name, item.display_name, item.category, " ".join(map(str, item.ports)), item.source) for item in found
    ]
    print_table(("NAME", "IS", "CATEGORY", "PORTS", "FROM"), rows, empty="no protocols")


@protocols.command("show")
@click.argument("name")
@pass_settings
def show_protocol(settings: Settings, name: str) -> None:
    """One of them."""
    found = call(settings, lambda peerd: peerd.protocol(name))
    if settings.as_json:
        print_json({"protocol": found})
        return
    print_fields(
        {
            "protocol": f"{found.name} ({found.display_name})",
            "category": found.category,
            "description": found.description,
            "ports": ", ".join(map(str, found.ports)),
            "from": found.source,
        }
    )
