"""Values -> messages: ingest jobs and scanner keys as people see them."""

from __future__ import annotations

from collections.abc import Callable

from peerd.clock import Clock, Millis
from peerd.moments import moment
from peerd.scans.hand_ins import HandIn, HandInState
from peerd.scans.model import IngestJob, IngestState, ScannerKey, SkippedLine
from peerd.scans.scanners import key_base64
from peerd.v1 import scans_pb2

_HAND_IN_STATES = {state: scans_pb2.HandInState.Value(f"HAND_IN_STATE_{state.name}") for state in HandInState}
_STATES = {state: scans_pb2.IngestState.Value(f"INGEST_STATE_{state.name}") for state in IngestState}


class JobMessages:
    """Makes messages of jobs; their retries are stored by a clock that people do not read."""

    def __init__(self, clock: Clock, name_of: Callable[[str], str]) -> None:
        self._clock = clock
        self._name_of = name_of

    def __call__(self, job: IngestJob) -> scans_pb2.IngestJob:
        """One job."""
        waits = not job.state.final and job.next_attempt_at > self._clock.steady()
        at = Millis(job.next_attempt_at - self._clock.steady() + self._clock.now())
        return scans_pb2.IngestJob(
            ingest_job_id=job.ingest_job_id,
            job_uuid=job.job_uuid,
            state=_STATES[job.state],
            scanner=job.scanner,
            scanner_name=job.key_name or self._name_of(job.scanner),
            scan_id=job.scan_id,
            format=job.format,
            tool=job.tool,
            tool_version=job.tool_version,
            organization=job.organization,
            vantage=job.vantage,
            scope=job.scope,
            issued_at=moment(job.issued_at),
            scanned_at=moment(job.scanned_at),
            data_sha256=job.data_sha256,
            data_size=job.data_size,
            submitted_by=job.submitted_by,
            created_at=moment(job.created_at),
            updated_at=moment(job.updated_at),
            completed_at=moment(job.completed_at),
            attempts=job.attempts,
            records=job.records,
            skipped=job.skipped,
            hosts=job.hosts,
            ports=job.ports,
            reason=job.reason,
            message=job.message,
            next_action=job.next_action,
            next_attempt_at=moment(at) if waits else None,
            has_data=job.scan_data_id is not None,
        )

    def hand_in(self, one: HandIn) -> scans_pb2.ScanHandIn:
        """A scan on its way to another peer."""
        at = Millis(max(0, one.next_attempt_at - self._clock.steady()) + self._clock.now())
        return scans_pb2.ScanHandIn(
            hand_in_id=one.hand_in_id,
            state=_HAND_IN_STATES[one.state],
            job_execution_id=one.job_execution_id,
            service=one.service,
            path=one.path,
            scan_id=one.scan_id,
            to_peer_id=one.to_peer_id,
            to_name=self._name_of(one.to_peer_id),
            format=one.format,
            vantage=one.vantage,
            ingest_job_id=one.ingest_job_id,
            attempts=one.attempts,
            created_at=moment(one.created_at),
            updated_at=moment(one.updated_at),
            next_attempt_at=moment(at) if one.state is HandInState.WAITING else None,
            reason=one.reason,
            message=one.message,
            next_action=one.next_action,
        )


def to_skipped(line: SkippedLine) -> scans_pb2.SkippedRecord:
    """One that was skipped."""
    return scans_pb2.SkippedRecord(line=line.line, reason=line.reason, excerpt=line.excerpt)


def to_key(key: ScannerKey) -> scans_pb2.ScannerKey:
    """A scanner's key."""
    return scans_pb2.ScannerKey(
        scanner=key.scanner,
        name=key.name,
        created_at=moment(key.created_at),
        created_by=key.created_by,
        revoked_at=moment(key.revoked_at),
        revoke_reason=key.revoke_reason,
        replaced_by=key.replaced_by,
        public_key=key_base64(key.scanner),
        last_used_at=moment(key.last_used_at),
    )


def to_state(number: int) -> IngestState | None:
    """None for any."""
    return next((state for state, value in _STATES.items() if value == number), None)


def to_hand_in_state(number: int) -> HandInState | None:
    """None for any."""
    return next((state for state, value in _HAND_IN_STATES.items() if value == number), None)
