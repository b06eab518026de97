"""What a job is on its executor, and the one table of how its status may change.

Two orchestrators may both send workflow job 1: a job is found by its whole :class:`JobKey`, or by the executor's own
id together with a check of who asks. No database and no wire here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from peerd.catalog.model import ContainerImage, HandIn, InterfaceKind
from peerd.clock import Millis
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.transfers.selection import EVERYTHING, Selection


class JobStatus(Enum):
    """Where a job execution stands."""

    CREATED = "created"  # has an id, waits for its interfaces
    WAITING_INPUTS = "waiting_inputs"  # waits for files along its incoming edges
    READY = "ready"  # waits for a free place, or for its next try
    RUNNING = "running"  # an attempt was recorded; its process runs, or is about to
    COMPLETED = "completed"  # its exit was accepted and its outputs are committed
    FAILED = "failed"
    LOST = "lost"  # was running when its machine died, and nobody knows how it ended
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


_S = JobStatus

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    _S.CREATED: frozenset({_S.WAITING_INPUTS, _S.READY, _S.FAILED, _S.CANCELLED}),
    # Back to itself: a new generation replaced a producer.
    _S.WAITING_INPUTS: frozenset({_S.WAITING_INPUTS, _S.READY, _S.FAILED, _S.CANCELLED}),
    _S.READY: frozenset({_S.WAITING_INPUTS, _S.READY, _S.RUNNING, _S.FAILED, _S.CANCELLED}),
    # Back to ready: another try, or the daemon died before the process was started.
    _S.RUNNING: frozenset({_S.READY, _S.COMPLETED, _S.FAILED, _S.LOST, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.LOST: frozenset(),
    _S.CANCELLED: frozenset(),
}


def check_transition(job_execution_id: int, present: JobStatus, to: JobStatus) -> None:
    """Raises ILLEGAL_TRANSITION when the table has no such move."""
    if to not in TRANSITIONS[present]:
        raise PeerdError(
            Reason.ILLEGAL_TRANSITION,
            f"job execution {job_execution_id} is {present.value} and cannot become {to.value}",
        )


class EdgeStatus(Enum):
    """Where an edge of a job stands, from the job's side."""

    WAITING = "waiting"  # incoming: nothing recorded yet; outgoing: the job has not completed
    CLEARING = "clearing"  # incoming: what an earlier producer sent is being removed
    RECEIVED = "received"  # incoming: complete, verified, recorded
    SENDING = "sending"  # outgoing: handed to the sender
    DELIVERED = "delivered"  # outgoing: the receiver has verified and recorded it
    FAILED = "failed"  # outgoing: given up


class Stop(Enum):
    """Why a running job is to end."""

    CANCEL = "cancel"
    LEASE = "lease"  # its orchestrator was not heard from, and its policy is to stop then
    QUOTA = "quota"  # it took its orchestrator over what its jobs may occupy here


@dataclass(frozen=True, kw_only=True)
class JobKey:
    """Names a job across the mesh."""

    orchestrator: PeerId
    store_id: str
    workflow_execution_id: int
    workflow_job_id: int
    placement: int


class Mount(NamedTuple):
    """A directory of the job that a container sees at ``/path``."""

    path: str
    writable: bool


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to run or to offer, resolved when the job was created: later changes of the service do not touch it."""

    service: str = ""
    """Name of the service; empty for an ad-hoc command."""
    argv: tuple[str, ...] = ()
    """Empty for data."""
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    """Data: the file or directory it offers."""
    read_only_paths: tuple[str, ...] = ()
    writable_paths: tuple[str, ...] = ()
    network: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variables and the names of the secrets that they get; what these are is found out at each attempt."""
    secret_files: tuple[str, ...] = ()
    """Names of secrets that appear as files."""
    container: ContainerImage | None = None
    """What ``argv`` is the command of; None runs it as a process of this machine."""
    mounts: tuple[Mount, ...] = ()
    """Of a container: what its service declares."""
    hand_in: HandIn | None = None
    """What becomes of the scans that it leaves; the service's owner says so, never an order."""

    @property
    def is_data(self) -> bool:
        """Whether it offers a path and starts no process."""
        return bool(self.path)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job reserves while it runs, and may not use more of; 0 is nothing reserved, and no limit."""

    cpus: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpus: int = 0

    def otherwise(self, default: Resources) -> Resources:
        """These, and of those that are 0 the other's."""
        return Resources(
            cpus=self.cpus or default.cpus,
            memory_bytes=self.memory_bytes or default.memory_bytes,
            disk_bytes=self.disk_bytes or default.disk_bytes,
            gpus=self.gpus or default.gpus,
        )


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Which ends are tried again, and when."""

    attempts: int = 1
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 300.0
    reasons: frozenset[str] = frozenset({"exit", "timeout"})
    jitter: float = 0.0
    """Up to which part of itself a pause is shortened."""
    exit_codes: tuple[tuple[int, int], ...] = ()
    """First and last of each range of codes that are tried again; empty: all."""

    def delay_seconds(self, attempt: int, key: JobKey) -> float:
        """The pause after that attempt, doubling from the first; how much jitter takes of it follows from the job."""
        pause = min(self.max_backoff_seconds, self.backoff_seconds * 2.0 ** min(attempt - 1, 60))
        return pause * (1.0 - self.jitter * _share(key, attempt)) if self.jitter else pause

    def allows(self, reason: str, attempt: int, exit_code: int | None = None) -> bool:
        """Whether another attempt follows one that ended for that reason."""
        return reason in self.reasons and attempt < self.attempts and self.takes(reason, exit_code)

    def takes(self, reason: str, exit_code: int | None) -> bool:
        """Whether an exit has one of the codes that are tried again; other ends have none."""
        if reason != "exit" or not self.exit_codes or exit_code is None:
            return True
        return any(first <= exit_code <= last for first, last in self.exit_codes)


def _share(key: JobKey, attempt: int) -> float:
    """From 0 to 1, evenly spread over jobs and attempts, and always the same for one of them."""
    name = (
        f"{key.orchestrator} {key.store_id} {key.workflow_execution_id} {key.workflow_job_id} {key.placement} {attempt}"
    )
    return int.from_bytes(digest(name.encode())[:8]) / 2**64


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of ``job_executions``."""

    id: int
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
    status: JobStatus
    reason: str
    message: str
    since: Millis
    generation: int
    attempt: int
    next_try_at: Millis | None
    stop: Stop | None
    stop_message: str
    exit_code: int | None
    isolation: int
    bytes_received: int
    bytes_sent: int
    created_at: Millis
    started_at: Millis | None
    ended_at: Millis | None
    contact_at: Millis
    revision: int
    acknowledged_revision: int
    files: str
    """What became of its directory: present, removing, removed."""
    disk_bytes: int = 0
    """What its directory took when it was last measured."""
    priority: int = 0
    resources: Resources = Resources()
    max_concurrent: int = 0
    """Jobs of its service that run at once; 0 is no limit."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """In force for its last process: ``level`` (registry_pb2.LimitsLevel) and what the runner's Limits say."""
    limit_hit: str = ""
    gpu_indices: tuple[int, ...] = ()
    """The GPUs of its present or last attempt; see :mod:`peerd.jobs.gpus`."""
    reused_id: int | None = None
    """The job whose files it sends again; it starts no process."""
    hold: bool = False
    """Its orchestrator says when it may start."""

    @property
    def started(self) -> bool:
        """Whether any attempt was made, so that its inputs must stay what they are."""
        return self.attempt > 0

    @property
    def lease_until(self) -> Millis:
        """Until when its orchestrator counts as present."""
        return Millis(self.contact_at + round(self.lease_seconds * 1000))


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One edge of a job with the peer at its other end."""

    edge_id: int
    incoming: bool
    kind: InterfaceKind
    path: str
    peer_id: PeerId
    peer_workflow_job_id: int
    peer_job_execution_id: int
    destination: str = ""
    position: int = 0
    status: EdgeStatus = EdgeStatus.WAITING
    bytes: int = 0
    """Delivered or received; of an incoming one that waits, promised: an offer of so much was accepted."""
    reason: str = ""
    message: str = ""
    selection: Selection = EVERYTHING
    """Outgoing: which files, under which names."""

    def same_end(self, other: Edge) -> bool:
        """Whether the other end is the same job on the same peer."""
        return (self.peer_id, self.peer_job_execution_id) == (other.peer_id, other.peer_job_execution_id)

    @property
    def place(self) -> str:
        """For people: input, stdin, package or mounts/PATH."""
        return f"mounts/{self.path}" if self.kind is InterfaceKind.MOUNT else self.kind.value


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a job's process."""

    id: int
    job_execution_id: int
    attempt: int
    outcome: str | None
    exit_code: int | None
    started_at: Millis
    ended_at: Millis | None


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A file of a job, by path relative to its directory ("/" between components)."""

    path: str
    size: int
