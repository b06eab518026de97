"""Looks every second which planned times have come, and decides on them.

Where it stands is in the store (``decided_until``), never in memory: a restart, a clock that was set and a long pause
are all the same to it. A clock that was set back finds nothing to do until it has caught up.
"""

from __future__ import annotations

import asyncio

import structlog

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.loops import run_every
from peerd.schedules import repository
from peerd.schedules.catching_up import Verdict, verdicts
from peerd.schedules.firing import Firings
from peerd.schedules.model import Schedule
from peerd.schedules.schedules import Schedules
from peerd.store import Store, Tx

_LOOK_SECONDS = 1.0
_AT_ONCE = 200
"""Missed times written in one transaction."""

_log = structlog.get_logger(__name__)


class Ticker:
    """Fires what is due."""

    def __init__(self, store: Store, clock: Clock, schedules: Schedules, firings: Firings) -> None:
        self._store = store
        self._clock = clock
        self._firings = firings
        self._wake = asyncio.Event()
        self._planned = False
        self._damaged: set[int] = set()
        schedules.on_change(self._wake.set)

    async def run(self) -> None:
        """Until cancelled."""
        await run_every(self.look, seconds=_LOOK_SECONDS, clock=self._clock, name="schedules", wake=self._wake)

    async def look(self) -> None:
        """Decide on what has come and on what waits; one schedule that cannot be served does not keep the others."""
        if not self._planned:
            await self._store.write(repository.plan_anew)
            self._planned = True
        now = self._clock.now()
        for schedule in await repository.due(self._store, now):
            if schedule.damage:
                self._say_damage(schedule)
                continue
            try:
                await self._settle(schedule, now)
            except PeerdError as error:  # the store takes nothing now; the next look begins where this one stood
                _log.warning("schedule.not_settled", schedule=schedule.name, message=error.message)
        for schedule_id in await repository.with_waiting(self._store):
            await self._go_on(schedule_id)

    async def _settle(self, schedule: Schedule, now: Millis) -> None:
        """Decide on every planned time up to now: missed ones many at once, each run alone."""
        found = await asyncio.to_thread(verdicts, schedule, now)
        stands = schedule.decided_until
        at = 0
        while at < len(found):
            until = at + 1
            if found[at].runs is None:
                while until < min(len(found), at + _AT_ONCE) and found[until].runs is None:
                    until += 1
            step = found[at:until]
            if not await self._store.write(lambda tx, s=step, d=stands: self._decide(tx, schedule, s, d)):  # type: ignore[misc]
                return  # it was changed meanwhile
            failpoint("schedule.missed.after_commit" if step[0].runs is None else "schedule.fire.after_commit")
            stands, at = step[-1].planned_at, until

    def _decide(self, tx: Tx, schedule: Schedule, step: list[Verdict], stands: int) -> bool:
        present = repository.find(tx, schedule.schedule_id)
        if present is None or present.paused_at is not None or present.decided_until != stands:
            return False
        if present.definition != schedule.definition:
            return False
        first = step[0]
        if first.runs is not None:
            planned = present.local(first.planned_at)
            started_by = f"schedule {present.name}, planned for {planned}"
            self._firings.fire(tx, present, first.planned_at, first.runs, started_by)
        else:
            repository.add_missed(tx, present.schedule_id, step)
        last = step[-1].planned_at
        repository.update(tx, present.schedule_id, {"decided_until": last, "next_at": present.next_start(last)})
        repository.prune(tx, present.schedule_id)
        failpoint("schedule.missed.before_commit" if first.runs is None else "schedule.fire.before_commit")
        return True

    async def _go_on(self, schedule_id: int) -> None:
        """What waited may begin."""

        def again(tx: Tx) -> bool:
            schedule = repository.find(tx, schedule_id)
            if schedule is None or schedule.damage:
                return False
            decided = self._firings.again(tx, schedule)
            if decided:
                failpoint("schedule.fire.before_commit")
            return decided

        try:
            decided = await self._store.write(again)
        except PeerdError as error:
            _log.warning("schedule.not_settled", schedule_id=schedule_id, message=error.message)
            return
        if decided:
            failpoint("schedule.fire.after_commit")

    def _say_damage(self, schedule: Schedule) -> None:
        if schedule.schedule_id not in self._damaged:
            self._damaged.add(schedule.schedule_id)
            _log.error("schedule.damaged", schedule=schedule.name, message=schedule.damage)
