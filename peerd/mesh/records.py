"""One member record: read from signed bytes, or signed anew. Pure.

What is checked here needs nothing but the record itself: its signature, its form, and what no context could make
right (a record of the founder that somebody else signed, an admin grant that the founder did not give). Whether a
record *stands* depends on the others and is decided in :mod:`peerd.mesh.membership`.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from peerd.clock import Millis
from peerd.digest import DIGEST_BYTES, digest
from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import open_envelope, seal
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh.model import (
    ALL_GRANTS,
    MemberState,
    Record,
    RecordDigest,
    check_roles,
    from_timestamp,
    to_timestamp,
)
from peerd.v1 import access_pb2, mesh_pb2, signed_pb2

MEMBER_TYPE = "application/vnd.peerd.member.v1+protobuf"

MAX_RECORD_BYTES = 512 * 1024
"""Room for the digests of some 15,000 records that an admin signed; anything else in a record is small."""

MAX_VERSION = 4096
"""Longest chain of one subject. It travels in one message, at some 400 bytes a record."""

MAX_REASON_LENGTH = 500


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the signer of a new record decides; the rest follows from the records there are."""

    subject: PeerId
    state: MemberState
    grants: frozenset[int] = frozenset()
    roles: frozenset[str] = frozenset()
    reason: str = ""
    last_standing_sequence: int = 0
    standing_digests: frozenset[RecordDigest] = frozenset()


def sign_record(
    identity: Identity, draft: Draft, *, mesh_id: PeerId, previous: Record | None, sequence: int, now: Millis
) -> Record:
    """The next record of the draft's subject. Signing the same twice gives the same record."""
    payload = mesh_pb2.MemberRecord(
        mesh_id=mesh_id,
        subject=draft.subject,
        state=draft.state.value,
        grants=[access_pb2.Grant.ValueType(grant) for grant in sorted(draft.grants)],
        roles=sorted(draft.roles),
        version=1 if previous is None else previous.version + 1,
        signer=identity.peer_id,
        signer_sequence=sequence,
        previous_digest=b"" if previous is None else previous.digest,
        issued_at=to_timestamp(now),
        reason=draft.reason,
        last_standing_sequence=draft.last_standing_sequence,
        standing_digests=sorted(draft.standing_digests),
    ).SerializeToString(deterministic=True)
    return read_record(seal(identity, payload, MEMBER_TYPE))


def read_record(envelope: signed_pb2.Envelope) -> Record:
    """Verify, then parse those same bytes. Raises INVALID_SIGNATURE or INVALID_RECORD."""
    if len(envelope.payload) > MAX_RECORD_BYTES:
        raise _invalid(f"a member record of {len(envelope.payload)} bytes; at most {MAX_RECORD_BYTES} are allowed")
    opened = open_envelope(envelope, MEMBER_TYPE)
    return _parse(opened.payload, opened.signer, envelope.SerializeToString())


def read_stored_record(envelope: bytes, *, verify: bool = False) -> Record:
    """A record that was verified before it was stored, or verified again.

    Raises DecodeError or IndexError when it was damaged meanwhile, or what :func:`read_record` raises.
    """
    stored = signed_pb2.Envelope.FromString(envelope)
    if verify:
        return read_record(stored)
    return _parse(stored.payload, PeerId(stored.signatures[0].peer_id), envelope)


def _parse(payload: bytes, signer: PeerId, envelope: bytes) -> Record:
    try:
        message = mesh_pb2.MemberRecord.FromString(payload)
    except DecodeError as error:
        raise _invalid("the signed bytes are not a member record") from error
    try:
        record = Record(
            digest=RecordDigest(digest(payload)),
            envelope=envelope,
            mesh_id=parse_peer_id(message.mesh_id),
            subject=parse_peer_id(message.subject),
            state=MemberState(message.state),
            grants=frozenset(message.grants) & ALL_GRANTS,
            roles=check_roles(message.roles),
            version=message.version,
            signer=parse_peer_id(message.signer),
            signer_sequence=message.signer_sequence,
            previous=RecordDigest(message.previous_digest) if message.previous_digest else None,
            issued_at=from_timestamp(message.issued_at),
            reason=message.reason,
            last_standing_sequence=message.last_standing_sequence,
            standing_digests=frozenset(RecordDigest(entry) for entry in message.standing_digests),
        )
    except ValueError as error:
        raise _invalid(f"a member record with state {message.state}") from error
    except PeerdError as error:
        raise _invalid(f"a malformed member record: {error.message}") from error
    fault = _fault(record, signer)
    if fault:
        raise _invalid(f"the record of {record.subject[:8]} version {record.version} {fault}")
    return record


def _fault(record: Record, signer: PeerId) -> str | None:
    """What no context could make right."""
    if record.signer != signer:
        return "was signed by another key than it names"
    if not 1 <= record.version <= MAX_VERSION:
        return f"has a version outside 1..{MAX_VERSION}"
    if (record.version == 1) != (record.previous is None):
        return "must name its previous record, unless it is the first"
    if record.previous is not None and len(record.previous) != DIGEST_BYTES:
        return "names its previous record by a malformed digest"
    if record.signer_sequence < 1:
        return "has no signer sequence"
    if len(record.reason) > MAX_REASON_LENGTH:
        return f"gives a reason longer than {MAX_REASON_LENGTH} characters"
    if any(len(entry) != DIGEST_BYTES for entry in record.standing_digests):
        return "lists a malformed digest"
    return _presumption(record)


def _presumption(record: Record) -> str | None:
    """What only the founder may sign."""
    if record.subject == record.mesh_id:
        if not record.by_founder:
            return "is about the founder, and the founder did not sign it"
        return None if record.admin else "would revoke the founder or take its admin grant"
    if record.by_founder:
        return None
    if record.admin:
        return "grants admin, and the founder did not sign it"
    return "is about its own signer" if record.subject == record.signer else None


def _invalid(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_RECORD, message)
