"""Whether this peer takes one more execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peerd.errors import PeerdError, Reason


@dataclass(frozen=True, kw_only=True)
class Door:
    """Every reason to refuse an execution that is not in its definition."""

    max_open: int
    open_executions: Callable[[], int]
    """Those that are not settled."""
    free_bytes: Callable[[], tuple[int, int]]
    """(free, those that stay free) on the disk of the data directory."""

    def check(self) -> None:
        """Return if there is room. Raises OVERLOADED, DISK_LOW; both pass."""
        count = self.open_executions()
        if count >= self.max_open:
            raise PeerdError(
                Reason.OVERLOADED, f"{count} executions are under way here, which is the limit", retry_after_seconds=10
            )
        free, reserve = self.free_bytes()
        if free < reserve:
            raise PeerdError(
                Reason.DISK_LOW,
                f"{free} bytes are free here; the last {reserve} are kept",
                next_action="free disk space on this machine: 'peerctl du' shows what takes it, 'peerctl gc' removes",
                retry_after_seconds=60,
            )
