"""``peerctl backup``: copies of this peer's store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Noun
from peerd.cli.output import local_time, print_json, print_table, short, size
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.v1 import backup_pb2


@click.group(cls=Noun, default="list")
def backup() -> None:
    """Copies of this peer's store, without its key; 'peerctl backup' alone lists them."""


@backup.command("create")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@pass_settings
def create(settings: Settings, file: Path | None) -> None:
    """Copy the store while it is in use, into FILE or the data directory's backups/."""
    path = str(file.absolute()) if file else ""
    made = call(settings, lambda peerd: peerd.create_backup(path))
    if settings.as_json:
        print_json(made)
    else:
        click.echo(f"{made.path}: {size(made.bytes)}, verified")


@backup.command("list")
@pass_settings
def list_all(settings: Settings) -> None:
    """The copies in the data directory's backups/, newest first."""
    found = call(settings, lambda peerd: peerd.backups())
    if settings.as_json:
        print_json({"backups": found})
        return
    print_table(("MADE", "SIZE", "SCHEMA", "PEER", "PATH"), [_row(entry) for entry in found], empty="no backups")


@backup.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-other-identity", is_flag=True, help="Take the store of another peer.")
@pass_settings
def restore(settings: Settings, file: Path, allow_other_identity: bool) -> None:
    """Let the daemon end, and the next one start with the store in FILE. The present one is kept in backups/."""
    path = str(file.absolute())
    taken = call(settings, lambda peerd: peerd.restore_backup(path, allow_other_identity=allow_other_identity))
    if settings.as_json:
        print_json(taken)
    else:
        click.echo(f"{taken.path} of {local_time(taken.made_at)} is taken at the next start; the daemon ends now")


def _row(entry: backup_pb2.Backup) -> tuple[str, ...]:
    return (local_time(entry.made_at), size(entry.bytes), str(entry.schema), short(entry.peer_id), entry.path)
