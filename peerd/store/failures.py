"""What SQLite's errors mean: for whoever asked, and for the process.

A full disk is a refusal, and everything works again when there is room. A damaged file is a refusal that names the way
back. An error of the disk itself is not survived: after a failed fsync nobody knows what the file holds, and only a
restart that reads the WAL again does. https://sqlite.org/rescode.html
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from peerd.errors import PeerdError, Reason

RAISED = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file leads to: Python cannot decode a message of SQLite that quotes it."""
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 64 * 1024
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SURVIVED = (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_NOMEM)
"""The index of the WAL has no room, or the process has no memory: nothing was written."""


def code_of(error: sqlite3.Error) -> int:
    """The extended result code; 0 for what Python itself raised."""
    return getattr(error, "sqlite_errorcode", 0)


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room."""
    return code_of(error) & 0xFF == sqlite3.SQLITE_FULL or code_of(error) == sqlite3.SQLITE_IOERR_SHMSIZE


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file was found to be damaged: by SQLite, or by Python in a text that is none."""
    return code_of(error) & 0xFF in _CORRUPT or str(error).startswith("Could not decode to UTF-8")


def is_of_disk(error: sqlite3.Error) -> bool:
    """Whether the disk failed, or was full: the transaction may be lost, whatever SQLite says of it."""
    return is_full(error) or code_of(error) & 0xFF == sqlite3.SQLITE_IOERR


def is_fatal(error: sqlite3.Error) -> bool:
    """Whether a process that writes this file has to end."""
    code = code_of(error)
    return code & 0xFF == sqlite3.SQLITE_IOERR and code not in _SURVIVED


def out_of_room(error: Exception, path: Path) -> PeerdError | None:
    """The refusal, if a write failed because a quota or a limit of file sizes is used up.

    SQLite knows ENOSPC alone as "full", and takes these for errors of the disk; but a file beside it meets them, too.
    """
    if not isinstance(error, sqlite3.Error):
        return None
    return _full() if code_of(error) == sqlite3.SQLITE_IOERR_WRITE and _no_room(path) else None


def translate(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> Exception:
    """What to tell whoever asked; the error itself when it is a bug of ours."""
    if isinstance(error, UnicodeDecodeError):
        return PeerdError(Reason.STORE_CORRUPT, f"{path} is damaged: {error}")
    if is_full(error):
        return _full()
    if is_corrupt(error):
        return PeerdError(Reason.STORE_CORRUPT, f"{path} is damaged: {error}")
    if code_of(error) & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return PeerdError(Reason.DISK_FAILED, f"cannot read or write {path}: {error}")
    return error


def _full() -> PeerdError:
    return PeerdError(Reason.DISK_LOW, "the disk is full: nothing was stored")


def _no_room(path: Path) -> bool:
    """Whether another file of that size meets an end, too."""
    size = max(_size(path), _size(path.with_name(f"{path.name}-wal")))
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.seek(size)
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in FULL_ERRNOS
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
