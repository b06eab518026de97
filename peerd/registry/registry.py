"""Every peer this one knows: member record, advert and contact put together when asked."""

from __future__ import annotations

from collections.abc import Callable

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.mesh import Mesh
from peerd.registry.adverts import Adverts
from peerd.registry.liveness import Liveness, answered, failed
from peerd.registry.model import PeerStatus, PeerView
from peerd.v1 import registry_pb2
from peerd.v1.registry_pb2 import Advert

_MIN_PREFIX = 6


class Registry:
    """Implements :class:`peerd.rpc.members.Addresses`."""

    def __init__(self, mesh: Mesh, adverts: Adverts, clock: Clock, *, offline_seconds: float = 10.0) -> None:
        self._mesh = mesh
        self._adverts = adverts
        self._clock = clock
        self._offline_ms = round(offline_seconds * 1000)
        self._started = clock.now()
        self._liveness: dict[PeerId, Liveness] = {}
        self._on_online: list[Callable[[PeerId], None]] = []
        self._on_greeting: list[Callable[[PeerId], None]] = []
        adverts.on_change(self._heard_from)

    def on_online(self, callback: Callable[[PeerId], None]) -> None:
        """Call this whenever a peer comes back."""
        self._on_online.append(callback)

    def on_greeting(self, callback: Callable[[PeerId], None]) -> None:
        """Call this whenever a peer that we hold for offline calls us, or a new advert of it comes."""
        self._on_greeting.append(callback)

    def peers(self) -> tuple[PeerView, ...]:
        """All members, revoked ones too, by name."""
        views = [self._view(peer_id) for peer_id in self._mesh.membership.current]
        return tuple(sorted(views, key=lambda view: (view.name, view.peer_id)))

    def get(self, text: str) -> PeerView:
        """The peer of an id, prefix or name. Raises NOT_FOUND or AMBIGUOUS_NAME."""
        return self._view(self.resolve(text))

    def resolve(self, text: str) -> PeerId:
        """The id behind an id, a prefix of at least six characters, or a name.

        Raises NOT_FOUND or AMBIGUOUS_NAME.
        """
        known = self._mesh.membership.current
        if text in known:
            return parse_peer_id(text)
        found = [peer_id for peer_id in known if self._answers_to(peer_id, text)]
        active = [peer_id for peer_id in found if not self._mesh.is_revoked(peer_id)]
        found = active or found
        if len(found) > 1:
            raise PeerdError(Reason.AMBIGUOUS_NAME, f"{text!r} may be any of {', '.join(sorted(found))}")
        if not found:
            raise PeerdError(
                Reason.NOT_FOUND,
                f"there is no peer {text[:80]!r}",
                next_action="see 'peerctl peers list' for who there is",
            )
        return found[0]

    def _answers_to(self, peer_id: PeerId, text: str) -> bool:
        """By name or by prefix. No order between them, or one peer could take the other's place by its name."""
        return self.name_of(peer_id) == text or (len(text) >= _MIN_PREFIX and peer_id.startswith(text))

    def name_of(self, peer_id: str) -> str:
        """What people call it; the first eight characters of its id until it has said so."""
        advert = self._adverts.find(PeerId(peer_id))
        return advert.name if advert is not None else peer_id[:8]

    def is_online(self, peer_id: PeerId) -> bool:
        """Whether it answered lately. This peer itself always is."""
        if peer_id == self._mesh.self_id:
            return True
        state = self._liveness.get(peer_id)
        return state is not None and state.online and self._mesh.grants(peer_id) is not None

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        """By its own advert, else as it was introduced."""
        advert = self._adverts.find(peer_id)
        said = tuple(advert.addresses) if advert is not None else ()
        hints = self._mesh.hints(peer_id)
        return (*said, *(hint for hint in hints if hint not in said)) if said else hints

    # -- What the probes tell

    def greeted(self, peer_id: PeerId) -> None:
        """It has called us. That does not show that we reach it, so it is only a reason to ask at once."""
        if not self._state(peer_id).online:
            for callback in self._on_greeting:
                callback(peer_id)

    def _heard_from(self, peers: frozenset[PeerId]) -> None:
        for peer_id in peers:
            self.greeted(peer_id)

    def heard(self, peer_id: PeerId, running_jobs: int | None = None) -> None:
        """It has answered us."""
        before = self._state(peer_id)
        self._liveness[peer_id] = answered(before, self._clock.now(), running_jobs=running_jobs)
        if not before.online:
            for callback in self._on_online:
                callback(peer_id)

    def missed(self, peer_id: PeerId, reason: str) -> None:
        """It did not answer a probe."""
        self._liveness[peer_id] = failed(self._state(peer_id), self._clock.now(), reason, offline_ms=self._offline_ms)

    def _state(self, peer_id: PeerId) -> Liveness:
        return self._liveness.get(peer_id) or Liveness(since=self._started)

    def _view(self, peer_id: PeerId) -> PeerView:
        record = self._mesh.get(peer_id)
        advert = self._adverts.find(peer_id) or Advert()
        state = self._state(peer_id)
        is_self = peer_id == self._mesh.self_id
        if record.revoked:
            status, since, why = PeerStatus.REVOKED, record.issued_at, record.reason or "was revoked"
        elif is_self:
            status, since, why = PeerStatus.ONLINE, self._started, "is this peer"
        else:
            status = PeerStatus.ONLINE if state.online else PeerStatus.OFFLINE
            since, why = state.since, state.why
        return PeerView(
            peer_id=peer_id,
            name=self.name_of(peer_id),
            status=status,
            since=since,
            why=why,
            roles=record.roles,
            grants=record.grants,
            labels=frozenset(advert.labels),
            groups=frozenset(advert.groups),
            location=advert.location,
            addresses=self.addresses(peer_id),
            hostname=advert.hostname,
            isolation=advert.isolation,
            sample=registry_pb2.Sample(running_jobs=state.running_jobs),
            catalog_digest=advert.catalog_digest,
            is_self=is_self,
            is_founder=peer_id == self._mesh.mesh_id,
            platform=advert.platform,
            peerd_version=advert.peerd_version,
            hardware=advert.hardware,
            last_seen=self._clock.now() if is_self else state.last_seen,
        )
