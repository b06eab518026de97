"""Removes what a replaced producer had sent to a job that has not started.

The edge is ``clearing`` meanwhile and takes nothing. Files recorded for other edges stay, and so does everything below
the directories of other edges, where a transfer may be in the middle of its work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from peerd.jobs import edge_repository, files
from peerd.jobs.model import Edge, EdgeStatus
from peerd.jobs.places import Places
from peerd.jobs.repository import JobRepository
from peerd.store import Store, Tx


@dataclass(frozen=True, kw_only=True)
class _Removal:
    job_execution_id: int
    edge: Edge
    directory: Path
    keep: tuple[Path, ...]
    others: tuple[Path, ...]


class Clearing:
    """One step of it after the other; a kill between the two leaves the first to be done again."""

    def __init__(self, store: Store, repository: JobRepository, places: Places) -> None:
        self._store = store
        self._repository = repository
        self._places = places

    async def step(self) -> None:
        """Clear every edge that is to be cleared."""
        if await self._store.one(edge_repository.ANY_CLEARING) is None:
            return
        for removal in await self._store.write(self._plan):
            await asyncio.to_thread(files.clear_received, removal.directory, removal.keep, removal.others)
            await self._store.write(lambda tx, removal=removal: self._cleared(tx, removal))  # type: ignore[misc]

    def _plan(self, tx: Tx) -> list[_Removal]:
        return [self._removal(tx, job_id, edge) for job_id, edge in edge_repository.clearing(tx)]

    def _removal(self, tx: Tx, job_id: int, edge: Edge) -> _Removal:
        job = self._repository.get(tx, job_id)
        root = self._places.of(job).directory
        others = [other for other in edge_repository.edges_of(tx, job_id) if other.edge_id != edge.edge_id]
        received = edge_repository.received_files(tx, job_id)
        return _Removal(
            job_execution_id=job_id,
            edge=edge,
            directory=self._places.receiving(job, edge),
            keep=tuple(root / path for other in others for path in received.get(other.edge_id, ())),
            others=tuple(self._places.receiving(job, other) for other in others if other.incoming),
        )

    def _cleared(self, tx: Tx, removal: _Removal) -> None:
        present = edge_repository.find_edge(tx, removal.job_execution_id, removal.edge.edge_id)
        if present == removal.edge:
            edge_repository.replace_files(tx, removal.job_execution_id, present.edge_id, ())
            cleared = replace(present, status=EdgeStatus.WAITING, bytes=0)
            edge_repository.put_edge(tx, removal.job_execution_id, cleared)
