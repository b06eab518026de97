"""Peers inside the test's process: real stores, real TLS, real gRPC on loopback, put together as the daemon does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Millis, SystemClock
from peerd.detector.model import Timing
from peerd.detector.prober import Prober
from peerd.detector.repository import next_incarnation
from peerd.detector.servicer import DetectorServicer
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh.gossip import Gossip
from peerd.mesh.invites import parse_token
from peerd.mesh.joining import join_with_token
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import parse_grants
from peerd.mesh.servicer import MeshServicer
from peerd.registry.adverts import Adverts
from peerd.registry.heartbeats import Heartbeats
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.registry.servicer import RegistryServicer
from peerd.rpc.channels import Channels
from peerd.rpc.server import RpcServer
from peerd.rpc.status import remote_errors
from peerd.store import Store, open_store
from peerd.v1 import access_pb2, detector_pb2_grpc, mesh_pb2, mesh_pb2_grpc, registry_pb2, registry_pb2_grpc
from tests.loopback import OWN

NEVER = 3600.0
"""For a rhythm that a test does without."""


class ShiftedClock(SystemClock):
    """The machine's clock, set wrong by so many seconds. TLS itself looks at the true one."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_by = 0.0

    def now(self) -> Millis:
        return Millis(super().now() + round(self.wrong_by * 1000))


@dataclass(kw_only=True)
class Machine:
    """What a peer is before its daemon runs."""

    folder: Path
    identity: Identity
    store: Store
    clock: ShiftedClock

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    async def join(self, token: str) -> None:
        """``peerd join TOKEN``."""
        await join_with_token(self.store, self.identity, self.clock, parse_token(token))

    async def mesh(self) -> Mesh:
        """What its store knows. Raises NOT_INITIALIZED."""
        return await Mesh.load(self.store, self.identity, self.clock)


class Node:
    """A machine whose daemon runs."""

    def __init__(
        self, machine: Machine, mesh: Mesh, *, exchange_seconds: float, probe_seconds: float, incarnation: int
    ) -> None:
        identity, store, clock = machine.identity, machine.store, machine.clock
        self.machine = machine
        self.clock = clock
        self.peer_id = identity.peer_id
        self.name = machine.folder.name
        self.mesh = mesh
        self.adverts = Adverts(store, mesh, identity)
        self.notes = Notes(store, mesh, identity)
        self.registry = Registry(mesh, self.adverts, self.notes, clock)
        self.channels = Channels(identity, self.registry, clock, socket=machine.folder / "run" / "s")
        self.gossip = Gossip(mesh, self.channels, clock, seconds=exchange_seconds)
        self.gossip.register(self.adverts)
        self.gossip.register(self.notes.topic)
        self.prober = Prober(
            mesh,
            identity,
            self.channels,
            clock,
            incarnation=incarnation,
            timing=Timing(period=probe_seconds, timeout=probe_seconds / 2),
            own_sample=lambda: registry_pb2.Sample(running_jobs=self.running_jobs),
        )
        self.registry.attach(self.prober, own_sample=registry_pb2.Sample)
        self.prober.on_change(self.registry.changed)
        self.heartbeats = Heartbeats(store, clock, days=1, detail_hours=1)
        self.prober.on_measurement(
            lambda measured: self.heartbeats.add(measured, self.registry.status(measured.peer_id))
        )
        self.server = RpcServer(identity, mesh, self.channels, clock, resolve=self.registry.resolve)
        self.running_jobs = 0
        mesh.on_loss(self._end_calls)
        self.adverts.on_change(lambda peers: self.gossip.push("advert", peers & {self.peer_id}))
        meshes = MeshServicer(
            store, mesh, self.gossip, clock, resolve=self.registry.resolve, own_addresses=lambda: (self.address,)
        )
        registries = RegistryServicer(
            store, self.registry, self.notes, self.heartbeats, forget_external=lambda tx, view: None
        )
        detectors = DetectorServicer(self.prober)
        self.server.register(
            [
                (
                    "peerd.v1.MeshService",
                    lambda server: mesh_pb2_grpc.add_MeshServiceServicer_to_server(meshes, server),
                ),
                (
                    "peerd.v1.DetectorService",
                    lambda server: detector_pb2_grpc.add_DetectorServiceServicer_to_server(detectors, server),
                ),
                (
                    "peerd.v1.RegistryService",
                    lambda server: registry_pb2_grpc.add_RegistryServiceServicer_to_server(registries, server),
                ),
            ]
        )
        self.port = 0

    def _end_calls(self, peer_id: PeerId) -> None:
        self.server.calls.end_calls(peer_id, PeerdError(Reason.REVOKED, f"{peer_id} was revoked"))

    @property
    def address(self) -> str:
        return f"{OWN}:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve, publish, gossip and probe until left."""
        await self.adverts.load()
        await self.notes.topic.load()
        self.port = await self.server.start(listen=self.address, socket=self.machine.folder / "run" / "s")
        await self.adverts.publish(registry_pb2.Advert(name=self.name, addresses=[self.address]))
        tasks = [asyncio.ensure_future(self.gossip.run()), asyncio.ensure_future(self.prober.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.channels.close()
            await self.server.stop(0)

    # -- What its operator or another peer asks

    def calls(self, of: PeerId | None = None) -> mesh_pb2_grpc.MeshServiceAsyncStub:
        """The mesh service of a peer, called as this one; its own over the unix socket."""
        return mesh_pb2_grpc.MeshServiceStub(self.channels.channel(of or self.peer_id))

    async def invite(self, grants: str = "observe,execute", *, roles: Sequence[str] = (), ttl_seconds: int = 0) -> str:
        """``peerctl invite``."""
        request = mesh_pb2.CreateInviteRequest(grants=grant_list(grants), roles=roles, ttl_seconds=ttl_seconds)
        with remote_errors(self.peer_id):
            return (await self.calls().CreateInvite(request, timeout=30)).token

    async def admit(
        self, subject: PeerId, grants: str = "observe,execute", *, of: PeerId | None = None, address: str = ""
    ) -> mesh_pb2.MemberRecord:
        """``peerctl peers admit``."""
        request = mesh_pb2.AdmitPeerRequest(
            peer_id=subject, grants=grant_list(grants), addresses=[address] if address else []
        )
        with remote_errors(of or self.peer_id):
            return (await self.calls(of).AdmitPeer(request, timeout=30)).record

    async def revoke(self, subject: str, *, of: PeerId | None = None) -> mesh_pb2.MemberRecord:
        """``peerctl peers revoke``."""
        with remote_errors(of or self.peer_id):
            return (await self.calls(of).RevokePeer(mesh_pb2.RevokePeerRequest(peer=subject), timeout=30)).record

    async def knows(self, condition: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until something that this peer is told makes it true."""
        told = asyncio.Event()
        self.mesh.on_change(lambda _: told.set())
        self.adverts.on_change(lambda _: told.set())
        self.registry.on_online(lambda _: told.set())
        async with asyncio.timeout(seconds):
            while not condition():
                await told.wait()
                told.clear()


def grant_list(text: str) -> list[access_pb2.Grant.ValueType]:
    return [access_pb2.Grant.ValueType(grant) for grant in sorted(parse_grants(text))]


class Fleet:
    """Makes machines and runs nodes, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[tuple[Node, asyncio.Event, asyncio.Task[None]]] = []
        self._machines: list[Machine] = []

    async def machine(self, name: str) -> Machine:
        """A machine that belongs to no mesh yet."""
        folder = self._folder / name
        folder.mkdir()
        clock = ShiftedClock()
        made = Machine(
            folder=folder,
            identity=Identity.generate(),
            store=await open_store(folder / "peerd.db", clock),
            clock=clock,
        )
        self._machines.append(made)
        return made

    async def run(
        self, machine: Machine, *, exchange_seconds: float = NEVER, probe_seconds: float = 1.0, port: int = 0
    ) -> Node:
        """``peerd run``."""
        node = Node(
            machine,
            await machine.mesh(),
            exchange_seconds=exchange_seconds,
            probe_seconds=probe_seconds,
            incarnation=await next_incarnation(machine.store),
        )
        node.port = port
        started, ended = asyncio.Event(), asyncio.Event()

        async def live() -> None:
            async with node.running():
                started.set()
                await ended.wait()

        task = asyncio.ensure_future(live())
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            task.result()
        self._nodes.append((node, ended, task))
        return node

    async def found(self, name: str = "founder") -> Node:
        """``peerd init`` and ``peerd run``."""
        machine = await self.machine(name)
        await Mesh.found(machine.store, machine.identity, machine.clock)
        return await self.run(machine)

    async def join(self, name: str, inviter: Node, grants: str = "observe,execute") -> Node:
        """``peerctl invite``, ``peerd join``, ``peerd run``."""
        machine = await self.machine(name)
        await machine.join(await inviter.invite(grants))
        node = await self.run(machine)
        # From here on the inviter can push to it.
        await inviter.knows(lambda: inviter.registry.addresses(node.peer_id) == (node.address,))
        return node

    async def stop(self, node: Node) -> None:
        """End a daemon; its machine may run again."""
        for entry in list(self._nodes):
            if entry[0] is node:
                self._nodes.remove(entry)
                entry[1].set()
                await entry[2]

    async def close(self) -> None:
        for node, _, _ in list(self._nodes):
            await self.stop(node)
        for machine in self._machines:
            await machine.store.close()
