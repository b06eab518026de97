"""Asks every other member, again and again, whether it is there.

Each peer has its own round, so one that hangs delays nobody; probes have a connection of their own, so a large stream
delays none. A later version replaces this by SWIM, whose cost per peer stays constant; the seam is
:meth:`Registry.heard` and :meth:`Registry.missed`.
"""

from __future__ import annotations

import asyncio

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.mesh.mesh import Mesh
from peerd.registry.registry import Registry
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import registry_pb2, registry_pb2_grpc

_TIMEOUT_SECONDS = 2.0
_LOOK_SECONDS = 0.5


class Probes:
    """Runs the rounds."""

    def __init__(
        self, mesh: Mesh, registry: Registry, channels: Channels, clock: Clock, *, seconds: float = 2.0
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._channels = channels
        self._clock = clock
        self._seconds = seconds

    async def run(self) -> None:
        """Probe all others until cancelled; members that come and go are followed."""
        rounds: dict[PeerId, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                others = set(self._mesh.others())
                for peer_id in others - set(rounds):
                    rounds[peer_id] = tasks.create_task(self._follow(peer_id))
                for peer_id in set(rounds) - others:
                    rounds.pop(peer_id).cancel()
                await self._clock.sleep(_LOOK_SECONDS)

    async def _follow(self, peer_id: PeerId) -> None:
        while True:
            await self.probe(peer_id)
            await self._clock.sleep(self._seconds if self._registry.is_online(peer_id) else self._seconds / 2)

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
