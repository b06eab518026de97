"""Directories of jobs that the store does not know: what a restored store leaves behind.

``<data>/workflows/<orchestrator>/<execution>/jobs/<self>/<job execution>``; id 0 is the home of an execution.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from peerd.clock import DAY_MS, Clock, Millis
from peerd.config import RetentionConfig
from peerd.identity.peer_id import PeerId
from peerd.jobs import occupancy
from peerd.retention import Remains, Wanted, delete, measured
from peerd.store import Store


class Orphans:
    """Finds and removes them, once nothing was put into them for as long as jobs are kept."""

    def __init__(self, store: Store, clock: Clock, config: RetentionConfig, *, data_dir: Path, self_id: PeerId) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._root = data_dir / "workflows"
        self._self_id = self_id

    async def find(self, wanted: Wanted) -> list[Remains]:
        """Those old enough. Explicit ages do not count here: what is not understood is removed late."""
        jobs = await occupancy.known(self._store)
        homes = {row["id"] for row in await self._store.all("SELECT id FROM workflow_executions")}
        before = wanted.moment(self._clock.now()) - round(self._config.jobs_days * DAY_MS)
        found = await asyncio.to_thread(lambda: list(self._walk(jobs, homes, before)))
        only = wanted.executions
        return await measured([each for each in found if not only or each.workflow_execution_id in only])

    async def collect(self, wanted: Wanted) -> list[Remains]:
        """Remove them; returns what went."""
        return await delete(await self.find(wanted), root=self._root)

    def _walk(self, jobs: set[int], homes: set[int], before: int) -> Iterator[Remains]:
        for place in self._root.glob(f"*/*/jobs/{self._self_id}/*"):
            orchestrator, execution = place.parts[-5], place.parts[-4]
            if not (place.name.isascii() and place.name.isdigit() and execution.isdigit()):
                continue
            job_id, execution_id = int(place.name), int(execution)
            known = job_id in jobs if job_id else orchestrator == self._self_id and execution_id in homes
            changed_at = Millis(int(place.lstat().st_mtime * 1000))
            if not known and changed_at <= before:
                yield Remains(
                    orchestrator=orchestrator,
                    workflow_execution_id=execution_id,
                    job_execution_id=job_id,
                    ended_at=changed_at,
                    path=place,
                )
