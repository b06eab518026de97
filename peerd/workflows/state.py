"""One execution in memory: what its events add up to, with the indexes that keep each further event cheap.

:mod:`peerd.workflows.evolve` alone changes it, in place: a copy of ten thousand jobs for every report would make the
cost of an event grow with the execution. For the same reason nothing here is found by looking through all jobs: each
job knows its edges and neighbours, counters say what is left, and ``dirty`` and ``changed`` say where to look.

Two kinds of content: what follows from the durable events, which replay rebuilds exactly (``durable_view``), and what
is true only while this process watches: ``away``, ``heard``, ``held``, ``turn`` and the timers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from peerd.clock import Millis
from peerd.workflows.edges import LOCAL_PEER, Edge
from peerd.workflows.events import JobHeldUp
from peerd.workflows.matrix import instance_name
from peerd.workflows.model import (
    EdgeStatus,
    ExecutionSpec,
    ExecutionStatus,
    JobSpec,
    Report,
    Timing,
    Turn,
    WorkflowJobStatus,
)
from peerd.workflows.parallel import Places
from peerd.workflows.upstream import upstream_of


@dataclass(slots=True, kw_only=True)
class EdgeState:
    """The files on one edge."""

    spec: Edge
    status: EdgeStatus = EdgeStatus.WAITING
    bytes: int = 0
    bytes_total: int = 0
    reason: str = ""
    # Until when its files must have arrived once they may be on their way, where that is limited.
    transfer_ends: Millis | None = None
    # News from the sender count from this generation of its interfaces on: older ones speak of a former receiver.
    since_generation: int = 1

    @property
    def delivery(self) -> bool:
        """Whether it ends at Local Peer."""
        return self.spec.destination == LOCAL_PEER

    @property
    def brought_home(self) -> bool:
        """Whether it is one of the deliveries that were asked for, and not a list that is read here."""
        return self.delivery and not self.spec.list_of

    @property
    def package(self) -> bool:
        """Whether it starts at Local Peer: files the definition brings along."""
        return self.spec.source == LOCAL_PEER

    @property
    def settled(self) -> bool:
        """Whether nothing more will move along it."""
        return self.status in (EdgeStatus.DELIVERED, EdgeStatus.FAILED)


@dataclass(slots=True, kw_only=True)
class JobState:
    """One job. Everything from ``peer`` to ``report`` is about the present placement."""

    spec: JobSpec
    # Edge ids.
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    # Jobs at the other ends, each once.
    neighbours: tuple[str, ...]
    # Neighbours without an id now, not counting those that will never need one, or behind a gate that is not open.
    missing: int
    # Jobs that it needs or takes files from; how many of them have not ended; gated jobs that wait for its own end.
    upstream: tuple[str, ...] = ()
    upstream_left: int = 0
    awaited_by: tuple[str, ...] = ()
    gated: bool = False
    # Whether it may have a peer: at once, or when its gate has opened.
    open: bool = True

    status: WorkflowJobStatus = WorkflowJobStatus.PENDING
    # exit, timeout, lost, refused, transfer, upstream_failed; for a skipped job when, upstream_skipped.
    reason: str = ""
    message: str = ""
    since: Millis
    # Until when a peer must have taken it, and until when it must run once its inputs are complete, where limited.
    queue_ends: Millis | None = None
    start_ends: Millis | None = None
    started_at: Millis | None = None
    ended_at: Millis | None = None

    placement: int = 0
    # Every peer it was ever given to, by placement.
    peers: dict[int, str] = field(default_factory=dict)
    # "" while it is on none.
    peer: str = ""
    remote_id: int = 0
    # The interfaces it was last sent, and those that are known to be stored there.
    generation: int = 0
    acknowledged: int = 0
    # Its interfaces have changed since they were last sent.
    stale: bool = False
    # From the first StartJob on nobody but the executor knows whether it ran.
    start_sent: bool = False
    # What it was sent, if anything, told it not to start: it waits for one of its places.
    hold: bool = False
    report: Report | None = None

    # Peers that will not take it, with what they said.
    refused_by: dict[str, str] = field(default_factory=dict)
    # Moves after a start: each may mean that its command runs twice.
    moves: int = 0
    # Placements that must be told to stop and have not answered.
    stops: dict[int, str] = field(default_factory=dict)
    held: JobHeldUp | None = None

    @property
    def final(self) -> bool:
        return self.status.final

    @property
    def failed_for_good(self) -> bool:
        """Whether it failed, and that is not allowed."""
        return self.status is WorkflowJobStatus.FAILED and not self.spec.continue_on_failure

    @property
    def gives_nothing(self) -> bool:
        """Whether no files will ever come from it."""
        return self.final and self.status is not WorkflowJobStatus.COMPLETED

    @property
    def may_have_run(self) -> bool:
        """Whether nobody but its executor knows if it ran, or runs."""
        return self.start_sent and not self.hold

    @property
    def needs_start(self) -> bool:
        """Whether its executor lacks the newest interfaces."""
        return self.stale or self.acknowledged < self.generation


@dataclass(slots=True, kw_only=True)
class ExecutionState:
    """One execution."""

    spec: ExecutionSpec
    timing: Timing
    jobs: dict[str, JobState]
    edges: dict[int, EdgeState]

    status: ExecutionStatus = ExecutionStatus.PENDING
    error: str = ""
    cancel: CancelIntent | None = None
    started_at: Millis | None = None
    ended_at: Millis | None = None
    # Jobs that are not final, jobs that failed, deliveries still to come, deliveries that never will.
    remaining: int
    failed: int = 0
    # Of those that failed, the ones that were allowed to.
    tolerated: int = 0
    skipped: int = 0
    completed: int = 0
    first_failure: str = ""
    home_open: int
    home_failed: int = 0
    # Placements that must be told to stop, by their peer.
    stopping: dict[str, int] = field(default_factory=dict)

    # All jobs ever placed on a peer; those of them that are not final are counted in load.
    by_peer: dict[str, set[str]] = field(default_factory=dict)
    load: dict[str, int] = field(default_factory=dict)
    # Non-final jobs that may have a peer and are on none.
    unplaced: set[str] = field(default_factory=set)
    # Jobs whose upstream has ended, and whose gate has not been judged.
    gates: dict[str, None] = field(default_factory=dict)
    # Maps whose lists were read. Of these, the ones that have no rows yet.
    maps: dict[str, Expanded] = field(default_factory=dict)
    fresh_maps: list[str] = field(default_factory=list)
    # By the job whose instances share them.
    places: dict[str, Places] = field(default_factory=dict)
    away: dict[str, Away] = field(default_factory=dict)
    # What it waits for before it may begin; see groups.
    turn: Turn | None = None
    # Peers that have told how their jobs are since this process began to watch, or since they were away.
    heard: set[str] = field(default_factory=set)
    # How far the clock of timers is ahead of the wall clock; whoever runs this keeps it right.
    ahead: int = 0
    timers: list[tuple[int, str, str]] = field(default_factory=list)

    # Jobs that decide() should look at; rows that no longer tell the truth.
    dirty: dict[str, None] = field(default_factory=dict)
    changed_jobs: dict[str, None] = field(default_factory=dict)
    changed_edges: dict[int, None] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to do, also not on other peers."""
        return self.status.final and not self.stopping

    def job_of_number(self, workflow_job_id: int) -> JobState | None:
        """The job with that workflow_job_id: those of the definition are numbered without gaps, as those of a map."""
        jobs = self.spec.jobs
        index = workflow_job_id - jobs[0].workflow_job_id
        if 0 <= index < len(jobs):
            return self.jobs[jobs[index].node_id]
        for node, expanded in self.maps.items():
            if 0 <= (index := workflow_job_id - expanded.first_workflow_job_id) < expanded.count:
                return self.jobs[instance_name(node, index)]
        return None

    def touch(self, job: JobState) -> None:
        """Look at this job again, and at its row."""
        self.dirty[job.spec.node_id] = None
        self.changed_jobs[job.spec.node_id] = None

    def touch_all(self, nodes: Iterable[str]) -> None:
        """The same for many."""
        for node in nodes:
            self.touch(self.jobs[node])

    def take_dirty(self, limit: int) -> list[JobState]:
        """Some of the jobs to look at, longest waiting first; they are then clean."""
        nodes = list(islice(self.dirty, limit))
        for node in nodes:
            del self.dirty[node]
        return [self.jobs[node] for node in nodes]

    def set_timer(self, at: Millis, *, node: str = "", peer: str = "") -> None:
        """Look at a job, or at all jobs of a peer, when that moment has come."""
        heapq.heappush(self.timers, (at, node, peer))

    def next_timer(self) -> Millis | None:
        """When something is due next."""
        return Millis(self.timers[0][0]) if self.timers else None


@dataclass(frozen=True, kw_only=True)
class Expanded:
    """A map whose list was read."""

    first_workflow_job_id: int
    count: int
    first_edge_id: int
    edge_count: int


@dataclass(frozen=True, kw_only=True)
class CancelIntent:
    """Somebody asked to cancel."""

    reason: str
    at: Millis


@dataclass(frozen=True, kw_only=True)
class Away:
    """A peer that does not answer."""

    since: Millis
    gone: bool


def initial_state(spec: ExecutionSpec, timing: Timing, *, ahead: int = 0) -> ExecutionState:
    """An execution to which nothing has happened; ``ahead``: see :class:`ExecutionState`."""
    inputs: dict[str, list[int]] = {job.node_id: [] for job in spec.jobs}
    outputs: dict[str, list[int]] = {job.node_id: [] for job in spec.jobs}
    neighbours: dict[str, dict[str, None]] = {job.node_id: {} for job in spec.jobs}
    for edge in spec.edges:
        if edge.source != LOCAL_PEER:
            outputs[edge.source].append(edge.edge_id)
        if edge.destination != LOCAL_PEER:
            inputs[edge.destination].append(edge.edge_id)
        if LOCAL_PEER not in (edge.source, edge.destination):
            neighbours[edge.source][edge.destination] = None
            neighbours[edge.destination][edge.source] = None
    upstream = upstream_of(spec)
    jobs = {
        job.node_id: JobState(
            spec=job,
            inputs=tuple(inputs[job.node_id]),
            outputs=tuple(outputs[job.node_id]),
            neighbours=tuple(neighbours[job.node_id]),
            missing=sum(name not in upstream.gated for name in neighbours[job.node_id]),
            upstream=upstream.of[job.node_id],
            upstream_left=len(upstream.of[job.node_id]),
            awaited_by=upstream.waiting[job.node_id],
            gated=job.node_id in upstream.gated,
            open=job.node_id not in upstream.gated,
            hold=bool(job.places),
            since=spec.created_at,
        )
        for job in spec.jobs
    }
    state = ExecutionState(
        spec=spec,
        timing=timing,
        jobs=jobs,
        ahead=ahead,
        edges={edge.edge_id: EdgeState(spec=edge) for edge in spec.edges},
        remaining=len(jobs),
        home_open=sum(edge.destination == LOCAL_PEER and not edge.list_of for edge in spec.edges),
        unplaced={node for node, job in jobs.items() if job.open},
        gates={node: None for node, job in jobs.items() if job.gated and not job.upstream},
        places={job.places: Places(limit=job.max_parallel) for job in spec.jobs if job.places},
    )
    for job in spec.jobs:
        if job.deadline_at is not None:
            state.set_timer(job.deadline_at, node=job.node_id)
        if job.queue_timeout is not None and jobs[job.node_id].open:
            jobs[job.node_id].queue_ends = Millis(spec.created_at + ahead + job.queue_timeout)
            state.set_timer(Millis(spec.created_at + ahead + job.queue_timeout), node=job.node_id)
    state.touch_all(jobs)
    return state


def durable_view(state: ExecutionState) -> dict[str, object]:
    """Everything that replaying the log must give again, as plain values; for tests and for bug reports."""
    skipped = {"held", "spec"}
    return {
        "jobs": {
            node: {name: getattr(job, name) for name in JobState.__slots__ if name not in skipped}
            for node, job in state.jobs.items()
        },
        "edges": {
            edge_id: (edge.status, edge.bytes, edge.bytes_total, edge.reason, edge.since_generation, edge.transfer_ends)
            for edge_id, edge in state.edges.items()
        },
        "status": (state.status, state.error, state.cancel, state.started_at, state.ended_at),
        "counters": (
            *(state.remaining, state.failed, state.tolerated, state.skipped, state.completed),
            *(state.home_open, state.home_failed),
        ),
        "stopping": dict(state.stopping),
        "load": {peer: count for peer, count in state.load.items() if count},
        "unplaced": set(state.unplaced),
        "gates": set(state.gates),
        "maps": dict(state.maps),
        "places": {name: (places.taken, sorted(places.waiting)) for name, places in state.places.items()},
    }
