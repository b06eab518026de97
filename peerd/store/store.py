"""What capabilities hold: write functions, and plain reads that never see half a write."""

from __future__ import annotations

import asyncio
import os
import shlex
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import aiosqlite

from peerd.clock import Clock, to_datetime
from peerd.errors import PeerdError, Reason
from peerd.store.backup import list_backups
from peerd.store.beside import Beside
from peerd.store.failures import FULL_ERRNOS, RAISED, translate
from peerd.store.migrate import migrate
from peerd.store.writer import Tx, Writer

T = TypeVar("T")


class Store:
    """One open store. Only one process may hold it; the daemon's lock on its data directory sees to that."""

    def __init__(self, path: Path, writer: Writer, reader: aiosqlite.Connection, store_id: str) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._held: asyncio.Future[None] | None = None
        self.store_id = store_id
        """Random name of this store; ids of its rows mean nothing without it."""
        self.damage = ""
        """What SQLite found to be damaged since it was opened, if anything."""

    @property
    def commits(self) -> int:
        """Commits since it was opened."""
        return self._writer.commits

    async def write(self, function: Callable[[Tx], T]) -> T:
        """Run the function in a transaction on the writer's thread; return once its result is durable."""
        if self._held is not None:
            await asyncio.shield(self._held)
        try:
            return await self._writer.write(function)
        except PeerdError as error:
            self._note(error)
            raise

    async def hold(self) -> None:
        """Let writes wait from now on; return when all earlier ones are done."""
        self._held = asyncio.get_running_loop().create_future()
        await self._writer.write(lambda _: None)

    def let_go(self, refusal: PeerdError | None = None) -> None:
        """Let the writes that wait go on, or refuse them and all later ones."""
        held = self._held
        if held is None or held.done():
            return
        if refusal is None:
            self._held = None
            held.set_result(None)
        else:
            held.set_exception(refusal)
            held.exception()  # whether anybody waits or not

    async def all(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """All rows of a query, as last committed. Raises STORE_CORRUPT or DISK_FAILED."""
        try:
            return list(await self._reader.execute_fetchall(sql, params))
        except RAISED as error:
            said = translate(error, self._path)
            self._note(said)
            raise said from error

    async def one(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        rows = await self.all(sql, params)
        return rows[0] if rows else None

    def _note(self, error: Exception) -> None:
        """Not what a capability found in one row of its own: that is put aside."""
        if isinstance(error, PeerdError) and error.reason is Reason.STORE_CORRUPT and str(self._path) in error.message:
            self.damage = error.message

    def beside(self) -> Beside:
        """Reads that may take long. Whoever asked for it closes it."""
        return Beside(self._path)

    async def close(self) -> None:
        """Finish pending writes and close both connections."""
        await self._writer.close()
        await self._reader.close()


async def open_store(
    path: Path, clock: Clock, *, peer_id: str = "", on_fatal: Callable[[str], None] | None = None
) -> Store:
    """Open the file, creating or migrating it first; what it was before is kept as a backup of that peer.

    Raises STORE_CORRUPT, STORE_TOO_NEW, DISK_LOW or DISK_FAILED.
    """
    backups = path.parent / "backups"
    try:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        migrate(path, backup_dir=backups, peer_id=peer_id, now=clock.now())
        return await _open(path, clock, on_fatal)
    except OSError as error:
        full = error.errno in FULL_ERRNOS
        raise PeerdError(
            Reason.DISK_LOW if full else Reason.DISK_FAILED, f"cannot make {path}: {error.strerror}"
        ) from error
    except PeerdError as error:
        if error.reason is not Reason.STORE_CORRUPT:
            raise
        raise PeerdError(error.reason, error.message, next_action=_way_back(backups)) from error


async def _open(path: Path, clock: Clock, on_fatal: Callable[[str], None] | None) -> Store:
    writer, reader = Writer(path, clock, on_fatal=on_fatal), None
    try:
        writer.start()
        reader = await aiosqlite.connect(path, isolation_level=None)
        reader.row_factory = sqlite3.Row
        await reader.execute("PRAGMA query_only=ON")
        rows = list(await reader.execute_fetchall("SELECT value FROM meta WHERE key = 'store_id'"))
        if not rows:
            raise PeerdError(Reason.STORE_CORRUPT, f"{path} does not say which store it is")
    except BaseException as error:
        await writer.close()
        if reader is not None:
            await reader.close()
        if isinstance(error, RAISED):
            raise translate(error, path) from error
        raise
    return Store(path, writer, reader, str(rows[0][0]))


def _way_back(backups: Path) -> str:
    """The newest whole backup, by name: nobody should have to try them one after the other."""
    found = list_backups(backups)
    if not found:
        return (
            f"there is no whole backup in {backups}: 'peerd restore FILE' takes one from elsewhere; without one, move "
            "the store away and 'peerd join' again"
        )
    made = to_datetime(found[0].made_at).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"restore the newest whole backup, made {made}: 'peerd restore {shlex.quote(str(found[0].path))}'"
