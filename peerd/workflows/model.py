"""What an execution is made of: statuses with their one table of legal moves each, and facts that never change.

Statuses are stored and compared by their text. Everything here is a value; what changes while an execution runs is in
:mod:`peerd.workflows.state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from peerd.clock import Millis
from peerd.workflows.edges import Edge


class ExecutionStatus(Enum):
    """Of one run of a workflow."""

    PENDING = "pending"  # recorded, no job has a peer yet
    RUNNING = "running"
    COMPLETED = "completed"  # every job completed, every delivery to Local Peer verified
    FAILED = "failed"
    CANCELLED = "cancelled"  # somebody asked, and every job has ended

    @property
    def final(self) -> bool:
        """Whether nothing may follow."""
        return not EXECUTION_MOVES[self]


class WorkflowJobStatus(Enum):
    """Of one job of an execution, as its orchestrator knows it."""

    PENDING = "pending"  # on no peer (not yet, or not any more)
    PLACED = "placed"  # has a peer, and an id there once that peer has answered
    WAITING_INPUTS = "waiting_inputs"  # has its interfaces; no process runs
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"  # its `when` did not hold, or what it builds on was skipped; it never had a peer
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing may follow."""
        return not JOB_MOVES[self]


class JobStatus(Enum):
    """Of a job execution, as its executor reports it."""

    CREATED = "created"
    WAITING_INPUTS = "waiting_inputs"
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the executor will never report another status."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.LOST, JobStatus.CANCELLED)


class EdgeStatus(Enum):
    """Of the files on their way along one edge."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"  # the receiver has verified and recorded all of it
    FAILED = "failed"


_E = ExecutionStatus
EXECUTION_MOVES: Mapping[ExecutionStatus, frozenset[ExecutionStatus]] = {
    # Completed at once: every job was skipped.
    _E.PENDING: frozenset({_E.RUNNING, _E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    _E.RUNNING: frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    _E.COMPLETED: frozenset(),
    _E.FAILED: frozenset(),
    _E.CANCELLED: frozenset(),
}

_J = WorkflowJobStatus
_ENDS = {_J.COMPLETED, _J.FAILED, _J.CANCELLED}
# Reports carry states, not steps: those between two reports may have been missed. PENDING and PLACED follow later
# statuses when a job moves to another peer.
JOB_MOVES: Mapping[WorkflowJobStatus, frozenset[WorkflowJobStatus]] = {
    # Completed at once: a map whose list was read, or a job that completed in the execution that this one runs
    # again, and whose files nobody takes.
    _J.PENDING: frozenset({_J.PLACED, _J.SKIPPED} | _ENDS),
    _J.PLACED: frozenset({_J.PENDING, _J.WAITING_INPUTS, _J.RUNNING} | _ENDS),
    _J.WAITING_INPUTS: frozenset({_J.PENDING, _J.PLACED, _J.RUNNING} | _ENDS),
    _J.RUNNING: frozenset({_J.PENDING, _J.PLACED, _J.WAITING_INPUTS} | _ENDS),
    _J.COMPLETED: frozenset(),
    _J.FAILED: frozenset(),
    _J.SKIPPED: frozenset(),
    _J.CANCELLED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class EdgeNews:
    """One outgoing edge in a report."""

    edge_id: int
    status: EdgeStatus
    bytes: int = 0
    bytes_total: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a job is, as its executor has committed it."""

    job_execution_id: int
    status: JobStatus
    # Grows with every change of this job on this executor.
    revision: int
    generation: int = 0
    reason: str = ""
    message: str = ""
    attempt: int = 0
    exit_code: int | None = None
    started_at: Millis | None = None
    ended_at: Millis | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    edges: tuple[EdgeNews, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MapSpec:
    """Of a job that becomes one job for each item of a list."""

    list_edge: int
    list_source: str
    # Of each instance, with the name of the job itself in place of the instance's.
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What the engine must know of a job's definition; the rest goes to the executor unread."""

    node_id: str
    workflow_job_id: int
    # Its selector names one peer, so it may run nowhere else.
    pinned: bool = False
    deadline_at: Millis | None = None
    attempts: int = 1
    # False for execution_constraint "none": it runs without its files.
    waits_for_inputs: bool = True
    # A started job that is lost may start again, here or elsewhere.
    retry_lost: bool = False
    # Jobs whose end it waits for, besides those that it takes files from; see peerd.workflows.conditions for `when`.
    needs: tuple[str, ...] = ()
    when: str = ""
    continue_on_failure: bool = False
    # Milliseconds; see peerd.workflows.limits.
    queue_timeout: int | None = None
    start_timeout: int | None = None
    transfer_timeout: int | None = None
    # The execution in which it completed; then it is not run in this one.
    reused_from: int = 0
    # Whose places it needs one of, and how many those have; see peerd.workflows.parallel.
    places: str = ""
    max_parallel: int = 0
    # It stands for jobs that are not known yet, and never runs itself.
    mapped: MapSpec | None = None
    # For such a job's instance: that job.
    instance_of: str = ""


@dataclass(frozen=True, kw_only=True)
class ExecutionSpec:
    """Everything about an execution that is fixed when it is requested."""

    execution_id: int
    created_at: Millis
    jobs: tuple[JobSpec, ...]
    edges: tuple[Edge, ...]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What an execution waits for before it may begin."""

    group: str
    message: str
    next_action: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long the engine waits before a job may leave a peer that is away; milliseconds."""

    # Without contact for so long after its last renewal, an executor no longer holds the lease.
    lease: int = 60_000
    max_clock_skew: int = 10_000
    # For jobs whose start was never sent.
    replace_after: int = 15_000
