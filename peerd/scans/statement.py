"""What a scanner says of a scan: opened, checked field by field, and judged against a clock. Pure.

The payload is a ScanStatement, as protobuf or as its JSON mapping; the type of the envelope says which, and is signed.
Only after the signature holds over exactly these bytes are they parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from peerd.catalog.model import SCAN_FORMATS
from peerd.clock import DAY_MS, Millis
from peerd.digest import digest
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.envelope import open_envelope
from peerd.identity.peer_id import PeerId
from peerd.v1.scans_pb2 import ScanStatement
from peerd.v1.signed_pb2 import Envelope

PROTOBUF_TYPE = "application/vnd.peerd.scan.v1+protobuf"
JSON_TYPE = "application/vnd.peerd.scan.v1+json"

MAX_AGE_MS = 7 * DAY_MS
MAX_AHEAD_MS = 5 * 60_000
MAX_STATEMENT_BYTES = 64 * 1024
MAX_DATA_BYTES = 2**40

_SCAN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NONCE = range(16, 65)
_SHA256_BYTES = 32
_TEXTS = {"tool": 64, "tool_version": 64, "organization": 128, "vantage": 128, "scope": 4096}
FIRST_MS = 946_684_800_000
"""2000-01-01: no scan is older, and a clock that says so was never set."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement whose signature holds and whose fields are sound."""

    scanner: PeerId
    audience: str
    scan_id: str
    format: str
    tool: str
    tool_version: str
    organization: str
    vantage: str
    scope: str
    issued_at: Millis
    scanned_at: Millis
    time_stated: bool = True
    """Whether the statement says when the scan was made; else ``scanned_at`` is when it was signed."""
    nonce: bytes
    data_sha256: bytes
    data_size: int
    content: bytes
    """BLAKE3 of what is said of the scan: the same in every statement about it, whenever that was signed."""


def open_statement(envelope: Envelope) -> Claim:
    """Verify, then read. Raises INVALID_SIGNATURE, INVALID_PEER_ID or INVALID_STATEMENT."""
    if len(envelope.payload) > MAX_STATEMENT_BYTES:
        raise PeerdError(Reason.INVALID_STATEMENT, f"a statement has at most {MAX_STATEMENT_BYTES} bytes")
    kind = JSON_TYPE if envelope.payload_type == JSON_TYPE else PROTOBUF_TYPE
    opened = open_envelope(envelope, kind)
    statement = _parse(opened.payload, kind)
    violations = list(_violations(statement))
    if violations:
        first = violations[0]
        raise PeerdError(Reason.INVALID_STATEMENT, f"{first.field} {first.message}", violations=violations)
    if statement.scanner != opened.signer:
        raise PeerdError(
            Reason.INVALID_SIGNATURE, f"{opened.signer} signed a statement that names {statement.scanner[:64]!r}"
        )
    return claim_of(statement, opened.signer)


def claim_of(statement: ScanStatement, signer: PeerId) -> Claim:
    """A sound statement as a value."""
    issued_at = _millis(statement.issued_at)
    scanned_at = _millis(statement.scanned_at) if statement.HasField("scanned_at") else issued_at
    said = [
        *(statement.scan_id, statement.format, statement.tool, statement.tool_version, statement.organization),
        *(statement.vantage, statement.scope, scanned_at if statement.HasField("scanned_at") else 0),
        *(statement.data_sha256.hex(), statement.data_size),
    ]
    return Claim(
        scanner=signer,
        audience=statement.audience,
        scan_id=statement.scan_id,
        format=statement.format,
        tool=statement.tool,
        tool_version=statement.tool_version,
        organization=statement.organization,
        vantage=statement.vantage,
        scope=statement.scope,
        issued_at=issued_at,
        scanned_at=scanned_at,
        time_stated=statement.HasField("scanned_at"),
        nonce=statement.nonce,
        data_sha256=statement.data_sha256,
        data_size=statement.data_size,
        content=digest(b"peerd scan\0" + json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode()),
    )


def check_time(claim: Claim, now: int) -> None:
    """Neither too old nor from the future. Raises STATEMENT_EXPIRED or CLOCK_SKEW."""
    if claim.issued_at > now + MAX_AHEAD_MS:
        ahead = (claim.issued_at - now) // 1000
        raise PeerdError(
            Reason.CLOCK_SKEW, f"the statement was issued {ahead} s from now; at most {MAX_AHEAD_MS // 1000} are taken"
        )
    if claim.issued_at < now - MAX_AGE_MS:
        days = (now - claim.issued_at) / DAY_MS
        raise PeerdError(
            Reason.STATEMENT_EXPIRED,
            f"the statement was issued {days:.1f} days ago; at most {MAX_AGE_MS // DAY_MS} are taken",
        )
    if claim.scanned_at > claim.issued_at + MAX_AHEAD_MS:
        raise PeerdError(Reason.INVALID_STATEMENT, "scanned_at is after issued_at")


def _parse(payload: bytes, kind: str) -> ScanStatement:
    try:
        if kind == PROTOBUF_TYPE:
            return ScanStatement.FromString(payload)
        return json_format.Parse(payload.decode("utf-8"), ScanStatement(), max_recursion_depth=8)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PeerdError(Reason.INVALID_STATEMENT, f"the payload is no statement: {str(error)[:200]}") from error


def _violations(statement: ScanStatement) -> Iterator[Violation]:
    if not statement.audience:
        yield Violation(field="audience", message="is missing")
    if not _SCAN_ID.fullmatch(statement.scan_id):
        yield Violation(field="scan_id", message="must have 1 to 128 of A-Z a-z 0-9 . _ : -")
    if statement.format not in SCAN_FORMATS:
        known = ", ".join(SCAN_FORMATS[1:])
        yield Violation(field="format", message=f"{statement.format[:40]!r} is not known; there are {known}")
    for name, most in _TEXTS.items():
        text: str = getattr(statement, name)
        if len(text) > most or not text.isprintable():
            yield Violation(field=name, message=f"must have at most {most} characters and no control ones")
    for name in ("issued_at", "scanned_at"):
        if name == "issued_at" and not statement.HasField("issued_at"):
            yield Violation(field=name, message="is missing")
        elif statement.HasField(name) and _millis(getattr(statement, name)) < FIRST_MS:  # type: ignore[arg-type]
            yield Violation(field=name, message="is before the year 2000")
    if len(statement.nonce) not in _NONCE:
        yield Violation(field="nonce", message="must have 16 to 64 bytes")
    if len(statement.data_sha256) != _SHA256_BYTES:
        yield Violation(field="data_sha256", message="must have 32 bytes")
    if not 0 < statement.data_size <= MAX_DATA_BYTES:
        yield Violation(field="data_size", message="must be above 0: a scan has bytes")


def _millis(timestamp: Timestamp) -> Millis:
    return Millis(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000)
