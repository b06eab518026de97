"""JobService: jobs on the wire. The authenticated caller is the orchestrator of what it creates, starts and cancels.

Create, start and cancel need no stored answers: the key, the generation and the committed state make a repeat of any
of them harmless and its answer the present truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.jobs.cancellation import Cancellation
from peerd.jobs.creation import Creation
from peerd.jobs.decoding import to_edges, to_key, to_order, to_reused, to_statuses
from peerd.jobs.generations import Generations
from peerd.jobs.leases import Leases
from peerd.jobs.logs import read_logs
from peerd.jobs.model import Job
from peerd.jobs.places import Places
from peerd.jobs.retention import JobRetention, check_files_present
from peerd.jobs.views import Views, key_proto, status_proto
from peerd.rpc.caller import Caller, current_caller
from peerd.v1 import access_pb2, jobs_pb2, jobs_pb2_grpc

MAX_PAGE = 200
MAX_KEYS = 20_000
_NEWEST = 2**62


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What an orchestrator may order."""

    creation: Creation
    generations: Generations
    cancellation: Cancellation
    leases: Leases
    retention: JobRetention


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Proto in, one call, proto out."""

    def __init__(self, commands: Commands, views: Views, places: Places, clock: Clock) -> None:
        self._commands = commands
        self._views = views
        self._places = places
        self._clock = clock

    async def CreateJob(self, request: jobs_pb2.CreateJobRequest, context: object) -> jobs_pb2.CreateJobResponse:
        """Phase one."""
        job = await self._commands.creation.create(to_order(current_caller().peer_id, request))
        return jobs_pb2.CreateJobResponse(
            job_execution_id=job.id,
            workflow_job_id=job.key.workflow_job_id,
            executor_peer_id=self._places.executor,
            status=status_proto(job.status),
        )

    async def StartJob(self, request: jobs_pb2.StartJobRequest, context: object) -> jobs_pb2.StartJobResponse:
        """Phase two."""
        key = to_key(current_caller().peer_id, request.key)
        edges = to_edges(request)
        job = await self._commands.generations.start(
            key,
            request.job_execution_id,
            request.generation,
            edges,
            hold=request.hold,
            request_id=request.request_id,
        )
        return jobs_pb2.StartJobResponse(report=await self._report(job))

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: object) -> jobs_pb2.CancelJobResponse:
        """The wish to end it; answered with the committed state."""
        key = to_key(current_caller().peer_id, request.key)
        reason = request.reason or "cancelled by its orchestrator"
        job = await self._commands.cancellation.cancel(key, reason, request_id=request.request_id)
        if job is None:
            report = jobs_pb2.JobReport(
                key=key_proto(key),
                status=jobs_pb2.JOB_STATUS_CANCELLED,
                reason="cancelled",
                message="cancelled before it came",
            )
        else:
            report = await self._report(job)
        return jobs_pb2.CancelJobResponse(report=report)

    async def SyncJobs(self, request: jobs_pb2.SyncJobsRequest, context: object) -> jobs_pb2.SyncJobsResponse:
        """Leases renewed, states told."""
        if len(request.keys) > MAX_KEYS:
            raise PeerdError(Reason.TOO_LARGE, f"more than {MAX_KEYS} keys in one message")
        caller = current_caller().peer_id
        jobs, unknown = await self._commands.leases.sync([to_key(caller, key) for key in request.keys])
        return jobs_pb2.SyncJobsResponse(
            reports=await self._views.reports(jobs), unknown=[key_proto(key) for key in unknown]
        )

    async def ReleaseJobs(self, request: jobs_pb2.ReleaseJobsRequest, context: object) -> jobs_pb2.ReleaseJobsResponse:
        """Their execution is over."""
        if len(request.keys) > MAX_KEYS:
            raise PeerdError(Reason.TOO_LARGE, f"more than {MAX_KEYS} keys in one message")
        caller = current_caller().peer_id
        await self._commands.retention.release([to_key(caller, key) for key in request.keys], keep=request.keep)
        return jobs_pb2.ReleaseJobsResponse()

    async def CheckJobFiles(
        self, request: jobs_pb2.CheckJobFilesRequest, context: object
    ) -> jobs_pb2.CheckJobFilesResponse:
        """Whether what jobs made can be sent again."""
        if len(request.jobs) > MAX_KEYS:
            raise PeerdError(Reason.TOO_LARGE, f"more than {MAX_KEYS} jobs in one message")
        wanted = [to_reused(job) for job in request.jobs]
        return jobs_pb2.CheckJobFilesResponse(
            missing_job_execution_ids=await self._views.missing(current_caller().peer_id, wanted)
        )

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: object) -> jobs_pb2.GetJobResponse:
        """The record for people."""
        view = await self._views.get(request.job_execution_id)
        return jobs_pb2.GetJobResponse(job=self._views.execution(view))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: object) -> jobs_pb2.ListJobsResponse:
        """A page of records, newest first."""
        size = min(request.page_size, MAX_PAGE) if request.page_size > 0 else MAX_PAGE
        views = await self._views.page(to_statuses(list(request.statuses)), _before(request.page_token), size + 1)
        return jobs_pb2.ListJobsResponse(
            jobs=[self._views.execution(view) for view in views[:size]],
            next_page_token=str(views[size - 1].job.id) if len(views) > size else "",
        )

    async def ReadJobLogs(
        self, request: jobs_pb2.ReadJobLogsRequest, context: object
    ) -> AsyncIterator[jobs_pb2.ReadJobLogsResponse]:
        """Bytes as they come."""
        view = await self._views.get(request.job_execution_id)
        _check_may_read(current_caller(), view.job)
        check_files_present(view.job)
        place = self._places.of(view.job)
        streams = {place.stdout: jobs_pb2.LOG_STREAM_STDOUT, place.stderr: jobs_pb2.LOG_STREAM_STDERR}
        offsets = {place.stdout: request.stdout_offset, place.stderr: request.stderr_offset}
        if request.stream != jobs_pb2.LOG_STREAM_UNSPECIFIED:
            offsets = {path: request.offset for path, stream in streams.items() if stream == request.stream}
        elif request.offset:
            raise PeerdError(Reason.INVALID_ARGUMENT, "this offset needs a stream: each has its own")

        async def ended() -> bool:
            return (await self._views.get(request.job_execution_id)).job.status.final

        async for piece in read_logs(offsets, follow=request.follow, ended=ended, clock=self._clock):
            yield jobs_pb2.ReadJobLogsResponse(
                stream=streams[piece.path], data=piece.data, next_offset=piece.next_offset
            )

    async def _report(self, job: Job) -> jobs_pb2.JobReport:
        return (await self._views.reports([job]))[0]


def _check_may_read(caller: Caller, job: Job) -> None:
    """Raises NOT_THE_ORCHESTRATOR."""
    if caller.local or caller.peer_id == job.key.orchestrator or access_pb2.GRANT_OBSERVE in caller.grants:
        return
    raise PeerdError(
        Reason.NOT_THE_ORCHESTRATOR, f"job execution {job.id} was ordered by another peer, and reading it needs observe"
    )


def _before(token: str) -> int:
    if not token:
        return _NEWEST
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "the page token is not one that this peer gave")
    return int(token)
