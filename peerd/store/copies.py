"""Copies of an SQLite file: of one moment, under their names only when they are whole and synced.

The source is read inside one transaction: without it SQLite begins again whenever another connection has written, and
under a steady load never ends. Shared by backup, restore and migration.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.store.failures import FULL_ERRNOS, is_full, is_of_disk

PEER_ID, MADE_AT = "backup_peer_id", "backup_made_at"
"""What a copy says of itself, in ``meta``."""
_PAGES = 500
"""Copied at once; between them other threads get their turn."""
COMPANIONS = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside its own; those of another content would be played into it."""
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that know no second names."""
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp(-journal|-wal|-shm)?")
"""Names of copies that are being made."""


@contextmanager
def copied(source: Path, target: Path) -> Iterator[Path]:
    """A copy of a store that is in use, beside its target, mode 0600; it is gone when the block ends.

    Blocks. Whoever calls verifies it there and gives it its name.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(source, temporary)
        yield temporary
    finally:
        remove(temporary)


def _copy(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(read_only(source), uri=True, isolation_level=None)) as reading,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on it stands still
        reading.backup(copy, pages=_PAGES, sleep=0.001)


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
    for key, value in ((PEER_ID, peer_id), (MADE_AT, str(int(now)))):
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def unlabel(connection: sqlite3.Connection) -> None:
    """Make a copy a store again."""
    connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (PEER_ID, MADE_AT))


def cannot(what: str, error: OSError | sqlite3.Error) -> PeerdError:
    """The refusal for something that could not be written."""
    if isinstance(error, OSError):
        full, failed, said = error.errno in FULL_ERRNOS, error.errno == errno.EIO, error.strerror or str(error)
    else:
        full, failed, said = is_full(error), is_of_disk(error), str(error)
    reason = Reason.DISK_LOW if full else Reason.DISK_FAILED if failed else Reason.INVALID_BACKUP
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
