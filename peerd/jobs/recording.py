"""Begins and ends of attempts, each in one transaction with everything that follows from it.

When a job completes, its end, the list of what it made and the orders to send that are committed together: either the
job has completed and its files will be sent, or neither. Nothing is sent before success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peerd.catalog.model import InterfaceKind
from peerd.clock import Millis
from peerd.errors import Reason
from peerd.failpoints import failpoint
from peerd.jobs import edge_repository, occupancy
from peerd.jobs.choosing import Choice
from peerd.jobs.commands import stdin_paths
from peerd.jobs.ends import Ending, Verdict, judge
from peerd.jobs.gpus import assign
from peerd.jobs.model import Attempt, Edge, EdgeStatus, Job, JobFile, JobStatus, Stop
from peerd.jobs.places import Places
from peerd.jobs.repository import NEVER_STARTED, JobRepository
from peerd.jobs.sends import Sends
from peerd.store import Tx
from peerd.v1 import registry_pb2

LimitsOf = Callable[[Job], Mapping[str, float]]
"""The limits that are in force for an attempt that begins now; see :class:`peerd.jobs.model.Job`."""
Completed = Callable[[Tx, Job, Sequence[JobFile], Path], None]
"""Hears of each job that has ended well, in the transaction that says so: what it made, and its directory."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """An attempt that is recorded, with all it takes to run it."""

    job: Job
    attempt_id: int
    stdin: tuple[str, ...]
    """Paths relative to the job's directory."""
    received: tuple[str, ...]
    mounts: tuple[str, ...]
    out_mounts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Served:
    """What became of a job that starts no process."""

    problem: str = ""
    """Why it offers nothing; empty if it does."""
    stdout_truncated: bool = False
    disk_bytes: int = 0
    """What its directory takes."""


class Recording:
    """What the executor writes."""

    def __init__(
        self, repository: JobRepository, sends: Sends, places: Places, *, completed: Completed = lambda *_: None
    ) -> None:
        self._repository = repository
        self._sends = sends
        self._places = places
        self._completed = completed

    def begin(self, tx: Tx, choice: Choice, isolation: int, limits_of: LimitsOf, *, gpus: int = 0) -> list[Begun]:
        """Start the chosen jobs, on paper, and note why the others wait where that has changed.

        ``gpus``: how many this machine gives to jobs.
        """
        begun = []
        taken = self._repository.taken_gpus(tx) if choice.start else set()
        for job_execution_id in choice.start:
            job = self._repository.get(tx, job_execution_id)
            level = registry_pb2.ISOLATION_LEVEL_CONTAINER if job.work.container is not None else isolation
            given = assign(job.resources.gpus, gpus, taken)
            taken.update(given)
            running, attempt_id = self._repository.begin_attempt(tx, job, level, limits_of(job), given)
            begun.append(self._begun(tx, running, attempt_id))
        for job_execution_id, wait in choice.waits.items():
            job = self._repository.get(tx, job_execution_id)
            self._repository.touch(tx, job, reason=wait.reason, message=wait.message)
        if begun:
            failpoint("job.run.before_commit")
        return begun

    def left_behind(self, tx: Tx) -> list[Begun]:
        """Attempts whose end nobody has recorded: at start, those of the daemon before."""
        return [
            self._begun(tx, self._repository.get(tx, attempt.job_execution_id), attempt.id)
            for attempt in self._repository.open_attempts(tx)
        ]

    def never_started(self, tx: Tx, attempt: Attempt) -> None:
        """Nothing ran: the attempt does not count, and the job is ready again unless it is to stop."""
        self._again(tx, attempt, reason="slot", message="waits for a free place to run")

    def postponed(self, tx: Tx, attempt: Attempt, message: str, pause_ms: int) -> None:
        """The same, because its container engine is away: it is tried again after that."""
        again = tx.steady + pause_ms
        self._again(tx, attempt, reason=Reason.ENGINE_UNAVAILABLE.text, message=message, next_try_at=again)

    def _again(self, tx: Tx, attempt: Attempt, **columns: Any) -> None:
        job = self._repository.get(tx, attempt.job_execution_id)
        if job.stop is not None:
            self.end(tx, attempt, Ending(outcome="exit"), (), Millis(tx.now))
            return
        self._repository.end_attempt(tx, attempt.id, NEVER_STARTED, None, tx.now)
        if job.status is JobStatus.RUNNING:
            self._repository.move(
                tx,
                job,
                JobStatus.READY,
                attempt=job.attempt - 1,
                **columns,
            )

    def end(
        self,
        tx: Tx,
        attempt: Attempt,
        ending: Ending,
        files: Sequence[JobFile],
        ended_at: Millis,
        *,
        disk_bytes: int = 0,
    ) -> Verdict | None:
        """Record how an attempt ended and what follows; None when that was recorded before."""
        job = self._repository.get(tx, attempt.job_execution_id)
        if job.status is not JobStatus.RUNNING or job.attempt != attempt.attempt:
            return None
        edges = edge_repository.edges_of(tx, job.id)
        verdict = judge(job, ending, sends_stdout=_sends_stdout(edges))
        self._repository.end_attempt(tx, attempt.id, verdict.outcome, ending.exit_code, ended_at)
        if verdict.retry_after_seconds is not None:
            next_try_at = tx.steady + round(verdict.retry_after_seconds * 1000)
            self._move(tx, job, verdict, exit_code=ending.exit_code, next_try_at=next_try_at, limit_hit=ending.limit)
        else:
            moved = self._move(tx, job, verdict, exit_code=ending.exit_code, ended_at=ended_at, limit_hit=ending.limit)
            occupancy.occupies(tx, job.id, disk_bytes)
            if moved.status is JobStatus.COMPLETED:
                self._complete(tx, moved, edges, files)
        failpoint("job.exit.before_commit")
        return verdict

    def over_quota(self, tx: Tx, attempt: Attempt) -> list[str] | None:
        """The files it received, if it is ended for exceeding a quota: all else it has is to be removed."""
        job = self._repository.get(tx, attempt.job_execution_id)
        if job.stop is not Stop.QUOTA or job.attempt != attempt.attempt:
            return None
        return [path for paths in edge_repository.received_files(tx, job.id).values() for path in paths]

    def serve(self, tx: Tx, job_execution_id: int, files: Sequence[JobFile], served: Served) -> None:
        """Run a job that starts no process: it is over as soon as it is known what it offers."""
        job = self._repository.get(tx, job_execution_id)
        if job.status is not JobStatus.READY:
            return
        running, attempt_id = self._repository.begin_attempt(tx, job, job.isolation)
        attempt = Attempt(
            id=attempt_id,
            job_execution_id=job.id,
            attempt=running.attempt,
            outcome=None,
            exit_code=None,
            started_at=tx.now,
            ended_at=None,
        )
        ending = Ending(
            outcome="exit",
            exit_code=1 if served.problem else 0,
            message=served.problem,
            stdout_truncated=served.stdout_truncated,
        )
        self.end(tx, attempt, ending, files, tx.now, disk_bytes=served.disk_bytes)

    def _move(self, tx: Tx, job: Job, verdict: Verdict, **columns: object) -> Job:
        return self._repository.move(tx, job, verdict.status, reason=verdict.reason, message=verdict.message, **columns)

    def _complete(self, tx: Tx, job: Job, edges: Sequence[Edge], files: Sequence[JobFile]) -> None:
        edge_repository.replace_files(tx, job.id, edge_repository.OWN_FILES, files)
        for edge in edges:
            if not edge.incoming:
                edge_repository.put_edge(tx, job.id, replace(edge, status=EdgeStatus.SENDING))
                self._sends.enqueue(tx, self._places.transfer(job, edge))
        self._completed(tx, job, files, self._places.of(job).directory)

    def _begun(self, tx: Tx, job: Job, attempt_id: int) -> Begun:
        edges = edge_repository.edges_of(tx, job.id)
        received = edge_repository.received_files(tx, job.id)
        mounts = [edge for edge in edges if edge.kind is InterfaceKind.MOUNT]
        return Begun(
            job=job,
            attempt_id=attempt_id,
            stdin=stdin_paths(edges, received),
            received=tuple(path for paths in received.values() for path in paths),
            mounts=tuple(sorted({edge.path for edge in mounts})),
            out_mounts=tuple(sorted({edge.path for edge in mounts if not edge.incoming})),
        )


def _sends_stdout(edges: Sequence[Edge]) -> bool:
    return any(not edge.incoming and edge.kind is InterfaceKind.STDOUT for edge in edges)
