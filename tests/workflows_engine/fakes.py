"""Executors behind real gRPC, a registry that is a dictionary, and an orchestrator on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpc import StatusCode, aio

from peerd.config import RetentionConfig, WorkflowsConfig
from peerd.disk import Disk
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.rpc.status import to_status
from peerd.store import Store, Tx, open_store
from peerd.transfers.model import OutgoingTransfer, TransferKey
from peerd.v1 import catalog_pb2, jobs_pb2, jobs_pb2_grpc, workflows_pb2
from peerd.workflows import views
from peerd.workflows.delivery import LocalPeer
from peerd.workflows.door import Door
from peerd.workflows.edges import Edge
from peerd.workflows.lifecycle import Lifecycle
from peerd.workflows.logs import Logs
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.placing import Nobody, Placed, Waits
from peerd.workflows.reports import JobReportServicer
from peerd.workflows.retention import ExecutionRetention
from peerd.workflows.servicer import WorkflowServicer
from tests.loopback import OWN
from tests.mesh.nodes import ShiftedClock

HOME = PeerId("home")
QUICK = WorkflowsConfig(lease_seconds=1.0, sync_seconds=0.2, max_clock_skew_seconds=0.1, replace_after_seconds=0.4)
S = jobs_pb2.JobStatus


class FakeExecutor(jobs_pb2_grpc.JobServiceServicer):
    """Keeps the contract of JobService; what its jobs do is up to the test."""

    def __init__(self, name: str, first_id: int) -> None:
        self.name = name
        self.next_id = first_id
        self.jobs: dict[bytes, jobs_pb2.JobReport] = {}
        self.requests: list[Any] = []
        self.released: list[tuple[int, bool]] = []
        self.removed: set[int] = set()
        self.also_missing: list[int] = []
        """Jobs whose files retention has taken."""
        self.started: dict[str, jobs_pb2.StartJobRequest] = {}
        self.refuse: PeerdError | None = None
        self.finish_at_start = True
        self.log_pieces: list[int] = []
        """How many bytes of a log each next call says, before it is lost if there is more."""
        self.on_report: Any = None
        self.server: aio.Server | None = None
        self.port = 0

    async def serve(self) -> None:
        self.server = aio.server()
        jobs_pb2_grpc.add_JobServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"{OWN}:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None

    async def _check(self, context: Any) -> None:
        if self.refuse is not None:
            code, message, metadata = to_status(self.refuse)
            await context.abort(code, message, metadata)

    async def CreateJob(self, request: jobs_pb2.CreateJobRequest, context: Any) -> jobs_pb2.CreateJobResponse:
        await self._check(context)
        self.requests.append(request)
        report = self.jobs.get(request.key.SerializeToString())
        if report is None:
            report = jobs_pb2.JobReport(
                key=request.key, job_execution_id=self.next_id, status=S.JOB_STATUS_CREATED, revision=1
            )
            self.next_id += 1
            self.jobs[request.key.SerializeToString()] = report
        return jobs_pb2.CreateJobResponse(
            job_execution_id=report.job_execution_id, workflow_job_id=request.key.workflow_job_id, status=report.status
        )

    async def StartJob(self, request: jobs_pb2.StartJobRequest, context: Any) -> jobs_pb2.StartJobResponse:
        await self._check(context)
        self.requests.append(request)
        report = self.jobs[request.key.SerializeToString()]
        if request.generation > report.generation:
            report.generation, report.revision = request.generation, report.revision + 1
        if report.status == S.JOB_STATUS_CREATED:
            peers = [peer for interface in request.interfaces for peer in interface.peers]
            waits = any(peer.mount_function == catalog_pb2.MOUNT_FUNCTION_OUTPUT for peer in peers)
            report.status = S.JOB_STATUS_WAITING_INPUTS if waits else S.JOB_STATUS_RUNNING
        if request.hold and report.status < S.JOB_STATUS_COMPLETED:
            report.status = S.JOB_STATUS_READY
        elif self.finish_at_start:
            self.end(report)
        return jobs_pb2.StartJobResponse(report=report)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.CancelJobResponse:
        await self._check(context)
        self.requests.append(request)
        report = self.jobs.get(request.key.SerializeToString())
        if report is None:
            return jobs_pb2.CancelJobResponse(report=jobs_pb2.JobReport(key=request.key, status=S.JOB_STATUS_CANCELLED))
        self.end(report, S.JOB_STATUS_CANCELLED)
        return jobs_pb2.CancelJobResponse(report=report)

    async def SyncJobs(self, request: jobs_pb2.SyncJobsRequest, context: Any) -> jobs_pb2.SyncJobsResponse:
        answer = jobs_pb2.SyncJobsResponse()
        for key in request.keys:
            report = self.jobs.get(key.SerializeToString())
            if report is None:
                answer.unknown.append(key)
            else:
                answer.reports.append(report)
        return answer

    async def GetJob(self, request: Any, context: Any) -> jobs_pb2.GetJobResponse:
        raise NotImplementedError

    async def ListJobs(self, request: Any, context: Any) -> jobs_pb2.ListJobsResponse:
        raise NotImplementedError

    async def ReadJobLogs(
        self, request: jobs_pb2.ReadJobLogsRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.ReadJobLogsResponse]:
        await self._check(context)
        whole = f"log of {request.job_execution_id}".encode()
        rest = whole[request.stdout_offset :]
        if self.log_pieces:
            rest = rest[: self.log_pieces.pop(0)]
        if rest:
            yield jobs_pb2.ReadJobLogsResponse(
                stream=jobs_pb2.LOG_STREAM_STDOUT, data=rest, next_offset=request.stdout_offset + len(rest)
            )
        if request.stdout_offset + len(rest) < len(whole):
            await context.abort(StatusCode.UNAVAILABLE, "going away")

    def end(self, report: jobs_pb2.JobReport, status: S.ValueType = S.JOB_STATUS_COMPLETED, reason: str = "") -> None:
        """A job of ours ends, unless it has."""
        if report.status >= S.JOB_STATUS_COMPLETED:
            return
        report.status, report.reason, report.revision = status, reason, report.revision + 1

    async def started_job(self, entry: workflows_pb2.WorkflowJob) -> jobs_pb2.JobReport:
        """That job, once its start has come, which may be under way: what fails before it never began."""
        async with asyncio.timeout(30):
            while (report := self.job(entry.workflow_job_id, entry.placement)).generation < entry.generation:
                await asyncio.sleep(0.005)
        return report

    def job(self, workflow_job_id: int, placement: int = 1) -> jobs_pb2.JobReport:
        return next(
            report
            for report in self.jobs.values()
            if (report.key.workflow_job_id, report.key.placement) == (workflow_job_id, placement)
        )

    def asked(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    async def CheckJobFiles(
        self, request: jobs_pb2.CheckJobFilesRequest, context: Any
    ) -> jobs_pb2.CheckJobFilesResponse:
        known = {report.job_execution_id for report in self.jobs.values()} - self.removed
        wanted = [job.job_execution_id for job in request.jobs]
        missing = [*self.also_missing, *(one for one in wanted if one not in known)]
        return jobs_pb2.CheckJobFilesResponse(missing_job_execution_ids=missing)

    async def ReleaseJobs(self, request: jobs_pb2.ReleaseJobsRequest, context: Any) -> jobs_pb2.ReleaseJobsResponse:
        self.released += [(key.workflow_job_id, request.keep) for key in request.keys]
        return jobs_pb2.ReleaseJobsResponse()


class FakeFleet:
    """Registry, connections and placement over fake executors."""

    def __init__(self, *names: str) -> None:
        self.executors = {name: FakeExecutor(name, 100 * (n + 1)) for n, name in enumerate(names)}
        self.offline: set[str] = set()
        self.revoked: set[str] = set()
        self._channels: dict[str, aio.Channel] = {}

    def channel(self, peer_id: PeerId) -> aio.Channel:
        if peer_id not in self._channels:
            options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
            self._channels[peer_id] = aio.insecure_channel(f"{OWN}:{self.executors[peer_id].port}", options=options)
        return self._channels[peer_id]

    def name_of(self, peer_id: str) -> str:
        return f"PEER-{peer_id}"

    def is_online(self, peer_id: PeerId) -> bool:
        return peer_id not in self.offline

    def is_revoked(self, peer_id: PeerId) -> bool:
        return peer_id in self.revoked

    async def refresh(self) -> None:
        pass

    def fingerprint(self) -> object:
        return frozenset(self.offline)

    def place(
        self,
        job: workflows_pb2.JobDefinition,
        edges: Sequence[Edge],
        *,
        excluded: Collection[str] = (),
        assigned: Mapping[str, int],
        near: Mapping[str, int],
    ) -> Placed | Waits | Nobody:
        fits = [name for name in self.executors if name not in excluded and job.on.peer in ("", name)]
        online = [name for name in fits if name not in self.offline]
        if online:
            return Placed(peer=min(online, key=lambda name: assigned.get(name, 0)))
        if fits:
            return Waits(message=f"waits for {fits[0]}", next_action=f"bring {fits[0]} back")
        return Nobody(message="no peer fits")

    async def start(self) -> None:
        for executor in self.executors.values():
            await executor.serve()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        for executor in self.executors.values():
            await executor.stop()


class Sends:
    """A send queue that only remembers."""

    def __init__(self) -> None:
        self.ordered: dict[TransferKey, OutgoingTransfer] = {}
        self.withdrawn: list[TransferKey] = []

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        self.ordered[transfer.key] = transfer

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        self.withdrawn.append(key)


class Home:
    """One orchestrating peer, which may be restarted on its store."""

    def __init__(self, folder: Path, fleet: FakeFleet, config: WorkflowsConfig = QUICK) -> None:
        self.folder = folder
        self.fleet = fleet
        self.config = config
        self.clock = ShiftedClock()
        self.sends = Sends()
        self.store: Store
        self.orchestrator: Orchestrator
        self.workflows: WorkflowServicer
        self.lifecycle: Lifecycle
        self.reports: JobReportServicer
        self.local_peer: LocalPeer
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.store = await open_store(self.folder / "peerd.db", self.clock)
        fleet = self.fleet
        self.orchestrator = Orchestrator(
            self.store,
            self.clock,
            own_peer_id=HOME,
            data_dir=self.folder,
            dials=fleet,
            registry=fleet,
            is_revoked=fleet.is_revoked,
            placing=fleet,
            sends=self.sends,
            config=self.config,
        )
        viewer = views.Viewer(own_peer_id=HOME, data_dir=self.folder, name_of=fleet.name_of)
        logs = Logs(self.store, fleet, self.orchestrator.changes, self.clock)
        placer: Any = fleet
        door = Door(
            max_open=10**6, open_executions=lambda: 0, disk=lambda: Disk(total_bytes=1, free_bytes=1, reserve_bytes=0)
        )
        retention = ExecutionRetention(
            self.store, self.clock, RetentionConfig(), data_dir=viewer.data_dir, own_peer_id=viewer.own_peer_id
        )
        self.lifecycle = lifecycle = Lifecycle(self.orchestrator, viewer, door)
        self.workflows = WorkflowServicer(
            self.store,
            self.clock,
            self.orchestrator,
            placer,
            logs,
            viewer,
            retention,
            lifecycle,
            lambda tx, version: None,
        )
        self.reports = JobReportServicer(self.orchestrator, self.clock, self.store.store_id)
        self.local_peer = LocalPeer(
            self.orchestrator.post, own_peer_id=HOME, store_id=self.store.store_id, data_dir=self.folder
        )
        self._running = asyncio.create_task(self.orchestrator.run())

    async def stop(self) -> None:
        """As a crash does it: nothing is finished, nothing is said."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.store.close()

    async def run(self, definition: Mapping[str, Any], **request: Any) -> int:
        """Start an execution as an operator here."""
        current.set(Caller(peer_id=HOME, grants=ALL_GRANTS, local=True))
        message = workflows_pb2.RunWorkflowRequest(**request)
        if not request.get("workflow"):
            message.source.CopyFrom(source(definition))
        return (await self.workflows.RunWorkflow(message, None)).workflow_execution_id

    async def report(self, executor: FakeExecutor, *reports: jobs_pb2.JobReport) -> jobs_pb2.ReportJobsResponse:
        """What an executor's outbox does."""
        current.set(Caller(peer_id=PeerId(executor.name), grants=ALL_GRANTS))
        return await self.reports.ReportJobs(jobs_pb2.ReportJobsRequest(reports=reports), None)

    async def show(self, execution_id: int) -> workflows_pb2.Execution:
        request = workflows_pb2.GetExecutionRequest(workflow_execution_id=execution_id)
        return (await self.workflows.GetExecution(request, None)).execution

    async def until(self, execution_id: int, condition: Any, seconds: float = 30) -> workflows_pb2.Execution:
        """The execution as soon as the condition holds; woken by its changes."""
        async with asyncio.timeout(seconds):
            with self.orchestrator.changes.watching(execution_id) as changed:
                while True:
                    changed.clear()
                    execution = await self.show(execution_id)
                    if condition(execution):
                        return execution
                    await changed.wait()

    async def finished(self, execution_id: int) -> workflows_pb2.Execution:
        return await self.until(execution_id, views.is_final)


def source(definition: Mapping[str, Any]) -> workflows_pb2.DefinitionSource:
    import json

    return workflows_pb2.DefinitionSource(text=json.dumps(definition))


def job(name: str, *inputs: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "service": "s", "inputs": [{"from": entry} for entry in inputs], **more}


def workflow(*jobs: Mapping[str, Any], deliver: Sequence[str] = ()) -> dict[str, Any]:
    return {"name": "w", "jobs": list(jobs), "deliver": [{"from": entry} for entry in deliver]}


@asynccontextmanager
async def home(folder: Path, *names: str, config: WorkflowsConfig = QUICK) -> AsyncIterator[Home]:
    """A started orchestrator with fake executors of these names."""
    fleet = FakeFleet(*names)
    await fleet.start()
    made = Home(folder, fleet, config)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        await fleet.close()


OVERLOADED = PeerdError(Reason.OVERLOADED, "full", retry_after_seconds=0.05)
INACTIVE = PeerdError(Reason.SERVICE_INACTIVE, "s is inactive")
