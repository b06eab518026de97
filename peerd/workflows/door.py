"""Whether this peer takes one more execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peerd.disk import Disk
from peerd.errors import PeerdError, Reason


@dataclass(frozen=True, kw_only=True)
class Door:
    """Every reason to refuse an execution that is not in its definition."""

    max_open: int
    open_executions: Callable[[], int]
    """Those that are not settled."""
    disk: Callable[[], Disk]

    def check(self) -> None:
        """Return if there is room. Raises OVERLOADED, DISK_LOW; both pass."""
        count = self.open_executions()
        if count >= self.max_open:
            raise PeerdError(
                Reason.OVERLOADED, f"{count} executions are under way here, which is the limit", retry_after_seconds=10
            )
        self.disk().check()
