"""Control groups of version 2: one tree. https://docs.kernel.org/admin-guide/cgroup-v2.html

A group that hands controllers to groups below it may hold no process itself. So a service is given a place where groups
can be made by ``Delegate=`` together with ``DelegateSubgroup=peerd-main`` of its unit: the daemon is in that subgroup,
and the jobs beside it. The root of the tree has no such rule; a daemon that systemd did not start, and that may write
there, makes its groups below the root.
"""

from __future__ import annotations

from pathlib import Path

from peerd.jobs.runner.limits import base
from peerd.jobs.runner.limits.base import FOLDER, MOUNT, PERIOD_US, Group
from peerd.jobs.runner.limits.trying import can_move
from peerd.jobs.runner.spec import Limits

_NEEDED = frozenset({"memory", "pids"})
_WANTED = ("memory", "pids", "cpu")
_TRIES = 5
_MAIN = "peerd-main"
"""As DelegateSubgroup of our unit says."""


class VersionTwo:
    """Groups below one that this daemon may rule."""

    name = "cgroup v2"

    def __init__(self, top: Path, leave: Path, controllers: set[str]) -> None:
        self._top = top
        self._leave = leave
        self._controllers = controllers
        self.limits_cpus = "cpu" in controllers

    @classmethod
    def find(cls, own_text: str, mount: Path = MOUNT) -> VersionTwo | None:
        """The place where groups can be made, made ready; None where there is none. Raises OSError."""
        own = base.own_paths(own_text).get("")
        if own is None or not (mount / "cgroup.controllers").exists():
            return None
        leave = base.existing(mount, own)
        here = leave.parent if leave.name == _MAIN else mount
        controllers = set(_read(here / "cgroup.controllers").split())
        if not controllers >= _NEEDED:
            return None
        _hand_down(here, controllers)
        return cls(here / FOLDER, leave, controllers)

    def describe(self, name: str) -> Group:
        """The group of that name."""
        place = self._top / name
        kill = place / "cgroup.kill"  # Linux 5.14
        return Group(
            folders=(str(place),),
            above=tuple(base.above(place, name)),
            join=(str(place / "cgroup.procs"),),
            leave=(str(self._leave / "cgroup.procs"),),
            memory_hits=(str(place / "memory.events"), "oom_kill"),
            pids_hits=(str(place / "pids.events"), "max"),
            no_forks=str(place / "pids.max"),
            kill=str(kill),
        )

    def create(self, name: str, limits: Limits) -> Group:
        """Make it; for want of memory all of it is killed together, and nothing is swapped out."""
        group = self.describe(name)
        for _ in range(_TRIES - 1):
            try:
                return self._make(group, name, limits)
            except FileNotFoundError:
                continue  # another daemon removed an empty folder above it, just now
            except FileExistsError as error:
                if error.filename == str(self._top / name):
                    raise
                continue  # the same, between two looks at that folder
        return self._make(group, name, limits)

    def _make(self, group: Group, name: str, limits: Limits) -> Group:
        folder = self._top
        try:
            for part in ("", *Path(name).parts[:-1]):
                folder = folder / part
                folder.mkdir(exist_ok=True)
                _hand_down(folder, self._controllers)
            (self._top / name).mkdir()
            self._set(self._top / name, limits)
        except OSError:
            base.remove(group)
            raise
        return group

    def names(self, owner: str) -> list[str]:
        """Below our own folder."""
        return base.children([self._top], owner)

    def works(self) -> bool:
        """Try it."""
        return can_move(self)

    def _set(self, place: Path, limits: Limits) -> None:
        if limits.memory_bytes:
            base.write(place / "memory.max", str(limits.memory_bytes))
            for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                if (place / name).exists():
                    base.write(place / name, value)
        if limits.pids:
            base.write(place / "pids.max", str(limits.pids))
        if limits.cpus and self.limits_cpus:
            base.write(place / "cpu.max", f"{base.quota_us(limits.cpus)} {PERIOD_US}")


def _hand_down(folder: Path, controllers: set[str]) -> None:
    """Let the groups below have the controllers that we want and this group has."""
    there = set(_read(folder / "cgroup.subtree_control").split())
    for controller in _WANTED:
        if controller in controllers and controller not in there:
            base.write(folder / "cgroup.subtree_control", f"+{controller}")


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii")
