"""Retention as one act: executions at home, jobs that ran here, directories nobody knows, then old rows."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeAlias

import structlog

from peerd.jobs.retention import JobRetention
from peerd.retention import Remains, Wanted
from peerd.space.hold import Hold
from peerd.space.leftovers import Leftovers
from peerd.space.orphans import Orphans
from peerd.v1 import space_pb2
from peerd.workflows.retention import ExecutionRetention

_log = structlog.get_logger(__name__)


Kind: TypeAlias = space_pb2.RemovalKind.ValueType


class Source(Protocol):
    """Knows one kind of remains."""

    async def find(self, wanted: Wanted) -> list[Remains]:
        """What would be removed now."""
        ...

    async def collect(self, wanted: Wanted) -> list[Remains]:
        """Remove it; returns what went."""
        ...


class Collector:
    """Looks through everything, one round at a time."""

    def __init__(
        self,
        executions: ExecutionRetention,
        jobs: JobRetention,
        orphans: Orphans,
        leftovers: Leftovers,
        hold: Hold,
    ) -> None:
        self._hold = hold
        self._leftovers = leftovers
        self._executions = executions
        self._jobs = jobs
        self._sources: dict[Kind, Source] = {
            space_pb2.REMOVAL_KIND_EXECUTION: executions,
            space_pb2.REMOVAL_KIND_JOB: jobs,
            space_pb2.REMOVAL_KIND_ORPHAN: orphans,
        }
        self._turn = asyncio.Lock()

    async def find(self, wanted: Wanted) -> list[tuple[Kind, Remains]]:
        """What a round would remove now."""
        return [(kind, each) for kind, source in self._sources.items() for each in await source.find(wanted)]

    async def collect(self, wanted: Wanted) -> list[tuple[Kind, Remains]]:
        """One round; what it is killed in the middle of, the next one finishes."""
        async with self._turn:
            return [(kind, each) for kind, source in self._sources.items() for each in await source.collect(wanted)]

    async def keep_up(self) -> None:
        """What happens by itself at the start and from time to time."""
        await self._leftovers.clear()
        now = self._hold.moment()
        if now is None:
            return
        removed = await self.collect(Wanted(now=now))
        async with self._turn:
            forgotten = await self._executions.forget(now) + await self._jobs.forget(now)
        if removed or forgotten:
            _log.info(
                "space.collected", removed=len(removed), bytes=sum(each.bytes for _, each in removed), rows=forgotten
            )
