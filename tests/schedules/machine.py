"""One daemon's schedules over a fake clock: real store, real ticker, executions that end when the test says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from peerd.clock import FakeClock, Millis
from peerd.errors import PeerdError
from peerd.schedules import repository
from peerd.schedules.firing import Firings
from peerd.schedules.model import Firing, Schedule
from peerd.schedules.schedules import Schedules
from peerd.schedules.ticker import Ticker
from peerd.store import Store, Tx, open_store
from peerd.v1 import workflows_pb2
from peerd.workflows.definition import accept_definition
from peerd.workflows.repository import WorkflowVersion, create_execution, put_workflow

ZURICH = "Europe/Zurich"
NEW_YORK = "America/New_York"
FOREVER = 10**6


def at(text: str, zone: str = "UTC") -> Millis:
    """A local time as a moment; of two the first."""
    return Millis(round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000))


class _Executions:
    """What the lifecycle of executions does."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def start(self, tx: Tx, version: WorkflowVersion, params: Mapping[str, str], *, started_by: str) -> int:
        number = create_execution(tx, version, params, started_by=started_by).spec.execution_id
        if self._machine.refuse is not None:
            raise self._machine.refuse  # after rows were written: none may stay
        self._machine.params[number] = dict(params)
        return number

    def cancel(self, tx: Tx, execution_id: int, reason: str) -> None:
        self._machine.cancelled.append(execution_id)


class Machine:
    """One peer, which can be restarted on its store."""

    def __init__(self, folder: Path, start: int) -> None:
        self.folder = folder
        self.clock = FakeClock(start)
        self.store: Store
        self.schedules: Schedules
        self.ticker: Ticker
        self.refuse: PeerdError | None = None
        self.cancelled: list[int] = []
        self.params: dict[int, dict[str, str]] = {}

    async def start(self) -> None:
        self.store = await open_store(self.folder / "peerd.db", self.clock)
        firings = Firings(_Executions(self))
        self.schedules = Schedules(firings)
        self.ticker = Ticker(self.store, self.clock, self.schedules, firings)

    async def restart(self, *, down: float = 0) -> None:
        """Gone for so many seconds."""
        await self.store.close()
        self.clock.advance(down)
        await self.start()
        await self.ticker.look()

    # What people do

    async def put(self, cron: str, zone: str = ZURICH, *, name: str = "w", **more: Any) -> Schedule:
        """Store a definition with a schedule."""
        params = more.pop("declared", {})
        return await self.store_definition(
            {"name": name, "params": params, "schedule": {"cron": cron, "timezone": zone, **more}}
        )

    async def store_definition(self, content: Mapping[str, Any]) -> Schedule:
        whole = {"jobs": [{"name": "a", "service": "s"}], **content}
        reading = accept_definition(workflows_pb2.DefinitionSource(text=yaml.safe_dump(whole)))

        def write(tx: Tx) -> Schedule | None:
            self.schedules.stored(tx, put_workflow(tx, reading, stored=True))
            return repository.find_named(tx, str(content["name"]))

        found = await self.store.write(write)
        assert found is not None
        return found

    async def end(self, *execution_ids: int) -> None:
        await self.store.write(
            lambda tx: tx.executemany(
                "UPDATE workflow_executions SET status = 'completed' WHERE id = ?", [(n,) for n in execution_ids]
            )
        )

    async def end_all(self) -> None:
        await self.store.write(lambda tx: tx.execute("UPDATE workflow_executions SET status = 'completed'"))

    # Time

    async def run_until(self, moment: int, *, step: float = 60, ending: bool = True) -> None:
        """Let the daemon run, looking every so many seconds; what it starts ends at once."""
        while self.clock.now() < moment:
            self.clock.advance(min(step, (moment - self.clock.now()) / 1000))
            await self.ticker.look()
            if ending and await self.store.one("SELECT 1 FROM workflow_executions WHERE status = 'pending'"):
                await self.end_all()

    # What is seen

    async def firings(self, name: str = "w") -> list[Firing]:
        """Oldest planned time first."""
        schedule = await repository.read(self.store, name)
        found = await repository.firings(self.store, schedule.schedule_id, before=2**62, limit=FOREVER)
        return sorted(found, key=lambda firing: (firing.planned_at or 0, firing.firing_id))

    async def seen(self, name: str = "w") -> list[tuple[str, str]]:
        """(local planned time, what became of it)"""
        schedule = await repository.read(self.store, name)
        return [
            (schedule.local(f.planned_at)[5:] if f.planned_at else "now", f.status.value)
            for f in await self.firings(name)
        ]

    async def fired(self, name: str = "w") -> list[str]:
        """Local planned times of those that ran."""
        return [local for local, status in await self.seen(name) if status == "fired"]

    async def executions(self) -> list[str]:
        """What started each execution that there is."""
        return [row["started_by"] for row in await self.store.all("SELECT * FROM workflow_executions ORDER BY id")]
