"""Holds one attempt to its limits, inside the wrapper: standard library only, like the wrapper itself.

A control group is known here by its files alone, as :mod:`peerd.jobs.runner.limits` described them: what to write to
enter and leave it, which counters tell that a limit was hit, how to kill everything in it. Where there is no control
group, memory and processes are counted now and then and the job is ended when they are too many. What it writes is
always counted like that.
"""

from __future__ import annotations

import os
import resource
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 2.0
_FASTEST_BYTES_PER_SECOND = 2 * 1024**3
"""How fast a job is thought to write: decides when to look again."""
_WALK_SHARE = 10
"""Looking takes at most one part in so many of the time."""
_REMOVE_SECONDS = 5.0

MEMORY, PIDS, DISK = "memory_limit", "pids_limit", "disk_limit"


class Bounds:
    """The limits of one attempt: ``memory_bytes``, ``pids``, ``disk_bytes``, ``disk_paths``, ``rlimits``, ``group``."""

    def __init__(self, limits: dict[str, Any], family: Callable[[], set[int]]) -> None:
        self.limits = limits
        self.group: dict[str, Any] = limits.get("group") or {}
        self.family = family
        self.hit = ""
        self.next_at = float("inf")
        self.present = 0
        self.short: bool | None = None
        """Whether it was refused a process, before it was refused all of them because it is killed."""
        self.softly: dict[int, int] = {}

    def enter(self) -> None:
        """Go into the group, so that what is started now is born in it. Raises OSError: nothing runs unlimited."""
        for path in self.group.get("join", ()):
            write(path, str(os.getpid()))
        for name, wanted in self.limits.get("rlimits", {}).items():
            number = getattr(resource, name)
            soft, hard = resource.getrlimit(number)
            self.softly[number] = soft
            resource.setrlimit(number, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))

    def leave(self, child: int) -> None:
        """Come back out, and make what was set final for the child; 0 when none was started."""
        for number, soft in self.softly.items():
            wanted, hard = resource.getrlimit(number)
            resource.setrlimit(number, (soft, hard))
            if child:
                try:
                    resource.prlimit(child, number, (wanted, wanted))
                except ProcessLookupError:
                    pass  # it has ended
        self.softly.clear()
        for path in self.group.get("leave", ()):
            write(path, str(os.getpid()))

    def begin(self) -> None:
        """Before the start: what lies there already was not written by this attempt."""
        if self.limits.get("disk_bytes"):
            self.present = occupied(self.limits["disk_paths"])
        self.next_at = time.monotonic() + SHORTEST_SECONDS

    def look(self) -> str:
        """The limit that was hit and ends the attempt, or nothing; sets when to look again."""
        begun = time.monotonic()
        room = self._look()
        took = time.monotonic() - begun
        pause = max(SHORTEST_SECONDS, took * _WALK_SHARE, room / _FASTEST_BYTES_PER_SECOND)
        self.next_at = time.monotonic() + min(pause, LONGEST_SECONDS)
        return self.hit

    def judge(self, code: int) -> str:
        """The limit that was hit, at the end: ``code`` is what the first process ended with, below 0 for a signal."""
        if not self.hit:
            self._look()
        if not self.hit and code == -signal.SIGXFSZ and self.limits.get("disk_bytes"):
            self.hit = DISK
        if not self.hit and code != 0 and self._at_the_edge():
            self.hit = DISK
        if not self.hit and code != 0 and self._pids_were_short():
            self.hit = PIDS
        return self.hit

    def words(self) -> str:
        """The limit that was hit, for people."""
        if self.hit == MEMORY:
            return f"memory limit of {size(self.limits['memory_bytes'])} was hit"
        if self.hit == PIDS:
            return f"limit of {self.limits['shown_pids']} processes was hit"
        if self.hit == DISK:
            return f"disk limit of {size(self.limits['disk_bytes'])} was hit"
        return ""

    def note(self) -> str:
        """What is worth saying of an attempt that was not ended by a limit: it may have gone on without a process."""
        if self._pids_were_short():
            return f"limit of {self.limits['shown_pids']} processes was hit"
        return ""

    def kill(self) -> None:
        """Kill what is in the group."""
        if self.group:
            if self.short is None:
                self.short = counter(self.group.get("pids_hits")) > 0
            kill(self.group)

    def close(self) -> None:
        """Everything has ended: remove the group."""
        if self.group:
            remove(self.group)

    def _look(self) -> float:
        """Set ``hit`` if so; returns the bytes until the nearest limit that is only looked at."""
        room = float("inf")
        if counter(self.group.get("memory_hits")):
            self.hit = MEMORY
            return 0.0
        if not self.group and (self.limits.get("memory_bytes") or self.limits.get("pids")):
            room = self._look_at_processes()
        if self.limits.get("disk_bytes") and not self.hit:
            left = self.limits["disk_bytes"] - (occupied(self.limits["disk_paths"]) - self.present)
            if left < 0:
                self.hit = DISK
            room = min(room, max(0, left))
        return room

    def _look_at_processes(self) -> float:
        members = self.family()
        if self.limits.get("pids") and len(members) > self.limits["pids"]:
            self.hit = PIDS
            return 0.0
        if not self.limits.get("memory_bytes"):
            return float("inf")
        left = self.limits["memory_bytes"] - resident(members)
        if left < 0:
            self.hit = MEMORY
        return float(max(0, left))

    def _pids_were_short(self) -> bool:
        return counter(self.group.get("pids_hits")) > 0 if self.short is None else self.short

    def _at_the_edge(self) -> bool:
        """Whether a file is as long as the kernel lets it become, which is why the job could not go on."""
        longest = self.limits.get("rlimits", {}).get("RLIMIT_FSIZE")
        return bool(longest) and any(length >= longest for length in lengths(self.limits["disk_paths"]))


def write(path: str, text: str) -> None:
    """Write to a file of the kernel, in one piece."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def counter(place: Sequence[str] | None) -> int:
    """The number behind a key in a file of "key number" lines; 0 when there is none."""
    if not place:
        return 0
    path, key = place
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, number = line.partition(" ")
                if name == key:
                    return int(number)
    except (OSError, ValueError):
        pass
    return 0


def members(group: dict[str, Any]) -> set[int]:
    """Pids of everything in a group."""
    found: set[int] = set()
    for path in group.get("join", ()):
        try:
            with open(path, encoding="ascii") as file:
                found |= {int(line) for line in file}
        except (OSError, ValueError):
            continue
    return found - {os.getpid()}


def kill(group: dict[str, Any]) -> None:
    """Kill everything in a group: first nothing new may start, so that it cannot outrun us."""
    for path, text in ((group.get("no_forks"), "0"), (group.get("kill"), "1")):
        if path:
            try:
                write(path, text)
            except OSError:
                pass  # it is gone, or this kernel has no such file: the members are killed one by one
    for pid in members(group):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def remove(group: dict[str, Any]) -> bool:
    """Kill everything in a group and remove its folders; False when it would not go."""
    until = time.monotonic() + _REMOVE_SECONDS
    pause = 0.001
    while True:
        left = [path for path in group.get("folders", ()) if not removed(path)]
        if not left:
            for path in group.get("above", ()):
                removed(path)
            return True
        if time.monotonic() >= until:
            return False
        kill(group)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def removed(folder: str) -> bool:
    """Remove an empty group; True when it is not there any more."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory that processes hold, what they share counted once for each."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                fields = file.read().split()
        except OSError:
            continue
        pages += int(fields[1]) - int(fields[2])
    return pages * resource.getpagesize()


LONGEST_PATH = 3800
"""In bytes; with one more name it is still short enough for the kernel."""


def occupied(folders: Iterable[str]) -> int:
    """Bytes on the disk below some folders; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for status in statuses(folders):
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def lengths(folders: Iterable[str]) -> list[int]:
    """How long the files below some folders are."""
    return [status.st_size for status in statuses(folders)]


def statuses(folders: Iterable[str]) -> list[os.stat_result]:
    """Of all below some folders, links not followed. What vanishes meanwhile is passed over.

    Where paths become too long for the kernel they begin anew at a descriptor, so that nothing hides in the depth.
    """
    found = []
    waiting = list(folders)
    held: list[int] = []
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        found.append(entry.stat(follow_symlinks=False))
                        if not entry.is_dir(follow_symlinks=False):
                            continue
                        if len(os.fsencode(entry.path)) <= LONGEST_PATH:
                            waiting.append(entry.path)
                        else:
                            held.append(os.open(entry.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
                            waiting.append(f"/proc/self/fd/{held[-1]}")
                    except OSError:
                        continue
        except OSError:
            continue
    for descriptor in held:
        os.close(descriptor)
    return found


def size(number: int) -> str:
    """ "64M": the largest unit that says it exactly."""
    for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if number >= factor and number % factor == 0:
            return f"{number // factor}{unit}"
    return f"{number} bytes"
