"""How much of this disk the jobs of one other peer may take."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs import occupancy
from peerd.store import Tx

_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Quota:
    """The rule of one executor. Its own workflows are not limited: the disk is its owner's."""

    limit_bytes: int
    """No limit when 0."""
    executor: PeerId

    def limits(self, orchestrator: PeerId) -> bool:
        """Whether there is a limit for the jobs of that peer."""
        return bool(self.limit_bytes) and orchestrator != self.executor

    def check(self, tx: Tx, orchestrator: PeerId) -> None:
        """Return if one more job may come. Raises STORAGE_QUOTA."""
        if not self.limits(orchestrator):
            return
        used = occupancy.used(tx, orchestrator)
        coming = occupancy.promised(tx, orchestrator)
        if used + coming >= self.limit_bytes:
            raise PeerdError(
                Reason.STORAGE_QUOTA,
                f"jobs of {orchestrator} occupy {used} bytes here, {coming} more are on their way, "
                f"and they may occupy {self.limit_bytes}",
                retry_after_seconds=_AGAIN_SECONDS,
            )

    def room(self, tx: Tx, orchestrator: PeerId, *, promised: int) -> int | None:
        """How many bytes may still be sent to the jobs of that peer, ``promised`` ones included; None is no limit."""
        if not self.limits(orchestrator):
            return None
        taken = occupancy.used(tx, orchestrator) + occupancy.promised(tx, orchestrator) - promised
        return max(0, self.limit_bytes - taken)

    def excess(self, tx: Tx, orchestrator: PeerId) -> int:
        """By how many bytes the jobs of that peer are above their limit."""
        return max(0, occupancy.used(tx, orchestrator) - self.limit_bytes) if self.limits(orchestrator) else 0
