"""The shell that runs jobs: looks into the store for what is due, and acts on it.

It is woken by committed changes and looks once a second anyway, because some things become due by time alone. At start
it takes up what an earlier daemon left running before it starts anything new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from peerd.clock import Clock
from peerd.jobs import queue
from peerd.jobs.attempts import Attempts, AttemptWatch
from peerd.jobs.changes import Change, Changes
from peerd.jobs.choosing import Capacity
from peerd.jobs.clearing import Clearing
from peerd.jobs.damage import put_aside_damaged
from peerd.jobs.data import DataJobs
from peerd.jobs.leases import Leases
from peerd.jobs.measuring import EVERY_SECONDS, Measuring
from peerd.jobs.model import JobStatus
from peerd.jobs.recording import Begun, LimitsOf, Recording
from peerd.loops import run_every
from peerd.store import Store, Tx

_LOOK_EVERY_SECONDS = 1.0
_MARGIN_SECONDS = 0.002
"""Sleeping follows another clock than the store, whose times are whole milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What is due besides running processes."""

    leases: Leases
    clearing: Clearing
    data: DataJobs
    measuring: Measuring


@dataclass(frozen=True, kw_only=True)
class Room:
    """What is given to jobs, and how they are kept to it."""

    capacity: Callable[[], Capacity]
    isolation: int
    limits_of: LimitsOf


class Executor:
    """Runs what is ready."""

    def __init__(
        self, store: Store, recording: Recording, attempts: Attempts, upkeep: Upkeep, clock: Clock, room: Room
    ) -> None:
        self._store = store
        self._recording = recording
        self._attempts = attempts
        self._upkeep = upkeep
        self._clock = clock
        self._room = room
        self._watches: dict[int, AttemptWatch] = {}
        self._wake = asyncio.Event()

    @property
    def running(self) -> int:
        """Processes that run now; for the peer's sample."""
        return len(self._watches)

    def listen(self, changes: Changes) -> None:
        """Be woken by committed changes."""
        changes.subscribe(self._hear)

    async def run(self) -> None:
        """Until cancelled; processes go on without us."""
        async with asyncio.TaskGroup() as group:
            await self._store.write(put_aside_damaged)
            left_behind = await self._store.write(self._recording.left_behind)
            await self._attempts.forget_others(begun.attempt_id for begun in left_behind)
            for begun in left_behind:
                self._adopt(begun, fresh=False)
                group.create_task(self._carry(group, begun.attempt_id))
            if (measuring := self._upkeep.measuring).needed:
                group.create_task(
                    run_every(measuring.step, seconds=EVERY_SECONDS, clock=self._clock, name="measuring of jobs")
                )
            await run_every(
                lambda: self._step(group),
                seconds=_LOOK_EVERY_SECONDS,
                clock=self._clock,
                name="executor",
                wake=self._wake,
            )

    async def _step(self, group: asyncio.TaskGroup) -> None:
        await self._upkeep.leases.expire()
        await self._upkeep.clearing.step()
        await self._upkeep.data.step()
        await self._start_ready(group)

    async def _start_ready(self, group: asyncio.TaskGroup) -> None:
        capacity = self._room.capacity()
        if capacity.slots <= len(self._watches) or not (
            ready := await self._store.all(*queue.ready(self._clock.steady()))
        ):
            return
        running, turns = await self._store.all(*queue.RUNNING), await self._store.all(*queue.TURNS)
        choice = queue.decide(ready, running, turns, capacity, self._clock.now())
        if not choice.start and not choice.waits:
            return
        begun = await self._store.write(lambda tx: self._begin(tx, capacity))
        for one in begun:
            group.create_task(self._carry(group, one.attempt_id))
        if begun:
            self._wake.set()  # those that were not looked at are next

    def _begin(self, tx: Tx, capacity: Capacity) -> list[Begun]:
        choice = queue.decide(
            tx.all(*queue.ready(tx.steady)), tx.all(*queue.RUNNING), tx.all(*queue.TURNS), capacity, tx.now
        )
        begun = self._recording.begin(
            tx, choice, self._room.isolation, self._room.limits_of, gpus=capacity.resources.gpus
        )

        def adopt() -> None:
            # Before any later commit is told: a wish to stop that comes next must find its watch.
            for one in begun:
                self._adopt(one, fresh=True)

        tx.on_commit(adopt)
        return begun

    def _adopt(self, begun: Begun, *, fresh: bool) -> None:
        self._watches[begun.attempt_id] = AttemptWatch(begun, fresh=fresh)

    async def _carry(self, group: asyncio.TaskGroup, attempt_id: int) -> None:
        try:
            verdict = await self._attempts.carry(self._watches[attempt_id])
        finally:
            del self._watches[attempt_id]
        if verdict is not None and verdict.retry_after_seconds is not None:
            group.create_task(self._wake_after(verdict.retry_after_seconds))
        self._wake.set()

    async def _wake_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds + _MARGIN_SECONDS)
        self._wake.set()

    def _hear(self, change: Change) -> None:
        if change.stopping:
            for watch in self._watches.values():
                if watch.begun.job.id == change.job_execution_id:
                    watch.stop.set()
        if change.status in (JobStatus.READY, JobStatus.WAITING_INPUTS):
            self._wake.set()
