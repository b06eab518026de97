"""Forward migrations: ``migrations/NNNN_name.sql``, each in one transaction that also sets ``user_version``.

``executescript`` would commit an open transaction, so files are split into statements and run one by one between our
own BEGIN and COMMIT: a kill at any point leaves the old schema or the new one. A verified copy is made first when there
is something to lose. A file newer than this program is refused, a damaged one too; neither is touched.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.store.copies import UNFINISHED, cannot, copied, label, open_alone, remove, sync
from peerd.store.failures import RAISED, out_of_room, translate
from peerd.store.writer import connect

_COPY = "peerd-before-"
COPIES_KEPT = 7
"""One for each schema there was; the newest stay."""


def migrate(path: Path, *, backup_dir: Path | None, peer_id: str = "", now: Millis = Millis(0)) -> None:
    """Bring the file to the newest schema, creating it if need be.

    What it was goes to ``backup_dir`` first, as a backup of that peer if it is named. Raises STORE_CORRUPT,
    STORE_TOO_NEW, DISK_LOW or DISK_FAILED.
    """
    migrations = _migrations()
    newest = migrations[-1][0]
    try:
        with closing(connect(path)) as connection:
            _check(connection, path)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > newest:
                raise PeerdError(Reason.STORE_TOO_NEW, f"{path} has schema {version}, this peerd knows up to {newest}")
            if 0 < version < newest and backup_dir is not None:
                _back_up(path, backup_dir / f"{_COPY}{newest:04d}.db", schema=version, peer_id=peer_id, now=now)
            for number, sql in migrations:
                if number > version:
                    _apply(connection, number, sql)
    except RAISED as error:
        raise out_of_room(error, path) or translate(error, path) from error


def newest_schema() -> int:
    """The schema that this program writes."""
    return _migrations()[-1][0]


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("peerd.store") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text(encoding="utf-8")) for name in files]


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise PeerdError(Reason.STORE_CORRUPT, f"{path} is damaged: {verdict}")


def _back_up(path: Path, target: Path, *, schema: int, peer_id: str, now: Millis) -> None:
    """Without it nothing is migrated. An earlier one of this name is of an attempt that did not come to its end."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in target.parent.glob(f".{_COPY}*"):
            if UNFINISHED.fullmatch(left.name):
                left.unlink(missing_ok=True)
        with copied(path, target) as copy:
            _verify(copy, path, schema=schema, peer_id=peer_id, now=now)
            sync(copy)
            os.replace(copy, target)
        sync(target.parent)
        for old in sorted(target.parent.glob(f"{_COPY}*.db"), reverse=True)[COPIES_KEPT:]:
            remove(old)
    except (OSError, sqlite3.Error) as error:
        raise out_of_room(error, target) or cannot(f"keep a copy of {path} before its schema changes", error) from error


def _verify(copy: Path, path: Path, *, schema: int, peer_id: str, now: Millis) -> None:
    with closing(open_alone(copy)) as connection:
        if peer_id:
            label(connection, peer_id=peer_id, now=now)
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    if verdict != "ok":
        raise PeerdError(Reason.STORE_CORRUPT, f"{path} is damaged: {verdict}")
    if found != schema:
        raise PeerdError(Reason.INVALID_BACKUP, f"the copy of {path} has schema {found}, not {schema}")


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    """One that fails is undone when the connection is closed."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _statements(sql):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {number:d}")
    connection.execute("COMMIT")


def _statements(sql: str) -> list[str]:
    """Split at the semicolons that end a statement, as SQLite itself sees them."""
    statements: list[str] = []
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise ValueError(f"unfinished statement at the end of a migration: {pending.strip()[:80]}")
    return statements
