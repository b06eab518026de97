"""Makes member records for tests: keys, chains, and a view of the mesh that one of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peerd.clock import Millis
from peerd.errors import PeerdError
from peerd.identity.key import Identity, identity_from_seed
from peerd.identity.peer_id import PeerId
from peerd.mesh.membership import Membership, Merge, membership_of, merge
from peerd.mesh.model import ADMIN, ALL_GRANTS, EXECUTE, OBSERVE, MemberState, Record
from peerd.mesh.records import Draft, sign_record
from peerd.v1.signed_pb2 import Envelope

WORKER = frozenset({OBSERVE, EXECUTE})
ADMINS = frozenset({OBSERVE, EXECUTE, ADMIN})

Chain = tuple[str, tuple[Envelope, ...]]


def key(number: int) -> Identity:
    """The same key for the same number, so that a failing example can be read again."""
    return identity_from_seed(number.to_bytes(32, "big"))


FOUNDER, ADA, BOB, EVE, WIM, ZOE = (key(number) for number in range(1, 7))
MESH = FOUNDER.peer_id


def sign(
    signer: Identity,
    subject: PeerId,
    previous: Record | None = None,
    *,
    grants: frozenset[int] = WORKER,
    roles: Iterable[str] = (),
    revoked: bool = False,
    sequence: int = 1,
    stands: Iterable[Record] = (),
    mesh_id: PeerId = MESH,
) -> Record:
    """A record that this key signs, whatever it may."""
    listed = tuple(stands)
    draft = Draft(
        subject=subject,
        state=MemberState.REVOKED if revoked else MemberState.ACTIVE,
        grants=frozenset() if revoked else grants,
        roles=frozenset(roles),
        last_standing_sequence=max((record.signer_sequence for record in listed), default=0),
        standing_digests=frozenset(record.digest for record in listed),
    )
    return sign_record(signer, draft, mesh_id=mesh_id, previous=previous, sequence=sequence, now=Millis(1))


def chain(*records: Record) -> Chain:
    """As it travels."""
    return records[0].subject, tuple(Envelope.FromString(record.envelope) for record in records)


def chains_of(membership: Membership) -> list[Chain]:
    """All that a view would pass on."""
    return [chain(*records) for chains in membership.by_subject().values() for records in chains]


FOUNDING = sign(FOUNDER, MESH, grants=ALL_GRANTS)
ADA_ADMIN = sign(FOUNDER, ADA.peer_id, grants=ADMINS, sequence=2)
BOB_ADMIN = sign(FOUNDER, BOB.peer_id, grants=ADMINS, sequence=3)


def mesh_with(*records: Record) -> Membership:
    """The founder, and these."""
    return membership_of(MESH, (FOUNDING, *records))


def refusal(known: Membership, *chains: Chain) -> PeerdError:
    """Why the one chain changes nothing; asserts that it does not."""
    outcome = merge(known, chains)
    assert outcome.membership == known
    assert not outcome.accepted and not outcome.changed
    ((_, error),) = outcome.refused
    return error


@dataclass
class View:
    """One peer's own idea of the mesh, and what it signed by it."""

    identity: Identity
    membership: Membership
    sequence: int = 0

    def take(self, chains: Sequence[Chain]) -> Merge:
        """Merge what another passes on."""
        outcome = merge(self.membership, chains)
        self.membership = outcome.membership
        return outcome

    def sign(self, draft: Draft, *, sequence: int | None = None) -> Chain:
        """Sign on top of what this view holds to be the newest, and believe it if it stands."""
        self.sequence += 1
        previous = self.membership.current.get(draft.subject)
        record = sign_record(
            self.identity,
            draft,
            mesh_id=MESH,
            previous=previous,
            sequence=self.sequence if sequence is None else sequence,
            now=Millis(1),
        )
        before = [records for records in self.membership.chains(draft.subject) if previous in records]
        made = chain(*_up_to(previous, before[0] if before else ()), record)
        self.take([made])
        return made


def _up_to(last: Record | None, records: Sequence[Record]) -> tuple[Record, ...]:
    return tuple(record for record in records if last is not None and record.version <= last.version)
