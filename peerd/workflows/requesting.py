"""What people ask of executions: run and cancel. Each answer is stored with its effect, so a repeat changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import workflows_pb2
from peerd.workflows import repository, views
from peerd.workflows.definition import Reading, accept_definition
from peerd.workflows.lifecycle import Lifecycle
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.params import run_params
from peerd.workflows.retention import ExecutionRetention
from peerd.workflows.secrets import check_requester

Stored = Callable[[Tx, repository.WorkflowVersion], None]
"""Told of each definition that is stored, in the transaction that stores it."""


class Requests:
    """Carries out requests that change something."""

    def __init__(
        self,
        store: Store,
        orchestrator: Orchestrator,
        viewer: views.Viewer,
        retention: ExecutionRetention,
        lifecycle: Lifecycle,
        stored: Stored,
    ) -> None:
        self._lifecycle = lifecycle
        self._stored = stored
        self._store = store
        self._retention = retention
        self._orchestrator = orchestrator
        self._viewer = viewer

    async def put(self, caller: str, request: workflows_pb2.PutWorkflowRequest) -> workflows_pb2.PutWorkflowResponse:
        """Store a definition, and schedule it if it says so. Raises INVALID_DEFINITION, ALREADY_EXISTS."""
        reading = await read(request.source)

        def effect(tx: Tx) -> workflows_pb2.PutWorkflowResponse:
            version = repository.put_workflow(tx, reading, stored=True)
            self._stored(tx, version)
            return workflows_pb2.PutWorkflowResponse(workflow=views.to_workflow(version, with_definition=True))

        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=workflows_pb2.PutWorkflowResponse,
                effect=lambda: effect(tx),
            )
        )

    async def run(self, caller: str, request: workflows_pb2.RunWorkflowRequest) -> workflows_pb2.RunWorkflowResponse:
        """Start an execution.

        Raises INVALID_DEFINITION, INVALID_ARGUMENT (params), NOT_FOUND, SECRET_NOT_ALLOWED, OVERLOADED, DISK_LOW,
        GROUP_BUSY.
        """
        reading: Reading | None = None
        stored: repository.WorkflowVersion | None = None
        if request.WhichOneof("what") == "workflow":
            stored = await repository.read_workflow(self._store, request.workflow)
            definition = stored.definition
        else:
            reading = await read(request.source)
            assert reading.definition is not None  # noqa: S101 - accept_definition() saw to it
            definition = reading.definition
        params, refusal = self._params(caller, definition, request)

        def effect(tx: Tx) -> workflows_pb2.RunWorkflowResponse:
            if refusal is not None:
                raise refusal
            version = stored or repository.put_workflow(tx, _valid(reading), stored=False)
            return self._start(tx, version, params, keep=request.keep)

        def write(tx: Tx) -> workflows_pb2.RunWorkflowResponse:
            answer = once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=workflows_pb2.RunWorkflowResponse,
                effect=lambda: effect(tx),
            )
            failpoint("workflow.run.before_commit")
            return answer

        answer = await self._store.write(write)
        failpoint("workflow.run.after_commit")
        return answer

    async def cancel(
        self, caller: str, request: workflows_pb2.CancelExecutionRequest
    ) -> workflows_pb2.CancelExecutionResponse:
        """Record the wish to cancel. Raises NOT_FOUND; what is over stays as it is."""
        reason = request.reason or f"asked by {self._viewer.name_of(caller)}"

        def write(tx: Tx) -> workflows_pb2.CancelExecutionResponse:
            answer = once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=workflows_pb2.CancelExecutionResponse,
                effect=lambda: self._cancel(tx, request.workflow_execution_id, reason),
            )
            failpoint("workflow.cancel_request.before_commit")
            return answer

        answer = await self._store.write(write)
        failpoint("workflow.cancel_request.after_commit")
        self._orchestrator.changes.notify(request.workflow_execution_id)
        return answer

    async def keep(
        self, caller: str, request: workflows_pb2.KeepExecutionRequest
    ) -> workflows_pb2.KeepExecutionResponse:
        """Save its files from retention, or leave them to it again. Raises NOT_FOUND."""

        def effect(tx: Tx) -> workflows_pb2.KeepExecutionResponse:
            self._retention.keep(tx, request.workflow_execution_id, keep=request.keep)
            execution = views.execution_row(tx, self._viewer, request.workflow_execution_id)
            return workflows_pb2.KeepExecutionResponse(execution=execution)

        answer = await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=workflows_pb2.KeepExecutionResponse,
                effect=lambda: effect(tx),
            )
        )
        self._orchestrator.changes.notify(request.workflow_execution_id)
        return answer

    def _params(
        self,
        caller: str,
        definition: workflows_pb2.WorkflowDefinition,
        request: workflows_pb2.RunWorkflowRequest,
    ) -> tuple[Mapping[str, str], PeerdError | None]:
        """The parameters, or why it is refused; which a repeat does not hear that was answered before.

        A newer version of the definition may have come since.
        """
        try:
            check_requester(definition, caller, self._viewer.own_peer_id)
            return run_params(definition, request.params), None
        except PeerdError as refusal:
            return {}, refusal

    def _start(
        self, tx: Tx, version: repository.WorkflowVersion, params: Mapping[str, str], *, keep: bool
    ) -> workflows_pb2.RunWorkflowResponse:
        execution_id = self._lifecycle.start(tx, version, params, keep=keep)
        return workflows_pb2.RunWorkflowResponse(
            workflow_execution_id=execution_id, execution=views.execution_row(tx, self._viewer, execution_id)
        )

    def _cancel(self, tx: Tx, execution_id: int, reason: str) -> workflows_pb2.CancelExecutionResponse:
        self._lifecycle.cancel(tx, execution_id, reason)
        return workflows_pb2.CancelExecutionResponse(execution=views.execution_row(tx, self._viewer, execution_id))


async def read(source: workflows_pb2.DefinitionSource) -> Reading:
    """A valid definition, read in a thread: ten thousand jobs take a second. Raises INVALID_DEFINITION."""
    return await asyncio.to_thread(accept_definition, source)


def _valid(reading: Reading | None) -> Reading:
    assert reading is not None  # noqa: S101 - one of the two was given
    return reading
