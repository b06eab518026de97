"""Asks every other member, again and again, whether it is there.

Each peer has its own loop, so one that hangs delays nobody; probes have a connection of their own, so a large stream
delays none. A later version replaces this by SWIM, whose cost per peer stays constant; the seam is
:meth:`Registry.heard` and :meth:`Registry.missed`.
"""

from __future__ import annotations

import asyncio
import functools

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.loops import run_every
from peerd.mesh.mesh import Mesh
from peerd.registry.registry import Registry
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import registry_pb2, registry_pb2_grpc

_TIMEOUT_SECONDS = 2.0


class Probes:
    """Runs a loop for each other member."""

    def __init__(
        self, mesh: Mesh, registry: Registry, channels: Channels, clock: Clock, *, seconds: float = 2.0
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._channels = channels
        self._clock = clock
        self._seconds = seconds
        self._loops: dict[PeerId, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._members_changed = asyncio.Event()
        mesh.on_change(lambda _: self._members_changed.set())
        registry.on_greeting(self._ask_now)

    async def run(self) -> None:
        """Probe all others until cancelled; members that come and go are followed."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._members_changed.clear()
                self._follow(set(self._mesh.others()), tasks)
                await self._members_changed.wait()

    def _follow(self, others: set[PeerId], tasks: asyncio.TaskGroup) -> None:
        for peer_id in others - set(self._loops):
            wake = asyncio.Event()
            loop = run_every(
                functools.partial(self.probe, peer_id),
                seconds=self._seconds,
                clock=self._clock,
                name="registry.probe",
                wake=wake,
            )
            self._loops[peer_id] = (tasks.create_task(loop), wake)
        for peer_id in set(self._loops) - others:
            self._loops.pop(peer_id)[0].cancel()

    def _ask_now(self, peer_id: PeerId) -> None:
        if peer_id in self._loops:
            self._loops[peer_id][1].set()

    async def probe(self, peer_id: PeerId) -> None:
        """Ask once."""
        try:
            stub = registry_pb2_grpc.RegistryServiceStub(self._channels.probe_channel(peer_id))
            with remote_errors(self._registry.name_of(peer_id)):
                answer = await stub.Probe(registry_pb2.ProbeRequest(), timeout=_TIMEOUT_SECONDS)
        except PeerdError as error:
            self._registry.missed(peer_id, error.message)
        else:
            self._registry.heard(peer_id, answer.running_jobs)
