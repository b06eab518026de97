"""What operators do with ingest jobs: each is part of one transaction."""

from __future__ import annotations

from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.scans import repository
from peerd.scans.changes import Changes
from peerd.scans.model import IngestJob, IngestState
from peerd.store import Tx

_MAX_REASON = 500


class Control:
    """Cancels and begins anew."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def cancel(self, tx: Tx, ingest_job_id: int, reason: str, *, who: str) -> IngestJob:
        """Process no more of it; what is stored stays. Raises NOT_FOUND, ILLEGAL_TRANSITION or INVALID_ARGUMENT."""
        if len(reason) > _MAX_REASON or not reason.isprintable():
            raise PeerdError(Reason.INVALID_ARGUMENT, f"a reason has at most {_MAX_REASON} printable characters")
        job = repository.get(tx, ingest_job_id)
        if job.state is IngestState.CANCELLED:
            return job
        said = f"cancelled by {who}: {reason}" if reason else f"cancelled by {who}"
        moved = repository.move(
            tx,
            job,
            IngestState.CANCELLED,
            reason="cancelled",
            message=said,
            next_action=f"'peerctl scans retry {ingest_job_id}' processes it after all",
        )
        failpoint("scans.cancel.before_commit")
        tx.on_commit(lambda: self._changes.tell(ingest_job_id))
        return moved

    def retry(self, tx: Tx, ingest_job_id: int) -> IngestJob:
        """From its beginning. Raises NOT_FOUND, ILLEGAL_TRANSITION or SCAN_DATA_REMOVED."""
        job = repository.get(tx, ingest_job_id)
        if not job.state.final:
            return job
        if job.state is not IngestState.COMPLETED and job.scan_data_id is None:
            raise PeerdError(Reason.SCAN_DATA_REMOVED, f"the bytes of ingest job {ingest_job_id} are not kept any more")
        moved = repository.move(
            tx,
            job,
            IngestState.PENDING,
            attempts=0,
            next_attempt_at=0,
            failing_since=0,
            items=0,
            records=0,
            skipped=0,
            hosts=0,
            ports=0,
            reason="",
            message="",
            next_action="",
        )
        repository.forget_skipped(tx, ingest_job_id)
        tx.on_commit(lambda: self._changes.tell(ingest_job_id))
        tx.on_commit(self._changes.work)
        return moved
