"""What a member record says, and the words for its grants and roles.

A record is only ever made from bytes whose signature was verified (:mod:`peerd.mesh.records`), and keeps those bytes:
it is identified, stored and passed on by them, never by a second serialisation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import PeerId
from peerd.moments import moment
from peerd.v1 import access_pb2, mesh_pb2

RecordDigest = NewType("RecordDigest", bytes)
"""BLAKE3 of a record's payload. The signature is left out: one statement may be signed in more than one spelling."""

OBSERVE, EXECUTE, OPERATE, ADMIN = (
    int(access_pb2.GRANT_OBSERVE),
    int(access_pb2.GRANT_EXECUTE),
    int(access_pb2.GRANT_OPERATE),
    int(access_pb2.GRANT_ADMIN),
)

ALL_GRANTS = frozenset({OBSERVE, EXECUTE, OPERATE, ADMIN})

_GRANT_NAMES = {"observe": OBSERVE, "execute": EXECUTE, "operate": OPERATE, "admin": ADMIN}

MAX_NAME_LENGTH = 63
"""As a DNS label; also what fits a table column."""

MAX_ROLES = 16

_LAST_MS = 253_370_764_800_000
"""The year 9999: later moments are none in every zone, and cannot be shown."""


class MemberState(Enum):
    """What a record makes of its subject."""

    ACTIVE = mesh_pb2.MEMBER_STATE_ACTIVE  # belongs to the mesh
    REVOKED = mesh_pb2.MEMBER_STATE_REVOKED  # does not, and never will again with this key


@dataclass(frozen=True, kw_only=True)
class Record:
    """One verified member record."""

    digest: RecordDigest
    envelope: bytes
    """The signed envelope as it came, serialised."""
    mesh_id: PeerId
    subject: PeerId
    state: MemberState
    grants: frozenset[int]
    roles: frozenset[str]
    version: int
    signer: PeerId
    signer_sequence: int
    previous: RecordDigest | None
    issued_at: Millis
    reason: str
    last_standing_sequence: int
    standing_digests: frozenset[RecordDigest]

    @property
    def revoked(self) -> bool:
        """Whether the subject is out."""
        return self.state is MemberState.REVOKED

    @property
    def admin(self) -> bool:
        """Whether the subject may sign records about others."""
        return not self.revoked and ADMIN in self.grants

    @property
    def by_founder(self) -> bool:
        """Whether the founder signed it."""
        return self.signer == self.mesh_id


def parse_grants(text: str) -> frozenset[int]:
    """The grants of a list like ``observe,execute``. Raises INVALID_ARGUMENT."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in _GRANT_NAMES]
    if unknown:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"there is no grant {unknown[0]!r}; there are {', '.join(_GRANT_NAMES)}",
            violations=[Violation(field="grants", message=f"unknown: {', '.join(unknown)}")],
        )
    return frozenset(_GRANT_NAMES[name] for name in names)


def format_grants(grants: Iterable[int]) -> str:
    """The list that :func:`parse_grants` reads, weakest first."""
    held = set(grants)
    return ",".join(name for name, grant in _GRANT_NAMES.items() if grant in held)


def check_grants(grants: Iterable[int]) -> frozenset[int]:
    """The grants of a request. Raises INVALID_ARGUMENT for one this version does not know."""
    asked = frozenset(int(grant) for grant in grants)
    if asked - ALL_GRANTS:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"unknown grant number {min(asked - ALL_GRANTS)}",
            violations=[Violation(field="grants", message="use observe, execute, operate or admin")],
        )
    return asked


def check_roles(roles: Iterable[str]) -> frozenset[str]:
    """The roles of a request or record. Raises INVALID_NAME or INVALID_ARGUMENT."""
    checked = frozenset(check_name(role, "roles") for role in roles)
    if len(checked) > MAX_ROLES:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{len(checked)} roles; at most {MAX_ROLES} are allowed")
    return checked


def check_name(text: str, field: str) -> str:
    """A name of a peer, role, label or group: letters, digits, '-', '_' and '.'; starts with a letter or digit.

    Letters of any script are allowed in their composed form (NFC), so that one look has one spelling.
    Raises INVALID_NAME.
    """
    fault = _name_fault(text)
    if fault:
        raise PeerdError(
            Reason.INVALID_NAME,
            f"{field}: {text[:MAX_NAME_LENGTH]!r} {fault}",
            violations=[Violation(field=field, message=fault)],
        )
    return text


def _name_fault(text: str) -> str | None:
    if not text:
        return "is empty"
    if len(text) > MAX_NAME_LENGTH:
        return f"has {len(text)} characters; at most {MAX_NAME_LENGTH} are allowed"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in composed form (NFC)"
    if not text[0].isalnum():
        return "must start with a letter or a digit"
    if not all(character.isalnum() or character in "-_." for character in text):
        return "may hold only letters, digits, '-', '_' and '.'"
    return None


def to_timestamp(millis: int) -> Timestamp:
    """The same moment as proto writes it."""
    return moment(millis)


def from_timestamp(timestamp: Timestamp) -> Millis:
    """The same moment as the store writes it; of what another peer says and no clock shows, the nearest that one does.

    One such moment would keep everything that is listed beside it from being shown.
    """
    return Millis(min(max(timestamp.seconds * 1000 + timestamp.nanos // 1_000_000, 0), _LAST_MS))
