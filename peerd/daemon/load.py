"""How this machine is at the moment: the sample that goes with every probe."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Clock
from peerd.daemon.cgroup import Roots, memory_left
from peerd.daemon.hardware import memory_total, read_meminfo
from peerd.v1.registry_pb2 import Sample

_FRESH_SECONDS = 1.0
"""Probes come from many sides; the machine is looked at this often."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the daemon does for itself and others."""

    running_jobs: int
    queued_jobs: int
    active_transfers: int
    calls: int
    """Answered since the daemon started."""


class LoadMeter:
    """Measures load between two looks."""

    def __init__(
        self,
        clock: Clock,
        data_dir: Path,
        *,
        work: Callable[[], Work],
        local_health: Callable[[], int],
        roots: Roots | None = None,
    ) -> None:
        self._clock = clock
        self._data_dir = data_dir
        self._work = work
        self._local_health = local_health
        self._roots = roots or Roots()
        self._looked_at = clock.monotonic()
        self._cpu = _cpu_times(self._roots)
        self._calls = 0
        self._last = Sample()
        self._measured = False

    def sample(self) -> Sample:
        """The machine now; what takes a look at the kernel's files is at most a second old."""
        now = self._clock.monotonic()
        work = self._work()
        if not self._measured or now - self._looked_at >= _FRESH_SECONDS:
            self._look(now, work.calls)
        sample = Sample()
        sample.CopyFrom(self._last)
        sample.running_jobs = work.running_jobs
        sample.queued_jobs = work.queued_jobs
        sample.active_transfers = work.active_transfers
        sample.local_health = self._local_health()
        return sample

    def _look(self, now: float, calls: int) -> None:
        busy, total = _cpu_times(self._roots)
        passed = total - self._cpu[1]
        percent = 100 * (busy - self._cpu[0]) / passed if passed > 0 else self._last.cpu_percent
        seconds = now - self._looked_at
        rate = (calls - self._calls) / seconds if seconds > 0 else 0.0
        disk = shutil.disk_usage(self._data_dir)
        memory = memory_total(self._roots)
        self._last = Sample(
            cpu_percent=round(min(max(percent, 0.0), 100.0), 1),
            memory_total_bytes=memory,
            memory_available_bytes=min(_available(self._roots), memory),
            disk_total_bytes=disk.total,
            disk_free_bytes=disk.free,
            requests_per_second=round(max(rate, 0.0), 1),
        )
        self._cpu, self._calls, self._looked_at, self._measured = (busy, total), calls, now, True


def _available(roots: Roots) -> int:
    """Bytes that could be used without swapping, and without passing the limit of the control group."""
    machine, group = read_meminfo(roots).get("MemAvailable", 0), memory_left(roots)
    return machine if group is None else min(machine, group)


def _cpu_times(roots: Roots) -> tuple[int, int]:
    """(busy, total) ticks of all cores since boot."""
    try:
        line = (roots.proc / "stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return 0, 0
    ticks = [int(field) for field in line.split()[1:9]]
    idle = sum(ticks[3:5])
    return sum(ticks) - idle, sum(ticks)
