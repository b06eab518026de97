"""The SQL of jobs and attempts: ``job_executions``, ``job_attempts`` and ``job_tombstones``.

Nobody else writes them, but for :mod:`peerd.jobs.occupancy` (what jobs take on the disk, and rows that go with it) and
:mod:`peerd.jobs.damage` (rows that cannot be read). :mod:`peerd.jobs.views` reads them for people.

Every status write goes through :meth:`JobRepository.move`, which checks the table of transitions; every change of what
others may see goes through ``move`` or :meth:`JobRepository.touch`, so that ``revision`` grows with each and the
change is told after its commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from peerd.catalog.model import ContainerImage, HandIn
from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs import gpus
from peerd.jobs.changes import Change, Changes
from peerd.jobs.model import (
    Attempt,
    Job,
    JobKey,
    JobStatus,
    Mount,
    Resources,
    RetryPolicy,
    Stop,
    Work,
    check_transition,
)
from peerd.store import Tx

OPEN = "status IN ('created', 'waiting_inputs', 'ready', 'running')"
"""As the partial index spells it."""
OF_KEY = (
    "orchestrator_peer_id = ? AND store_id = ? AND workflow_execution_id = ? AND workflow_job_id = ? AND placement = ?"
)
"""Condition for :func:`key_values`."""
_FIND = f"SELECT * FROM job_executions WHERE {OF_KEY}"  # noqa: S608 - a constant of this file, as below
_CONTACT = f"UPDATE job_executions SET contact_at = ? WHERE {OF_KEY}"  # noqa: S608
_ACKNOWLEDGE = (
    "UPDATE job_executions SET acknowledged_revision = max(acknowledged_revision, min(?, revision)), "  # noqa: S608
    f"contact_at = ? WHERE {OF_KEY}"
)
_IS_BURIED = f"SELECT 1 FROM job_tombstones WHERE {OF_KEY}"  # noqa: S608
_COUNT_OPEN = f"SELECT count(*) FROM job_executions WHERE {OPEN}"  # noqa: S608
_OVERDUE = (
    f"SELECT * FROM job_executions WHERE {OPEN} AND stop IS NULL AND ("  # noqa: S608
    "(status = 'created' AND max(contact_at, :up_since) + :created_expires < :now) OR "
    "(status != 'created' AND stop_without_lease = 1 AND contact_at + CAST(lease_seconds * 1000 AS INTEGER) < :now)"
    ") ORDER BY id LIMIT 500"
)
_STARTABLE = (
    f"SELECT * FROM job_executions WHERE {OPEN} AND status = 'ready' AND hold = 0 AND is_data = :data "  # noqa: S608
    "AND (next_try_at IS NULL OR next_try_at <= :now) ORDER BY id LIMIT :limit"
)
_TAKEN_GPUS = f"SELECT gpu_indices FROM job_executions WHERE {OPEN} AND status = 'running' AND gpu_indices <> ''"  # noqa: S608
_CREATE = (
    "INSERT INTO job_executions (orchestrator_peer_id, store_id, workflow_execution_id, workflow_job_id, placement, "
    "request_digest, workflow_id, node_id, job_name, service_id, work, is_data, timeout_seconds, retry, "
    "waits_for_inputs, stop_without_lease, lease_seconds, status, reason, message, since, generation, attempt, "
    "stop_message, isolation, bytes_received, bytes_sent, created_at, contact_at, revision, acknowledged_revision, "
    "priority, cpus, memory_bytes, disk_limit_bytes, gpus, max_concurrent, reused_id) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'created', 'interfaces', 'waits for its interfaces', "
    "?, 0, 0, '', 0, 0, 0, ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, ?)"
)
NEVER_STARTED = "never_started"
"""Outcome of an attempt whose process was provably never started; its number is used again."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What CreateJob asks for, already admitted."""

    key: JobKey
    request_digest: bytes
    workflow_id: str
    node_id: str
    job_name: str
    service_id: int | None
    work: Work
    timeout_seconds: float | None
    retry: RetryPolicy
    waits_for_inputs: bool
    stop_without_lease: bool
    lease_seconds: float
    priority: int = 0
    resources: Resources = field(default_factory=Resources)
    max_concurrent: int = 0
    reused_id: int | None = None


def key_values(key: JobKey) -> tuple[object, ...]:
    """The columns of a key, in the order of every statement here."""
    return (key.orchestrator, key.store_id, key.workflow_execution_id, key.workflow_job_id, key.placement)


def to_job(row: sqlite3.Row) -> Job:
    """A row as a value."""
    work = json.loads(row["work"])
    retry = json.loads(row["retry"])
    return Job(
        id=row["id"],
        key=JobKey(
            orchestrator=PeerId(row["orchestrator_peer_id"]),
            store_id=row["store_id"],
            workflow_execution_id=row["workflow_execution_id"],
            workflow_job_id=row["workflow_job_id"],
            placement=row["placement"],
        ),
        request_digest=row["request_digest"],
        workflow_id=row["workflow_id"],
        node_id=row["node_id"],
        job_name=row["job_name"],
        service_id=row["service_id"],
        work=Work(
            **{
                **work,
                **{name: tuple(work[name]) for name in ("argv", "read_only_paths", "writable_paths")},
                "secret_files": tuple(work.get("secret_files", ())),
                "container": _container(work.get("container")),
                "mounts": tuple(Mount(*mount) for mount in work.get("mounts", ())),
                "hand_in": _hand_in(work.get("hand_in")),
            }
        ),
        timeout_seconds=row["timeout_seconds"],
        retry=RetryPolicy(
            **{
                **retry,
                "reasons": frozenset(retry["reasons"]),
                "exit_codes": tuple((first, last) for first, last in retry.get("exit_codes", ())),
            }
        ),
        waits_for_inputs=bool(row["waits_for_inputs"]),
        stop_without_lease=bool(row["stop_without_lease"]),
        lease_seconds=row["lease_seconds"],
        status=JobStatus(row["status"]),
        reason=row["reason"],
        message=row["message"],
        since=row["since"],
        generation=row["generation"],
        attempt=row["attempt"],
        next_try_at=row["next_try_at"],
        stop=Stop(row["stop"]) if row["stop"] else None,
        stop_message=row["stop_message"],
        exit_code=row["exit_code"],
        isolation=row["isolation"],
        bytes_received=row["bytes_received"],
        bytes_sent=row["bytes_sent"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        contact_at=row["contact_at"],
        revision=row["revision"],
        acknowledged_revision=row["acknowledged_revision"],
        files=row["files"],
        disk_bytes=row["disk_bytes"],
        priority=row["priority"],
        resources=to_resources(row),
        max_concurrent=row["max_concurrent"],
        limits=json.loads(row["limits"]) if row["limits"] else {},
        limit_hit=row["limit_hit"],
        gpu_indices=gpus.from_text(row["gpu_indices"]),
        reused_id=row["reused_id"],
        hold=bool(row["hold"]),
    )


def to_resources(row: sqlite3.Row) -> Resources:
    """What a row reserves."""
    return Resources(
        cpus=row["cpus"], memory_bytes=row["memory_bytes"], disk_bytes=row["disk_limit_bytes"], gpus=row["gpus"]
    )


def to_attempt(row: sqlite3.Row) -> Attempt:
    """A row as a value."""
    return Attempt(**{name: row[name] for name in Attempt.__dataclass_fields__})


class JobRepository:
    """Jobs, inside the caller's transaction."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    # Looking

    def find(self, tx: Tx, key: JobKey) -> Job | None:
        """The job of that key."""
        row = tx.one(_FIND, key_values(key))
        return to_job(row) if row is not None else None

    def find_id(self, tx: Tx, job_execution_id: int) -> Job | None:
        """The job of that id."""
        row = tx.one("SELECT * FROM job_executions WHERE id = ?", (job_execution_id,))
        return to_job(row) if row is not None else None

    def get(self, tx: Tx, job_execution_id: int) -> Job:
        """The job of that id; raises NOT_FOUND."""
        job = self.find_id(tx, job_execution_id)
        if job is None:
            raise PeerdError(Reason.NOT_FOUND, f"this peer has no job execution {job_execution_id}")
        return job

    def count_open(self, tx: Tx) -> int:
        """How many are not final."""
        row = tx.one(_COUNT_OPEN)
        return int(row[0]) if row is not None else 0

    def highest_id(self, tx: Tx) -> int:
        """The highest id ever given."""
        row = tx.one("SELECT seq FROM sqlite_sequence WHERE name = 'job_executions'")
        return int(row[0]) if row is not None else 0

    # Writing

    def create(self, tx: Tx, new: NewJob) -> Job:
        """A new row. Its first revision counts as known: the orchestrator gets it as the answer."""
        job_execution_id = tx.insert(
            _CREATE,
            (
                *key_values(new.key),
                new.request_digest,
                new.workflow_id,
                new.node_id,
                new.job_name,
                new.service_id,
                json.dumps(asdict(new.work)),
                int(new.work.is_data or new.reused_id is not None),  # neither starts a process
                new.timeout_seconds,
                json.dumps({**asdict(new.retry), "reasons": sorted(new.retry.reasons)}),
                int(new.waits_for_inputs),
                int(new.stop_without_lease),
                new.lease_seconds,
                tx.now,
                tx.now,
                tx.steady,
                new.priority,
                new.resources.cpus,
                new.resources.memory_bytes,
                new.resources.disk_bytes,
                new.resources.gpus,
                new.max_concurrent,
                new.reused_id,
            ),
        )
        return self.get(tx, job_execution_id)

    def move(self, tx: Tx, job: Job, to: JobStatus, *, reason: str = "", message: str = "", **columns: object) -> Job:
        """The one way a status changes. Raises ILLEGAL_TRANSITION, also when the job has moved meanwhile."""
        check_transition(job.id, job.status, to)
        if to.final:
            columns.setdefault("ended_at", tx.now)
        since = tx.now if to is not job.status else job.since
        return self._update(tx, job, status=to.value, reason=reason, message=message, since=since, **columns)

    def touch(self, tx: Tx, job: Job, **columns: object) -> Job:
        """Change what others may see, but not the status."""
        return self._update(tx, job, **columns)

    def wish_stop(self, tx: Tx, job: Job, stop: Stop, message: str) -> Job:
        """Make the wish to end its process durable; whoever watches the process hears of it."""
        reason = "cancelling" if stop is Stop.CANCEL else "stopping"
        stopped = self._update(tx, job, stop=stop.value, stop_message=message, reason=reason, message=message)
        self._tell(tx, stopped, stopping=True)
        return stopped

    def contact(self, tx: Tx, key: JobKey) -> None:
        """Its orchestrator was heard from: the lease starts anew."""
        tx.execute(_CONTACT, (tx.steady, *key_values(key)))

    def acknowledge(self, tx: Tx, key: JobKey, revision: int) -> None:
        """The orchestrator has stored that revision; this is a sign of life as well."""
        tx.execute(_ACKNOWLEDGE, (revision, tx.steady, *key_values(key)))

    # Tombstones

    def bury(self, tx: Tx, key: JobKey) -> None:
        """Remember that this key was cancelled before it came."""
        tx.execute("INSERT OR IGNORE INTO job_tombstones VALUES (?, ?, ?, ?, ?, ?)", (*key_values(key), tx.steady))

    def is_buried(self, tx: Tx, key: JobKey) -> bool:
        """Whether this key was cancelled before it came."""
        return tx.one(_IS_BURIED, key_values(key)) is not None

    # Attempts

    def begin_attempt(
        self,
        tx: Tx,
        job: Job,
        isolation: int,
        limits: Mapping[str, float] | None = None,
        gpu_indices: Collection[int] = (),
    ) -> tuple[Job, int]:
        """ready -> running with a new attempt; returns the job and the attempt's row id."""
        row_id = tx.insert(
            "INSERT INTO job_attempts (job_execution_id, attempt, started_at) VALUES (?, ?, ?)",
            (job.id, job.attempt + 1, tx.now),
        )
        running = self.move(
            tx,
            job,
            JobStatus.RUNNING,
            reason="running",
            message=f"attempt {job.attempt + 1} of {job.retry.attempts} runs",
            attempt=job.attempt + 1,
            isolation=isolation,
            next_try_at=None,
            exit_code=None,
            started_at=job.started_at or tx.now,
            last_attempt_id=row_id,
            limits=json.dumps(limits) if limits else "",
            limit_hit="",
            gpu_indices=gpus.to_text(gpu_indices),
        )
        return running, row_id

    def taken_gpus(self, tx: Tx) -> set[int]:
        """Those of the jobs that run."""
        return {index for row in tx.all(_TAKEN_GPUS) for index in gpus.from_text(row["gpu_indices"])}

    def end_attempt(self, tx: Tx, attempt_id: int, outcome: str, exit_code: int | None, ended_at: Millis) -> None:
        """Record how an attempt ended, once."""
        tx.execute(
            "UPDATE job_attempts SET outcome = ?, exit_code = ?, ended_at = ? WHERE id = ? AND outcome IS NULL",
            (outcome, exit_code, ended_at, attempt_id),
        )

    def open_attempts(self, tx: Tx) -> list[Attempt]:
        """Attempts that nobody has recorded the end of: at start, what a dead daemon left behind."""
        return [to_attempt(row) for row in tx.all("SELECT * FROM job_attempts WHERE outcome IS NULL ORDER BY id")]

    def _update(self, tx: Tx, job: Job, **columns: object) -> Job:
        names = ", ".join(f"{name} = ?" for name in columns)
        cursor = tx.execute(
            f"UPDATE job_executions SET {names}, revision = revision + 1 WHERE id = ? AND status = ?",  # noqa: S608
            (*columns.values(), job.id, job.status.value),
        )
        if cursor.rowcount != 1:
            raise PeerdError(Reason.ILLEGAL_TRANSITION, f"job execution {job.id} is no longer {job.status.value}")
        changed = self.get(tx, job.id)
        self._tell(tx, changed)
        return changed

    def _tell(self, tx: Tx, job: Job, *, stopping: bool = False) -> None:
        change = Change(
            job_execution_id=job.id, orchestrator=job.key.orchestrator, status=job.status, stopping=stopping
        )
        tx.on_commit(lambda: self._changes.tell(change))


def _hand_in(wish: Mapping[str, Any] | None) -> HandIn | None:
    return HandIn(**{**wish, "files": tuple(wish["files"])}) if wish is not None else None


def _container(work: Mapping[str, Any] | None) -> ContainerImage | None:
    return ContainerImage(**{**work, "entrypoint": tuple(work["entrypoint"])}) if work is not None else None


def forget_tombstones(tx: Tx, before: Millis) -> int:
    """Delete tombstones older than that; returns how many."""
    return tx.execute("DELETE FROM job_tombstones WHERE cancelled_at < ?", (before,)).rowcount


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a job that was created may wait to be started; silence while this daemon was down does not count."""

    created_expires_ms: int
    up_since: Millis

    def query(self, now: Millis) -> tuple[str, dict[str, int]]:
        """Open jobs whose orchestrator has been silent for too long, by one rule or the other."""
        return _OVERDUE, {"up_since": self.up_since, "created_expires": self.created_expires_ms, "now": now}


def startable(now: Millis, limit: int, *, data: bool) -> tuple[str, dict[str, int]]:
    """Query for ready jobs whose time has come, oldest first: that start a process, or that offer data."""
    return _STARTABLE, {"data": int(data), "now": now, "limit": limit}
