"""How much was to be transferred, and how much was pushed for it."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass

from tests.e2e.fleet import Daemon, Fleet

_PUSHED = re.compile(r"^peerd_transfer_pushed_bytes_total (\S+)$", re.MULTILINE)
_FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Bytes of files, between daemons only."""

    asked: int
    """Of all transfers that arrived, each once."""
    pushed: int
    """What senders handed to their connections, repeats included; what a daemon that was killed counted is missing."""

    @property
    def ratio(self) -> float:
        """Bytes pushed for each byte that was to be sent."""
        return self.pushed / max(self.asked, 1)


def pushed(daemon: Daemon) -> int:
    """What a running daemon has pushed since it was started, as it says itself."""
    inside = ["nsenter", f"--net=/var/run/netns/{daemon.namespace}"] if daemon.namespace else []
    address = (daemon.data / "run" / "http").read_text().strip()
    command = [*inside, sys.executable, "-c", _FETCH, f"http://{address}/metrics"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    found = _PUSHED.search(said)
    assert found is not None, f"{daemon.name} has no such metric"
    return int(float(found[1]))


def transferred(fleet: Fleet) -> int:
    """Bytes that were delivered from one daemon to another, as their stores say; the daemons must not run."""
    total = 0
    for daemon in fleet.daemons.values():
        store = sqlite3.connect(daemon.data / "peerd.db")
        try:
            sql = "SELECT coalesce(sum(bytes_total), 0) FROM incoming_transfers WHERE source_peer_id != ?"
            total += store.execute(sql, (daemon.peer_id,)).fetchone()[0]
        finally:
            store.close()
    return total
