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
    "catalog.change.before_commit": "a change of the catalog is applied but not committed",
    "catalog.change.after_commit": "a change of the catalog is durable, the caller has not been told",
    "job.create.before_commit": "a new job is written but not committed",
    "job.create.after_commit": "a new job is durable, its orchestrator does not know its id",
    "job.start.before_commit": "a job's interfaces are written but not committed",
    "job.start.after_commit": "a job's interfaces are durable, its orchestrator has not been told",
    "job.run.before_commit": "an attempt is written but not committed: nothing was started",
    "job.spawn.before": "a job is durably running, its process was not started",
    "job.spawn.after": "the process of a job runs, nothing more was recorded",
    "job.exit.before_commit": "a process has ended; its end, outputs and transfers are not committed",
    "job.exit.after_commit": "the end of a process is durable, nobody has been told",
    "job.cancel.before_commit": "the wish to cancel a job is written but not committed",
    "job.cancel.after_commit": "the wish to cancel a job is durable, nothing was stopped",
    "job.cancel.after_stop": "the processes of a cancelled job are gone, its end is not committed",
    "job.report.before_send": "reports wait in the outbox",
    "job.report.after_send": "the orchestrator has acknowledged reports, the outbox does not know",
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
