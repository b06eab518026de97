"""What capabilities hold: write functions, and plain reads that never see half a write."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import aiosqlite

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.store.migrate import migrate
from peerd.store.writer import Tx, Writer

T = TypeVar("T")


class Store:
    """One open store. Only one process may hold it; the daemon's lock on its data directory sees to that."""

    def __init__(self, writer: Writer, reader: aiosqlite.Connection, store_id: str) -> None:
        self._writer = writer
        self._reader = reader
        self._held: asyncio.Future[None] | None = None
        self.store_id = store_id
        """Random name of this store; ids of its rows mean nothing without it."""

    @property
    def commits(self) -> int:
        """Commits since it was opened."""
        return self._writer.commits

    async def write(self, function: Callable[[Tx], T]) -> T:
        """Run the function in a transaction on the writer's thread; return once its result is durable."""
        if self._held is not None:
            await asyncio.shield(self._held)
        return await self._writer.write(function)

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
        """All rows of a query, as last committed."""
        return list(await self._reader.execute_fetchall(sql, params))

    async def one(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        rows = await self.all(sql, params)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Finish pending writes and close both connections."""
        await self._writer.close()
        await self._reader.close()


async def open_store(path: Path, clock: Clock, *, on_fatal: Callable[[str], None] | None = None) -> Store:
    """Open the file, creating or migrating it first. Raises STORE_CORRUPT or STORE_TOO_NEW."""
    _prepare(path)
    writer = Writer(path, clock, on_fatal=on_fatal)
    writer.start()
    try:
        reader = await aiosqlite.connect(path, isolation_level=None)
        reader.row_factory = sqlite3.Row
        await reader.execute("PRAGMA query_only=ON")
        rows = list(await reader.execute_fetchall("SELECT value FROM meta WHERE key = 'store_id'"))
    except BaseException:
        await writer.close()
        raise
    return Store(writer, reader, str(rows[0][0]))


def _prepare(path: Path) -> None:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    migrate(path, backup_dir=path.parent / "backups")
