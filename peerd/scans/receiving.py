"""Takes scans in: who may, for whom, when, and each only once; a scan and its job are one transaction.

The order matters. What costs little and can be refused to anybody comes first; what a stranger must not learn, such as
whether a scan id is known, comes after the signature and the scanner. A scan that was accepted before answers with its
job whenever it comes again, so a repeat after a lost answer needs no luck with clocks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from peerd.clock import Clock
from peerd.config import ScansConfig
from peerd.disk import Disk
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.rates import Rates
from peerd.scans import data, repository, scanners
from peerd.scans.changes import Changes
from peerd.scans.model import IngestJob
from peerd.scans.statement import MAX_AGE_MS, Claim, check_time
from peerd.store import Store, Tx
from peerd.store.audit import Entry, append, note
from peerd.v1.access_pb2 import Grant

_BUSY_SECONDS = 5.0
_IN_A_THREAD = 64 * 1024
"""Bytes from which hashing and compressing would hold up the event loop."""


T = TypeVar("T")


class Trust(Protocol):
    """The mesh, as far as it is needed here."""

    @property
    def mesh_id(self) -> PeerId: ...

    def grants(self, peer_id: PeerId) -> frozenset[int] | None:
        """Of an active member; None of anybody else."""
        ...

    def is_revoked(self, peer_id: PeerId) -> bool:
        """Whether that key is out for good."""
        ...


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The job of a scan, and whether it was there before."""

    job: IngestJob
    repeated: bool


class Receiving:
    """Judges submissions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        config: ScansConfig,
        changes: Changes,
        *,
        self_id: PeerId,
        trust: Trust,
        disk: Callable[[], Disk],
    ) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._changes = changes
        self._self_id = self_id
        self._trust = trust
        self._disk = disk
        per_minute = config.submissions_per_minute
        self._by_scanner = Rates(per_second=per_minute / 60, burst=per_minute)
        self._by_caller = Rates(per_second=per_minute / 60, burst=per_minute)

    @property
    def clock(self) -> Clock:
        """What submissions are judged by."""
        return self._clock

    def limit_caller(self, caller: str) -> None:
        """Count a submission of whoever hands in. Raises RATE_LIMITED."""
        self._by_caller.check(caller, self._clock.monotonic())

    def check(self, claim: Claim, *, local: bool) -> None:
        """What can be told without the store. Raises WRONG_AUDIENCE, TOO_LARGE, RATE_LIMITED or DISK_LOW.

        What an operator of this machine hands in as this peer is not limited in how often it comes.
        """
        if claim.audience not in (self._self_id, self._trust.mesh_id):
            raise PeerdError(Reason.WRONG_AUDIENCE, f"the statement is for {claim.audience[:64]!r}, not for this peer")
        self.check_room(claim, limited=not (local and claim.scanner == self._self_id))

    def check_room(self, claim: Claim, *, largest: int | None = None, limited: bool = True) -> None:
        """Whether there is room for it, and for one more of this scanner."""
        most = self._config.max_bytes if largest is None else largest
        if claim.data_size > most:
            raise PeerdError(
                Reason.TOO_LARGE,
                f"the scan has {claim.data_size} bytes; {most} are taken",
                next_action="split the scan, or raise [scans] max_bytes on that peer",
            )
        if limited:
            self._by_scanner.check(claim.scanner, self._clock.monotonic())
        self._disk().check(claim.data_size)

    def known(self, tx: Tx, claim: Claim, *, keys_only: bool = False) -> Accepted | None:
        """The job that this scan has already. Raises what :meth:`accept` does of scanner and conflict."""
        self._check_scanner(tx, claim.scanner, keys_only=keys_only)
        job = repository.find_scan(tx, claim.scanner, claim.scan_id)
        if job is None:
            return None
        if job.content != claim.content:
            raise PeerdError(
                Reason.SCAN_CONFLICT,
                f"{claim.scanner[:12]} handed in another scan as {claim.scan_id}: ingest job {job.ingest_job_id}",
                metadata={"ingest_job_id": str(job.ingest_job_id)},
            )
        return Accepted(job=job, repeated=True)

    def accept(
        self,
        tx: Tx,
        claim: Claim,
        store_data: Callable[[Tx], int],
        *,
        job_uuid: str,
        submitted_by: str,
        keys_only: bool = False,
    ) -> Accepted:
        """Make its job, with the bytes that ``store_data`` writes, or find the one there is. All in this transaction.

        Raises REVOKED, SCANNER_REVOKED, UNKNOWN_SCANNER, PERMISSION_DENIED, SCAN_CONFLICT, CLOCK_SKEW,
        STATEMENT_EXPIRED, REPLAYED or OVERLOADED.
        """
        known = self.known(tx, claim, keys_only=keys_only)
        if known is not None:
            return known
        check_time(claim, tx.now)
        if not repository.use_nonce(tx, claim, kept_until=repository.kept_until(claim, MAX_AGE_MS)):
            raise PeerdError(Reason.REPLAYED, "that nonce was used for another scan")
        self._check_queue(tx, claim.scanner)
        scan_data_id = store_data(tx)
        data.own(tx, scan_data_id)
        job = repository.add(tx, claim, job_uuid=job_uuid, scan_data_id=scan_data_id, submitted_by=submitted_by)
        failpoint("scans.submit.before_commit")
        tx.on_commit(self._changes.work)
        return Accepted(job=job, repeated=False)

    async def accept_bytes(self, claim: Claim, raw: bytes, *, submitted_by: str, keys_only: bool = False) -> Accepted:
        """Outside of gRPC: bytes that are whole, and no request id but the scan's own. Audited as a call is."""
        pieces = await self.packed(claim, raw)
        job_uuid = self.new_uuid()

        def write(tx: Tx) -> Accepted:
            accepted = self.accept(
                tx,
                claim,
                lambda tx: stored(tx, pieces),
                job_uuid=job_uuid,
                submitted_by=submitted_by,
                keys_only=keys_only,
            )
            if not accepted.repeated:
                note(tx, "Submit", caller=submitted_by, target=target_of(claim))
            return accepted

        accepted = await self.audited(claim, submitted_by, write)
        failpoint("scans.submit.after_commit")
        return accepted

    async def audited(self, claim: Claim, caller: str, write: Callable[[Tx], T]) -> T:
        """Write; a conflict is kept in the audit log, with which scan it was."""
        try:
            return await self._store.write(write)
        except PeerdError as error:
            if error.reason is Reason.SCAN_CONFLICT:
                result = error.reason.text
                target = json.dumps(target_of(claim))
                entry = Entry(at=0, caller=caller, method="Submit", target=target, result=result, request_id="")
                await self._store.write(lambda tx: append(tx, replace(entry, at=tx.now)))
            raise

    async def packed(self, claim: Claim, raw: bytes) -> Sequence[bytes]:
        """The bytes for the store. Raises SCAN_DATA_MISMATCH where they are not what was stated."""
        if len(raw) != claim.data_size:
            raise mismatch(f"{len(raw)} bytes came, {claim.data_size} were stated")

        def pack() -> tuple[bytes, Sequence[bytes]]:
            return hashlib.sha256(raw).digest(), data.compressed(raw)

        found, pieces = pack() if len(raw) < _IN_A_THREAD else await asyncio.to_thread(pack)
        if found != claim.data_sha256:
            raise mismatch("the bytes do not have the SHA-256 that was stated")
        return pieces

    def new_uuid(self) -> str:
        """Of version 7: 48 bits of milliseconds, then random ones. RFC 9562, section 5.7."""
        bits = (int(self._clock.now()) & (2**48 - 1)) << 80 | secrets.randbits(80)
        return str(uuid.UUID(int=bits & ~(0xF << 76) & ~(0b11 << 62) | 0x7 << 76 | 0b10 << 62))

    def _check_scanner(self, tx: Tx, scanner: PeerId, *, keys_only: bool) -> None:
        if self._trust.is_revoked(scanner):
            raise PeerdError(Reason.REVOKED, f"{scanner} was revoked")
        grants = None if keys_only else self._trust.grants(scanner)
        if not keys_only and (scanner == self._self_id or (grants is not None and Grant.GRANT_OPERATE in grants)):
            return
        key = scanners.find(tx, scanner)
        if key is not None and key.revoked_at is not None:
            raise PeerdError(Reason.SCANNER_REVOKED, f"the key of scanner {key.name} was revoked")
        if key is not None:
            return
        if grants is not None:
            raise PeerdError(Reason.PERMISSION_DENIED, f"{scanner} signs scans and lacks the grant operate")
        raise PeerdError(Reason.UNKNOWN_SCANNER, f"{scanner} is neither a peer nor a registered scanner")

    def _check_queue(self, tx: Tx, scanner: str) -> None:
        for most, count, whose in (
            (self._config.max_queued, repository.count_open(tx), "this peer"),
            (self._config.max_queued_per_scanner, repository.count_open(tx, scanner), "this scanner"),
        ):
            if count >= most:
                raise PeerdError(
                    Reason.OVERLOADED,
                    f"{count} scans of {whose} wait to be processed",
                    retry_after_seconds=_BUSY_SECONDS,
                )


def target_of(claim: Claim) -> dict[str, object]:
    """What the audit log says of a submission."""
    return {"scanner": claim.scanner, "scan_id": claim.scan_id, "data_size": claim.data_size}


def stored(tx: Tx, pieces: Sequence[bytes]) -> int:
    """Pieces that are all there."""
    scan_data_id = data.begin(tx)
    data.append(tx, scan_data_id, 0, pieces)
    return scan_data_id


def mismatch(message: str) -> PeerdError:
    """What came is not what was signed."""
    return PeerdError(Reason.SCAN_DATA_MISMATCH, message)
