"""Copies of the store: made while it is written to, and verified by opening them. They are put back by
:mod:`peerd.store.restore`.

The copy is of one moment: the source is read inside one transaction. Without it SQLite begins again whenever another
connection has written, and under a steady load never ends.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from peerd.clock import Millis
from peerd.digest import digest_file
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store.migrate import newest_schema

_PEER_ID, _MADE_AT = "backup_peer_id", "backup_made_at"
_PAGES = 500
"""Copied at once; between them other threads get their turn."""
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp(-journal|-wal|-shm)?")
COMPANIONS = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside its own; those of another content would be played into it."""
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that know no second names."""


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
    if target.exists():
        raise PeerdError(Reason.ALREADY_EXISTS, f"{target} is there already")
    if not target.parent.is_dir():
        raise PeerdError(Reason.INVALID_PATH, f"there is no directory {target.parent}", next_action="make it first")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(store, temporary)
        with closing(open_alone(temporary)) as copy:
            label(copy, peer_id=peer_id, now=now)
        sync(temporary)
        found = read_backup(temporary)
        failpoint("backup.create.before_rename")
        _name(temporary, target)
        sync(target.parent)
    except FileExistsError as error:
        raise PeerdError(Reason.ALREADY_EXISTS, f"{target} is there already") from error
    except (OSError, sqlite3.Error) as error:
        raise cannot(f"write {target}", error) from error
    finally:
        remove(temporary)
    return replace(found, path=target)


def _name(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)  # unlike a rename, never over a file that came meanwhile
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.rename(temporary, target)


def _copy(store: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(read_only(store), uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on it stands still
        source.backup(copy, pages=_PAGES, sleep=0.001)


def read_backup(path: Path) -> Backup:
    """Open a copy and look whether it is whole. Raises NOT_FOUND, INVALID_BACKUP or STORE_TOO_NEW."""
    if not path.is_file():
        raise PeerdError(
            Reason.NOT_FOUND,
            f"there is no file {path}",
            next_action="give the path as the daemon sees it; under systemd it has a /tmp of its own",
        )
    try:
        with closing(sqlite3.connect(read_only(path), uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        size, digest = path.stat().st_size, digest_file(path)
    except (OSError, sqlite3.Error) as error:
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is no backup of a store: {error}") from error
    if verdict != "ok":
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is damaged: {verdict}")
    if schema > newest_schema():
        raise PeerdError(Reason.STORE_TOO_NEW, f"{path} has schema {schema}, this peerd knows up to {newest_schema()}")
    made_at = str(meta.get(_MADE_AT, ""))
    if _PEER_ID not in meta or "store_id" not in meta or not made_at.isdecimal():
        raise PeerdError(Reason.INVALID_BACKUP, f"{path} is not a backup that peerd made")
    return Backup(
        path=path, size=size, peer_id=str(meta[_PEER_ID]), schema=schema, made_at=Millis(int(made_at)), digest=digest
    )


def list_backups(folder: Path, *, prefix: str = "") -> list[Backup]:
    """The whole ones in a directory whose names begin so, newest first."""
    found = []
    for path in sorted(folder.glob(f"{prefix}*.db")):
        try:
            found.append(read_backup(path))
        except PeerdError:
            continue  # a copy made before a migration, or a damaged store that was replaced: kept, but no backup
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def remove_unfinished(folder: Path) -> int:
    """Remove what a killed :func:`create_backup` left; returns how many files. None may be under way there."""
    left = [path for path in folder.glob(".*") if _UNFINISHED.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


# -- Shared with peerd.store.restore


def read_only(path: Path) -> str:
    """The name by which SQLite opens a file without ever writing to it, whatever characters its path has."""
    return f"{path.absolute().as_uri()}?mode=ro"


def open_alone(path: Path) -> sqlite3.Connection:
    """A connection to a copy that nobody else has open: one file, without companions once it is closed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def label(connection: sqlite3.Connection, *, peer_id: str, now: Millis) -> None:
    """Write into a copy whose store it is, and of when."""
    for key, value in ((_PEER_ID, peer_id), (_MADE_AT, str(int(now)))):
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def unlabel(connection: sqlite3.Connection) -> None:
    """Make a copy a store again."""
    connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (_PEER_ID, _MADE_AT))


def cannot(what: str, error: OSError | sqlite3.Error) -> PeerdError:
    """The refusal for something that could not be written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reason = Reason.DISK_LOW if code == sqlite3.SQLITE_FULL else Reason.INVALID_BACKUP
    return PeerdError(reason, f"cannot {what}: {said}")


def remove(path: Path) -> None:
    """Delete a file and its companions, as far as they are there."""
    for name in (path.name, *(path.name + companion for companion in COMPANIONS)):
        path.with_name(name).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
