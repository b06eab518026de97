"""Every peer this one knows: member record, advert, notes and contact put together when asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from peerd.clock import Clock
from peerd.detector.contact import Contact
from peerd.detector.model import Transition
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import Record
from peerd.registry.adverts import Adverts
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.notes import Notes
from peerd.registry.status import status_of, warnings_of
from peerd.v1.registry_pb2 import Advert, Sample

_MIN_PREFIX = 6


class Detection(Protocol):
    """What the registry asks of the failure detector."""

    @property
    def local_health(self) -> int:
        """Of this machine; 0 is well."""
        ...

    def contact(self, peer_id: PeerId) -> Contact:
        """Where we stand with a peer."""
        ...


class Registry:
    """Implements :class:`peerd.rpc.members.Addresses`."""

    def __init__(self, mesh: Mesh, adverts: Adverts, notes: Notes, clock: Clock) -> None:
        self._mesh = mesh
        self._adverts = adverts
        self._notes = notes
        self._clock = clock
        self._started = clock.now()
        self._detection: Detection | None = None
        self._own_sample: Callable[[], Sample] = Sample
        self._externals: Callable[[], Sequence[PeerView]] = tuple
        self._on_online: list[Callable[[PeerId], None]] = []

    def attach(self, detection: Detection, *, own_sample: Callable[[], Sample]) -> None:
        """The detector needs the channels, and the channels the addresses from here; so it comes later."""
        self._detection = detection
        self._own_sample = own_sample

    def list_externals(self, externals: Callable[[], Sequence[PeerView]]) -> None:
        """List these machines too, which run no peerd."""
        self._externals = externals

    def on_online(self, callback: Callable[[PeerId], None]) -> None:
        """Call this whenever a peer comes, or comes back."""
        self._on_online.append(callback)

    def changed(self, change: Transition) -> None:
        """The detector sees a peer otherwise than before."""
        if change.after.present and not change.before.present:
            for callback in self._on_online:
                callback(change.peer_id)

    # -- Who there is

    def peers(self) -> tuple[PeerView, ...]:
        """All members, revoked and forgotten ones too, and external machines; by name."""
        current = self._mesh.membership.current
        named: defaultdict[str, list[PeerId]] = defaultdict(list)
        for peer_id, record in current.items():
            if not record.revoked:
                named[self.name_of(peer_id)].append(peer_id)
        first = {subject: chains[0][0] for subject, chains in self._mesh.membership.by_subject().items()}
        views = [self._view(peer_id, named=named, first=first) for peer_id in current]
        return tuple(sorted([*views, *self._externals()], key=lambda view: (view.name, view.peer_id)))

    def get(self, text: str) -> PeerView:
        """The peer of an id, prefix or name, external ones included. Raises NOT_FOUND or AMBIGUOUS_NAME."""
        peer_id = self._resolve(text, {view.peer_id: view.name for view in self._externals()})
        return next(view for view in self.peers() if view.peer_id == peer_id)

    def resolve(self, text: str) -> PeerId:
        """The id of a member behind an id, a prefix of at least six characters, or a name.

        Raises NOT_FOUND or AMBIGUOUS_NAME.
        """
        return self._resolve(text, {})

    def _resolve(self, text: str, externals: Mapping[PeerId, str]) -> PeerId:
        known = self._mesh.membership.current
        if text in known:
            return parse_peer_id(text)
        names = {**{peer_id: self.name_of(peer_id) for peer_id in known}, **externals}
        # By name or by prefix. No order between them, or one peer could take the other's place by its name.
        found = [
            peer_id
            for peer_id, name in names.items()
            if name == text or peer_id == text or (len(text) >= _MIN_PREFIX and peer_id.startswith(text))
        ]
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

    def name_of(self, peer_id: str) -> str:
        """What people call it; the first eight characters of its id until somebody has said so."""
        called = self._notes.name(PeerId(peer_id))
        if called:
            return called
        advert = self._adverts.find(PeerId(peer_id))
        return advert.name if advert is not None else peer_id[:8]

    def is_online(self, peer_id: PeerId) -> bool:
        """Whether it is taken to be there. This peer itself always is."""
        if peer_id == self._mesh.self_id:
            return True
        return self._contact(peer_id).state.present and self._mesh.grants(peer_id) is not None

    def status(self, peer_id: PeerId) -> PeerStatus:
        """The status of a member."""
        return status_of(
            self._mesh.get(peer_id),
            self._contact(peer_id),
            self._notes.maintenance(peer_id),
            is_self=peer_id == self._mesh.self_id,
            name_of=self.name_of,
        ).status

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        """By its own advert, else as it was introduced."""
        advert = self._adverts.find(peer_id)
        said = tuple(advert.addresses) if advert is not None else ()
        hints = self._mesh.hints(peer_id)
        return (*said, *(hint for hint in hints if hint not in said)) if said else hints

    # -- Inside

    def _contact(self, peer_id: PeerId) -> Contact:
        if self._detection is None:
            return Contact(since=self._started)
        return self._detection.contact(peer_id)

    def _view(
        self, peer_id: PeerId, *, named: Mapping[str, Iterable[PeerId]], first: Mapping[PeerId, Record]
    ) -> PeerView:
        record = self._mesh.get(peer_id)
        advert = self._adverts.find(peer_id) or Advert()
        contact = self._contact(peer_id)
        is_self = peer_id == self._mesh.self_id
        maintenance = self._notes.maintenance(peer_id)
        name = self.name_of(peer_id)
        joined_at = first[peer_id].issued_at if peer_id in first else None
        shown = status_of(record, contact, maintenance, is_self=is_self, name_of=self.name_of, joined_at=joined_at)
        sample = self._own_sample() if is_self else (contact.sample or Sample())
        health = sample.local_health
        if is_self and self._detection is not None:
            health = self._detection.local_health
        namesakes = [] if record.revoked else [other for other in named.get(name, ()) if other != peer_id]
        return PeerView(
            peer_id=peer_id,
            name=name,
            status=shown.status,
            since=shown.since,
            why=shown.why,
            roles=record.roles,
            grants=record.grants,
            labels=frozenset(advert.labels),
            groups=frozenset(advert.groups),
            location=advert.location,
            addresses=self.addresses(peer_id),
            hostname=advert.hostname,
            isolation=advert.isolation,
            limits=advert.limits,
            catalog_digest=advert.catalog_digest,
            is_self=is_self,
            is_founder=peer_id == self._mesh.mesh_id,
            platform=advert.platform,
            peerd_version=advert.peerd_version,
            hardware=advert.hardware,
            sample=sample,
            sample_at=self._clock.now() if is_self else contact.sample_at,
            last_seen=self._clock.now() if is_self else contact.last_seen,
            latency_ms=contact.latency_ms,
            clock_offset_ms=contact.clock_offset_ms,
            maintenance=None if record.revoked else maintenance,
            warnings=warnings_of(name, contact, local_health=health, namesakes=namesakes),
            forgotten=self._notes.forgotten(peer_id) and shown.status in _GONE,
            joined_at=joined_at,
            profile_version=advert.profile_version,
        )


_GONE = (PeerStatus.REVOKED, PeerStatus.LEFT, PeerStatus.OFFLINE)
