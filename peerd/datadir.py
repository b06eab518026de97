"""The folder that is this machine's peer: key, store, job directories, socket. One process at a time holds it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peerd.errors import PeerdError, Reason


class DataDir:
    """Where everything lies; nothing else in peerd joins these names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_key = path / "identity.key"
        self.store = path / "peerd.db"
        self.control = path / "control"
        """Private directories of running attempts: what the daemon and its wrappers tell each other."""
        self.listen_address = path / "run" / "listen"
        """Written while the daemon runs: the host:port it really listens on."""
        self.http_address = path / "run" / "http"
        """The same for HTTP."""

        self.steady_clock = path / "run" / "steady"
        """What this boot's steady time counts from."""

        self.retention_hold = path / "run" / "retention"
        """What the clocks said when retention last looked."""

    @property
    def initialized(self) -> bool:
        """Whether an identity lives here."""
        return self.identity_key.exists()

    def create(self) -> None:
        """Make the folder with mode 0700. Raises KEY_EXPOSED if an existing one is open to others."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_mode()

    def check_mode(self) -> None:
        """Raises KEY_EXPOSED when others could read or enter the folder."""
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o077:
            raise PeerdError(
                Reason.KEY_EXPOSED,
                f"{self.path} has mode {mode:04o}; others must not enter it",
                next_action=f"chmod 700 {self.path}",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process. Raises DAEMON_RUNNING when another one does."""
        descriptor = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PeerdError(Reason.DAEMON_RUNNING, f"another process holds {self.path}") from error
            yield
        finally:
            os.close(descriptor)
