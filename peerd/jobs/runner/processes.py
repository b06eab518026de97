"""Which processes of this machine belong to a job, found in /proc. Standard library only, and little of it: the wrapper
of every attempt imports this.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as typing has it, without the cost of importing typing at each start
if TYPE_CHECKING:
    from collections.abc import Iterator


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def executable(pid: int) -> str | None:
    """The program a process runs, or None."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def family(marker: str) -> set[int]:
    """Pids of this program's descendants and of processes that carry the job's marker."""
    me = os.getpid()
    parents = dict(running())
    return {pid for pid in parents if descends(pid, me, parents)} | marked(marker)


def marked(marker: str) -> set[int]:
    """Pids of living processes with ``PEERD_JOB=<marker>`` in their environment, however they were started."""
    wanted = b"PEERD_JOB=" + marker.encode()
    found = set()
    for pid, _ in running():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.add(pid)
        except OSError:
            continue
    return found - {os.getpid()}


def running() -> Iterator[tuple[int, int]]:
    """(pid, parent) of every process that is not a zombie."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            yield int(entry), int(fields[1])


def descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    """Whether a process is a child, grandchild ... of another."""
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False
