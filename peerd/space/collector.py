"""Retention as one act: executions at home, jobs that ran here, directories nobody knows, then old rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.jobs.retention import JobRemains, JobRetention, Wanted
from peerd.space.leftovers import Leftovers
from peerd.space.orphans import Orphan, Orphans
from peerd.v1 import space_pb2
from peerd.workflows.retention import ExecutionRemains, ExecutionRetention

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Something that goes, or would go."""

    kind: space_pb2.RemovalKind.ValueType
    orchestrator: str
    workflow_execution_id: int
    job_execution_id: int
    name: str
    ended_at: Millis
    bytes: int


class Collector:
    """Looks through everything, one round at a time."""

    def __init__(
        self,
        executions: ExecutionRetention,
        jobs: JobRetention,
        orphans: Orphans,
        leftovers: Leftovers,
        *,
        self_id: PeerId,
    ) -> None:
        self._leftovers = leftovers
        self._executions = executions
        self._jobs = jobs
        self._orphans = orphans
        self._self_id = self_id
        self._turn = asyncio.Lock()

    async def find(self, wanted: Wanted) -> list[Removal]:
        """What a round would remove now."""
        return self._removals(
            await self._executions.find(wanted), await self._jobs.find(wanted), await self._orphans.find(wanted)
        )

    async def collect(self, wanted: Wanted) -> list[Removal]:
        """One round; what it is killed in the middle of, the next one finishes."""
        async with self._turn:
            return self._removals(
                await self._executions.collect(wanted),
                await self._jobs.collect(wanted),
                await self._orphans.collect(wanted),
            )

    async def keep_up(self) -> None:
        """What happens by itself at the start and from time to time."""
        await self._leftovers.clear()
        removed = await self.collect(Wanted())
        async with self._turn:
            forgotten = await self._executions.forget() + await self._jobs.forget()
        if removed or forgotten:
            _log.info(
                "space.collected", removed=len(removed), bytes=sum(each.bytes for each in removed), rows=forgotten
            )

    def _removals(
        self, executions: Sequence[ExecutionRemains], jobs: Sequence[JobRemains], orphans: Sequence[Orphan]
    ) -> list[Removal]:
        return [
            *(
                Removal(
                    kind=space_pb2.REMOVAL_KIND_EXECUTION,
                    orchestrator=self._self_id,
                    workflow_execution_id=each.workflow_execution_id,
                    job_execution_id=0,
                    name=each.name,
                    ended_at=each.ended_at,
                    bytes=each.bytes,
                )
                for each in executions
            ),
            *(
                Removal(
                    kind=space_pb2.REMOVAL_KIND_JOB,
                    orchestrator=each.orchestrator,
                    workflow_execution_id=each.workflow_execution_id,
                    job_execution_id=each.job_execution_id,
                    name=each.name,
                    ended_at=each.ended_at,
                    bytes=each.bytes,
                )
                for each in jobs
            ),
            *(
                Removal(
                    kind=space_pb2.REMOVAL_KIND_ORPHAN,
                    orchestrator=each.orchestrator,
                    workflow_execution_id=each.workflow_execution_id,
                    job_execution_id=each.job_execution_id,
                    name="",
                    ended_at=each.changed_at,
                    bytes=each.bytes,
                )
                for each in orphans
            ),
        ]
