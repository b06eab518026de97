"""Scans over HTTP in the envelope of the source document: data, public key, signature and a timestamp, no statement.

What is signed is the timestamp in decimal followed by the exact bytes of the data. There is no nonce and no scan id in
it, so both are made from the signed bytes: the same envelope again is the same scan, and answers with the same job.
Only registered scanner keys sign such envelopes; they name no audience, so a peer's own key must not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from peerd import metrics
from peerd.clock import Clock, Millis
from peerd.config import ScansConfig
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import peer_id_of
from peerd.scans import repository, scanners
from peerd.scans.model import IngestJob, IngestState
from peerd.scans.receiving import Accepted, Receiving
from peerd.scans.statement import Claim
from peerd.store import Store

WINDOW_MS = 5 * 60_000
"""Either way."""
_IN_A_THREAD = 64 * 1024
"""Bytes from which verifying would hold up the event loop: of ten megabytes it takes a tenth of a second."""
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class PlainEnvelope:
    """As it came in."""

    signed_data: bytes
    """The bytes of the data as they stand in the request."""
    content: bytes
    """The scan: the same bytes, or what a JSON string or base64 holds."""
    public_key: bytes
    signature: bytes
    timestamp: int
    """Seconds since 1970."""


class PlainScans:
    """What HTTP does with scans."""

    def __init__(self, store: Store, clock: Clock, config: ScansConfig, receiving: Receiving) -> None:
        self._store = store
        self._clock = clock
        self._receiving = receiving
        self.max_bytes = config.http_max_bytes
        self.per_minute = config.submissions_per_minute

    def admit(self, address: str) -> None:
        """Before anything is read. Raises RATE_LIMITED."""
        self._receiving.limit_caller(f"address {address}")

    async def submit(self, envelope: PlainEnvelope, address: str) -> Accepted:
        """Raises INVALID_SIGNATURE, CLOCK_SKEW, STATEMENT_EXPIRED, and as :meth:`Receiving.accept` does."""
        large = len(envelope.signed_data) >= _IN_A_THREAD  # whoever signs it: nobody has been refused yet
        claim = await asyncio.to_thread(self._claim, envelope) if large else self._claim(envelope)
        self._receiving.check_room(claim, largest=self.max_bytes)
        accepted = await self._receiving.accept_bytes(
            claim, envelope.content, submitted_by=f"address {address}", keys_only=True
        )
        metrics.scan_submissions.labels("repeated" if accepted.repeated else "accepted").inc()
        return accepted

    async def job(self, job_uuid: str) -> IngestJob:
        """Raises NOT_FOUND."""
        return await repository.read_uuid(self._store, job_uuid)

    async def jobs(
        self, *, offset: int, limit: int, state: IngestState | None, scanner: str, by_update: bool, newest: bool
    ) -> tuple[Sequence[IngestJob], int]:
        """Some, and how many there are. Raises INVALID_ARGUMENT for a scanner that is no key."""
        return await repository.slice_of(
            self._store,
            offset=offset,
            limit=limit,
            state=state,
            scanner=scanners.parse_key(scanner) if scanner else "",
            by_update=by_update,
            newest=newest,
        )

    def _claim(self, envelope: PlainEnvelope) -> Claim:
        if len(envelope.public_key) != _KEY_BYTES or len(envelope.signature) != _SIGNATURE_BYTES:
            raise _invalid("a public key has 32 bytes and a signature 64")
        message = str(envelope.timestamp).encode() + envelope.signed_data
        key = Ed25519PublicKey.from_public_bytes(envelope.public_key)
        try:
            key.verify(envelope.signature, message)
        except InvalidSignature as error:
            raise _invalid("the signature does not hold over the timestamp and the data") from error
        issued_at = Millis(envelope.timestamp * 1000)
        now = self._clock.now()
        if abs(issued_at - now) > WINDOW_MS:
            ahead = issued_at > now
            raise PeerdError(
                Reason.CLOCK_SKEW if ahead else Reason.STATEMENT_EXPIRED,
                f"the timestamp is {abs(issued_at - now) // 1000} s {'from now' if ahead else 'ago'}; "
                f"at most {WINDOW_MS // 1000} are taken",
                next_action="sign with the present time, and look whether both clocks are right",
            )
        signed = hashlib.sha256(message).digest()
        sha256 = hashlib.sha256(envelope.content).digest()
        return Claim(
            scanner=peer_id_of(key),
            audience="",
            scan_id=f"http:{signed.hex()}",
            format="",
            tool="",
            tool_version="",
            organization="",
            vantage="",
            scope="",
            issued_at=issued_at,
            scanned_at=issued_at,
            time_stated=False,
            nonce=signed,
            data_sha256=sha256,
            data_size=len(envelope.content),
            content=digest(b"peerd plain scan\0" + signed + sha256),
        )


def _invalid(message: str) -> PeerdError:
    return PeerdError(Reason.INVALID_SIGNATURE, message)
