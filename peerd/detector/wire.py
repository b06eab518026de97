"""Statements as signed envelopes, and back: nothing reaches the machine whose signature was not verified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog
from google.protobuf.message import DecodeError

from peerd.detector.machine import Detector
from peerd.detector.model import Alive, Entry, Suspicion, Update
from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import open_envelope, seal
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.v1 import detector_pb2
from peerd.v1.signed_pb2 import Envelope

_log = structlog.get_logger(__name__)

ALIVE_TYPE = "application/vnd.peerd.alive.v1+protobuf"
SUSPECT_TYPE = "application/vnd.peerd.suspect.v1+protobuf"

MAX_INCARNATION = 2**53
"""Beyond any clock; what is higher would leave no room to answer."""
_MAX_STATEMENT_BYTES = 256
_MAX_SUSPICIONS = 8


class SignedVoice:
    """This peer's statements, signed. Implements :class:`peerd.detector.model.Voice`."""

    def __init__(self, identity: Identity, instance: int) -> None:
        self._identity = identity
        self._instance = instance

    def alive(self, incarnation: int, *, left: bool) -> Alive:
        peer_id = self._identity.peer_id
        statement = detector_pb2.AliveStatement(
            peer_id=peer_id, incarnation=incarnation, instance=self._instance, left=left
        )
        proof = seal(self._identity, statement.SerializeToString(deterministic=True), ALIVE_TYPE)
        return Alive(peer_id, incarnation, self._instance, left, proof)

    def suspicion(self, peer_id: PeerId, incarnation: int) -> Suspicion:
        accuser = self._identity.peer_id
        statement = detector_pb2.SuspectStatement(peer_id=peer_id, incarnation=incarnation, accuser=accuser)
        proof = seal(self._identity, statement.SerializeToString(deterministic=True), SUSPECT_TYPE)
        return Suspicion(peer_id, incarnation, accuser, proof)


def to_messages(updates: Iterable[Update]) -> list[detector_pb2.PeerUpdate]:
    """Updates with their proofs, as they travel."""
    return [
        detector_pb2.PeerUpdate(
            alive=_envelope(update.alive.proof),
            suspicions=[_envelope(suspicion.proof) for suspicion in update.suspicions],
            absent=update.absent,
        )
        for update in updates
    ]


def to_updates(messages: Sequence[detector_pb2.PeerUpdate], detector: Detector, *, source: str) -> list[Update]:
    """What of this is new and verified; the rest is logged and left out.

    Verifying costs a tenth of a millisecond each. What is known already is recognised by its bytes and not verified
    again, and what is older than that is dropped unread.
    """
    updates = []
    refused: list[PeerdError] = []
    for message in messages:
        try:
            update = _read_update(message, detector)
        except PeerdError as error:
            refused.append(error)
            continue
        if update is not None:
            updates.append(update)
    if refused:  # one line for all: whoever sends ten thousand must not fill the log with them
        first = refused[0]
        _log.info(
            "detector.statements_refused",
            source=source,
            count=len(refused),
            reason=first.reason.text,
            message=first.message,
        )
    return updates


def _read_update(message: detector_pb2.PeerUpdate, detector: Detector) -> Update | None:
    known = detector.known_statement(_parse_alive(message.alive).peer_id)
    alive = _read_alive(message.alive, known)
    if alive is None:
        return None
    if len(message.suspicions) > _MAX_SUSPICIONS:
        raise PeerdError(Reason.INVALID_RECORD, f"{len(message.suspicions)} suspicions in one update")
    suspicions = [_read_suspicion(envelope, alive) for envelope in message.suspicions]
    return Update(alive, tuple(entry for entry in suspicions if entry is not None), message.absent)


def _read_alive(envelope: Envelope, known: Alive | None) -> Alive | None:
    statement = _parse_alive(envelope)
    if known is not None:
        if isinstance(known.proof, Envelope) and known.proof.payload == envelope.payload:
            return known
        if (statement.incarnation, statement.left) <= (known.incarnation, known.left) and (
            statement.instance == known.instance or statement.incarnation < known.incarnation
        ):
            return None
    opened = open_envelope(envelope, ALIVE_TYPE)
    if opened.signer != statement.peer_id:
        raise PeerdError(Reason.INVALID_SIGNATURE, "a peer's own word is not signed by that peer")
    if not 1 <= statement.incarnation <= MAX_INCARNATION:
        raise PeerdError(Reason.INVALID_RECORD, f"incarnation {statement.incarnation} is out of range")
    return Alive(opened.signer, statement.incarnation, statement.instance, statement.left, envelope)


def _read_suspicion(envelope: Envelope, alive: Alive) -> Suspicion | None:
    statement = detector_pb2.SuspectStatement()
    _parse(statement, envelope)
    if statement.peer_id != alive.peer_id:
        raise PeerdError(Reason.INVALID_RECORD, "a suspicion travels with the word of another peer")
    if statement.incarnation != alive.incarnation:
        return None
    opened = open_envelope(envelope, SUSPECT_TYPE)
    if opened.signer != statement.accuser:
        raise PeerdError(Reason.INVALID_SIGNATURE, "a suspicion is not signed by its accuser")
    return Suspicion(alive.peer_id, statement.incarnation, opened.signer, envelope)


def _parse_alive(envelope: Envelope) -> detector_pb2.AliveStatement:
    statement = detector_pb2.AliveStatement()
    _parse(statement, envelope)
    return statement


def _parse(statement: detector_pb2.AliveStatement | detector_pb2.SuspectStatement, envelope: Envelope) -> None:
    if len(envelope.payload) > _MAX_STATEMENT_BYTES:
        raise PeerdError(Reason.INVALID_RECORD, f"a statement of {len(envelope.payload)} bytes")
    try:
        statement.ParseFromString(envelope.payload)
    except DecodeError as error:
        raise PeerdError(Reason.INVALID_RECORD, "the signed bytes are not a statement") from error


def to_entries(messages: Iterable[detector_pb2.ViewEntry]) -> list[Entry]:
    """What another holds of everybody."""
    return [Entry(PeerId(entry.peer_id), entry.incarnation, entry.present) for entry in messages]


def _envelope(proof: object) -> Envelope:
    assert isinstance(proof, Envelope)  # noqa: S101 - SignedVoice and to_updates make no others
    return proof
