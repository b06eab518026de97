"""WorkflowService: messages in, one call, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from peerd.clock import Clock
from peerd.rpc.caller import current_caller
from peerd.store import Store
from peerd.v1 import workflows_pb2, workflows_pb2_grpc
from peerd.workflows import explaining, history, repository, views
from peerd.workflows.definition import read_definition
from peerd.workflows.delivered import read_delivered
from peerd.workflows.lifecycle import Lifecycle
from peerd.workflows.logs import Logs
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.placing import Placer
from peerd.workflows.planning import explain_placement, plan
from peerd.workflows.requesting import Requests, Stored, read
from peerd.workflows.rerunning import Rerunning
from peerd.workflows.retention import ExecutionRetention
from peerd.workflows.watch import watch_execution


class WorkflowServicer(workflows_pb2_grpc.WorkflowServiceServicer):
    """Serves workflows and executions of this peer."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        orchestrator: Orchestrator,
        placer: Placer,
        logs: Logs,
        viewer: views.Viewer,
        retention: ExecutionRetention,
        lifecycle: Lifecycle,
        stored: Stored,
    ) -> None:
        self._store = store
        self._clock = clock
        self._orchestrator = orchestrator
        self._placer = placer
        self._logs = logs
        self._viewer = viewer
        self._requests = Requests(store, orchestrator, viewer, retention, lifecycle, stored)
        self._rerunning = Rerunning(store, viewer, lifecycle, logs.dials)

    async def ValidateWorkflow(
        self, request: workflows_pb2.ValidateWorkflowRequest, context: object
    ) -> workflows_pb2.ValidateWorkflowResponse:
        reading = await asyncio.to_thread(read_definition, request.source)
        return workflows_pb2.ValidateWorkflowResponse(
            problems=[problem.to_proto() for problem in reading.problems],
            definition=reading.definition,
            digest=reading.digest,
        )

    async def PlanWorkflow(
        self, request: workflows_pb2.PlanWorkflowRequest, context: object
    ) -> workflows_pb2.PlanWorkflowResponse:
        return await plan(
            await read(request.source), self._placer, self._viewer, assigned=self._orchestrator.assigned()
        )

    async def ExplainPlacement(
        self, request: workflows_pb2.ExplainPlacementRequest, context: object
    ) -> workflows_pb2.ExplainPlacementResponse:
        return await explain_placement(
            self._store, self._placer, self._viewer, request, assigned=self._orchestrator.assigned()
        )

    async def ExplainJob(
        self, request: workflows_pb2.ExplainJobRequest, context: object
    ) -> workflows_pb2.ExplainJobResponse:
        return await explaining.explain_job(
            self._store, self._placer, self._viewer, self._orchestrator, self._logs.dials, request
        )

    async def ListExecutionEvents(
        self, request: workflows_pb2.ListExecutionEventsRequest, context: object
    ) -> workflows_pb2.ListExecutionEventsResponse:
        return await history.list_events(self._store, self._viewer.name_of, request)

    async def DrawGraph(
        self, request: workflows_pb2.DrawGraphRequest, context: object
    ) -> workflows_pb2.DrawGraphResponse:
        return await explaining.draw(self._store, self._viewer, request)

    async def PutWorkflow(
        self, request: workflows_pb2.PutWorkflowRequest, context: object
    ) -> workflows_pb2.PutWorkflowResponse:
        return await self._requests.put(current_caller().peer_id, request)

    async def ListWorkflows(
        self, request: workflows_pb2.ListWorkflowsRequest, context: object
    ) -> workflows_pb2.ListWorkflowsResponse:
        size, before = views.page(request.page_size, request.page_token)
        versions = await repository.list_workflows(self._store, before=before, limit=size + 1)
        return workflows_pb2.ListWorkflowsResponse(
            workflows=[views.to_workflow(version, with_definition=False) for version in versions[:size]],
            next_page_token=str(versions[size - 1].workflow_id) if len(versions) > size else "",
        )

    async def GetWorkflow(
        self, request: workflows_pb2.GetWorkflowRequest, context: object
    ) -> workflows_pb2.GetWorkflowResponse:
        version = await repository.read_workflow(self._store, request.workflow, request.version)
        return workflows_pb2.GetWorkflowResponse(workflow=views.to_workflow(version, with_definition=True))

    async def RunWorkflow(
        self, request: workflows_pb2.RunWorkflowRequest, context: object
    ) -> workflows_pb2.RunWorkflowResponse:
        return await self._requests.run(current_caller().peer_id, request)

    async def RerunExecution(
        self, request: workflows_pb2.RerunExecutionRequest, context: object
    ) -> workflows_pb2.RerunExecutionResponse:
        return await self._rerunning.rerun(current_caller().peer_id, request)

    async def ListExecutions(
        self, request: workflows_pb2.ListExecutionsRequest, context: object
    ) -> workflows_pb2.ListExecutionsResponse:
        return await views.list_executions(self._store, self._viewer, request)

    async def GetExecution(
        self, request: workflows_pb2.GetExecutionRequest, context: object
    ) -> workflows_pb2.GetExecutionResponse:
        return await views.execution_page(self._store, self._viewer, request)

    async def WatchExecution(
        self, request: workflows_pb2.WatchExecutionRequest, context: object
    ) -> AsyncIterator[workflows_pb2.WatchExecutionResponse]:
        async for update in watch_execution(
            self._store,
            self._clock,
            self._orchestrator.changes,
            self._viewer,
            request.workflow_execution_id,
            request.resume_token,
        ):
            yield update

    async def CancelExecution(
        self, request: workflows_pb2.CancelExecutionRequest, context: object
    ) -> workflows_pb2.CancelExecutionResponse:
        return await self._requests.cancel(current_caller().peer_id, request)

    async def KeepExecution(
        self, request: workflows_pb2.KeepExecutionRequest, context: object
    ) -> workflows_pb2.KeepExecutionResponse:
        return await self._requests.keep(current_caller().peer_id, request)

    async def ReadDelivered(
        self, request: workflows_pb2.ReadDeliveredRequest, context: object
    ) -> AsyncIterator[workflows_pb2.FileChunk]:
        async for chunk in read_delivered(self._store, self._viewer, request):
            yield chunk

    async def ReadLogs(
        self, request: workflows_pb2.ReadLogsRequest, context: object
    ) -> AsyncIterator[workflows_pb2.ReadLogsResponse]:
        async for piece in self._logs.read(request):
            yield piece
