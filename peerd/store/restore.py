"""Puts a backup back, in steps of which each can be the last: a kill leaves the old store or the new one, whole.

:func:`prepare` makes a verified copy beside the store, brings it to the present schema and gives it a new store id:
what others remember of the old store's rows is not of them. :func:`stage` gives the copy the name by which the next
start knows it. :func:`swap_staged`, which that start calls while it holds the directory and before anything is open,
keeps the old store among the backups and puts the new one in its place.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from peerd.clock import Millis
from peerd.digest import digest_file
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store.backup import Backup, read_backup
from peerd.store.copies import COMPANIONS, NO_LINKS, cannot, label, open_alone, remove, sync, unlabel
from peerd.store.failures import RAISED
from peerd.store.migrate import migrate
from peerd.store.writer import Tx

RESTORED = "restored"
"""In ``meta`` until whoever opens the store has seen to what came after the backup: the id that the store had."""


def staged_path(store: Path) -> Path:
    """Where a restored store waits for the next start."""
    return store.with_name(f"{store.name}.restore")


def _prepared_path(store: Path) -> Path:
    return store.with_name(f".{store.name}.restore.tmp")


def prepare(
    backup: Path,
    store: Path,
    *,
    peer_id: str,
    allow_other_identity: bool,
    now: Millis,
    then: Callable[[Tx, Backup], object] | None = None,
) -> Backup:
    """Make the copy that :func:`stage` takes. Blocks; run it in a thread.

    ``then`` runs in a transaction of the new store, before anybody can see it: for what has to be known there of the
    restore itself. Raises what :func:`read_backup` raises, OTHER_IDENTITY and DISK_LOW.
    """
    found = read_backup(backup)
    if found.peer_id != peer_id and not allow_other_identity:
        raise PeerdError(
            Reason.OTHER_IDENTITY,
            f"{backup} is of {found.peer_id}, and this is {peer_id}",
            next_action="restore it on the machine it is of, or say --allow-other-identity if you mean it",
        )
    temporary = _prepared_path(store)
    try:
        remove(_prepared_path(store))  # a journal of an attempt that was killed would be played into the new copy
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        shutil.copyfile(backup, temporary)
        if digest_file(temporary) != found.digest:
            raise PeerdError(Reason.INVALID_BACKUP, f"{backup} changed while it was read")
        migrate(temporary, backup_dir=None)  # the backup itself is what the old schema looked like
        with closing(open_alone(temporary)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT OR REPLACE INTO meta (key, value) SELECT ?, value FROM meta WHERE key = 'store_id'", (RESTORED,)
            )
            connection.execute("UPDATE meta SET value = ? WHERE key = 'store_id'", (uuid.uuid4().hex,))
            unlabel(connection)
            if then is not None:
                then(Tx(connection, now), found)
            connection.execute("COMMIT")
        sync(temporary)
        failpoint("backup.stage.before_rename")
    except (OSError, sqlite3.Error) as error:
        remove(_prepared_path(store))
        raise cannot(f"stage {backup}", error) from error
    except BaseException:
        remove(_prepared_path(store))
        raise
    return found


def discard(store: Path) -> None:
    """Remove what :func:`prepare` made: nobody wants it staged any more."""
    remove(_prepared_path(store))


def stage(store: Path) -> None:
    """Have the next start take what :func:`prepare` made: from now on what the present store gets would be lost."""
    try:
        os.rename(_prepared_path(store), staged_path(store))
        sync(store.parent)
    except OSError as error:
        raise cannot("stage the restored store", error) from error
    failpoint("backup.stage.after_rename")


def swap_staged(store: Path, *, backup_dir: Path, peer_id: str, now: Millis) -> Path | None:
    """Take a staged store; the one it replaces is kept, and its path returned. Call with the directory held.

    Raises INVALID_BACKUP when a file cannot be moved; the staged store waits on.
    """
    staged = staged_path(store)
    try:
        remove(_prepared_path(store))
        if not staged.exists():
            return None
        kept = _keep(store, backup_dir, peer_id=peer_id, now=now) if store.exists() else None
        failpoint("backup.swap.before_replace")
        # The old store is kept, and the staged one still there: killed between these lines, the next start goes on.
        for companion in COMPANIONS:
            store.with_name(store.name + companion).unlink(missing_ok=True)
        sync(store.parent)
        failpoint("backup.swap.without_journal")
        os.replace(staged, store)
        sync(store.parent)
    except OSError as error:
        raise cannot("take the restored store", error) from error
    failpoint("backup.swap.after_replace")
    return kept


def _keep(store: Path, folder: Path, *, peer_id: str, now: Millis) -> Path:
    """Give the old store a second name among the backups, as one of them if it can be opened at all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = folder / f"replaced-{int(now)}.db"
    remove(kept)
    try:
        with closing(open_alone(store)) as connection:  # takes its WAL in: one file holds all
            label(connection, peer_id=peer_id, now=now)
    except RAISED:
        # Damaged, which may be why it is replaced: kept as it lies there, for whoever wants to save something.
        for companion in COMPANIONS:
            if store.with_name(store.name + companion).exists():
                _link(store.with_name(store.name + companion), kept.with_name(kept.name + companion))
    _link(store, kept)
    sync(folder)
    return kept


def _link(source: Path, target: Path) -> None:
    """A second name, or a copy on a file system that has no second names."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
        os.chmod(target, 0o600)
        sync(target)
