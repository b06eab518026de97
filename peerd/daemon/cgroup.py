"""What the control group of this process lets it have: containers and services have less than their machine.

Every group from the process's own up to the root counts. Inside a container the own path may be one of the host, which
is not there; what is mounted at the root is the container's own group then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 60
"""Version 1 says a huge number when there is none."""


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where the kernel tells; others in tests."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


def read_text(path: Path) -> str:
    """A file of the kernel's; empty if it is not there or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def memory_limit(roots: Roots) -> int | None:
    """Bytes; None without a limit."""
    return min((limit for limit, _ in _memory(roots)), default=None)


def memory_left(roots: Roots) -> int | None:
    """Bytes until the tightest limit, counting caches that can be dropped as free; None without a limit."""
    return min((max(limit - used, 0) for limit, used in _memory(roots)), default=None)


def cpu_limit(roots: Roots) -> float | None:
    """Cores' worth of time; None without a limit."""
    shares = [*_unified_cpu(roots), *_first_version_cpu(roots)]
    return min(shares, default=None)


def _memory(roots: Roots) -> Iterator[tuple[int, int]]:
    """(limit, used) of each group that has a limit."""
    for group in _groups(roots, "", "."):
        yield from _limited(group, "memory.max", "memory.current", "inactive_file")
    for group in _groups(roots, "memory", "memory"):
        yield from _limited(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _limited(group: Path, limit: str, used: str, droppable: str) -> Iterator[tuple[int, int]]:
    maximum = read_text(group / limit).strip()
    if not maximum.isdecimal() or int(maximum) >= _NO_LIMIT:
        return
    current = read_text(group / used).strip()
    stat = dict(line.split(" ", 1) for line in read_text(group / "memory.stat").splitlines() if " " in line)
    dropped = stat.get(droppable, "0").strip()
    yield int(maximum), max(_number(current) - _number(dropped), 0)


def _unified_cpu(roots: Roots) -> Iterator[float]:
    for group in _groups(roots, "", "."):
        quota, _, period = read_text(group / "cpu.max").strip().partition(" ")
        if _number(quota) and _number(period):
            yield _number(quota) / _number(period)


def _first_version_cpu(roots: Roots) -> Iterator[float]:
    for folder in ("cpu", "cpu,cpuacct"):
        for group in _groups(roots, "cpu", folder):
            quota, period = (_number(read_text(group / f"cpu.cfs_{name}_us").strip()) for name in ("quota", "period"))
            if quota and period:  # -1 is no limit
                yield quota / period


def _groups(roots: Roots, controller: str, folder: str) -> Iterator[Path]:
    """The folders of this process's group for a controller ("" is version 2), and of all above it."""
    root = roots.sys / "fs" / "cgroup" / folder
    for line in read_text(roots.proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own = PurePosixPath(path)
        if controller in controllers.split(",") and own.is_absolute() and ".." not in own.parts:
            yield from (root / str(group).lstrip("/") for group in (own, *own.parents) if group != PurePosixPath("/"))
            break
    yield root


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
