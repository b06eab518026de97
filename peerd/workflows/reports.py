"""JobReportService: executors bring their news. Stored, then acknowledged; so nothing is told twice for nothing.

Only the peer that a job was placed on may speak of it. News of executions that are over, and of keys nobody knows
here, is acknowledged too, or it would be brought for ever.
"""

from __future__ import annotations

import asyncio

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.rpc.caller import current_caller
from peerd.v1 import jobs_pb2, jobs_pb2_grpc
from peerd.workflows import events as e
from peerd.workflows.leases import is_news
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.requests import JOB_STATUSES, read_report
from peerd.workflows.runner import Runner


class JobReportServicer(jobs_pb2_grpc.JobReportServiceServicer):
    """Takes reports."""

    def __init__(self, orchestrator: Orchestrator, clock: Clock, store_id: str) -> None:
        self._orchestrator = orchestrator
        self._clock = clock
        self._store_id = store_id

    async def ReportJobs(  # noqa: N802 - the name in the proto
        self, request: jobs_pb2.ReportJobsRequest, context: object
    ) -> jobs_pb2.ReportJobsResponse:
        caller = current_caller().peer_id
        news: dict[Runner, list[e.Event]] = {}
        for report in request.reports:
            found = await self._event(report, caller)
            if found is not None:
                news.setdefault(found[0], []).append(found[1])
        await asyncio.gather(*(runner.tell_and_wait(*events) for runner, events in news.items()))
        self._orchestrator.heard(caller)
        return jobs_pb2.ReportJobsResponse(
            acknowledged=[
                jobs_pb2.AcknowledgedReport(key=report.key, revision=report.revision) for report in request.reports
            ]
        )

    async def _event(self, report: jobs_pb2.JobReport, caller: str) -> tuple[Runner, e.Event] | None:
        """None for what is acknowledged unread. Raises PERMISSION_DENIED for a job that is not the caller's."""
        key = report.key
        runner = await self._orchestrator.get(key.workflow_execution_id)
        if key.store_id != self._store_id or runner is None or report.status not in JOB_STATUSES:
            return None
        job = runner.state.job_of_number(key.workflow_job_id)
        peer = job.peers.get(key.placement) if job is not None else None
        if job is None or peer is None:
            return None
        if peer != caller:
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                f"job {key.workflow_job_id} of execution {key.workflow_execution_id} is not on {caller}",
                next_action="report only jobs that this peer was asked to create",
            )
        read = read_report(report)
        if not is_news(job, key.placement, read):
            return None
        return runner, e.JobReported(node=job.spec.node_id, placement=key.placement, report=read, at=self._clock.now())
