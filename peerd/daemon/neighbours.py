"""What this peer knows of the others, and how it keeps up: records, documents, probes, put together and passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from peerd import metrics
from peerd.catalog.search import OnlinePeer
from peerd.clock import Clock
from peerd.config import Config
from peerd.daemon.following import timing_of
from peerd.daemon.measuring import probe_ended
from peerd.detector.contact import Measurement
from peerd.detector.prober import Prober
from peerd.detector.repository import next_incarnation
from peerd.devices.cards import Cards
from peerd.errors import PeerdError
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.gossip import Gossip
from peerd.mesh.mesh import Mesh
from peerd.profiles.profile import Followed, ProfileKind
from peerd.profiles.servicer import profile_message
from peerd.registry.adverts import Adverts
from peerd.registry.heartbeats import Heartbeats
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.rpc.channels import Channels
from peerd.store import Store
from peerd.v1.profiles_pb2 import Profile
from peerd.v1.registry_pb2 import Sample

_log = structlog.get_logger(__name__)


class Neighbours:
    """The others, and the connections to them."""

    def __init__(self, config: Config, clock: Clock, identity: Identity, store: Store, mesh: Mesh) -> None:
        self.mesh = mesh
        self.adverts = Adverts(store, mesh, identity)
        self.notes = Notes(store, mesh, identity)
        self.profiles: DocumentTopic[Profile] = DocumentTopic(ProfileKind(), store, mesh, identity)
        self.externals = Externals(store, mesh, identity, clock, offline_seconds=config.http.external_offline_seconds)
        self.cards = Cards(store, mesh, identity, clock)
        self.registry = Registry(mesh, self.adverts, self.notes, clock)
        self.channels = Channels(identity, self.registry, clock, socket=config.socket)
        self.gossip = Gossip(mesh, self.channels, clock, seconds=config.mesh.exchange_seconds)
        self.heartbeats = Heartbeats(
            store, clock, days=config.mesh.history_days, detail_hours=config.mesh.history_detail_hours
        )
        self._config = config
        self._clock = clock
        self._identity = identity
        self._store = store
        self._background: set[asyncio.Task[Any]] = set()
        self.gossip.register(self.adverts)
        for topic in (self.notes.topic, self.profiles, self.externals.topic, self.cards.topic):
            self._spread(topic)

    def _spread(self, topic: DocumentTopic[Any]) -> None:
        """Our own word goes to everybody at once; what we were told, gossip passes on."""

        def changed(key: str) -> None:
            found = topic.find(key)
            if found is not None and found.signer == self._identity.peer_id:
                self.gossip.push(topic.name, [key])

        self.gossip.register(topic)
        topic.on_change(changed)

    async def load(self, *, own_sample: Callable[[], Sample]) -> None:
        """Read what the store knows; from here on what changes is followed."""
        await self.adverts.load()
        await self.notes.topic.load()
        await self.profiles.load()
        await self.externals.load()
        await self.cards.topic.load()
        self.prober = Prober(
            self.mesh,
            self._identity,
            self.channels,
            self._clock,
            incarnation=await next_incarnation(self._store),
            timing=timing_of(self._config, Followed()),
            own_sample=own_sample,
        )
        self.registry.attach(self.prober, own_sample=own_sample)
        self.registry.list_externals(
            lambda: self.externals.views(is_present=self.registry.is_online, name_of=self.registry.name_of)
        )
        self.prober.on_change(self.registry.changed)
        self.prober.on_measurement(self._measured)
        self.prober.on_measurement(probe_ended)
        self.adverts.on_change(self._adverts_changed)
        self.registry.on_online(lambda peer_id: self.later(self._greet(peer_id)))
        self.mesh.on_change(self._membership_changed)

    def profile_of(self, role: str) -> Profile | None:
        """The profile that counts for a role."""
        found = self.profiles.find(role)
        return profile_message(found) if found is not None and not found.value.deleted else None

    def online_peers(self) -> list[OnlinePeer]:
        """Whom a search asks: this peer's own services are searched without a call."""
        return [
            OnlinePeer(peer_id=peer.peer_id, name=peer.name)
            for peer in self.registry.peers()
            if peer.status.present and not peer.is_self and not peer.external
        ]

    async def adopt_fallen(self) -> None:
        """Say again what peers said whose word we took away: whatever kept us from it when that was."""
        topics: tuple[DocumentTopic[Any], ...] = (self.notes.topic, self.profiles)
        for topic in topics:
            for signer in topic.fallen():
                record = self.mesh.membership.current.get(signer)
                if record is not None and record.signer == self._identity.peer_id:
                    await topic.adopt(signer)

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it in the background, and end it with the daemon."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for it who could be told."""
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PeerdError):
            _log.warning("daemon.later_failed", reason=error.reason.text, message=error.message)
        elif error is not None:
            _log.error("daemon.later_crashed", exc_info=error)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._background:
            task.cancel()
        await self.channels.close()

    def _measured(self, measurement: Measurement) -> None:
        self.heartbeats.add(measurement, self.registry.status(measurement.peer_id))

    def _adverts_changed(self, peers: frozenset[PeerId]) -> None:
        """Ours: because something changed here, or because others held a later one from before a restore."""
        if self._identity.peer_id in peers:
            self.gossip.push("advert", [self._identity.peer_id])
        for peer_id in peers:
            self.prober.hurry(peer_id)

    def _membership_changed(self, peers: frozenset[PeerId]) -> None:
        for peer_id in peers:
            record = self.mesh.membership.current.get(peer_id)
            if record is not None and record.version == 1:
                metrics.registrations.labels("member").inc()
        # What a peer said whose word we took away is said again by us, where it still counts.
        self.later(self.adopt_fallen())

    async def _greet(self, peer_id: PeerId) -> None:
        """Compare documents at once with a peer that is back: one of us may have missed much."""
        try:
            await self.gossip.exchange_with(peer_id)
        except PeerdError as error:
            _log.debug("daemon.greeting_failed", peer=peer_id, reason=error.reason.text)
