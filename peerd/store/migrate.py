"""Forward migrations: ``migrations/NNNN_name.sql``, each in one transaction that also sets ``user_version``.

``executescript`` would commit an open transaction, so files are split into statements and run one by one between our
own BEGIN and COMMIT: a kill at any point leaves the old schema or the new one. A copy is made first when there is
something to lose. A file newer than this program is refused, a damaged one too; neither is touched.
"""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.store.writer import connect


def migrate(path: Path, *, backup_dir: Path) -> None:
    """Bring the file to the newest schema, creating it if need be.

    Raises STORE_CORRUPT or STORE_TOO_NEW.
    """
    migrations = _migrations()
    newest = migrations[-1][0]
    try:
        connection = connect(path)
    except sqlite3.DatabaseError as error:
        raise PeerdError(Reason.STORE_CORRUPT, f"{path} is not a readable store: {error}") from error
    try:
        _check(connection, path)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > newest:
            raise PeerdError(Reason.STORE_TOO_NEW, f"{path} has schema {version}, this peerd knows up to {newest}")
        if 0 < version < newest:
            _back_up(connection, backup_dir / f"peerd-before-{newest:04d}.db")
        for number, sql in migrations:
            if number > version:
                _apply(connection, number, sql)
    finally:
        connection.close()


def newest_schema() -> int:
    """The schema that this program writes."""
    return _migrations()[-1][0]


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("peerd.store") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text(encoding="utf-8")) for name in files]


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise PeerdError(Reason.STORE_CORRUPT, f"{path} is not a readable store: {error}") from error
    if verdict != "ok":
        raise PeerdError(Reason.STORE_CORRUPT, f"{path} is damaged: {verdict}")


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(sql):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
