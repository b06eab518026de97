"""Room on the file system of the data directory: what is free, and what of it stays free."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from peerd.errors import PeerdError, Reason

_RETRY_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system as it was when looked at, in bytes."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    """What is never taken in: the daemon's own store must always be able to write."""

    def has_room(self, more: int = 0) -> bool:
        """Whether the reserve stays free when that many bytes are added."""
        return self.free_bytes - more >= self.reserve_bytes

    def check(self, more: int = 0) -> None:
        """Return if that many bytes may be added. Raises DISK_LOW, which passes."""
        if not self.has_room(more):
            wanted = f"{more} bytes do not fit: " if more else ""
            raise PeerdError(
                Reason.DISK_LOW,
                f"{wanted}{self.free_bytes} bytes are free here; the last {self.reserve_bytes} are kept",
                retry_after_seconds=_RETRY_SECONDS,
            )


@dataclass(frozen=True, kw_only=True)
class Reserve:
    """What stays free: the larger of the two."""

    min_free_bytes: int = 1024**3
    min_free_fraction: float = 0.05

    def look(self, place: Path) -> Disk:
        """The file system of a directory that exists."""
        usage = shutil.disk_usage(place)
        reserve = max(self.min_free_bytes, int(usage.total * self.min_free_fraction))
        return Disk(total_bytes=usage.total, free_bytes=usage.free, reserve_bytes=reserve)


NOTHING_KEPT = Reserve(min_free_bytes=0, min_free_fraction=0)
