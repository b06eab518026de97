"""Copies of the store: made while it is written to, verified by opening them, and put back at a start.

Restoring has two steps, so that a kill at any point leaves the old store or the new one, whole. The copy is verified
and staged beside the store (:func:`stage`); the next start, which holds the directory, swaps it in before the store is
opened (:func:`swap_staged`). A restored store gets a new store id: what others remember of its rows is not of them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Millis
from peerd.digest import digest_file
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store.migrate import newest_schema
from peerd.store.writer import connect

_PEER_ID, _MADE_AT = "backup_peer_id", "backup_made_at"
_PAGES = 500
"""Copied at once; between them the writer gets its turn."""


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
    """Copy a store that is in use. Blocks; run it in a thread. Raises INVALID_BACKUP or ALREADY_EXISTS."""
    if target.exists():
        raise PeerdError(Reason.ALREADY_EXISTS, f"{target} is there already")
    if not target.parent.is_dir():
        raise PeerdError(Reason.INVALID_PATH, f"there is no directory {target.parent}", next_action="make it first")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as source, closing(connect(temporary)) as copy:
            source.backup(copy, pages=_PAGES, sleep=0.001)
            for key, value in ((_PEER_ID, peer_id), (_MADE_AT, str(int(now)))):
                copy.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without companions
        _sync(temporary)
        found = read_backup(temporary)
        failpoint("backup.create.before_rename")
        os.rename(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise PeerdError(Reason.INVALID_BACKUP, f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Backup(**{**found.__dict__, "path": target})


def read_backup(path: Path) -> Backup:
    """Open a copy and look whether it is whole. Raises NOT_FOUND, INVALID_BACKUP or STORE_TOO_NEW."""
    if not path.is_file():
        raise PeerdError(Reason.NOT_FOUND, f"there is no file {path}")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    except sqlite3.Error as error:
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is no backup of a store: {error}") from error
    if verdict != "ok":
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is damaged: {verdict}")
    if schema > newest_schema():
        raise PeerdError(Reason.STORE_TOO_NEW, f"{path} has schema {schema}, this peerd knows up to {newest_schema()}")
    if _PEER_ID not in meta or "store_id" not in meta:
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is not a backup that peerd made")
    return Backup(
        path=path,
        size=path.stat().st_size,
        peer_id=str(meta[_PEER_ID]),
        schema=schema,
        made_at=Millis(int(meta[_MADE_AT])),
        digest=digest_file(path),
    )


def list_backups(folder: Path) -> list[Backup]:
    """The whole ones in a directory, newest first."""
    found = []
    for path in sorted(folder.glob("*.db")):
        try:
            found.append(read_backup(path))
        except PeerdError:
            continue  # a copy made before a migration, or a replaced store: kept, but not made by a backup
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def stage(backup: Path, store: Path, *, peer_id: str, allow_other_identity: bool) -> Backup:
    """Put a copy of the backup beside the store, for the next start. Blocks.

    Raises what :func:`read_backup` raises, and OTHER_IDENTITY.
    """
    found = read_backup(backup)
    if found.peer_id != peer_id and not allow_other_identity:
        raise PeerdError(
            Reason.OTHER_IDENTITY,
            f"{backup} is of {found.peer_id}, and this is {peer_id}",
            next_action="restore it on the machine it is of, or say --allow-other-identity if you mean it",
        )
    temporary = store.with_name(f".{store.name}.restore.tmp")
    try:
        shutil.copyfile(backup, temporary)
        os.chmod(temporary, 0o600)
        with closing(connect(temporary)) as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'store_id'", (uuid.uuid4().hex,))
            connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (_PEER_ID, _MADE_AT))
            connection.execute("PRAGMA journal_mode=DELETE")
        _sync(temporary)
        failpoint("backup.stage.before_rename")
        os.rename(temporary, staged_path(store))
        _sync(store.parent)
        failpoint("backup.stage.after_rename")
    except OSError as error:
        raise PeerdError(Reason.INVALID_BACKUP, f"cannot stage {backup}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return found


def staged_path(store: Path) -> Path:
    """Where a restored store waits for the next start."""
    return store.with_name(f"{store.name}.restore")


def swap_staged(store: Path, *, backup_dir: Path, now: Millis) -> Path | None:
    """Take a staged store; the one it replaces is kept, and its path returned. Call with the directory held."""
    staged = staged_path(store)
    if not staged.exists():
        return None
    kept: Path | None = None
    if store.exists():
        with closing(connect(store)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode=DELETE")
        backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = backup_dir / f"replaced-{int(now)}.db"
        kept.unlink(missing_ok=True)
        os.link(store, kept)
        _sync(backup_dir)
        failpoint("backup.swap.before_replace")
    for companion in ("-wal", "-shm"):
        store.with_name(store.name + companion).unlink(missing_ok=True)
    os.replace(staged, store)
    _sync(store.parent)
    failpoint("backup.swap.after_replace")
    return kept


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
