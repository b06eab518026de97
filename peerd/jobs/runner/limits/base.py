"""What a version of control groups must be able to do, and how one group is described to the wrapper."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from peerd.jobs.runner import bounds
from peerd.jobs.runner.spec import Limits

PERIOD_US = 100_000
"""Over which the share of processor time is counted."""
_LEAST_QUOTA_US = 1000
FOLDER = "peerd"
"""Below the daemon's own group; nothing outside it is ever touched."""
MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Group:
    """The files of one job's group: all that its wrapper needs, which has none of our code."""

    folders: tuple[str, ...]
    above: tuple[str, ...]
    """Folders of ours that hold these, innermost first: removed with them when they are empty."""
    join: tuple[str, ...]
    """A pid written there moves into the group."""
    leave: tuple[str, ...]
    """A pid written there moves back to where the daemon is."""
    memory_hits: tuple[str, str]
    """File and key of the count of processes killed for want of memory."""
    pids_hits: tuple[str, str]
    no_forks: str
    """Where to write 0, so that nothing more can start."""
    kill: str = ""
    """Where to write 1 to kill all of it, if the kernel has that."""


class Backend(Protocol):
    """One version of control groups, at one place of the tree."""

    name: str
    limits_cpus: bool

    def describe(self, name: str) -> Group:
        """The group of that name, whether it exists or not."""
        ...

    def create(self, name: str, limits: Limits) -> Group:
        """Make a new group and set its limits. Raises OSError."""
        ...

    def names(self, owner: str) -> list[str]:
        """Names of an owner's groups that exist, ``owner/...``."""
        ...

    def works(self) -> bool:
        """Whether a process can really be moved in and out, and the group removed."""
        ...


def quota_us(cpus: float) -> int:
    """Microseconds of processor time in each period."""
    return max(_LEAST_QUOTA_US, round(cpus * PERIOD_US))


def make(folder: Path) -> None:
    """Make a group with all above it; another daemon may be removing an empty one above at this moment."""
    for _ in range(20):
        try:
            folder.mkdir(parents=True)
        except FileNotFoundError:
            continue
        except FileExistsError as error:
            if error.filename == str(folder):
                raise
            continue  # one above was there, and was gone when it was looked at
        return
    folder.mkdir(parents=True)


def remove(group: Group) -> bool:
    """Kill and remove a group; False when it would not go. Blocking."""
    return bounds.remove({name: getattr(group, name) for name in Group.__dataclass_fields__})


def above(folder: Path, name: str) -> list[str]:
    """The folders of ours above a group of that name."""
    return [str(folder.parents[number]) for number in range(len(PurePosixPath(name).parts))]


def own_paths(text: str) -> Mapping[str, PurePosixPath]:
    """From /proc/self/cgroup: the path of this process's group by controller; "" is version 2."""
    found: dict[str, PurePosixPath] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own = PurePosixPath(path)
        if own.is_absolute() and ".." not in own.parts:
            found.update(dict.fromkeys(controllers.split(","), own))
    return found


def existing(root: Path, own: PurePosixPath) -> Path:
    """The folder of a group; in a container the path may be one of the host, and the root is the own group then."""
    folder = root / str(own).lstrip("/")
    return folder if folder.is_dir() else root


def write(path: Path, text: str) -> None:
    """Write to a file of the kernel. Raises OSError."""
    bounds.write(str(path), text)


def children(folders: Iterable[Path], owner: str) -> list[str]:
    """Names of the groups an owner has below some folders."""
    found: set[str] = set()
    for folder in folders:
        try:
            found |= {f"{owner}/{entry.name}" for entry in os.scandir(folder / owner) if entry.is_dir()}
        except OSError:
            continue
    return sorted(found)
