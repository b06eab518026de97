"""Reads over a connection of their own: a question that takes seconds holds up no other reads of the daemon."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import aiosqlite

from peerd.store.failures import RAISED, translate

_AGAIN_SECONDS = 0.05


class Reads(Protocol):
    """What can be asked: a store, or a connection beside it."""

    async def all(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """All rows of a query, as last committed."""
        ...

    async def one(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        ...


async def _rows(
    connection: aiosqlite.Connection, sql: str, params: Sequence[object] | Mapping[str, object]
) -> list[sqlite3.Row]:
    return list(await connection.execute_fetchall(sql, params))


async def _end(asking: asyncio.Future[list[sqlite3.Row]], connection: aiosqlite.Connection) -> None:
    """Nobody wants the answer any more: whoever asks next, or closes, must not wait for it."""
    while not asking.done():
        await connection.interrupt()  # has no effect on one that was not begun quite yet
        with suppress(asyncio.CancelledError):
            await asyncio.wait([asking], timeout=_AGAIN_SECONDS)
    if not asking.cancelled():
        asking.exception()  # else asyncio logs that nobody asked for it


class Beside:
    """One such connection, opened when it is needed first. One question at a time, the others wait."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._connection: aiosqlite.Connection | None = None

    async def all(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """All rows of a query, as last committed. Raises STORE_CORRUPT or DISK_FAILED."""
        try:
            async with self._lock:
                connection = await self._open()
                asking = asyncio.ensure_future(_rows(connection, sql, params))
                try:
                    return await asyncio.shield(asking)
                except asyncio.CancelledError:
                    await _end(asking, connection)
                    raise
        except RAISED as error:
            raise translate(error, self._path) from error

    async def one(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        rows = await self.all(sql, params)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Let go of the connection, once the question under way has its answer."""
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None

    async def _open(self) -> aiosqlite.Connection:
        if self._connection is None:
            connection = await aiosqlite.connect(self._path, isolation_level=None)
            connection.row_factory = sqlite3.Row
            self._connection = connection
            await connection.execute("PRAGMA query_only=ON")
        return self._connection
