"""Named places where a test can kill the daemon.

``failpoint("job.result.before_commit")`` does nothing unless the environment variable ``PEERD_FAILPOINT`` names it:
``NAME`` ends the process with SIGKILL at the first hit, ``NAME@3`` at the third. Every name is listed in
:data:`FAILPOINTS` with what is true there, so that tests can walk them all; an unlisted name is a bug and says so.
"""

from __future__ import annotations

import os
import signal

FAILPOINTS: dict[str, str] = {
    # name: what has happened, and what has not
    "store.before_commit": "a batch of writes is applied but not committed",
    "store.after_commit": "a batch of writes is durable, nobody has been told",
}


class _Armed:
    def __init__(self, setting: str) -> None:
        self.name, _, nth = setting.partition("@")
        self.hits_left = int(nth or "1")


_armed = _Armed(os.environ.get("PEERD_FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Die here with SIGKILL if the environment says so."""
    if name not in FAILPOINTS:
        raise LookupError(f"failpoint {name!r} is not listed in peerd.failpoints.FAILPOINTS")
    if name != _armed.name:
        return
    _armed.hits_left -= 1
    if _armed.hits_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
