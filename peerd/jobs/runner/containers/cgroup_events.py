"""Whether a container hit its limits, as the kernel counts it.

An engine may not say: podman's ``OOMKilled`` stays false where it runs on control groups of version 1. The files are
opened before the container starts (with podman; docker makes the group only then) and read by a thread of their own,
because the group is gone some 50 ms after the container, whatever else the holder is busy with.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_SECONDS = 0.01


class LimitEvents:
    """Counts of one container; nothing where its group cannot be seen."""

    def __init__(self, pid: int, *, proc: Path = Path("/proc"), root: Path = _ROOT) -> None:
        self.memory = False
        """A process of it was killed because its memory was full."""
        self.pids = False
        """It was refused a process because it had too many."""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._memory = _open(_places(pid, "memory", ("memory.events", "memory.oom_control"), proc, root))
        self._pids = _open(_places(pid, "pids", ("pids.events",), proc, root))

    @property
    def found(self) -> bool:
        """Whether there is anything to read."""
        return self._memory is not None or self._pids is not None

    def watch(self) -> None:
        """Read the counts again and again until they are closed."""
        if self.found and self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(_PERIOD_SECONDS):
            self.look()

    def look(self) -> None:
        """Read the counts."""
        self.memory = self.memory or _count(self._memory, b"oom_kill") > 0
        self.pids = self.pids or _count(self._pids, b"max") > 0

    def close(self) -> None:
        """Stop reading and close the files."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        for descriptor in (self._memory, self._pids):
            if descriptor is not None:
                os.close(descriptor)
        self._memory = self._pids = None


def _places(pid: int, controller: str, names: tuple[str, ...], proc: Path, root: Path) -> list[Path]:
    """Where the files may be: of the controller's own tree (version 1), or of the only one (version 2)."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines() if pid else []
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            found += [root / controller / path.strip("/") / name for name in names]
        elif not controllers:
            found += [root / path.strip("/") / name for name in names]
    return found


def _open(places: list[Path]) -> int | None:
    for place in places:
        try:
            return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _count(descriptor: int | None, name: bytes) -> int:
    if descriptor is None:
        return 0
    try:
        content = os.pread(descriptor, 4096, 0)
    except OSError:  # the group is gone
        return 0
    return sum(int(line.split()[1]) for line in content.splitlines() if line.split()[:1] == [name])
