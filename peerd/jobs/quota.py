"""How much of this disk the jobs of one other peer may take."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Tx

_USED = (
    "SELECT coalesce(sum(max(disk_bytes, bytes_received)), 0) FROM job_executions "
    "WHERE orchestrator_peer_id = ? AND files = 'present'"
)
_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Quota:
    """The rule of one executor. Its own workflows are not limited: the disk is its owner's."""

    limit_bytes: int
    """No limit when 0."""
    executor: PeerId

    def check(self, tx: Tx, orchestrator: PeerId, more: int = 0) -> None:
        """Return if so many more bytes may come. Raises STORAGE_QUOTA.

        What jobs that are over occupy was measured; of those that run, only what they received is known.
        """
        if not self.limit_bytes or orchestrator == self.executor:
            return
        row = tx.one(_USED, (orchestrator,))
        used = int(row[0]) if row is not None else 0
        if used + more > self.limit_bytes or used >= self.limit_bytes:
            raise PeerdError(
                Reason.STORAGE_QUOTA,
                f"jobs of {orchestrator} occupy {used} bytes here and may occupy {self.limit_bytes}",
                retry_after_seconds=_AGAIN_SECONDS,
            )
