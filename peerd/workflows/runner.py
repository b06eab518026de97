"""One execution under way: the shell around evolve and decide. Many runners share a store and a dispatcher.

A step takes all events that wait, applies them, decides, and commits events and rows in one transaction; only then
does anything leave this process. While a transaction is on its way more events gather, so a busy execution commits
many at once and an idle one each at once. Whoever brought an event (a report that must be acknowledged) may wait until
it is durable.

Memory runs ahead of the store between evolve and commit. If the commit fails, memory is wrong: the execution is built
again from its log.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog
from google.protobuf.message import Message

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.store import Store, Tx
from peerd.v1 import workflows_pb2
from peerd.workflows import events as e
from peerd.workflows import repository
from peerd.workflows.assigned import Assigned
from peerd.workflows.damage import unreadable
from peerd.workflows.decide import Command, CreateJob, ExpandMap, PlaceJob, StartJob, decide, due
from peerd.workflows.edges import Edge
from peerd.workflows.evolve import evolve
from peerd.workflows.growth import grown
from peerd.workflows.lists import read_items
from peerd.workflows.maps import Values, mapped_instance
from peerd.workflows.model import ExecutionSpec, Timing, Turn
from peerd.workflows.packages import Packages
from peerd.workflows.placing import Nobody, Placed, Waits
from peerd.workflows.projection import Projection, project
from peerd.workflows.repository import ExecutionRecord, Posted
from peerd.workflows.requests import create_request, job_key, start_request
from peerd.workflows.state import ExecutionState, JobState, initial_state
from peerd.workflows.waking import Sleeper, Waking

_log = structlog.get_logger(__name__)

# After a commit or a step that failed; the reason is rarely gone at once.
_AGAIN_SECONDS = 2.0
# Placing and asking for so many takes some 50 ms, during which nothing else in this process moves.
_JOBS_PER_STEP = 250


class Placing(Protocol):
    """What a runner asks of placement."""

    async def refresh(self) -> None:
        """Learn what is not known of the peers."""
        ...

    def place(
        self,
        job: workflows_pb2.JobDefinition,
        edges: Sequence[Edge],
        *,
        excluded: frozenset[str],
        assigned: Mapping[str, int],
        near: Mapping[str, int],
    ) -> Placed | Waits | Nobody:
        """Choose a peer; ``near`` counts by peer the placed jobs whose outputs this one takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Order:
    """A command with the message that carries it out."""

    command: Command
    request: Message | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all runners of a peer share."""

    store: Store
    clock: Clock
    own_peer_id: str
    timing: Timing
    placing: Placing
    packages: Packages
    waking: Waking
    name_of: Callable[[str], str]
    # What an execution waits for before it may begin.
    turn: Callable[[int], Turn | None]
    # Non-final jobs of all executions.
    assigned: Assigned
    # Send these on behalf of the execution; answers come back through tell().
    perform: Callable[[Runner, Sequence[Order]], None]
    # Whether that very command is waiting or on its way already.
    under_way: Callable[[Runner, Command], bool]
    # Which peers are away now, as events.
    absences: Callable[[], Sequence[e.PeerAway]]
    # Read the list of that job with a map; an event follows.
    expand: Callable[[Runner, str], None]
    # Rows of this execution have changed.
    changed: Callable[[int], None]


@dataclass(slots=True)
class _Input:
    event: e.Event
    inbox_id: int | None = None
    done: asyncio.Future[None] | None = None


@dataclass(slots=True)
class _Step:
    """What one step leads to."""

    inputs: list[_Input]
    log: list[e.Event] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)


class Runner:
    """Owns one execution until it is settled."""

    def __init__(self, record: ExecutionRecord, surroundings: Surroundings) -> None:
        self.record = record
        self.execution_id = record.spec.execution_id
        self._around = surroundings
        self._definitions = {job.name: job for job in record.definition.jobs}
        self._items: dict[str, Sequence[Values]] = {}
        self._inputs: list[_Input] = []
        self._in_hand: list[_Input] = []
        self._taken_over: set[int] = set()
        self._asleep: Sleeper | None = None
        self._next_seq = 1
        self._built = asyncio.Event()
        self._spec = _by_steady_clock(record.spec, surroundings.clock)
        self.state: ExecutionState = initial_state(self._spec, surroundings.timing)

    async def built(self) -> None:
        """Return once the state is what the log says, or it is known that it never will be."""
        await self._built.wait()

    def let_go(self) -> None:
        """It is over: nobody waits for it any more."""
        self._built.set()

    def definition(self, node: str) -> workflows_pb2.JobDefinition:
        """Of a job; that of an instance of a map is made each time, as ten thousand of them would fill the memory."""
        spec = self.state.jobs[node].spec
        if not spec.instance_of:
            return self._definitions[node]
        index = spec.workflow_job_id - self.state.maps[spec.instance_of].first_workflow_job_id
        return mapped_instance(self._definitions[spec.instance_of], index, self._items[spec.instance_of][index])

    def learn_items(self, node: str, items: Sequence[Values]) -> None:
        """What the list of a job with a map holds; before the event that says so."""
        self._items[node] = items

    def tell(self, event: e.Event) -> None:
        """Something has happened; it is applied soon."""
        self._put(_Input(event))

    def tell_posted(self, posted: Posted) -> None:
        """The same for an event that lies in the inbox."""
        self._put(_Input(posted.event, inbox_id=posted.inbox_id))

    async def tell_and_wait(self, *happened: e.Event) -> None:
        """The same; returns when all are durable. Raises what the store raised."""
        if not happened:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for event in happened[:-1]:
            self.tell(event)
        self._put(_Input(happened[-1], done=done))
        await done

    async def run(self) -> None:
        """Until it is settled. A step that fails is logged and the execution built again from what is durable.

        Raises STORE_CORRUPT when that cannot be read.
        """
        while True:
            try:
                await self._rebuild()
                while not self.state.settled:
                    await self._step()
                    await self._rest()
            except Exception as error:  # one execution must not end the daemon, nor be forgotten
                if isinstance(error, PeerdError) and error.reason is Reason.STORE_CORRUPT:
                    self._fail_waiting(error)
                    raise
                _log.exception("execution.step_failed", workflow_execution_id=self.execution_id)
                self._fail_waiting(error)
                await self._around.clock.sleep(_AGAIN_SECONDS)
            else:
                break
        self._fail_waiting(None)

    async def _rebuild(self) -> None:
        """From the log and the inbox; then with what is true now."""
        self._built.clear()
        around = self._around
        log = await repository.read_events(around.store, self.execution_id)
        state = initial_state(self._spec, around.timing, ahead=around.clock.steady() - around.clock.now())
        for number, event in enumerate(log, 1):
            try:
                evolve(state, event)
            except Exception as error:  # it was applied before it was stored
                raise unreadable(f"event {number} of the log", error) from error
        state.fresh_maps.clear()  # their rows came with their events
        self.state, self._next_seq = state, len(log) + 1
        if any(job.mapped is not None for job in self._spec.jobs):
            self._items = await read_items(around.store, self.execution_id)
            if any(len(self._items.get(node, ())) != one.count for node, one in state.maps.items()):
                raise unreadable("the list of a map")
        self._taken_over.clear()
        for absence in around.absences():
            evolve(state, absence)
        around.assigned.update(self.execution_id, state.load)
        state.touch_all(state.jobs)
        state.changed_edges = dict.fromkeys(state.edges)
        for posted in await repository.read_inbox(around.store, self.execution_id):
            self.tell_posted(posted)
        await around.packages.write(self.record)
        self._built.set()

    async def _rest(self) -> None:
        """Until something happens or is due."""
        if self.state.settled:
            return
        if self._inputs or (self.state.dirty and not self._waits_for_turn()):
            await self._around.waking.turn()
            return
        self._asleep = sleeper = asyncio.get_running_loop().create_future()
        if (timer := self.state.next_timer()) is not None:
            self._around.waking.wake_at(sleeper, timer)
        await sleeper
        self._asleep = None

    async def _step(self) -> None:
        around = self._around
        if self.state.unplaced and not self.state.cancel:
            await around.placing.refresh()
        inputs, self._inputs = self._inputs, []
        self._in_hand = inputs
        step = self._advance(inputs)
        inbox_ids = [i.inbox_id for i in inputs if i.inbox_id is not None]
        if step.log or inbox_ids or self.state.changed_jobs or self.state.changed_edges:
            await self._commit(step, inbox_ids)
        for entry in inputs:
            if entry.done is not None and not entry.done.done():
                entry.done.set_result(None)
        self._in_hand = []
        around.perform(self, step.orders)

    def _advance(self, inputs: list[_Input]) -> _Step:
        """Apply, decide, and apply what the decisions themselves make happen, until nothing follows."""
        state, now, moment = self.state, self._around.clock.steady(), self._around.clock.now()
        state.ahead = now - moment
        state.turn = self._around.turn(self.execution_id)
        step = _Step(inputs)
        pending: list[e.Event] = []
        for entry in inputs:
            if entry.inbox_id is None or entry.inbox_id not in self._taken_over:
                pending.append(entry.event)
            if entry.inbox_id is not None:
                self._taken_over.add(entry.inbox_id)
        while True:
            for event in pending:
                evolve(state, event)
                if not isinstance(event, e.Passing):
                    step.log.append(event)
            # They are decided by the steady clock, and told by the one on the wall.
            pending = [replace(event, at=moment) for event in due(state, now)]
            assigned: Mapping[str, int] | None = None
            looked_at = () if self._waits_for_turn() else state.take_dirty(_JOBS_PER_STEP)
            for command in decide(state, looked_at, now):
                job = state.jobs[command.node]
                if isinstance(command, PlaceJob):
                    assigned = self._around.assigned.total if assigned is None else assigned
                    placed = self._place(command, job, assigned, moment)
                    if isinstance(placed, e.JobPlaced):
                        assigned = {**assigned, placed.peer: assigned.get(placed.peer, 0) + 1}
                    if placed is not None:
                        pending.append(placed)
                    continue
                if isinstance(command, ExpandMap):
                    self._around.expand(self, command.node)
                    continue
                if self._around.under_way(self, command):
                    continue  # its answer is awaited; a failure will have this job looked at again
                step.orders.append(self._order(command, job))
                if isinstance(command, StartJob) and command.new:
                    generation, placement = command.generation, command.placement
                    pending.append(
                        e.JobStartSent(node=command.node, placement=placement, generation=generation, at=moment)
                    )
            if not pending:
                self._around.assigned.update(self.execution_id, state.load)
                return step

    def _waits_for_turn(self) -> bool:
        """Whether nothing may be decided: none of its jobs has a peer yet. A cancel or failure needs no turn."""
        return self.state.turn is not None and not self.state.cancel and not self.state.status.final

    def _place(self, command: PlaceJob, job: JobState, assigned: Mapping[str, int], now: Millis) -> e.Event | None:
        if (reused := self.record.reused.get(command.node)) is not None:  # only there are its files
            away = self.state.away.get(reused.peer_id)
            if away is None or not away.gone:
                return e.JobPlaced(node=command.node, placement=command.placement, peer=reused.peer_id, at=now)
            message = f"its files are on {self._around.name_of(reused.peer_id)}, which was revoked"
            return e.JobUnplaceable(node=command.node, message=message, at=now)
        edges = [self.state.edges[edge_id].spec for edge_id in (*job.inputs, *job.outputs)]
        definition, excluded = self.definition(command.node), command.excluded
        present = excluded | self.state.away.keys()  # what the registry thinks of a peer may be older
        sources = {self.state.edges[edge_id].spec.source for edge_id in job.inputs}
        near = Counter(
            peer for source in sources if source in self.state.jobs and (peer := self.state.jobs[source].peer)
        )
        place = functools.partial(self._around.placing.place, definition, edges, assigned=assigned, near=near)
        found = place(excluded=present)
        if not isinstance(found, Placed) and present != excluded:
            found = place(excluded=excluded)
        if isinstance(found, Placed):
            return e.JobPlaced(node=command.node, placement=command.placement, peer=found.peer, at=now)
        if command.move:
            return None  # better where it is than nowhere
        if isinstance(found, Waits):
            return e.JobHeldUp(
                node=command.node,
                placement=job.placement,
                reason="peer_away",
                message=found.message,
                next_action=found.next_action,
            )
        refusals = [f"{self._around.name_of(peer)} refused it: {said}" for peer, said in job.refused_by.items()]
        return e.JobUnplaceable(node=command.node, message="; ".join([*refusals[-3:], found.message]), at=now)

    def _order(self, command: Command, job: JobState) -> Order:
        """The message is made now: a moment later the state may lack what it needs."""
        around = self._around
        key = job_key(self.state, job, command.placement, around.store.store_id)
        if isinstance(command, CreateJob):
            request: Message = create_request(
                key,
                self.definition(command.node),
                workflow_id=self.record.workflow_id,
                params=self.record.params,
                lease_seconds=around.timing.lease / 1000,
                reused=self.record.reused.get(command.node),
            )
        elif isinstance(command, StartJob):
            request = start_request(self.state, job, key, command.generation, around.own_peer_id)
        else:
            request = key
        return Order(command=command, request=request)

    async def _commit(self, step: _Step, inbox_ids: Sequence[int]) -> None:
        around, first_seq = self._around, self._next_seq
        shipments = around.packages.due(self.state, self.state.changed_jobs)
        growth = grown(self.state, self.record.workflow_id, self._definitions, self._items)
        projection: Projection = project(self.state, around.name_of)
        areas = _areas(step.log, self.state)

        def commit(tx: Tx) -> None:
            repository.append_events(tx, self.execution_id, first_seq, step.log)
            growth.write(tx)
            projection.write(tx)
            repository.clear_inbox(tx, inbox_ids)
            shipments.order(tx)
            for area in areas:
                failpoint(f"workflow.{area}.before_commit")

        await around.store.write(commit)
        self._next_seq += len(step.log)
        for area in areas:
            failpoint(f"workflow.{area}.after_commit")
        around.changed(self.execution_id)

    def _put(self, entry: _Input) -> None:
        self._inputs.append(entry)
        if self._asleep is not None:
            self._around.waking.wake(self._asleep)
            self._asleep = None

    def _fail_waiting(self, error: Exception | None) -> None:
        """Nobody may wait for a step that will not be made. What lies in the inbox is read again from there."""
        inputs, self._inputs, self._in_hand = [*self._in_hand, *self._inputs], [], []
        for entry in inputs:
            if entry.done is not None and not entry.done.done():
                if error is None:
                    entry.done.set_result(None)
                else:
                    entry.done.set_exception(error)


def _by_steady_clock(spec: ExecutionSpec, clock: Clock) -> ExecutionSpec:
    """With deadlines of the clock that nobody sets: what is left of each is left, whatever the wall clock does next."""
    ahead = clock.steady() - clock.now()
    jobs = tuple(
        job if job.deadline_at is None else replace(job, deadline_at=Millis(job.deadline_at + ahead))
        for job in spec.jobs
    )
    return replace(spec, jobs=jobs)


def _areas(log: Sequence[e.Event], state: ExecutionState) -> list[str]:
    """Which failpoints a commit passes."""
    areas = dict.fromkeys(event.area for event in log if event.area)
    if log and state.status.final:
        areas["finish"] = None
    return list(areas)
