"""What is run, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from peerd.clock import Millis


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Values that an attempt gets and nobody else: not written anywhere, not on a command line, masked in its logs."""

    env: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By name below secrets/."""

    def __bool__(self) -> bool:
        return bool(self.env or self.files)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most an attempt may use; 0 is no limit."""

    memory_bytes: int = 0
    cpus: float = 0.0
    """Cores' worth of time."""
    pids: int = 0
    """Processes and threads at once."""
    disk_bytes: int = 0
    """Written into its job directory."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One attempt of a job."""

    marker: str
    """Unique name of the job; every process of it carries ``PEERD_JOB=<marker>``."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    job_directory: Path
    """Holds input/, output/, mounts/, package/ and logs/."""
    stdin_files: tuple[Path, ...]
    """Concatenated in this order."""
    stdout_path: Path
    stderr_path: Path
    output_cap_bytes: int
    timeout_seconds: float | None
    grace_seconds: float
    """Between TERM and KILL."""
    read_only_paths: tuple[Path, ...] = ()
    writable_paths: tuple[Path, ...] = ()
    network: bool = False
    secrets: Secrets = field(default=Secrets(), repr=False)
    limits: Limits = Limits()


class Outcome(Enum):
    """How an attempt ended."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    """Because we asked."""
    SPAWN_FAILED = "spawn_failed"
    """The command could not be started at all."""
    REFUSED = "refused"
    """It was not even tried; the exit says why."""
    POSTPONED = "postponed"
    """It was not tried because what runs it is away for now."""
    LIMITED = "limited"
    """It was ended because it hit a limit; the exit says which."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """The durable record of an attempt's end."""

    outcome: Outcome
    exit_code: int | None
    """128 + n after signal n, as shells say it."""
    started_at: Millis
    ended_at: Millis
    message: str = ""
    limit: str = ""
    """Which limit was hit, for LIMITED: memory_limit, disk_limit, pids_limit, cpu_limit."""
    reason: str = ""
    """Why it was not tried, for REFUSED and POSTPONED: a reason of :mod:`peerd.errors`."""
    stdout_truncated: bool = False
    stderr_truncated: bool = False


class Recovery(Enum):
    """What a daemon finds out about an attempt that an earlier one started."""

    NEVER_STARTED = "never_started"
    """Nothing of it ran, and nothing of it will: safe to run again."""
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    """It started, its wrapper is gone, and nobody knows how it ended. Nothing of it lives."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A finding, with the exit if there is one."""

    state: Recovery
    exit: Exit | None = None
