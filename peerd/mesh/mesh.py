"""The mesh as this peer knows it: an immutable snapshot that anyone may read, and transactions that change it.

Reads never wait and may come from any thread (TLS asks for the anchors from its own). The store is the truth: every
change loads the records inside its transaction, decides purely, stores, and replaces the snapshot once it is durable.
The membership changes a few times a day and is small, so reading it anew each time costs nothing that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh import repository
from peerd.mesh.admission import admission, check_admin, founding, revocation
from peerd.mesh.invites import (
    Invite,
    Token,
    check_invite_grants,
    check_ttl,
    check_use,
    format_token,
    invite_id_of,
    invite_seed,
)
from peerd.mesh.membership import Membership, Merge, membership_of, merge
from peerd.mesh.model import Record, format_grants
from peerd.mesh.records import Draft, sign_record
from peerd.store import Store, Tx
from peerd.v1 import mesh_pb2

_log = structlog.get_logger(__name__)

_NEVER = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that reads need."""

    membership: Membership
    invites: Mapping[PeerId, Invite] = field(default_factory=dict)
    hints: Mapping[PeerId, tuple[str, ...]] = field(default_factory=dict)
    anchors: frozenset[PeerId] = frozenset()
    anchors_until: int = _NEVER
    """When the first invite key must leave the anchors."""


class Mesh:
    """Members, invites and what they may do. Implements :class:`peerd.rpc.caller.Members`."""

    def __init__(self, store: Store, identity: Identity, clock: Clock, snapshot: Snapshot) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._snapshot = snapshot
        self._on_change: list[Callable[[frozenset[PeerId]], None]] = []
        self._on_loss: list[Callable[[PeerId], None]] = []

    @classmethod
    async def load(cls, store: Store, identity: Identity, clock: Clock) -> Mesh:
        """The mesh that the store knows. Raises NOT_INITIALIZED."""

        def read(tx: Tx) -> Snapshot:
            mesh_id = repository.find_mesh_id(tx)
            if mesh_id is None:
                raise PeerdError(Reason.NOT_INITIALIZED, "this peer belongs to no mesh yet")
            return _snapshot(tx, repository.load_membership(tx, mesh_id, verify=True))

        return cls(store, identity, clock, await store.write(read))

    @classmethod
    async def found(
        cls, store: Store, identity: Identity, clock: Clock, *, roles: frozenset[str] = frozenset()
    ) -> Mesh:
        """Begin a mesh of one. Raises ALREADY_INITIALIZED."""

        def write(tx: Tx) -> None:
            if repository.find_mesh_id(tx) is not None:
                raise PeerdError(Reason.ALREADY_INITIALIZED, "this peer belongs to a mesh already")
            mesh_id = identity.peer_id
            repository.set_mesh_id(tx, mesh_id)
            record = sign_record(
                identity,
                founding(mesh_id, roles),
                mesh_id=mesh_id,
                previous=None,
                sequence=repository.next_sequence(tx),
                now=tx.now,
            )
            before = Membership(mesh_id=mesh_id)
            repository.save_membership(tx, before, _with(before, record))

        await store.write(write)
        return await cls.load(store, identity, clock)

    # -- Reads, from any thread

    @property
    def mesh_id(self) -> PeerId:
        """The founder's peer id."""
        return self._snapshot.membership.mesh_id

    @property
    def self_id(self) -> PeerId:
        """This peer."""
        return self._identity.peer_id

    @property
    def membership(self) -> Membership:
        """All records, judged."""
        return self._snapshot.membership

    def anchors(self) -> frozenset[PeerId]:
        """Whose keys may connect: active members, and the invites that may still be used or explained."""
        snapshot = self._snapshot
        now = self._clock.now()
        if now < snapshot.anchors_until:
            return snapshot.anchors
        return snapshot.anchors - {key for key, invite in snapshot.invites.items() if invite.connects_until <= now}

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        """What a member may do; None for whoever is not an active member."""
        record = self._snapshot.membership.active(peer_id)
        return record.grants if record is not None else None

    def is_invite(self, peer_id: PeerId) -> bool:
        """Whether this is an invite's key, which may call Join and nothing else."""
        invite = self._snapshot.invites.get(peer_id)
        return invite is not None and self._clock.now() < invite.connects_until

    def is_revoked(self, peer_id: PeerId) -> bool:
        """Whether that key is out for good."""
        record = self._snapshot.membership.current.get(peer_id)
        return record is not None and record.revoked

    def roles(self, peer_id: PeerId) -> frozenset[str]:
        """The roles of a member; none for others."""
        record = self._snapshot.membership.active(peer_id)
        return record.roles if record is not None else frozenset()

    def members(self) -> tuple[PeerId, ...]:
        """The active members, this peer included."""
        return tuple(sorted(entry for entry, record in self.membership.current.items() if not record.revoked))

    def others(self) -> tuple[PeerId, ...]:
        """The active members but this peer."""
        return tuple(entry for entry in self.members() if entry != self.self_id)

    def get(self, peer_id: PeerId) -> Record:
        """The record that counts for a subject. Raises NOT_FOUND."""
        record = self.membership.current.get(peer_id)
        if record is None:
            raise PeerdError(Reason.NOT_FOUND, f"{peer_id} is not a member of this mesh")
        return record

    def hints(self, peer_id: PeerId) -> tuple[str, ...]:
        """Where a peer was said to be when it was admitted or when we joined."""
        return self._snapshot.hints.get(peer_id, ())

    def token(self, invite: Invite, addresses: Sequence[str]) -> str:
        """The word that lets a machine join with this invite."""
        seed = invite_seed(self._identity, invite.nonce)
        return format_token(Token(mesh_id=self.mesh_id, inviter=self.self_id, addresses=tuple(addresses), seed=seed))

    # -- Who wants to know

    def on_change(self, callback: Callable[[frozenset[PeerId]], None]) -> None:
        """Call this on the event loop with the subjects whose records changed, once that is durable."""
        self._on_change.append(callback)

    def on_loss(self, callback: Callable[[PeerId], None]) -> None:
        """Call this on the event loop for a peer that lost its membership or a grant: its open calls must end."""
        self._on_loss.append(callback)

    # -- Changes, inside a transaction

    def admit(
        self,
        tx: Tx,
        *,
        actor: PeerId,
        subject: PeerId,
        grants: frozenset[int],
        roles: frozenset[str],
        addresses: Sequence[str] = (),
        reason: str = "",
    ) -> Record:
        """Make a peer a member or change its grants and roles. Raises PERMISSION_DENIED or REVOKED."""
        membership = self._load(tx)
        draft = admission(
            membership,
            acting=(actor, self.self_id),
            subject=subject,
            grants=grants,
            roles=roles,
            reason=reason or f"admitted by {actor[:8]}",
        )
        repository.set_hints(tx, subject, addresses)
        return self._sign(tx, membership, draft) if draft else self._unchanged(tx, membership, subject)

    def revoke(
        self, tx: Tx, *, actor: PeerId, subject: PeerId, reason: str, last_standing: int | None = None
    ) -> Record:
        """End a membership for good. Raises PERMISSION_DENIED or NOT_FOUND."""
        membership = self._load(tx)
        draft = revocation(
            membership,
            acting=(actor, self.self_id),
            subject=subject,
            reason=reason or f"revoked by {actor[:8]}",
            last_standing=last_standing,
        )
        return self._sign(tx, membership, draft) if draft else self._unchanged(tx, membership, subject)

    def replace(self, tx: Tx, *, actor: PeerId, old: PeerId, new: PeerId) -> tuple[Record, Record]:
        """Give a new key what an old one had, and revoke the old one: both or nothing.

        Raises NOT_FOUND, REVOKED, INVALID_ARGUMENT or PERMISSION_DENIED.
        """
        record = self._load(tx).active(old)
        if record is None:
            raise PeerdError(Reason.NOT_FOUND, f"{old} is not an active member of this mesh")
        if old == new:
            raise PeerdError(Reason.INVALID_ARGUMENT, "a peer cannot take its own place")
        reason = f"takes the place of {old[:8]}"
        admitted = self.admit(tx, actor=actor, subject=new, grants=record.grants, roles=record.roles, reason=reason)
        return admitted, self.revoke(tx, actor=actor, subject=old, reason=f"{new[:8]} has taken its place")

    def create_invite(
        self, tx: Tx, *, actor: PeerId, grants: frozenset[int], roles: frozenset[str], ttl_seconds: int, nonce: bytes
    ) -> Invite:
        """Store a new invite. Raises PERMISSION_DENIED or INVALID_ARGUMENT."""
        membership = self._load(tx)
        for peer_id in (actor, self.self_id):
            check_invite_grants(grants, held=check_admin(membership, peer_id))
        invite = Invite(
            number=0,
            invite_id=invite_id_of(invite_seed(self._identity, nonce)),
            nonce=nonce,
            roles=roles,
            grants=grants,
            created_by=actor,
            created_at=tx.now,
            expires_at=Millis(tx.now + check_ttl(ttl_seconds) * 1000),
        )
        repository.insert_invite(tx, invite)
        self._publish(tx, membership)
        return invite

    def revoke_invite(self, tx: Tx, *, invite_id: str) -> Invite:
        """Withdraw an invite; one that was used or has ended stays what it is. Raises NOT_FOUND."""
        invite = repository.find_invite(tx, invite_id)
        if invite is None:
            raise PeerdError(Reason.NOT_FOUND, f"there is no invite {invite_id!r} on this peer")
        if invite.joiner is None:
            repository.mark_revoked(tx, invite)
        self._publish(tx, self._load(tx))
        withdrawn = repository.find_invite(tx, invite_id)
        assert withdrawn is not None  # noqa: S101 - it was there a statement ago
        return withdrawn

    def use_invite(self, tx: Tx, *, invite_key: PeerId, joiner: PeerId) -> Record:
        """Use up an invite and store the joiner's record, together or not at all.

        The same joiner gets the same record again. Raises an INVITE_ reason, REVOKED or ALREADY_A_MEMBER.
        """
        membership = self._load(tx)
        invite = repository.find_invite(tx, invite_key)
        first = check_use(invite, joiner, tx.now)
        assert invite is not None  # noqa: S101 - check_use refuses None
        current = membership.current.get(joiner)
        if current is not None and current.revoked:
            raise PeerdError(Reason.REVOKED, f"{joiner} was revoked: {current.reason or 'no reason was given'}")
        if not first and current is not None:
            return current
        if current is not None:
            raise PeerdError(
                Reason.ALREADY_A_MEMBER,
                f"{joiner} is a member of this mesh already",
                next_action="start it with 'peerd run', or change its grants with 'peerctl peers admit'",
            )
        draft = admission(
            membership,
            acting=(self.self_id,),
            subject=joiner,
            grants=invite.grants,
            roles=invite.roles,
            reason=f"invited by {invite.created_by[:8]}",
        )
        assert draft is not None  # noqa: S101 - whoever has no record gets one
        repository.mark_used(tx, invite, joiner)
        return self._sign(tx, membership, draft)

    async def apply(self, chains: Iterable[mesh_pb2.DocumentChain], *, source: str) -> Merge:
        """Merge what another peer holds. What does not stand is logged and changes nothing."""
        offered = [(chain.key, tuple(chain.envelopes)) for chain in chains]
        outcome = merge(self.membership, offered)
        if outcome.changed:

            def write(tx: Tx) -> Merge:
                before = self._load(tx)
                merged = merge(before, offered)
                repository.save_membership(tx, before, merged.membership)
                self._publish(tx, merged.membership)
                failpoint("mesh.merge.before_commit")
                return merged

            outcome = await self._store.write(write)
            failpoint("mesh.merge.after_commit")
        for subject, error in outcome.refused:
            _log.info("mesh.record_refused", source=source, subject=subject[:60], message=error.message)
        return outcome

    # -- Inside

    def _load(self, tx: Tx) -> Membership:
        return repository.load_membership(tx, self.mesh_id)

    def _sign(self, tx: Tx, membership: Membership, draft: Draft) -> Record:
        record = sign_record(
            self._identity,
            draft,
            mesh_id=membership.mesh_id,
            previous=membership.current.get(draft.subject),
            sequence=repository.next_sequence(tx),
            now=tx.now,
        )
        after = _with(membership, record)
        repository.save_membership(tx, membership, after)
        self._publish(tx, after)
        failpoint("mesh.sign.before_commit")
        return record

    def _unchanged(self, tx: Tx, membership: Membership, subject: PeerId) -> Record:
        self._publish(tx, membership)
        return membership.current[subject]

    def _publish(self, tx: Tx, membership: Membership) -> None:
        snapshot = _snapshot(tx, membership)
        tx.on_commit(lambda: self._install(snapshot))

    def _install(self, snapshot: Snapshot) -> None:
        before, after = self._snapshot.membership, snapshot.membership
        self._snapshot = snapshot
        changed = frozenset(
            record.subject
            for entry, record in {**before.records, **after.records}.items()
            if (entry in before.records) != (entry in after.records)
        )
        for peer_id in changed:
            had, has = before.active(peer_id), after.active(peer_id)
            if had is not None and (has is None or had.grants - has.grants):
                _log.warning(
                    "mesh.rights_lost",
                    peer=peer_id,
                    left=format_grants(has.grants) if has else "nothing",
                    reason=after.current[peer_id].reason if peer_id in after.current else "its record fell",
                )
                if peer_id == self.self_id:
                    continue  # what this machine's operator does here is not for others to end
                for on_loss in self._on_loss:
                    on_loss(peer_id)
        if changed:
            for on_change in self._on_change:
                on_change(changed)


def _with(membership: Membership, record: Record) -> Membership:
    """The membership with a record we signed. Raises PERMISSION_DENIED when that would not stand."""
    after = membership_of(membership.mesh_id, (*membership.records.values(), record))
    if after.current.get(record.subject) != record:
        raise PeerdError(
            Reason.PERMISSION_DENIED, f"a record of {record.subject[:8]} signed by {record.signer[:8]} would not stand"
        )
    return after


def _snapshot(tx: Tx, membership: Membership) -> Snapshot:
    invites = {invite.invite_id: invite for invite in repository.load_invites(tx) if invite.connects_until > tx.now}
    active = {entry for entry, record in membership.current.items() if not record.revoked}
    return Snapshot(
        membership=membership,
        invites=invites,
        hints=repository.load_hints(tx),
        anchors=frozenset(active | invites.keys()),
        anchors_until=min((invite.connects_until for invite in invites.values()), default=_NEVER),
    )
