"""Questions that take long are asked beside the store's own reader."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError
from peerd.store import open_store

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT count(*) AS n FROM n"


async def test_a_long_question_holds_up_nobody_else(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "peerd.db", FakeClock())
    beside = store.beside()
    try:
        for steps in (3_000_000, 10_000_000, 30_000_000):  # on a busy machine an answer may take a while by itself
            long = asyncio.create_task(beside.one(ENDLESS, (steps,)))
            row = await beside_started(long, store.one("SELECT 1 AS one"))
            meanwhile = not long.done()
            found = await long
            assert row is not None and row["one"] == 1 and found is not None and found["n"] == steps
            if meanwhile:
                break
        assert meanwhile, "the store answers meanwhile"
        await store.write(lambda tx: tx.execute("UPDATE meta SET value = value"))
        assert await beside.one("SELECT 1 AS one WHERE 0") is None
        with pytest.raises((sqlite3.OperationalError, PeerdError)):
            await beside.all("DELETE FROM meta")
    finally:
        await beside.close()
        await beside.close()
        await store.close()


async def test_a_question_that_nobody_waits_for_any_more_holds_up_no_other(tmp_path: Path) -> None:
    """Regression: it was worked on to its end, and the next ones and the end of the daemon waited for it."""
    store = await open_store(tmp_path / "peerd.db", FakeClock())
    beside = store.beside()
    try:
        assert await beside.one("SELECT 1 AS one") is not None
        for turns in (0, 1, 100):
            long = asyncio.create_task(beside.one(ENDLESS, (2 * 10**8,)))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            await beside_started(long, store.one("SELECT 1 AS one"))
            long.cancel()
            async with asyncio.timeout(20):
                row = await beside.one("SELECT 2 AS two")
            assert row is not None and row["two"] == 2
            with pytest.raises(asyncio.CancelledError):
                await long
    finally:
        await beside.close()
        await store.close()


async def beside_started(
    task: asyncio.Task[sqlite3.Row | None], other: Awaitable[sqlite3.Row | None]
) -> sqlite3.Row | None:
    """The answer of the other, asked once the task has had its turn."""
    await asyncio.sleep(0)
    assert not task.done()
    return await other
