"""All executions this peer owns: takes them up, keeps them going, and brings them their events.

One runner for each execution that is not settled; what they share - connections to executors, which of these answer,
leases - is here. A restart finds every unsettled execution in the store and goes on with it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from peerd.clock import Clock, Millis
from peerd.config import WorkflowsConfig
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.loops import run_every
from peerd.store import Store, Tx
from peerd.workflows import damage, repository
from peerd.workflows import events as e
from peerd.workflows.assigned import Assigned
from peerd.workflows.contacts import LOOK_SECONDS, Contacts
from peerd.workflows.dispatch import Dials, Dispatcher
from peerd.workflows.groups import Gate
from peerd.workflows.leases import Leases
from peerd.workflows.lists import Lists
from peerd.workflows.model import Timing
from peerd.workflows.packages import Packages, SendQueue
from peerd.workflows.releasing import Releasing
from peerd.workflows.repository import ExecutionRecord, Posted
from peerd.workflows.runner import Placing, Runner, Surroundings
from peerd.workflows.waking import Waking
from peerd.workflows.watch import Changes

_log = structlog.get_logger(__name__)

_RELEASE_SECONDS = 2.0
_READ_AGAIN_MS = 2000


class Registry(Protocol):
    """What is known of other peers."""

    def name_of(self, peer_id: str) -> str:
        """What people call it."""
        ...

    def is_online(self, peer_id: PeerId) -> bool:
        """Whether it answered lately."""
        ...


class FingerprintedPlacing(Placing, Protocol):
    """Placement that can tell when its answers may have changed."""

    def fingerprint(self) -> object:
        """Equal as long as the same question has the same answer."""
        ...


class Orchestrator:
    """Owns the runners."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        own_peer_id: PeerId,
        data_dir: Path,
        dials: Dials,
        registry: Registry,
        is_revoked: Callable[[PeerId], bool],
        placing: FingerprintedPlacing,
        sends: SendQueue,
        config: WorkflowsConfig,
    ) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._placing = placing
        self._seen: object = None
        self.changes = Changes()
        self._runners: dict[int, Runner] = {}
        self._assigned = Assigned()
        self.gate = Gate(store, clock, changed=self._turn_changed)
        """Who waits for its turn in a concurrency group."""
        self.held: set[int] = set()
        """Executions that cannot be read; see :mod:`peerd.workflows.damage`."""
        self._tasks: asyncio.TaskGroup | None = None
        self._recovered = asyncio.Event()
        self._contacts = Contacts(_Presence(registry, is_revoked), clock, self._announce, own_peer_id)
        self._dispatcher = Dispatcher(dials, self._contacts, clock)
        self._leases = Leases(self._dispatcher, self._contacts, self._runners.values, clock, store.store_id)
        self._releasing = Releasing(store, self._dispatcher, self._contacts, is_revoked)
        packages = Packages(sends, data_dir=data_dir, own_peer_id=own_peer_id, store_id=store.store_id)
        self._waking = Waking(clock)
        self._lists = Lists(store, self.post)
        self._reading: set[tuple[int, str]] = set()
        self._data_dir = data_dir
        self._own_peer_id = own_peer_id
        self._surroundings = Surroundings(
            store=store,
            clock=clock,
            own_peer_id=own_peer_id,
            timing=Timing(
                lease=round(config.lease_seconds * 1000),
                max_clock_skew=round(config.max_clock_skew_seconds * 1000),
                replace_after=round(config.replace_after_seconds * 1000),
            ),
            placing=placing,
            packages=packages,
            waking=self._waking,
            name_of=registry.name_of,
            turn=self.gate.turn,
            assigned=self._assigned,
            perform=self._dispatcher.perform,
            under_way=self._dispatcher.under_way,
            absences=self._contacts.absences,
            expand=self._expand,
            changed=self._execution_changed,
        )

    @property
    def active(self) -> int:
        """Executions that are not settled."""
        return len(self._runners)

    async def run(self) -> None:
        """Take up what was left, then go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = self._dispatcher.tasks = tasks
            tasks.create_task(self._waking.run())
            try:
                await self.gate.load()
                for execution_id in await repository.open_executions(self._store):
                    if execution_id not in self._runners:
                        try:
                            self._take_up(await repository.load_execution(self._store, execution_id))
                        except PeerdError as error:
                            await self._hold(execution_id, error)
                self._recovered.set()
                every, clock = run_every, self._clock
                tasks.create_task(every(self._look, seconds=LOOK_SECONDS, clock=clock, name="workflows.look"))
                renewing = every(
                    self._leases.renew, seconds=self._config.sync_seconds, clock=clock, name="workflows.leases"
                )
                tasks.create_task(renewing)
                releasing = every(
                    self._releasing.round, seconds=_RELEASE_SECONDS, clock=clock, name="workflows.release"
                )
                tasks.create_task(releasing)
                tasks.create_task(self.gate.run())
                await asyncio.Event().wait()
            finally:
                self._tasks = self._dispatcher.tasks = None

    def adopt(self, tx: Tx, record: ExecutionRecord) -> None:
        """Take up a new execution once the transaction that makes it is durable."""
        tx.on_commit(lambda: self._take_up(record))

    def post(self, tx: Tx, execution_id: int, event: e.Event) -> None:
        """Something has happened to an execution, and is recorded in this transaction."""
        posted = repository.post_event(tx, execution_id, event)
        tx.on_commit(lambda: self._posted(execution_id, posted))

    def assigned(self) -> Mapping[str, int]:
        """By peer, the jobs it was given and has not finished."""
        return self._assigned.total

    def find(self, execution_id: int) -> Runner | None:
        """The runner of an execution that is not settled."""
        return self._runners.get(execution_id)

    async def get(self, execution_id: int) -> Runner | None:
        """The same; waits until a restart has brought it back, so that None means that it is settled or unknown."""
        await self._recovered.wait()
        runner = self._runners.get(execution_id)
        if runner is not None:
            await runner.built()
        return self._runners.get(execution_id)

    def heard(self, peer: PeerId) -> None:
        """That peer has called us."""
        self._contacts.heard(peer)

    def peer_online(self, peer: PeerId) -> None:
        """The registry sees it again, be it as it was before: a job may have found it away between two looks."""
        self._contacts.heard(peer)
        self._seen = None

    def _take_up(self, record: ExecutionRecord) -> None:
        execution_id = record.spec.execution_id
        if self._tasks is None or execution_id in self._runners:
            return  # run() finds it in the store
        runner = self._runners[execution_id] = Runner(record, self._surroundings)
        self._tasks.create_task(self._run(runner))

    async def _run(self, runner: Runner) -> None:
        try:
            await runner.run()
        except PeerdError as error:
            await self._hold(runner.execution_id, error)
        finally:
            self._runners.pop(runner.execution_id, None)
            self._assigned.update(runner.execution_id, {})
            runner.let_go()
            self.changes.notify(runner.execution_id)

    async def _hold(self, execution_id: int, error: PeerdError) -> None:
        """It cannot be read: the others go on without it. The next start tries again."""
        self.held.add(execution_id)
        _log.error("execution.held", workflow_execution_id=execution_id, message=error.message)
        try:
            await self._store.write(functools.partial(damage.hold, execution_id=execution_id, error=error))
        except PeerdError as fault:
            _log.warning("execution.held_unsaid", workflow_execution_id=execution_id, message=fault.message)

    def _expand(self, runner: Runner, node: str) -> None:
        """Have the list of a map read, unless that is under way."""
        if self._tasks is not None and (runner.execution_id, node) not in self._reading:
            self._reading.add((runner.execution_id, node))
            self._tasks.create_task(self._read_list(runner, node))

    async def _read_list(self, runner: Runner, node: str) -> None:
        home = JobPlace(
            data_dir=self._data_dir,
            orchestrator=self._own_peer_id,
            workflow_execution_id=runner.execution_id,
            executor=self._own_peer_id,
            job_execution_id=0,
        )
        try:
            await self._lists.expand(runner.state, runner.definition(node), home, runner.learn_items)
        except Exception as error:  # noqa: BLE001 - a disk that is full now must not end the others
            _log.exception("execution.list_unread", workflow_execution_id=runner.execution_id, node=node)
            message = error.message if isinstance(error, PeerdError) else f"{type(error).__name__}: {error}"
            again = Millis(self._clock.steady() + _READ_AGAIN_MS)
            runner.tell(e.JobHeldUp(node=node, placement=0, reason="list", message=message, retry_at=again))
        finally:
            self._reading.discard((runner.execution_id, node))

    def _posted(self, execution_id: int, posted: Posted) -> None:
        runner = self._runners.get(execution_id)
        if runner is not None:
            runner.tell_posted(posted)

    def _execution_changed(self, execution_id: int) -> None:
        self.changes.notify(execution_id)
        runner = self._runners.get(execution_id)
        if runner is not None and runner.state.status.final:
            self.gate.ended()

    def _turn_changed(self, execution_id: int) -> None:
        """It has its turn, or waits for another; what its rows say is written already."""
        runner = self._runners.get(execution_id)
        if runner is not None:
            runner.tell(e.PeersChanged())
        self.changes.notify(execution_id)

    def _announce(self, event: e.Event) -> None:
        for runner in self._runners.values():
            runner.tell(event)

    async def _look(self) -> None:
        """Probe who is away; wake what waits for a peer when the peers have changed."""
        await self._contacts.probe(self._leases.probe)
        if not any(runner.state.unplaced or runner.state.away for runner in self._runners.values()):
            self._seen = None  # what whoever waits next has seen may have changed since, and back
            return
        seen = self._placing.fingerprint()
        if seen != self._seen:
            self._seen = seen
            self._announce(e.PeersChanged())


class _Presence:
    def __init__(self, registry: Registry, is_revoked: Callable[[PeerId], bool]) -> None:
        self.is_online = registry.is_online
        self.is_revoked = is_revoked
