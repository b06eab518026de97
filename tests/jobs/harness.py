"""An executor on a real store, with a runner and a sender that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerd.catalog.catalog import Catalog
from peerd.clock import FakeClock, Millis
from peerd.config import JobsConfig
from peerd.disk import NOTHING_KEPT
from peerd.identity.key import identity_from_seed
from peerd.identity.peer_id import PeerId
from peerd.jobs.assembly import JobFloor, Jobs, Surroundings, assemble
from peerd.jobs.model import Job, JobStatus
from peerd.jobs.recording import Completed
from peerd.jobs.runner import Exit, Outcome, ProcessSpec, Recovered, Recovery
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.secret_config import SecretConfig
from peerd.store import Store, Tx
from peerd.transfers.model import OutgoingTransfer, Received, TransferKey
from peerd.v1 import catalog_pb2, jobs_pb2, registry_pb2


def peer(number: int) -> PeerId:
    return identity_from_seed(bytes([number]) * 32).peer_id


EXECUTOR, ORCHESTRATOR, OTHER, PRODUCER, CONSUMER = (peer(number) for number in range(1, 6))
OUTPUT = catalog_pb2.MOUNT_FUNCTION_OUTPUT
INPUT = catalog_pb2.MOUNT_FUNCTION_INPUT

SERVICES: tuple[dict[str, Any], ...] = (
    {"name": "work", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"]},
    {
        "name": "greet",
        "kind": "SERVICE_KIND_PROCESS",
        "argv": ["/bin/echo", "--to=${who}", "${count} times ${who}"],
        "params": [{"name": "who"}, {"name": "count", "default_value": "2", "pattern": "[0-9]+"}],
        "env": {"FIXED": "1"},
        "job_env": ["LOCALE"],
    },
)


class FakeRunner:
    """Processes that end when the test says so, and outlive the executor as real ones do."""

    def __init__(self) -> None:
        self.specs: dict[Path, ProcessSpec] = {}
        self.exits: dict[Path, Exit | None] = {}
        self.lost: set[Path] = set()
        self.stopped: list[Path] = []
        self.forgotten: list[Path] = []
        self.start_error: Exception | None = None
        self.on_stop: Exit | None = ended(143, outcome=Outcome.KILLED)
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self._changed = asyncio.Condition()

    async def start(self, control: Path, spec: ProcessSpec) -> None:
        if self.start_error is not None:
            raise self.start_error
        async with self._changed:
            self.specs[control] = spec
            self._changed.notify_all()

    async def wait(self, control: Path) -> Exit | None:
        async with self._changed:
            await self._changed.wait_for(lambda: control in self.exits)
        return self.exits[control]

    async def recover(self, control: Path) -> Recovered:
        if control in self.lost:
            return Recovered(state=Recovery.LOST)
        if control in self.exits:
            return Recovered(state=Recovery.FINISHED, exit=self.exits[control])
        state = Recovery.RUNNING if control in self.specs else Recovery.NEVER_STARTED
        return Recovered(state=state)

    async def stop(self, control: Path, grace_seconds: float) -> Exit | None:
        self.stopped.append(control)
        await self.may_stop.wait()
        if control not in self.exits:
            await self.finish(control, self.on_stop)
        return self.exits[control]

    def forget(self, control: Path) -> None:
        self.forgotten.append(control)

    def sweep(self, control_root: Path, wanted: Iterable[Path]) -> None:
        self.swept = set(wanted)

    async def finish(self, control: Path, exit_: Exit | None) -> None:
        async with self._changed:
            self.exits[control] = exit_
            self._changed.notify_all()

    async def started(self, count: int = 1) -> Path:
        """The control directory of the newest process, once that many were started."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.specs) >= count)
        return list(self.specs)[-1]


def ended(code: int | None = 0, **more: Any) -> Exit:
    more.setdefault("outcome", Outcome.EXITED)
    return Exit(exit_code=code, started_at=Millis(1), ended_at=Millis(2), **more)


@dataclass
class FakeSends:
    """Remembers what is to be sent. Lists are changed after the commit, so that a rolled back write leaves nothing."""

    orders: list[OutgoingTransfer] = field(default_factory=list)
    withdrawn: list[TransferKey] = field(default_factory=list)
    sent: tuple[int, int] = (0, 0)

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        tx.on_commit(lambda: self.orders.append(transfer))

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        tx.on_commit(lambda: self.withdrawn.append(key))

    def progress(self, key: TransferKey) -> tuple[int, int]:
        return self.sent


@contextmanager
def calling(peer_id: PeerId, *, grants: frozenset[int] = ALL_GRANTS, local: bool = False) -> Iterator[None]:
    token = current.set(Caller(peer_id=peer_id, grants=grants, local=local))
    try:
        yield
    finally:
        current.reset(token)


class Host:
    """One machine: what survives a restart of its daemon, and the daemon of the moment."""

    def __init__(self, store: Store, clock: FakeClock, data_dir: Path, **config: Any) -> None:
        self.store = store
        self.clock = clock
        self.data_dir = data_dir
        self.runner = FakeRunner()
        self.sends = FakeSends()
        self.isolation: int = registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP
        self.roles: dict[PeerId, frozenset[str]] = {}
        self.secrets: dict[str, SecretConfig] = {}
        self.completed: Completed = lambda *_: None
        self.config = JobsConfig(**{"max_running": 4, **config})
        self.catalog = Catalog(store, data_dir)
        self._task: asyncio.Task[None] | None = None
        self.build()

    def build(self) -> None:
        self.floor = JobFloor(
            data_dir=self.data_dir,
            control_root=self.data_dir / "control",
            peer_id=EXECUTOR,
            name_of=lambda peer_id: {PRODUCER: "producer", CONSUMER: "consumer"}.get(peer_id, str(peer_id)),
            quota_bytes=self.config.quota_bytes_per_orchestrator,
        )
        around = Surroundings(
            store=self.store,
            clock=self.clock,
            catalog=self.catalog,
            channels=None,  # type: ignore[arg-type]  # only the reporter uses them
            sends=self.sends,
            runner=self.runner,
            isolation=self.isolation,
            roles_of=lambda peer_id: self.roles.get(peer_id, frozenset()),
            secrets=self.secrets,
            reserve=NOTHING_KEPT,
            completed=lambda *said: self.completed(*said),
        )
        self.jobs: Jobs = assemble(self.floor, around, self.config)

    @property
    def servicer(self) -> Any:
        return self.jobs.servicer

    def run(self) -> None:
        self._task = asyncio.ensure_future(self.jobs.executor.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def restart(self) -> None:
        """The daemon dies; a new one starts on what was committed."""
        await self.stop()
        self.build()
        self.run()

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and let the executor look even if it was not asleep just now."""
        self.clock.advance(seconds)
        self.jobs.executor._wake.set()

    # Calls, as the orchestrator makes them

    async def create(self, *, caller: PeerId = ORCHESTRATOR, key: jobs_pb2.JobKey | None = None, **fields: Any) -> int:
        request = create_request(key=key, **fields)
        with calling(caller):
            answer = await self.servicer.CreateJob(request, None)
        return int(answer.job_execution_id)

    async def start(
        self,
        job_id: int,
        *interfaces: jobs_pb2.JobInterface,
        generation: int = 1,
        hold: bool = False,
        caller: PeerId = ORCHESTRATOR,
        key: jobs_pb2.JobKey | None = None,
    ) -> jobs_pb2.JobReport:
        request = jobs_pb2.StartJobRequest(
            key=key or job_key(), job_execution_id=job_id, generation=generation, interfaces=interfaces, hold=hold
        )
        with calling(caller):
            return (await self.servicer.StartJob(request, None)).report  # type: ignore[no-any-return]

    async def cancel(self, *, caller: PeerId = ORCHESTRATOR, key: jobs_pb2.JobKey | None = None) -> jobs_pb2.JobReport:
        with calling(caller):
            answer = await self.servicer.CancelJob(
                jobs_pb2.CancelJobRequest(key=key or job_key(), reason="enough"), None
            )
        return answer.report  # type: ignore[no-any-return]

    async def sync(self, *keys: jobs_pb2.JobKey, caller: PeerId = ORCHESTRATOR) -> jobs_pb2.SyncJobsResponse:
        with calling(caller):
            return await self.servicer.SyncJobs(jobs_pb2.SyncJobsRequest(keys=keys), None)  # type: ignore[no-any-return]

    # Looking

    async def job(self, job_id: int) -> Job:
        return await self.store.write(lambda tx: self.floor.repository.get(tx, job_id))

    async def until(self, job_id: int, status: JobStatus) -> Job:
        """The job, once it has that status."""
        with self.floor.changes.watching(job_id) as changed:
            async with asyncio.timeout(30):
                while True:
                    changed.clear()
                    job = await self.job(job_id)
                    if job.status is status:
                        return job
                    await changed.wait()

    # Transfers, as the receiver and the sender tell of them

    def incoming(self, job_id: int, edge_id: int, *, source: PeerId = PRODUCER, source_job: int = 70) -> TransferKey:
        return TransferKey(
            orchestrator=ORCHESTRATOR,
            store_id="store",
            workflow_execution_id=100,
            edge_id=edge_id,
            source_peer_id=source,
            source_job_execution_id=source_job,
            destination_peer_id=EXECUTOR,
            destination_job_execution_id=job_id,
        )

    async def receive(self, key: TransferKey, *files: str) -> Path:
        """Files along an edge arrive, are put in their place and recorded."""
        expectation = await self.store.write(lambda tx: self.floor.expectations.expect(tx, key))
        for name in files:
            path = expectation.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {key.source_job_execution_id}\n")
        received = Received(manifest_digest=b"d", file_count=len(files), total_bytes=10 * len(files), files=files)
        await self.store.write(lambda tx: self.floor.expectations.received(tx, key, received))
        return expectation.directory


def job_key(workflow_job_id: int = 27, placement: int = 1, **fields: Any) -> jobs_pb2.JobKey:
    return jobs_pb2.JobKey(
        **{"store_id": "store", "workflow_execution_id": 100, **fields},
        workflow_job_id=workflow_job_id,
        placement=placement,
    )


def create_request(*, key: jobs_pb2.JobKey | None = None, **fields: Any) -> jobs_pb2.CreateJobRequest:
    if not fields.keys() & {"command", "reused"}:
        fields.setdefault("service", "work")
    return jobs_pb2.CreateJobRequest(key=key or job_key(), node_id="node", job_name="node", **fields)


def interface(kind: str, *peers: jobs_pb2.JobInterfacePeer, path: str = "") -> jobs_pb2.JobInterface:
    value = catalog_pb2.InterfaceKind.Value(f"INTERFACE_KIND_{kind.upper()}")
    return jobs_pb2.JobInterface(kind=value, path=path, peers=peers)


def sender_at(
    edge_id: int, peer_id: PeerId = PRODUCER, job_id: int = 70, *, destination: str = "", position: int = 0
) -> jobs_pb2.JobInterfacePeer:
    """The peer's role is OUTPUT: it sends to us."""
    return jobs_pb2.JobInterfacePeer(
        edge_id=edge_id,
        peer_id=peer_id,
        peer_workflow_job_id=26,
        peer_job_execution_id=job_id,
        mount_function=OUTPUT,
        destination=destination,
        position=position,
    )


def receiver_at(edge_id: int, peer_id: PeerId = CONSUMER, job_id: int = 90) -> jobs_pb2.JobInterfacePeer:
    """The peer's role is INPUT: it receives from us."""
    return jobs_pb2.JobInterfacePeer(
        edge_id=edge_id, peer_id=peer_id, peer_workflow_job_id=28, peer_job_execution_id=job_id, mount_function=INPUT
    )
