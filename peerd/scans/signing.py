"""Statements of scans, signed as this peer: what ``peerctl scans submit`` asks for over the unix socket."""

from __future__ import annotations

import secrets

from peerd.clock import Clock
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.moments import moment
from peerd.scans.statement import PROTOBUF_TYPE, open_statement
from peerd.v1.scans_pb2 import ScanStatement
from peerd.v1.signed_pb2 import Envelope

NONCE_BYTES = 24


class Signer:
    """Holds this peer's key."""

    def __init__(self, identity: Identity, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock

    def sign(self, draft: ScanStatement) -> tuple[Envelope, ScanStatement]:
        """Fill in what is empty, and sign. Raises INVALID_STATEMENT, or INVALID_SIGNATURE for another scanner's."""
        statement = ScanStatement()
        statement.CopyFrom(draft)
        statement.audience = draft.audience or self._identity.peer_id
        statement.scanner = draft.scanner or self._identity.peer_id
        statement.scan_id = draft.scan_id or f"scan-{secrets.token_hex(12)}"
        statement.nonce = draft.nonce or secrets.token_bytes(NONCE_BYTES)
        if not draft.HasField("issued_at"):
            statement.issued_at.CopyFrom(moment(self._clock.now()))
        envelope = seal(self._identity, statement.SerializeToString(), PROTOBUF_TYPE)
        open_statement(envelope)  # nothing leaves that no peer would take
        return envelope, statement
