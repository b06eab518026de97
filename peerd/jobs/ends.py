"""What the end of a process means for its job: completed, failed, another try, cancelled. Pure.

The durable wish to stop comes first: once it is committed, whatever the process still manages to return changes
nothing. An end that was committed before the wish stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerd.clock import Millis
from peerd.errors import Reason
from peerd.jobs.model import Job, JobStatus, Stop

OUTPUT_TRUNCATED = "output_truncated"
STDOUT_TRUNCATED = "stdout was longer than this machine keeps ([jobs] output_cap_bytes)"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a process ended, in the executor's own words (see :mod:`peerd.jobs.runner` for the runner's)."""

    outcome: str
    """exit, timeout, limit, lost, refused (its paths would show what must stay hidden), or why no secret was there."""
    exit_code: int | None = None
    message: str = ""
    stdout_truncated: bool = False
    limit: str = ""
    """Which limit was hit: memory_limit, pids_limit, disk_limit."""
    ended_at: Millis | None = None
    """When the process ended, if that was not just now."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of the job."""

    status: JobStatus
    reason: str = ""
    message: str = ""
    outcome: str
    """Of the attempt: exit, timeout, limit, lost, cancelled, storage_quota."""
    retry_after_seconds: float | None = None
    """Set exactly when the status is READY."""


def judge(job: Job, ending: Ending, *, sends_stdout: bool) -> Verdict:
    """Decide what follows from the end of the job's present attempt."""
    if job.stop is Stop.CANCEL:
        return Verdict(status=JobStatus.CANCELLED, reason="cancelled", message=job.stop_message, outcome="cancelled")
    if job.stop is Stop.LEASE:
        return Verdict(status=JobStatus.FAILED, reason="lost", message=job.stop_message, outcome="cancelled")
    if job.stop is Stop.QUOTA:
        reason = Reason.STORAGE_QUOTA.text
        return Verdict(status=JobStatus.FAILED, reason=reason, message=job.stop_message, outcome=reason)
    if ending.outcome == "exit" and ending.exit_code == 0:
        return _succeeded(ending, sends_stdout)
    return _failed(job, ending)


def _succeeded(ending: Ending, sends_stdout: bool) -> Verdict:
    if ending.stdout_truncated and sends_stdout:
        # Half a result that looks like a whole one is worse than none; another try would be as long.
        return Verdict(
            status=JobStatus.FAILED,
            reason=OUTPUT_TRUNCATED,
            message=f"{STDOUT_TRUNCATED}, and another job needs it",
            outcome="exit",
        )
    if ending.stdout_truncated:
        # Nobody needs it yet; see generations, should somebody come later.
        return Verdict(status=JobStatus.COMPLETED, reason=OUTPUT_TRUNCATED, message=STDOUT_TRUNCATED, outcome="exit")
    return Verdict(status=JobStatus.COMPLETED, message=ending.message, outcome="exit")


def _failed(job: Job, ending: Ending) -> Verdict:
    message = ending.message or _words(job, ending)
    if job.retry.allows(ending.outcome, job.attempt, ending.exit_code):
        delay = job.retry.delay_seconds(job.attempt, job.key)
        return Verdict(
            status=JobStatus.READY,
            reason="retry",
            message=f"attempt {job.attempt} of {job.retry.attempts}: {message}; tries again after {delay:g} s",
            outcome=ending.outcome,
            retry_after_seconds=delay,
        )
    if job.attempt < job.retry.attempts and not job.retry.takes(ending.outcome, ending.exit_code):
        message += ", which is not tried again"
    status = JobStatus.LOST if ending.outcome == "lost" else JobStatus.FAILED
    return Verdict(status=status, reason=ending.outcome, message=message, outcome=ending.outcome)


def _words(job: Job, ending: Ending) -> str:
    if ending.outcome == "timeout":
        words = f"did not end within {job.timeout_seconds or 0:g} s"
        return f"{words}; {ending.message}" if ending.message else words
    if ending.message:
        return ending.message
    if ending.outcome == "lost":
        return "was running when its machine died, and nobody knows how it ended"
    return f"exited with code {ending.exit_code}"
