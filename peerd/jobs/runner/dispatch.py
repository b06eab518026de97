"""Chooses who runs an attempt: by its spec when it starts, by what its control directory says ever after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from peerd.jobs.runner.containers.runner import ContainerRunner, is_container
from peerd.jobs.runner.containers.spec import ContainerSpec
from peerd.jobs.runner.runner import ProcessRunner
from peerd.jobs.runner.spec import Exit, ProcessSpec, Recovered
from peerd.v1.registry_pb2 import IsolationLevel, LimitsLevel


class Runners:
    """Processes and containers, as one runner."""

    def __init__(self, processes: ProcessRunner, containers: ContainerRunner) -> None:
        self.processes = processes
        self.containers = containers

    @property
    def isolation(self) -> IsolationLevel.ValueType:
        """What jobs that are processes get here."""
        return self.processes.isolation

    @property
    def limits(self) -> LimitsLevel.ValueType:
        """How they are kept to their limits."""
        return self.processes.limits

    @property
    def limits_cpus(self) -> bool:
        """Whether they get no more processor time than they asked for."""
        return self.processes.limits_cpus

    async def start(self, control: Path, spec: ProcessSpec) -> None:
        """Start the attempt."""
        if isinstance(spec, ContainerSpec):
            await self.containers.start(control, spec)
        else:
            await self.processes.start(control, spec)

    async def wait(self, control: Path) -> Exit | None:
        """How the attempt ended, once it has; None when nobody knows."""
        return await (await self._of(control)).wait(control)

    async def recover(self, control: Path) -> Recovered:
        """What became of an attempt that an earlier daemon may have started."""
        return await (await self._of(control)).recover(control)

    async def stop(self, control: Path, grace_seconds: float) -> Exit | None:
        """End the attempt; returns when nothing of it lives."""
        return await (await self._of(control)).stop(control, grace_seconds)

    def forget(self, control: Path) -> None:
        """Its end is recorded."""
        self.processes.forget(control)

    def sweep(self, control_root: Path, wanted: Iterable[Path]) -> None:
        """End what is left of processes that are no longer open; containers are swept every few seconds."""
        self.processes.sweep(control_root, wanted)

    async def _of(self, control: Path) -> ProcessRunner | ContainerRunner:
        return self.containers if await asyncio.to_thread(is_container, control) else self.processes
