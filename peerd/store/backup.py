"""Copies of the store: made while it is written to, and verified by opening them. They are put back by
:mod:`peerd.store.restore`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from peerd.clock import Millis
from peerd.digest import digest_file
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store.copies import (
    MADE_AT,
    NO_LINKS,
    PEER_ID,
    UNFINISHED,
    cannot,
    copied,
    label,
    open_alone,
    read_only,
    sync,
)
from peerd.store.failures import RAISED
from peerd.store.migrate import newest_schema


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A verified copy."""

    path: Path
    size: int
    peer_id: str
    schema: int
    made_at: Millis
    digest: bytes


def create_backup(store: Path, target: Path, *, peer_id: str, now: Millis) -> Backup:
    """Copy a store that is in use. Blocks; run it in a thread.

    Raises INVALID_BACKUP, INVALID_PATH, ALREADY_EXISTS or DISK_LOW.
    """
    try:
        if target.exists():
            raise PeerdError(Reason.ALREADY_EXISTS, f"{target} is there already")
        if not target.parent.is_dir():
            raise PeerdError(Reason.INVALID_PATH, f"there is no directory {target.parent}", next_action="make it first")
        with copied(store, target) as copy:
            with closing(open_alone(copy)) as connection:
                label(connection, peer_id=peer_id, now=now)
            sync(copy)
            found = read_backup(copy)
            failpoint("backup.create.before_rename")
            _name(copy, target)
        sync(target.parent)
    except FileExistsError as error:
        raise PeerdError(Reason.ALREADY_EXISTS, f"{target} is there already") from error
    except (OSError, sqlite3.Error) as error:
        raise cannot(f"write {target}", error) from error
    return replace(found, path=target)


def _name(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)  # unlike a rename, never over a file that came meanwhile
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.rename(temporary, target)


def read_backup(path: Path) -> Backup:
    """Open a copy and look whether it is whole. Raises NOT_FOUND, INVALID_BACKUP or STORE_TOO_NEW."""
    try:
        if not path.is_file():
            raise PeerdError(
                Reason.NOT_FOUND,
                f"there is no file {path}",
                next_action="give the path as the daemon sees it; under systemd it has a /tmp of its own",
            )
        with closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        size, digest = path.stat().st_size, digest_file(path)
    except (OSError, *RAISED) as error:
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is no backup of a store: {error}") from error
    if verdict != "ok":
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is damaged: {verdict}")
    if schema > newest_schema():
        raise PeerdError(Reason.STORE_TOO_NEW, f"{path} has schema {schema}, this peerd knows up to {newest_schema()}")
    made_at = str(meta.get(MADE_AT, ""))
    if PEER_ID not in meta or "store_id" not in meta or not made_at.isdecimal():
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is not a backup that peerd made")
    return Backup(
        path=path, size=size, peer_id=str(meta[PEER_ID]), schema=schema, made_at=Millis(int(made_at)), digest=digest
    )


def list_backups(folder: Path, *, prefix: str = "") -> list[Backup]:
    """The whole ones in a directory whose names begin so, newest first."""
    found = []
    for path in sorted(folder.glob(f"{prefix}*.db")):
        try:
            found.append(read_backup(path))
        except PeerdError:
            continue  # a damaged store that was replaced: kept, but no backup
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def remove_unfinished(folder: Path) -> int:
    """Remove what a killed :func:`create_backup` left; returns how many files. None may be under way there."""
    left = [path for path in folder.glob(".*") if UNFINISHED.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
