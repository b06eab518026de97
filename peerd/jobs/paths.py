"""Where a job's files lie: computed from ids, never taken from the wire.

    <data>/workflows/<orchestrator>/<workflow_execution_id>/jobs/<executor>/<job_execution_id>/<type>/

The types are ``input``, ``output``, ``mounts``, ``package`` and ``logs``. Job execution id 0 is Local Peer: what is
delivered home to the orchestrator. Pure; whoever opens these paths does it without following links.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peerd.identity.peer_id import PeerId

STDOUT = "stdout.txt"
STDERR = "stderr.txt"


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """The directory of one job execution."""

    data_dir: Path
    orchestrator: PeerId
    workflow_execution_id: int
    executor: PeerId
    job_execution_id: int

    @property
    def directory(self) -> Path:
        """The job's own directory, which its process has as working directory."""
        return self.data_dir.joinpath(
            "workflows",
            self.orchestrator,
            str(self.workflow_execution_id),
            "jobs",
            self.executor,
            str(self.job_execution_id),
        )

    @property
    def input(self) -> Path:
        """Files received along input and stdin edges."""
        return self.directory / "input"

    @property
    def output(self) -> Path:
        """Files the job makes."""
        return self.directory / "output"

    @property
    def mounts(self) -> Path:
        """The folder of all mounts."""
        return self.directory / "mounts"

    @property
    def package(self) -> Path:
        """Files the definition brought along."""
        return self.directory / "package"

    @property
    def logs(self) -> Path:
        """stdout.txt and stderr.txt."""
        return self.directory / "logs"

    @property
    def stdout(self) -> Path:
        """What it wrote to stdout."""
        return self.logs / STDOUT

    @property
    def stderr(self) -> Path:
        """What it wrote to stderr."""
        return self.logs / STDERR

    def mount(self, path: str) -> Path:
        """One mount; ``path`` is relative and was checked where it came in."""
        return self.mounts.joinpath(*path.split("/"))
