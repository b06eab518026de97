"""Which records stand, and who is a member by them. Pure: the same set of records gives the same answer, in whatever
order and from whomever they came.

The rules
    1. Every record is linked to the one before it, of the same subject, down to version 1. Nothing follows a
       revocation.
    2. What the founder signed stands.
    3. Only the founder grants admin, changes admins or revokes them. So who is admin follows from the founder's records
       alone, and nothing an admin signs can change it.
    4. What an admin signed stands while the founder's records make it an admin. When the founder takes that back (or
       revokes it), the founder's record lists the digests of what stands; all else that key signed, or will, falls.
       A sequence number would not do: whoever stole the key could sign anew under old numbers.
    5. An admin's record stands only on records that stand (a revocation on any), never on an admin's, and never beside
       the founder's word about an admin.
    6. Of the records of a subject that stand, one counts: revoked before active, whatever the versions, because revoked
       is final for that key; then the higher version; then the lower digest.

Rejected alternative: compare versions first, as a plain reading of "version, then revoked" has it. Two admins who act
at once, one revoking at version 2 and one changing roles at 2 and 3, would then bring a revoked peer back.

Forks are kept: the loser counts again when the winner falls. What does not stand, and carries nothing that stands, is
dropped, so that nobody can fill our store with records that mean nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.model import Record, RecordDigest
from peerd.mesh.records import read_record
from peerd.v1 import signed_pb2

Records = Mapping[RecordDigest, Record]


@dataclass(frozen=True, kw_only=True)
class Membership:
    """All records that matter, and what follows from them."""

    mesh_id: PeerId
    records: Records = field(default_factory=dict)
    current: Mapping[PeerId, Record] = field(default_factory=dict)
    """The record that counts, of each subject that has one that stands."""
    standing: frozenset[RecordDigest] = frozenset()

    def active(self, peer_id: PeerId) -> Record | None:
        """The record of an active member."""
        record = self.current.get(peer_id)
        return record if record is not None and not record.revoked else None

    def chains(self, subject: PeerId) -> list[tuple[Record, ...]]:
        """The chains of a subject, oldest record first; more than one only after a fork."""
        return self.by_subject().get(subject, [])

    def by_subject(self) -> dict[PeerId, list[tuple[Record, ...]]]:
        """Every subject's chains."""
        parents = {record.previous for record in self.records.values()}
        leaves = sorted((record for record in self.records.values() if record.digest not in parents), key=_rank)
        chains: dict[PeerId, list[tuple[Record, ...]]] = defaultdict(list)
        for leaf in leaves:
            chains[leaf.subject].append(_chain_to(self.records, leaf))
        return dict(chains)

    def signed_by(self, signer: PeerId) -> frozenset[RecordDigest]:
        """What stands of what a peer signed."""
        return frozenset(entry for entry in self.standing if self.records[entry].signer == signer)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What came of a merge."""

    membership: Membership
    accepted: tuple[Record, ...]
    refused: tuple[tuple[str, PeerdError], ...]
    """What was said to be the subject, and why its chain changed nothing."""
    changed: frozenset[PeerId]
    """Subjects whose records are not what they were."""


def merge(known: Membership, chains: Iterable[tuple[str, Sequence[signed_pb2.Envelope]]]) -> Merge:
    """Add what stands of the chains to what is known. Never raises for what is in a chain.

    A chain is all or nothing as far as its form goes: one bad link and none of it is looked at.
    """
    read: list[tuple[str, tuple[Record, ...]]] = []
    refused: list[tuple[str, PeerdError]] = []
    for subject, envelopes in chains:
        try:
            read.append((subject, read_chain(envelopes, mesh_id=known.mesh_id, subject=subject, known=known.records)))
        except PeerdError as error:
            refused.append((subject, error))
    union = {record.digest: record for _, chain in read for record in chain} | dict(known.records)
    merged = membership_of(known.mesh_id, union.values())
    refused += [
        (subject, _why_not(chain[-1], merged)) for subject, chain in read if chain[-1].digest not in merged.records
    ]
    accepted = tuple(record for entry, record in merged.records.items() if entry not in known.records)
    gone = [record for entry, record in known.records.items() if entry not in merged.records]
    return Merge(
        membership=merged,
        accepted=accepted,
        refused=tuple(refused),
        changed=frozenset(record.subject for record in (*accepted, *gone)),
    )


def read_chain(
    envelopes: Sequence[signed_pb2.Envelope], *, mesh_id: PeerId, subject: str, known: Records
) -> tuple[Record, ...]:
    """Verify the form of one subject's chain, oldest record first.

    Raises INVALID_RECORD or INVALID_SIGNATURE. A record we have is not verified again.
    """
    if not envelopes:
        raise PeerdError(Reason.INVALID_RECORD, "an empty chain")
    chain: list[Record] = []
    for envelope in envelopes:
        record = known.get(RecordDigest(digest(envelope.payload))) or read_record(envelope)
        if record.mesh_id != mesh_id:
            raise PeerdError(Reason.INVALID_RECORD, f"a record of another mesh, {record.mesh_id[:8]}")
        if record.subject != subject:
            raise PeerdError(Reason.INVALID_RECORD, f"a record of {record.subject[:8]} in the chain of {subject[:8]}")
        fault = _link_fault(record, chain[-1] if chain else None)
        if fault:
            raise PeerdError(Reason.INVALID_RECORD, f"{subject[:8]} version {record.version}: {fault}")
        chain.append(record)
    return tuple(chain)


def _link_fault(record: Record, parent: Record | None) -> str | None:
    """Rule 1, and of rule 3 what one link shows."""
    if parent is None:
        return None if record.version == 1 else "the chain does not begin with version 1"
    if record.version != parent.version + 1:
        return f"follows version {parent.version}"
    if record.previous != parent.digest:
        return "does not follow from the record before it"
    if parent.revoked:
        return "follows a revocation, which is final"
    if parent.admin and not record.by_founder:
        return "changes an admin, and the founder did not sign it"
    return None


def membership_of(mesh_id: PeerId, records: Iterable[Record]) -> Membership:
    """Judge linked records. Every record's ancestors must be among them."""
    pool = {record.digest: record for record in records}
    standing = _Judge(mesh_id, pool).standing()
    kept: dict[RecordDigest, Record] = {}
    for entry in standing:
        for record in _chain_to(pool, pool[entry]):
            kept[record.digest] = record
    best: dict[PeerId, Record] = {}
    for entry in standing:
        record = pool[entry]
        if record.subject not in best or _rank(record) < _rank(best[record.subject]):
            best[record.subject] = record
    return Membership(mesh_id=mesh_id, records=kept, current=best, standing=standing)


@dataclass(frozen=True, kw_only=True)
class _Authority:
    """What a key's signature was or is worth."""

    listed: frozenset[RecordDigest] = frozenset()
    after: int | None = None
    """Set while the key is an admin: records with a higher sequence stand as well."""

    def covers(self, record: Record) -> bool:
        return record.digest in self.listed or (self.after is not None and record.signer_sequence > self.after)


class _Judge:
    """Applies the rules to one pool of linked records."""

    def __init__(self, mesh_id: PeerId, pool: Records) -> None:
        self._mesh_id = mesh_id
        self._pool = pool
        self._founders: dict[PeerId, list[Record]] = defaultdict(list)
        for record in pool.values():
            if record.by_founder:
                self._founders[record.subject].append(record)
        for records in self._founders.values():
            records.sort(key=lambda record: (record.version, record.digest))
        self._authorities = {subject: _authority(records) for subject, records in self._founders.items()}
        self._about_admin = {subject: self._last_about_admin(records) for subject, records in self._founders.items()}

    def standing(self) -> frozenset[RecordDigest]:
        """The records that stand. Parents are judged before their children: by version."""
        standing: set[RecordDigest] = set()
        under: set[RecordDigest] = set()  # the founder's last word about an admin, and what follows it
        for record in sorted(self._pool.values(), key=lambda record: record.version):
            last_word = self._about_admin.get(record.subject)
            if record.digest == last_word or record.previous in under:
                under.add(record.digest)
            if record.by_founder or (
                self._authorities.get(record.signer, _Authority()).covers(record)
                and (last_word is None or record.digest in under)
                and (record.revoked or record.previous is None or record.previous in standing)
            ):
                standing.add(record.digest)
        return frozenset(standing)

    def _last_about_admin(self, records: Sequence[Record]) -> RecordDigest | None:
        """The founder's newest record that makes the subject an admin, changes it as one, or ends that."""
        last = None
        for record in records:
            parent = self._pool.get(record.previous) if record.previous else None
            if record.admin or (parent is not None and parent.admin):
                last = record.digest
        return last


def _authority(records: Sequence[Record]) -> _Authority:
    """Rule 4: from the founder's records about one key, oldest first."""
    listed: frozenset[RecordDigest] = frozenset()
    after: int | None = None
    floor = 0
    for record in records:
        if record.admin and after is None:
            after = floor
        elif not record.admin and after is not None:
            after, listed, floor = None, record.standing_digests, record.last_standing_sequence
    return _Authority(listed=listed, after=after)


def _rank(record: Record) -> tuple[bool, int, bytes]:
    """Rule 6: the least counts."""
    return (not record.revoked, -record.version, record.digest)


def _chain_to(records: Records, leaf: Record) -> tuple[Record, ...]:
    chain = [leaf]
    while chain[-1].previous is not None:
        chain.append(records[chain[-1].previous])
    return tuple(reversed(chain))


def _why_not(record: Record, merged: Membership) -> PeerdError:
    signer = merged.current.get(record.signer)
    if signer is None:
        why = "who is no member that we know of"
    elif signer.revoked:
        why = "who is revoked, and the revocation does not list it"
    elif not signer.admin:
        why = "who is not an admin"
    else:
        why = "on records that do not stand, or against the founder's word"
    return PeerdError(
        Reason.INVALID_RECORD, f"{record.subject[:8]} version {record.version} is signed by {record.signer[:8]}, {why}"
    )
