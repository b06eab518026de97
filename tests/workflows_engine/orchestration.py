"""A simulated orchestrator around the real engine: it keeps a log, replays it, and speaks only after it has written.

Contacts, the reading of refusals, requests and what counts as news are peerd's own; the loops around them, which in
the daemon are tasks, are steps here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import JobKey
from peerd.transfers.model import TransferKey
from peerd.workflows import events as e
from peerd.workflows.contacts import UNREACHABLE, Contacts
from peerd.workflows.decide import CancelJob, Command, CreateJob, ExpandMap, PlaceJob, StartJob, decide, due
from peerd.workflows.dispatch import Dispatcher
from peerd.workflows.evolve import evolve
from peerd.workflows.leases import is_news
from peerd.workflows.model import ExecutionSpec, Report
from peerd.workflows.requests import job_key, start_request
from peerd.workflows.runner import Runner
from peerd.workflows.state import ExecutionState, JobState, durable_view, initial_state

from .network import Network
from .parcels import Manifest
from .rows import Create
from .simulation import TIMING, read_list, replay

STORE = "store"
SYNC_MS = 200


@dataclass(frozen=True, kw_only=True)
class Start:
    """StartJob on the wire."""

    key: JobKey
    request: Any


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """CancelJob on the wire."""

    key: JobKey


@dataclass(frozen=True, kw_only=True)
class Sync:
    """SyncJobs on the wire; without keys, the question whether anybody is there."""

    keys: tuple[JobKey, ...]


@dataclass(frozen=True, kw_only=True)
class Tell:
    """ReportJobs on the wire."""

    reports: tuple[tuple[JobKey, Report], ...]


class VirtualClock:
    """The network's time."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def now(self) -> Millis:
        return self._network.now

    def steady(self) -> Millis:
        return self._network.now

    def monotonic(self) -> float:
        return self._network.now / 1000

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError("nothing sleeps here")


class _Presence:
    def is_online(self, peer_id: PeerId) -> bool:
        return True

    def is_revoked(self, peer_id: PeerId) -> bool:
        return False


@dataclass(kw_only=True)
class Orchestration:
    """One execution on its orchestrator."""

    spec: ExecutionSpec
    home: Orchestrator
    # Jobs whose selector names one peer.
    pins: dict[str, str]
    stop_policy: bool
    # Of the list of its map, if it has one; -1: it is no list.
    items: int = 0
    # Durable
    lists_read: set[str] = field(default_factory=set)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    inbox: list[e.Event] = field(default_factory=list)
    # In memory
    state: ExecutionState = field(init=False)
    taken: set[Command] = field(default_factory=set)
    # For the laws: told of every durable event before it is applied, and asked after each.
    watch: Callable[[Orchestration, e.Event], None] = lambda *_: None
    check: Callable[[Orchestration], None] = lambda _: None

    def __post_init__(self) -> None:
        self.state = initial_state(self.spec, TIMING)

    def happens(self, *events: e.Event) -> None:
        """One step of the daemon's Runner: evolve, decide, write, then send."""
        if self.state.settled:
            return  # its Runner has ended
        batch, orders = [*events, *self.inbox], list[tuple[Command, object]]()
        self.inbox.clear()
        while True:
            for event in batch:
                self._apply(event)
            batch = due(self.state, self.home.now)
            for command in decide(self.state, self.state.take_dirty(10**9), self.home.now):
                job = self.state.jobs[command.node]
                if isinstance(command, PlaceJob):
                    placed = self.home.place(self, command, job)
                    batch += [placed] if placed is not None else []
                elif isinstance(command, ExpandMap):
                    if (
                        command.node not in self.lists_read
                    ):  # stored with the event, which is applied in some later step
                        self.lists_read.add(command.node)
                        self.inbox.append(read_list(self.state, command.node, self.items, self.home.now))
                elif command not in self.taken:
                    orders.append((command, self._message(command, job)))
                    if isinstance(command, StartJob) and command.new:
                        batch.append(
                            e.JobStartSent(
                                node=command.node,
                                placement=command.placement,
                                generation=command.generation,
                                at=self.home.now,
                            )
                        )
            if not batch:
                break
        for command, message in orders:
            self._send(command, message)

    def _apply(self, event: e.Event) -> None:
        if not isinstance(event, e.Passing):
            self.watch(self, event)
            self.log.append((*e.encode(event), event.at))
        evolve(self.state, event)
        self.check(self)

    def key(self, node: str, placement: int) -> JobKey:
        wire = job_key(self.state, self.state.jobs[node], placement, STORE)
        return JobKey(
            orchestrator=PeerId(self.home.name),
            store_id=wire.store_id,
            workflow_execution_id=wire.workflow_execution_id,
            workflow_job_id=wire.workflow_job_id,
            placement=wire.placement,
        )

    def _message(self, command: Command, job: JobState) -> object:
        key = self.key(command.node, command.placement)
        if isinstance(command, CreateJob):
            return Create(key=key, spec=job.spec, stop_policy=self.stop_policy, lease_ms=TIMING.lease)
        if isinstance(command, StartJob):
            wire_key = job_key(self.state, job, command.placement, STORE)
            return Start(key=key, request=start_request(self.state, job, wire_key, command.generation, self.home.name))
        return Cancel(key=key)

    def _send(self, command: Command, message: object) -> None:
        assert isinstance(command, CreateJob | StartJob | CancelJob)
        overtaken = self.state.cancel is not None and not isinstance(command, CancelJob)
        if command in self.taken or overtaken or self.home.contacts.is_away(command.peer):
            return
        self.taken.add(command)
        self.home.network.call(
            self.home.name, command.peer, message, lambda answer: self._answered(command, message, answer)
        )

    def _answered(self, command: Any, message: object, answer: object) -> None:
        self.taken.discard(command)
        peer = PeerId(command.peer)
        about = {"node": command.node, "placement": command.placement, "at": self.home.now}
        if isinstance(answer, PeerdError):
            if answer.reason in UNREACHABLE:
                self.home.contacts.missed(peer)
                return
            self.home.contacts.reached(peer)
            attempt = (self.spec.execution_id, command.node, command.placement)
            runner = cast(Runner, self)
            self.happens(self.home.dispatcher._refused(runner, attempt, command, answer))
            return
        self.home.contacts.reached(peer)
        if isinstance(message, Create):
            assert isinstance(answer, int)
            self.happens(e.JobCreated(**about, job_execution_id=answer))
            return
        assert isinstance(answer, Report)
        if isinstance(message, Start):
            started = e.JobStarted(**about, generation=message.request.generation)
            self.happens(started, e.JobReported(**about, report=answer))
        elif answer.status.final:
            self.happens(e.JobStopped(**about, report=answer))
        else:
            again = Millis(self.home.now + 100)
            held = e.JobHeldUp(**about, reason="cancelling", message="is being stopped", retry_at=again)
            self.happens(e.JobReported(**about, report=answer), held)

    # As destination of deliveries

    def expect(self, key: TransferKey) -> None:
        edge = self.state.edges[key.edge_id]
        job = self.state.jobs[edge.spec.source]
        if self.state.status.final and edge.status.value != "delivered":
            raise PeerdError(Reason.UNEXPECTED_TRANSFER, "the execution is over")
        if not job.remote_id:
            raise PeerdError(Reason.NOT_YET_EXPECTED, "no place now")
        place = (job.peer or job.peers[job.placement], job.remote_id)
        if place != (key.source_peer_id, key.source_job_execution_id):
            raise PeerdError(Reason.UNEXPECTED_TRANSFER, "from another job or peer")

    def received(self, key: TransferKey, _: Manifest) -> None:
        edge = self.state.edges[key.edge_id]
        placement = self.state.jobs[edge.spec.source].placement
        if edge.status.value != "delivered":
            # Stored with the files, and applied in some later step.
            self.inbox.append(e.EdgeDelivered(edge_id=key.edge_id, placement=placement, bytes=1, at=self.home.now))

    def rebuild(self) -> None:
        """After a crash: what the log says, and nothing else."""
        before = durable_view(self.state)
        self.taken.clear()
        self.state = replay(self.spec, self.log)
        assert durable_view(self.state) == before, "replay gives what was"
        self.state.touch_all(self.state.jobs)


@dataclass(kw_only=True)
class Orchestrator:
    """All executions of one machine, and what it knows of other peers."""

    name: str
    network: Network
    # Peers in the order of preference; which of them the registry believes to be there.
    peers: Sequence[str]
    believes: Callable[[str], bool]
    executions: dict[int, Orchestration] = field(default_factory=dict)
    contacts: Contacts = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    syncing: dict[str, Millis] = field(default_factory=dict)
    probing: set[str] = field(default_factory=set)
    seen: object = None

    def __post_init__(self) -> None:
        self.start()

    @property
    def now(self) -> Millis:
        return self.network.now

    def start(self) -> None:
        """As a daemon starts: everybody counts as reached just now."""
        clock = VirtualClock(self.network)
        self.contacts = Contacts(_Presence(), clock, self._announce, PeerId(self.name))
        self.dispatcher = Dispatcher(cast(Any, None), self.contacts, clock)
        self.syncing.clear()
        self.probing.clear()
        for execution in self.executions.values():
            execution.rebuild()
        for execution in self.executions.values():
            execution.happens()

    def _announce(self, event: e.Event) -> None:
        for execution in self.executions.values():
            if not execution.state.settled:
                execution.happens(event)

    def place(self, execution: Orchestration, command: PlaceJob, job: JobState) -> e.Event | None:
        pin = execution.pins.get(command.node)
        fits = [peer for peer in self.peers if peer not in command.excluded and pin in (None, peer)]
        present = [peer for peer in fits if peer not in execution.state.away and self.believes(peer)]
        # What the registry believes may be newer than what calls have found out.
        believed = present or [peer for peer in fits if self.believes(peer)]
        if believed:
            peer = min(believed, key=lambda name: execution.state.load.get(name, 0))
            return e.JobPlaced(node=command.node, placement=command.placement, peer=peer, at=self.now)
        if command.move:
            return None
        if fits:
            return e.JobHeldUp(node=command.node, placement=job.placement, reason="peer_away", message="waits")
        return e.JobUnplaceable(node=command.node, message="nobody takes it", at=self.now)

    def tell(self, caller: str, request: Tell) -> dict[JobKey, int]:
        """ReportJobs: stored, then acknowledged."""
        for key, report in request.reports:
            execution = self.executions.get(key.workflow_execution_id)
            if execution is None or execution.state.settled:
                continue
            job = execution.state.job_of_number(key.workflow_job_id)
            peer = job.peers.get(key.placement) if job is not None else None
            if job is None or peer is None:
                continue
            if peer != caller:
                raise PeerdError(Reason.PERMISSION_DENIED, "not its job")
            self._hear(execution, job, key.placement, report)
        self.contacts.heard(PeerId(caller))
        return {key: report.revision for key, report in request.reports}

    def _hear(self, execution: Orchestration, job: JobState, placement: int, report: Report) -> None:
        if is_news(job, placement, report):
            execution.happens(e.JobReported(node=job.spec.node_id, placement=placement, report=report, at=self.now))

    def look(self) -> None:
        """What the daemon does from time to time: probe, renew leases, see who is there, do what is due."""
        for absence in self.contacts.absences():
            if absence.peer not in self.probing:
                self.probing.add(absence.peer)
                self._ask(absence.peer, (), lambda answer, peer=absence.peer: self._probed(peer, answer))  # type: ignore[misc]
        seen = tuple(peer for peer in self.peers if self.believes(peer))
        if seen != self.seen:
            self.seen = seen
            self._announce(e.PeersChanged())
        for peer in self.peers:
            keys = self._held_by(peer)
            if keys and not self.contacts.is_away(peer) and self.syncing.get(peer, Millis(0)) <= self.now:
                self.syncing[peer] = Millis(self.now + 10 * SYNC_MS)
                self._ask(peer, tuple(keys), lambda answer, peer=peer: self._synced(peer, answer))  # type: ignore[misc]
        for execution in self.executions.values():
            if not execution.state.settled:
                execution.happens()

    def _held_by(self, peer: str) -> list[JobKey]:
        return [
            execution.key(node, job.placement)
            for execution in self.executions.values()
            for node in sorted(execution.state.by_peer.get(peer, ()))
            for job in [execution.state.jobs[node]]
            if not job.final and job.peer == peer and job.remote_id
        ]

    def _ask(self, peer: str, keys: tuple[JobKey, ...], answer: Callable[[object], None]) -> None:
        self.network.call(self.name, peer, Sync(keys=keys), answer)

    def _probed(self, peer: str, answer: object) -> None:
        self.probing.discard(peer)
        if not isinstance(answer, PeerdError) or answer.reason not in UNREACHABLE:
            self.contacts.reached(PeerId(peer))

    def _synced(self, peer: str, answer: object) -> None:
        self.syncing[peer] = Millis(self.now + SYNC_MS)
        if isinstance(answer, PeerdError):
            self.contacts.missed(PeerId(peer))
            return
        self.contacts.reached(PeerId(peer))
        reports, unknown = cast(tuple[list[tuple[JobKey, Report]], list[JobKey]], answer)
        for key, report in reports:
            execution = self.executions[key.workflow_execution_id]
            job = execution.state.job_of_number(key.workflow_job_id)
            assert job is not None
            self._hear(execution, job, key.placement, report)
        for key in unknown:
            execution = self.executions[key.workflow_execution_id]
            job = execution.state.job_of_number(key.workflow_job_id)
            assert job is not None
            lost = e.JobLost(node=job.spec.node_id, placement=key.placement, message="unknown", at=self.now)
            execution.happens(lost)
        for key in [key for key, _ in reports] + unknown:
            self.executions[key.workflow_execution_id].happens(e.PeerHeard(peer=peer))
