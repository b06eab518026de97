"""One real daemon that is attacked, and what can be told of it from outside."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd.identity.key import Identity
from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.hostile.wire import Connection, Member, connect_plain, connect_unix

SPARE_FDS = 5
"""Of the daemon's own doings, which go on: its channels come and go."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a daemon holds at a moment."""

    rss: int
    fds: int
    crashed: int


class Target:
    """A daemon, and a member of its mesh who attacks it."""

    def __init__(self, daemon: Daemon, grants: str) -> None:
        self.daemon = daemon
        identity = Identity.generate()
        daemon.peerctl("peers", "admit", identity.peer_id, "--grants", grants)
        self.member = Member(identity, daemon.peer_id)
        self.rested = self.condition()
        """As it is when it has done a bit of everything, and nothing goes on."""

    @property
    def pid(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.pid

    @property
    def alive(self) -> bool:
        return self.daemon.alive

    def rss(self) -> int:
        """Bytes in memory."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """The most bytes it ever had in memory since :meth:`forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def fds(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def condition(self) -> Condition:
        """What it holds, and how often it failed inside."""
        return Condition(rss=self.rss(), fds=self.fds(), crashed=len(self.crashed()))

    def crashed(self) -> list[str]:
        """The methods whose handlers broke down."""
        return re.findall(r"rpc\.crashed +method=(\S+)", self.log())

    def assert_recovered(self, before: Condition, seconds: float = 180) -> None:
        """It lives, no handler broke down since, memory is back within 20%, and so are descriptors.

        Cycles among what has lived for a while are freed once a minute (:mod:`peerd.daemon.garbage`).
        """
        wait_for(
            lambda: not self.alive or (self.rss() <= 1.2 * before.rss and self.fds() <= before.fds + SPARE_FDS),
            seconds,
            "memory and descriptors are back",
        )
        assert self.alive, self.daemon.tail()
        assert self.crashed()[before.crashed :] == []

    def log(self) -> str:
        return self.daemon.log.read_text(errors="replace")

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        used = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    def as_member(self) -> Connection:
        """A connection through TLS as the hostile member."""
        return self.member.connect(self.daemon.port)

    def as_stranger(self) -> Connection:
        """A bare connection to the peer port."""
        return connect_plain(self.daemon.port)

    def as_operator(self) -> Connection:
        """A connection to the unix socket."""
        return connect_unix(self.daemon.socket)


@contextlib.contextmanager
def target(grants: str = "observe,execute,operate") -> Iterator[Target]:
    """A daemon that founded its mesh alone, and runs."""
    fleet = Fleet(names=["t"], forked=False)
    try:
        fleet.found()
        yield Target(fleet["t"], grants)
    finally:
        fleet.close()
