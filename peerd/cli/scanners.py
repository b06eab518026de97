"""``peerctl scanners``: keys that sign scans and are no peer's."""

from __future__ import annotations

from pathlib import Path

import click

from peerd.cli.app import Noun
from peerd.cli.output import local_time, print_json, print_table
from peerd.cli.settings import Settings, call, pass_settings

_LARGEST_KEY = 4096


@click.group(cls=Noun, default="list")
def scanners() -> None:
    """Keys whose signed scans this peer takes, beside those of peers; alone it lists them."""


@scanners.command("add")
@click.argument("name")
@click.argument("key")
@pass_settings
def add(settings: Settings, name: str, key: str) -> None:
    """Take scans that KEY has signed: base64, hexadecimal, a peer id, or a PEM file of an Ed25519 public key."""
    found = call(settings, lambda peerd: peerd.add_scanner(name, _key(key)))
    if settings.as_json:
        print_json(found)
    else:
        click.echo(f"scans of {found.name} are taken: {found.scanner}")


@scanners.command("list")
@pass_settings
def list_keys(settings: Settings) -> None:
    """All keys there ever were."""
    found = call(settings, lambda peerd: peerd.scanners())
    if settings.as_json:
        print_json({"keys": found})
        return
    rows = []
    for key in found:
        state = "revoked" if key.revoked_at.seconds else "active"
        why = key.revoke_reason + (f", now {key.replaced_by[:12]}" if key.replaced_by else "")
        rows.append((key.name, state, key.scanner, key.public_key, local_time(key.last_used_at) or "never", why))
    print_table(("NAME", "STATE", "SCANNER", "KEY", "LAST SCAN", "WHY"), rows, empty="no scanners")


@scanners.command("revoke")
@click.argument("scanner")
@click.option("--reason", default="", help="Why, for whoever reads it later.")
@pass_settings
def revoke(settings: Settings, scanner: str, reason: str) -> None:
    """Never take scans of that key (or name) again."""
    found = call(settings, lambda peerd: peerd.revoke_scanner(scanner, reason=reason))
    if settings.as_json:
        print_json(found)
    else:
        click.echo(f"the key of {found.name} is revoked")


@scanners.command("rotate")
@click.argument("scanner")
@click.argument("key")
@pass_settings
def rotate(settings: Settings, scanner: str, key: str) -> None:
    """Revoke a scanner's key and give its name to KEY."""
    found = call(settings, lambda peerd: peerd.rotate_scanner(scanner, _key(key)))
    if settings.as_json:
        print_json(found)
    else:
        click.echo(f"{found.name} has the key {found.scanner}; the old one is revoked")


def _key(text: str) -> str:
    """The text, or what the file of that name holds."""
    path = Path(text)
    if len(text) < 200 and path.is_file() and path.stat().st_size <= _LARGEST_KEY:
        return path.read_text(encoding="ascii", errors="replace")
    return text
