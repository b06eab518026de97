"""Definitions of workflows: checked, planned, drawn and stored."""

from __future__ import annotations

from functools import cached_property

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import workflows_pb2, workflows_pb2_grpc


class DefinitionCalls(Calls):
    """The calls about definitions."""

    @cached_property
    def _workflows(self) -> workflows_pb2_grpc.WorkflowServiceAsyncStub:
        return workflows_pb2_grpc.WorkflowServiceStub(self._channel)

    async def validate(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.ValidateWorkflowResponse:
        """Everything that is wrong with a definition; problems are in the answer."""
        return await self._call(self._workflows.ValidateWorkflow, workflows_pb2.ValidateWorkflowRequest(source=source))

    async def plan(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.PlanWorkflowResponse:
        """Where each job would run now, and why not elsewhere."""
        return await self._call(self._workflows.PlanWorkflow, workflows_pb2.PlanWorkflowRequest(source=source))

    async def graph(
        self,
        what: int | workflows_pb2.DefinitionSource,
        form: workflows_pb2.GraphFormat.ValueType = workflows_pb2.GRAPH_FORMAT_MERMAID,
    ) -> str:
        """The graph of an execution, with its states, or of a definition, as text."""
        request = workflows_pb2.DrawGraphRequest(format=form)
        if isinstance(what, int):
            request.workflow_execution_id = what
        else:
            request.source.CopyFrom(what)
        return (await self._call(self._workflows.DrawGraph, request)).text

    async def put_workflow(self, source: workflows_pb2.DefinitionSource) -> workflows_pb2.Workflow:
        """Store a definition; the same content gives the same version."""
        request = workflows_pb2.PutWorkflowRequest(request_id=new_request_id(), source=source)
        return (await self._call(self._workflows.PutWorkflow, request)).workflow

    async def workflows(self) -> list[workflows_pb2.Workflow]:
        """The newest version of each stored workflow."""
        request = workflows_pb2.ListWorkflowsRequest(page_size=PAGE_SIZE)
        return await self._all(self._workflows.ListWorkflows, request, lambda page: page.workflows)

    async def workflow(self, workflow: str, *, version: int = 0) -> workflows_pb2.Workflow:
        """One stored workflow by name or id, the newest version if none is given."""
        request = workflows_pb2.GetWorkflowRequest(workflow=workflow, version=version)
        return (await self._call(self._workflows.GetWorkflow, request)).workflow
