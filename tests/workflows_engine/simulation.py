"""A whole fleet in one object: the pure engine, executors that keep the contract, and a network that keeps nothing.

Messages are lost, doubled and reordered; executors go away, forget, lose jobs; the orchestrator dies and replays its
log. What executors know is durable, as it is in their stores. Every choice comes from the caller, so Hypothesis can
make it and shrink it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from peerd.clock import Millis
from peerd.v1 import catalog_pb2, jobs_pb2
from peerd.workflows import events as e
from peerd.workflows.decide import CancelJob, Command, CreateJob, ExpandMap, PlaceJob, StartJob, decide, due
from peerd.workflows.edges import LOCAL_PEER, Edge
from peerd.workflows.evolve import evolve
from peerd.workflows.model import EdgeNews, EdgeStatus, ExecutionSpec, JobSpec, JobStatus, MapSpec, Report, Timing
from peerd.workflows.requests import job_key, start_request
from peerd.workflows.state import ExecutionState, JobState, durable_view, initial_state

HOME = "home"
OUTPUT, INPUT = catalog_pb2.INTERFACE_KIND_OUTPUT, catalog_pb2.INTERFACE_KIND_INPUT
TIMING = Timing(lease=1000, max_clock_skew=100, replace_after=300)
START = Millis(1_000_000)


def spec_of(
    jobs: Sequence[JobSpec | str],
    edges: Iterable[tuple[str, str]],
    deliver: Iterable[str] = (),
    params: Mapping[str, str] | None = None,
) -> ExecutionSpec:
    """An execution of jobs with ``output`` -> ``input`` edges."""
    specs: list[JobSpec] = [
        JobSpec(node_id=job, workflow_job_id=10 + index) if isinstance(job, str) else job
        for index, job in enumerate(jobs)
    ]
    pairs = [*edges, *((source, LOCAL_PEER) for source in deliver)]
    return ExecutionSpec(
        execution_id=1,
        created_at=START,
        jobs=tuple(specs),
        edges=tuple(
            Edge(edge_id=number, source=source, source_kind=OUTPUT, destination=destination, destination_kind=INPUT)
            for number, (source, destination) in enumerate(pairs, start=1)
        ),
        params=params or {},
    )


def with_map(spec: ExecutionSpec, node: str, list_source: str) -> ExecutionSpec:
    """The same with a map in place of that job, over a list that another makes."""
    plain = [edge for edge in spec.edges if node not in (edge.source, edge.destination)]
    plain.append(
        Edge(
            edge_id=0,
            source=list_source,
            source_kind=OUTPUT,
            destination=LOCAL_PEER,
            destination_kind=INPUT,
            directory=node,
            list_of=node,
        )
    )
    mapped = MapSpec(
        list_edge=len(plain),
        list_source=list_source,
        edges=tuple(replace(edge, edge_id=0) for edge in spec.edges if node in (edge.source, edge.destination)),
    )
    return replace(
        spec,
        jobs=tuple(replace(job, mapped=mapped) if job.node_id == node else job for job in spec.jobs),
        edges=tuple(replace(edge, edge_id=number) for number, edge in enumerate(plain, 1)),
    )


def read_list(state: ExecutionState, node: str, count: int, now: Millis) -> e.Event:
    """What the shell leaves for the engine: the same however often the list is read. A bad list has -1 items."""
    if count < 0:
        return e.MapFailed(node=node, message="the list is none", at=now)
    return e.MapExpanded(node=node, count=count, first_workflow_job_id=1000, at=now)


@dataclass
class Held:
    """A job execution in an executor's store."""

    id: int
    node: str
    placement: int
    status: JobStatus = JobStatus.CREATED
    revision: int = 1
    generation: int = 0
    # edge -> (peer, job execution id) at the other end.
    sources: dict[int, tuple[str, int]] = field(default_factory=dict)
    destinations: dict[int, tuple[str, int]] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    runs: int = 0
    hold: bool = False

    def set(self, status: JobStatus) -> None:
        self.status = status
        self.revision += 1

    def report(self, news: bool = True) -> Report:
        return Report(
            job_execution_id=self.id,
            status=self.status,
            revision=self.revision,
            generation=self.generation,
            reason="exit" if self.status is JobStatus.FAILED else "",
            edges=tuple(
                EdgeNews(
                    edge_id=edge, status=EdgeStatus.DELIVERED if edge in self.sent else EdgeStatus.WAITING, bytes=1
                )
                for edge in self.destinations
            )
            if news
            else (),
        )


class Executor:
    """One peer that runs jobs: what it must do by contract, and nothing else."""

    def __init__(self, name: str, first_id: int) -> None:
        self.name = name
        self.jobs: dict[tuple[str, int], Held] = {}
        self.tombstones: set[tuple[str, int]] = set()
        self.next_id = first_id
        self.down = False

    def create(self, node: str, placement: int) -> e.Event:
        key = (node, placement)
        if key in self.tombstones:
            return e.JobRefused(node=node, placement=placement, reason="job_cancelled", message="tombstone")
        if key not in self.jobs:
            self.jobs[key] = Held(id=self.next_id, node=node, placement=placement)
            self.next_id += 1
        return e.JobCreated(node=node, placement=placement, job_execution_id=self.jobs[key].id)

    def start(self, node: str, placement: int, request: jobs_pb2.StartJobRequest) -> e.Event:
        job = self.jobs.get((node, placement))
        if job is None:
            return e.JobLost(node=node, placement=placement, message="unknown")
        if request.generation > job.generation:
            self._take_interfaces(job, request)
        return e.JobStarted(node=node, placement=placement, generation=request.generation)

    def _take_interfaces(self, job: Held, request: jobs_pb2.StartJobRequest) -> None:
        job.generation = request.generation
        job.revision += 1
        job.hold = request.hold
        sources: dict[int, tuple[str, int]] = {}
        destinations: dict[int, tuple[str, int]] = {}
        for interface in request.interfaces:
            for peer in interface.peers:
                place = (peer.peer_id, peer.peer_job_execution_id)
                receiving = peer.mount_function == catalog_pb2.MOUNT_FUNCTION_OUTPUT
                (sources if receiving else destinations)[peer.edge_id] = place
        if job.status in (JobStatus.CREATED, JobStatus.WAITING_INPUTS):
            job.received = {edge for edge in job.received if job.sources.get(edge) == sources.get(edge)}
            job.sources = sources
            if job.status is JobStatus.CREATED:
                job.set(JobStatus.WAITING_INPUTS)
        job.sent = {edge for edge in job.sent if job.destinations.get(edge) == destinations.get(edge)}
        job.destinations = destinations

    def cancel(self, node: str, placement: int) -> e.Event:
        job = self.jobs.get((node, placement))
        if job is None:
            self.tombstones.add((node, placement))
            report = Report(job_execution_id=0, status=JobStatus.CANCELLED, revision=0)
        else:
            if not job.status.final:
                job.set(JobStatus.CANCELLED)
            report = job.report()
        return e.JobStopped(node=node, placement=placement, report=report)


class World:
    """Everything, and the laws it must obey."""

    def __init__(self, spec: ExecutionSpec, peers: Sequence[str], *, items: int = 0) -> None:
        self.items = items
        self.spec = spec
        self.now = START
        self.executors = {name: Executor(name, 100 * (number + 1)) for number, name in enumerate(peers)}
        self.log: list[tuple[str, str, int]] = []
        self.wire: list[tuple[str, Command, jobs_pb2.StartJobRequest | None] | e.Event] = []
        self.home: dict[int, tuple[str, int]] = {}
        self.finals: dict[str, object] = {}
        self.events_applied = 0
        self.state = initial_state(spec, TIMING)
        self.happens(e.ExecutionRequested(at=self.now))

    # The orchestrator

    def happens(self, *events: e.Event) -> None:
        """What the shell does with a batch: evolve, decide, log, then send."""
        batch = list(events)
        commands: list[Command] = []
        while True:
            for event in batch:
                self.apply(event)
            batch = due(self.state, self.now)
            for command in decide(self.state, self.state.take_dirty(10**9), self.now):
                if isinstance(command, PlaceJob):
                    batch += self.place(command)
                elif isinstance(command, ExpandMap):
                    self.wire.append(read_list(self.state, command.node, self.items, self.now))
                else:
                    commands.append(command)
                    if isinstance(command, StartJob):
                        self.check_start(self.state.jobs[command.node], command)  # what follows may change it
                    if isinstance(command, StartJob) and command.new:
                        batch.append(
                            e.JobStartSent(
                                node=command.node,
                                placement=command.placement,
                                generation=command.generation,
                                at=self.now,
                            )
                        )
            if not batch:
                break
        for command in commands:
            self.send(command)

    def apply(self, event: e.Event) -> None:
        before = {node: (job.status, job.placement) for node, job in self.state.jobs.items()} if self.small else {}
        if not isinstance(event, e.Passing):
            self.log.append((*e.encode(event), event.at))
        evolve(self.state, event)
        self.events_applied += 1
        if self.small:
            self.check(event, before)

    @property
    def small(self) -> bool:
        return len(self.spec.jobs) < 100

    def check(self, event: e.Event, before: Mapping[str, tuple[object, int]]) -> None:
        for node, job in self.state.jobs.items():
            if node in self.finals:
                assert job.status is self.finals[node], "final states stay"
            if job.final:
                self.finals[node] = job.status
            known = sum(
                other.open and not other.remote_id and not other.final
                for other in map(self.state.jobs.__getitem__, job.neighbours)
            )
            if not job.final and not self.state.cancel:  # after a cancel nothing is started any more
                assert job.missing == known, (node, event)
        for edge in () if self.state.cancel else self.state.edges.values():
            source = self.state.jobs.get(edge.spec.source)
            assert edge.settled or source is None or not source.gives_nothing, "nothing will come along it"
        assert self.state.remaining == sum(not job.final for job in self.state.jobs.values())
        open_home = [x for x in self.state.edges.values() if x.brought_home and not x.settled]
        assert self.state.home_open == len(open_home)
        loaded = [job.peer for job in self.state.jobs.values() if job.peer and not job.final]
        assert sum(self.state.load.values()) == len(loaded)
        stopping = [peer for job in self.state.jobs.values() for peer in job.stops.values()]
        assert sum(self.state.stopping.values()) == len(stopping)
        for name, places in self.state.places.items():
            having = [job for job in self.state.jobs.values() if job.spec.places == name and not job.final]
            assert places.taken == sum(not job.hold for job in having) <= places.limit
        if isinstance(event, e.JobReported | e.JobCreated | e.JobStarted | e.JobStopped):
            old = before[event.node][1]
            if event.placement < old:
                after = self.state.jobs[event.node]
                assert (after.status, after.placement) == before[event.node], "an older placement changes nothing"

    def place(self, command: PlaceJob) -> list[e.Event]:
        job = self.state.jobs[command.node]
        fits = [name for name in self.executors if name not in command.excluded]
        if job.spec.pinned:
            fits = [name for name in fits if name == next(iter(self.executors))]
        online = [name for name in fits if not self.executors[name].down]
        if online:
            peer = min(online, key=lambda name: self.state.load.get(name, 0))
            return [e.JobPlaced(node=command.node, placement=command.placement, peer=peer, at=self.now)]
        if fits or command.move:
            self.apply(
                e.JobHeldUp(
                    node=command.node, placement=job.placement, reason="peer_away", message="waits for " + str(fits)
                )
            )
            return []
        return [e.JobUnplaceable(node=command.node, message="nobody", at=self.now)]

    def send(self, command: Command) -> None:
        job = self.state.jobs[command.node]
        request = None
        if isinstance(command, StartJob):
            key = job_key(self.state, job, command.placement, "store")
            request = start_request(self.state, job, key, command.generation, HOME)
        assert isinstance(command, CreateJob | StartJob | CancelJob)
        self.wire.append((command.peer, command, request))

    def check_start(self, job: JobState, command: StartJob) -> None:
        assert command.placement == job.placement and job.remote_id
        for name in job.neighbours:
            other = self.state.jobs[name]
            dead = other.final and other.status.value != "completed"
            assert other.remote_id or dead or not other.open, f"{job.spec.node_id} starts before {name} has an id"

    def crash(self) -> None:
        """The orchestrator dies; what was durable is replayed, what was only believed is gone."""
        before = durable_view(self.state)
        self.state = replay(self.spec, self.log)
        assert durable_view(self.state) == before, "replay gives what was"
        for name, executor in self.executors.items():
            if executor.down:
                evolve(self.state, e.PeerAway(peer=name, since=self.now))
        self.happens()

    # The network

    def deliver(self, index: int, *, keep: bool = False) -> None:
        message = self.wire[index] if keep else self.wire.pop(index)
        if isinstance(message, e.Event):
            self.happens(stamped(message, self.now))
            return
        peer, command, request = message
        executor = self.executors[peer]
        if executor.down:
            self.lost(index=None, command=command)
            return
        match command:
            case CreateJob():
                answer = executor.create(command.node, command.placement)
            case StartJob():
                assert request is not None
                answer = executor.start(command.node, command.placement, request)
            case _:
                answer = executor.cancel(command.node, command.placement)
        self.wire.append(answer)

    def lost(self, *, index: int | None, command: Command | None = None) -> None:
        """A call fails: the shell knows, and tries again later."""
        if index is not None:
            message = self.wire.pop(index)
            if isinstance(message, e.Event):
                command = None
                node, placement = getattr(message, "node", ""), getattr(message, "placement", 0)
            else:
                command = message[1]
        if command is not None:
            node, placement = command.node, command.placement
        if node:
            retry_at = Millis(self.now + 50)
            self.happens(e.JobHeldUp(node=node, placement=placement, reason="lost", message="again", retry_at=retry_at))

    def break_calls(self, executor: Executor) -> None:
        """Every call that is under way to it fails; what it has said is on its way."""
        while broken := [i for i, sent in enumerate(self.wire) if isinstance(sent, tuple) and sent[0] == executor.name]:
            self.lost(index=broken[0])

    # Executors

    def work(self, executor: Executor, job: Held, choice: int) -> None:
        """One step of what a job may do by itself."""
        match job.status:
            case JobStatus.WAITING_INPUTS if set(job.sources) <= job.received:
                job.set(JobStatus.READY)
            case JobStatus.READY if not job.hold:
                job.runs += 1
                job.set(JobStatus.RUNNING)
            case JobStatus.RUNNING:
                job.set({1: JobStatus.FAILED, 2: JobStatus.LOST}.get(choice, JobStatus.COMPLETED))
            case JobStatus.COMPLETED:
                self.push(executor, job)

    def push(self, executor: Executor, job: Held) -> None:
        for edge, (peer, job_id) in job.destinations.items():
            if edge in job.sent:
                continue
            if peer == HOME:
                source = self.state.jobs[job.node]
                if (source.peer, source.remote_id) == (executor.name, job.id):
                    job.sent.add(edge)
                    self.happens(e.EdgeDelivered(edge_id=edge, placement=job.placement, bytes=1, at=self.now))
                continue
            receiver = self.executors[peer]
            if receiver.down:
                continue
            held = next((held for held in receiver.jobs.values() if held.id == job_id), None)
            if held is not None and held.sources.get(edge) == (executor.name, job.id):
                if held.status is JobStatus.WAITING_INPUTS:
                    held.received.add(edge)
                    held.revision += 1
                job.sent.add(edge)
                job.revision += 1

    def tell(self, executor: Executor, job: Held) -> None:
        if executor.name not in self.state.heard and not executor.down:
            self.happens(e.PeerHeard(peer=executor.name))
        self.wire.append(e.JobReported(node=job.node, placement=job.placement, report=job.report()))

    def set_down(self, executor: Executor, down: bool) -> None:
        if executor.down == down:
            return
        executor.down = down
        if down:
            self.happens(e.PeerAway(peer=executor.name, since=self.now))
        else:
            self.happens(e.PeerBack(peer=executor.name), e.PeersChanged())

    def pass_time(self, millis: int) -> None:
        self.now = Millis(self.now + millis)
        self.happens()

    def settle(self, limit: int = 4000) -> None:
        """The faults stop: everybody is up, everything arrives, everything that can go on does."""
        for executor in self.executors.values():
            self.set_down(executor, down=False)
        for _ in range(limit):
            if self.state.settled:
                return
            while self.wire:
                self.deliver(0)
            for executor in self.executors.values():
                for job in list(executor.jobs.values()):
                    self.work(executor, job, 0)
                    self.tell(executor, job)
            self.pass_time(60)
        waiting = {n: (j.status, j.placement, j.missing, j.held) for n, j in self.state.jobs.items() if not j.final}
        raise AssertionError(f"it does not end: {self.state.status} {waiting} {self.state.stopping}")


def stamped(event: e.Event, now: Millis) -> e.Event:
    import dataclasses

    return dataclasses.replace(event, at=now)


def replay(spec: ExecutionSpec, log: Iterable[tuple[str, str, int]]) -> ExecutionState:
    """The state that the log adds up to."""
    state = initial_state(spec, TIMING)
    for kind, body, at in log:
        evolve(state, e.decode(kind, body, at))
    return state
