"""What is left on the disk of work that is over, and how it goes: one flow for all kinds of it.

What is to go is condemned in a transaction, deleted, and then recorded as gone: a kill in between is made good by the
next round, and nobody reads half a directory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from peerd import trees
from peerd.clock import Clock, Millis
from peerd.failpoints import failpoint
from peerd.store import Store, Tx

_BATCH = 200
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which remains are looked for."""

    older_than_ms: int | None = None
    """Ended so long ago; as configured when None."""
    executions: frozenset[int] = frozenset()
    """Only of these; of all when empty."""
    now: Millis | None = None
    """Ages count until then, not until the moment of each look: the clock may be set in between."""

    def moment(self, now: Millis) -> Millis:
        """Until when ages count."""
        return now if self.now is None else min(now, self.now)


@dataclass(frozen=True, kw_only=True)
class Remains:
    """A directory that nobody needs any more."""

    orchestrator: str
    workflow_execution_id: int
    job_execution_id: int = 0
    """0 for what an execution left at home."""
    name: str = ""
    """For people: of the job or the workflow; empty when nobody knows."""
    ended_at: Millis
    path: Path
    bytes: int = 0


class Retention(ABC):
    """Finds and removes remains that rows of the store tell of; what exactly, its heirs know."""

    def __init__(self, store: Store, clock: Clock, *, root: Path, failpoints: tuple[str, str]) -> None:
        self._store = store
        self._clock = clock
        self._root = root
        self._after_condemn, self._after_remove = failpoints

    async def find(self, wanted: Wanted) -> list[Remains]:
        """What would be removed now, with what it takes on the disk."""
        sql, values = self._over(wanted, wanted.moment(self._clock.now()), limit=-1)
        return await measured([self._remains(row) for row in await self._store.all(sql, values)])

    async def collect(self, wanted: Wanted) -> list[Remains]:
        """Remove it, and what an earlier round was killed in the middle of; returns what went."""
        left = await self._store.all(self._condemned())
        await self._remove([self._remains(row) for row in left])
        gone: list[Remains] = []
        while batch := await self._store.write(lambda tx: self._condemn_next(tx, wanted)):
            failpoint(self._after_condemn)
            gone += await self._remove(batch)
        return gone

    @abstractmethod
    def _over(self, wanted: Wanted, now: Millis, *, limit: int) -> tuple[str, dict[str, object]]:
        """Query for rows of what may go, oldest first."""

    @abstractmethod
    def _condemned(self) -> str:
        """Query for rows of what is condemned and perhaps not deleted."""

    @abstractmethod
    def _condemn(self, tx: Tx, found: Sequence[Remains]) -> None:
        """Record that it will be deleted."""

    @abstractmethod
    def _gone(self, tx: Tx, found: Sequence[Remains]) -> None:
        """Record that it is deleted."""

    @abstractmethod
    def _remains(self, row: sqlite3.Row) -> Remains:
        """What a row of these queries tells of."""

    def _condemn_next(self, tx: Tx, wanted: Wanted) -> list[Remains]:
        found = [self._remains(row) for row in tx.all(*self._over(wanted, wanted.moment(tx.now), limit=_BATCH))]
        self._condemn(tx, found)
        return found

    async def _remove(self, condemned: Sequence[Remains]) -> list[Remains]:
        if not condemned:
            return []
        gone = await delete(await measured(condemned), root=self._root)
        failpoint(self._after_remove)
        await self._store.write(lambda tx: self._gone(tx, gone))
        return gone


async def measured(found: Sequence[Remains]) -> list[Remains]:
    """The same, with what they take on the disk now; 0 for what cannot be looked at."""
    return await asyncio.to_thread(lambda: [replace(each, bytes=_measure(each.path)) for each in found])


def _measure(path: Path) -> int:
    try:
        return trees.measure(path)
    except OSError:  # who is to remove it says so
        return 0


async def delete(found: Sequence[Remains], *, root: Path) -> list[Remains]:
    """Delete their directories, and those above that are empty then; what is gone already is no error.

    Returns what is gone. What cannot be removed is left for the next round: the others must not stay for it.
    """
    return [each for each in found if await removed(each.path, up_to=root)]


async def removed(path: Path, *, up_to: Path) -> bool:
    """Whether a directory could be removed; else the log says why not."""
    try:
        await asyncio.to_thread(trees.remove, path, up_to=up_to)
    except OSError as error:  # files of another user, a disk that fails
        _log.warning("space.not_removed", path=str(path), error=str(error))
        return False
    return True
