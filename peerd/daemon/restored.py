"""What a peer does once with a store that was restored, or begun anew, before anything of it is taken up.

What came after the backup is forgotten; its files and processes are not. Under the same number, what an earlier
execution had delivered would be delivered by a later one, what an earlier job was sent would be the later one's input,
and the end of an earlier process would be that of a later attempt: numbers go on behind what is on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path

import structlog

from peerd.datadir import DataDir
from peerd.identity.peer_id import PeerId
from peerd.jobs.occupancy import doubt_open
from peerd.store import Store, Tx
from peerd.store.restore import RESTORED
from peerd.workflows.releasing import remember_store

_TABLES = ("workflow_executions", "job_executions", "job_attempts")
_NUMBERED = "SELECT 1 FROM sqlite_sequence WHERE name IN (?, ?, ?)"
_LONGEST = 18
"""Digits of a number that the store can hold; nothing longer was given by it."""

_log = structlog.get_logger(__name__)


async def take_over(store: Store, folder: DataDir, self_id: PeerId) -> None:
    """Costs a look at the store where nothing was restored."""
    row = await store.one("SELECT value FROM meta WHERE key = ?", (RESTORED,))
    restored = None if row is None else str(row["value"])
    if restored is None and await store.one(_NUMBERED, _TABLES) is not None:
        return
    numbers = await asyncio.to_thread(_numbers, folder, self_id)
    if restored is not None or any(numbers):
        lost = await store.write(lambda tx: _take_over(tx, numbers, restored=restored))
        _log.warning("daemon.store_taken_over", jobs_lost=lost)


def _numbers(folder: DataDir, self_id: PeerId) -> tuple[Collection[int], ...]:
    """By table: those of executions that were ordered here, of jobs that were here, and of attempts that may run."""
    workflows = folder.path / "workflows"
    return (
        _read(workflows.glob(f"{self_id}/*")),
        _read(workflows.glob(f"*/*/jobs/{self_id}/*")),
        _read(folder.control.glob("*")),
    )


def _read(paths: Iterable[Path]) -> Collection[int]:
    names = (path.name for path in paths)
    return {int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= _LONGEST}


def _take_over(tx: Tx, numbers: tuple[Collection[int], ...], *, restored: str | None) -> int:
    for table, found in zip(_TABLES, numbers, strict=True):
        if tx.one("SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)) is None:
            tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, 0)", (table,))
        tx.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (max(found, default=0), table))
    if restored is None:
        return 0
    remember_store(tx, restored)
    tx.execute("DELETE FROM meta WHERE key = ?", (RESTORED,))
    return doubt_open(tx, numbers[-1])
