"""Staging directories of transfers that nobody will go on with.

A kill between "recorded" and "cleaned up" leaves one behind, and so does a job that ended while files were coming.
``<job directory>/.incoming/<edge id>-<start of the manifest's digest>``
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from peerd.identity.peer_id import PeerId
from peerd.jobs import occupancy
from peerd.retention import removed
from peerd.store import Store
from peerd.transfers.staging import FOLDER

_RECEIVED = (
    "SELECT 1 FROM incoming_transfers WHERE orchestrator_peer_id = ? AND workflow_execution_id = ? AND edge_id = ?"
    " AND destination_job_execution_id = ? AND lower(hex(manifest_digest)) LIKE ?"
)
_EXECUTION_IS_OPEN = "SELECT 1 FROM workflow_executions WHERE id = ? AND settled = 0"


@dataclass(frozen=True, kw_only=True)
class _Staging:
    path: Path
    orchestrator: str
    workflow_execution_id: int
    job_execution_id: int
    edge_id: int
    digest_start: str


class Leftovers:
    """Finds and removes them."""

    def __init__(self, store: Store, *, data_dir: Path, self_id: PeerId) -> None:
        self._store = store
        self._root = data_dir / "workflows"
        self._self_id = self_id

    async def clear(self) -> int:
        """Remove what is left over; returns how many. One that may still be filled is never touched."""
        cleared = 0
        for staging in await asyncio.to_thread(self._find):
            if await self._is_over(staging):
                cleared += await removed(staging.path, up_to=staging.path.parent.parent)
        return cleared

    async def _is_over(self, staging: _Staging) -> bool:
        place = (staging.orchestrator, staging.workflow_execution_id, staging.edge_id, staging.job_execution_id)
        if await self._store.one(_RECEIVED, (*place, f"{staging.digest_start}%")) is not None:
            return True
        if staging.job_execution_id:
            return not await occupancy.is_open(self._store, staging.job_execution_id)
        return await self._store.one(_EXECUTION_IS_OPEN, (staging.workflow_execution_id,)) is None

    def _find(self) -> list[_Staging]:
        found = []
        for path in self._root.glob(f"*/*/jobs/{self._self_id}/*/{FOLDER}/*-*"):
            orchestrator, execution, _, _, job, _, name = path.relative_to(self._root).parts
            edge, _, digest_start = name.partition("-")
            if all(part.isascii() and part.isdigit() for part in (execution, job, edge)):
                found.append(
                    _Staging(
                        path=path,
                        orchestrator=orchestrator,
                        workflow_execution_id=int(execution),
                        job_execution_id=int(job),
                        edge_id=int(edge),
                        digest_start=digest_start,
                    )
                )
        return found
