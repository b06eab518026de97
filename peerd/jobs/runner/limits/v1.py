"""Control groups of version 1: a tree for each controller. https://docs.kernel.org/admin-guide/cgroup-v1/"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peerd.jobs.runner.limits import base
from peerd.jobs.runner.limits.base import FOLDER, MOUNT, PERIOD_US, Group
from peerd.jobs.runner.limits.trying import can_move
from peerd.jobs.runner.spec import Limits

_NEEDED = ("memory", "pids")
_FOLDERS = {"memory": ("memory",), "pids": ("pids",), "cpu": ("cpu", "cpu,cpuacct")}


class VersionOne:
    """Groups below the daemon's own in the trees of memory, pids and, if it is there, cpu."""

    name = "cgroup v1"

    def __init__(self, own: Mapping[str, Path]) -> None:
        self._own = own
        self.limits_cpus = "cpu" in own

    @classmethod
    def find(cls, own_text: str, mount: Path = MOUNT) -> VersionOne | None:
        """The trees of this machine, if the needed ones are there."""
        own = base.own_paths(own_text)
        found: dict[str, Path] = {}
        for controller, folders in _FOLDERS.items():
            for folder in folders:
                if controller in own and (mount / folder / "cgroup.procs").exists():
                    found[controller] = base.existing(mount / folder, own[controller])
                    break
        return cls(found) if all(controller in found for controller in _NEEDED) else None

    def describe(self, name: str) -> Group:
        """The group of that name."""
        place = {controller: folder / FOLDER / name for controller, folder in self._own.items()}
        return Group(
            folders=tuple(str(folder) for folder in place.values()),
            above=tuple(path for folder in place.values() for path in base.above(folder, name)),
            join=tuple(str(folder / "cgroup.procs") for folder in place.values()),
            leave=tuple(str(folder / "cgroup.procs") for folder in self._own.values()),
            memory_hits=(str(place["memory"] / "memory.oom_control"), "oom_kill"),
            pids_hits=(str(place["pids"] / "pids.events"), "max"),
            no_forks=str(place["pids"] / "pids.max"),
        )

    def create(self, name: str, limits: Limits) -> Group:
        """Make it in each tree, memory without swap."""
        group = self.describe(name)
        try:
            for folder in group.folders:
                base.make(Path(folder))
            self._set(name, limits)
        except OSError:
            base.remove(group)
            raise
        return group

    def names(self, owner: str) -> list[str]:
        """In any of the trees."""
        return base.children([folder / FOLDER for folder in self._own.values()], owner)

    def works(self) -> bool:
        """Try it."""
        return can_move(self)

    def _set(self, name: str, limits: Limits) -> None:
        memory = self._own["memory"] / FOLDER / name
        if limits.memory_bytes:
            base.write(memory / "memory.limit_in_bytes", str(limits.memory_bytes))
            with_swap = memory / "memory.memsw.limit_in_bytes"
            if with_swap.exists():
                base.write(with_swap, str(limits.memory_bytes))
        if limits.pids:
            base.write(self._own["pids"] / FOLDER / name / "pids.max", str(limits.pids))
        if limits.cpus and self.limits_cpus:
            cpu = self._own["cpu"] / FOLDER / name
            base.write(cpu / "cpu.cfs_period_us", str(PERIOD_US))
            base.write(cpu / "cpu.cfs_quota_us", str(base.quota_us(limits.cpus)))
