"""Ingest jobs and scanner keys, and the one table of what an ingest job may become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from peerd.clock import Millis

MAX_SKIPPED = 1000
"""Skipped records that are kept with line and reason; all are counted."""


class IngestState(Enum):
    """Where an ingest job stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing becomes of it by itself."""
        return self in (IngestState.COMPLETED, IngestState.FAILED, IngestState.CANCELLED)


_P, _R, _C, _F, _X = IngestState

TRANSITIONS: Mapping[IngestState, frozenset[IngestState]] = MappingProxyType(
    {
        _P: frozenset({_R, _F, _X}),
        _R: frozenset({_C, _F, _X}),
        _C: frozenset(),
        _F: frozenset({_P}),  # by an operator
        _X: frozenset({_P}),  # the same
    }
)
"""From -> to. A job may also stay what it is."""


def may_become(present: IngestState, wanted: IngestState) -> bool:
    """Whether that is a legal change, or none at all."""
    return wanted is present or wanted in TRANSITIONS[present]


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """One, as it is stored."""

    ingest_job_id: int
    job_uuid: str
    state: IngestState
    scanner: str
    scan_id: str
    content: bytes
    format: str
    tool: str
    tool_version: str
    organization: str
    vantage: str
    scope: str
    issued_at: Millis
    scanned_at: Millis
    """As stated; else as the file says, once that was read; else when it was signed."""
    time_stated: bool
    data_sha256: bytes
    data_size: int
    scan_data_id: int | None
    submitted_by: str
    created_at: Millis
    updated_at: Millis
    completed_at: Millis | None
    attempts: int
    next_attempt_at: int
    failing_since: int
    items: int
    records: int
    skipped: int
    hosts: int
    ports: int
    reason: str
    message: str
    next_action: str
    key_name: str
    """Of the scanner, if its key is registered."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How many ingest jobs stand how."""

    waiting: int
    """Not final."""
    troubled: int
    """Of these, those that failed and are tried again."""
    failed: int
    """For good, lately."""


@dataclass(frozen=True, kw_only=True)
class SkippedLine:
    """What was skipped of a scan, and why."""

    number: int
    line: int
    reason: str
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class ScannerKey:
    """A key that signs scans and is no peer's."""

    number: int
    scanner: str
    name: str
    created_at: Millis
    created_by: str
    revoked_at: Millis | None
    revoke_reason: str
    replaced_by: str
    last_used_at: Millis | None = None
