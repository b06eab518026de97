"""A wall clock for each daemon, which can be set ahead and back while it runs.

Only the wall clock: what counts durations goes on, as on a real machine. Jobs have the machine's own clock, since their
wrapper is started with an empty environment; so their times may be earlier or later than their daemon's.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.fleet import Daemon, Fleet

_LIBRARIES = ("faketime/libfaketimeMT.so.1", "*/faketime/libfaketimeMT.so.1")


def find_faketime() -> Path | None:
    """The library that fakes a process's wall clock, or None."""
    for folder in (Path("/usr/lib"), Path("/usr/local/lib"), Path("/usr/lib64")):
        for pattern in _LIBRARIES:
            if (found := next(folder.glob(pattern), None)) is not None:
                return found
    return None


needs_faketime = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and find_faketime() is None,
    reason="needs libfaketime, of the package faketime, for wall clocks that can be set",
)


class WallClock:
    """Of one daemon; counts from the daemon's next start."""

    def __init__(self, daemon: Daemon) -> None:
        library = find_faketime()
        assert library is not None, "libfaketime is not installed: apt-get install faketime"
        self.ahead = 0.0
        self._file = daemon.data.parent / f"{daemon.name}.clock"
        self.set(0)
        daemon.environ |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Looked at once a second: at each call it would take half a core for each daemon.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Files have the machine's own times. Else each look at a file takes a lock that is shared with the programs
            # the daemon starts, and one that is killed while it holds it stops the daemon for good.
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead: float) -> None:
        """So many seconds ahead of the machine's own from the next second on; behind it when negative."""
        self.ahead = ahead
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.3f}\n")
        new.replace(self._file)


def wall_clocks(fleet: Fleet) -> dict[str, WallClock]:
    """One for each."""
    return {name: WallClock(daemon) for name, daemon in fleet.daemons.items()}
