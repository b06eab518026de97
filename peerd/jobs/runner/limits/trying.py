"""Whether control groups really work here: being root, or having the files, does not mean so."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from peerd.jobs.runner import bounds
from peerd.jobs.runner.limits import base
from peerd.jobs.runner.spec import Limits

if TYPE_CHECKING:
    from peerd.jobs.runner.limits.base import Backend

_LIMITS = Limits(memory_bytes=64 << 20, cpus=1, pids=16)


def can_move(backend: Backend) -> bool:
    """Make a group with limits, move a process in and out of it, remove it."""
    name = f"probe-{os.getpid()}"
    try:
        group = backend.create(name, _LIMITS)
    except OSError:
        return False
    try:
        with subprocess.Popen(["/bin/cat"], env={}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            try:
                for path in (*group.join, *group.leave):
                    bounds.write(path, str(child.pid))
            finally:
                child.kill()
    except OSError:
        return False
    finally:
        removed = base.remove(group)
    return removed
