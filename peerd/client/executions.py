"""Executions: started, watched until they are final, explained, fetched from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, overload

from grpc import aio

from peerd.client.calls import PAGE_SIZE, new_request_id
from peerd.client.definitions import DefinitionCalls
from peerd.client.fetching import write_files
from peerd.client.run import Run
from peerd.client.workflow import Workflow
from peerd.v1 import jobs_pb2, workflows_pb2

FETCH_SECONDS = 86_400.0
"""Longest copying of delivered files."""

_FINAL = frozenset(
    {
        workflows_pb2.EXECUTION_STATUS_COMPLETED,
        workflows_pb2.EXECUTION_STATUS_FAILED,
        workflows_pb2.EXECUTION_STATUS_CANCELLED,
    }
)


class ExecutionCalls(DefinitionCalls):
    """The calls about executions."""

    @overload
    async def run(
        self,
        source: Workflow,
        *,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run: ...

    @overload
    async def run(
        self,
        source: workflows_pb2.DefinitionSource | None = None,
        *,
        workflow: str | None = None,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> workflows_pb2.RunWorkflowResponse: ...

    async def run(
        self,
        source: Workflow | workflows_pb2.DefinitionSource | None = None,
        *,
        workflow: str | None = None,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run | workflows_pb2.RunWorkflowResponse:
        """Start an execution of a given definition or of a stored workflow; of a Workflow it gives a handle.

        Repeating it with the same request id starts nothing new and gives the same answer. With ``keep`` retention
        never takes its files.
        """
        request = workflows_pb2.RunWorkflowRequest(request_id=request_id or new_request_id(), params=params, keep=keep)
        if source is not None:
            request.source.CopyFrom(source.source if isinstance(source, Workflow) else source)
        elif workflow is not None:
            request.workflow = workflow
        answer = await self._call(self._workflows.RunWorkflow, request)
        return Run(self, answer.execution) if isinstance(source, Workflow) else answer

    async def rerun(
        self,
        execution_id: int,
        *,
        from_jobs: Sequence[str] = (),
        failed: bool = False,
        params: Mapping[str, str] | None = None,
        request_id: str = "",
        keep: bool = False,
    ) -> Run:
        """Run an execution that has ended again, as a new one: all of it, or from some of its jobs on.

        ``failed``: only what did not complete and what builds on it; ``from_jobs``: these as well. The others are not
        run: their files are sent again from where they are. ``params`` take the place of what it had.
        """
        request = workflows_pb2.RerunExecutionRequest(
            request_id=request_id or new_request_id(),
            workflow_execution_id=execution_id,
            from_jobs=from_jobs,
            failed=failed,
            params=params,
            keep=keep,
        )
        return Run(self, (await self._call(self._workflows.RerunExecution, request)).execution)

    async def handle(self, execution_id: int) -> Run:
        """A handle on an execution that was started before."""
        return Run(self, await self.execution(execution_id))

    async def executions(
        self,
        *,
        statuses: Iterable[workflows_pb2.ExecutionStatus.ValueType] = (),
        workflow: str = "",
        limit: int | None = None,
    ) -> list[workflows_pb2.Execution]:
        """Executions, newest first, without their jobs."""
        request = workflows_pb2.ListExecutionsRequest(statuses=statuses, workflow=workflow)
        request.page_size = min(limit or PAGE_SIZE, PAGE_SIZE)
        return await self._all(self._workflows.ListExecutions, request, lambda page: page.executions, limit)

    async def execution(self, execution_id: int) -> workflows_pb2.Execution:
        """One execution with its jobs and edges."""
        request = workflows_pb2.GetExecutionRequest(workflow_execution_id=execution_id)
        answer = await self._call(self._workflows.GetExecution, request)
        whole = answer.execution
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = await self._call(self._workflows.GetExecution, request)
            whole.jobs.extend(answer.execution.jobs)
            whole.edges.extend(answer.execution.edges)
        return whole

    async def events(
        self, execution_id: int, *, node_id: str = "", limit: int | None = None
    ) -> list[workflows_pb2.ExecutionEvent]:
        """What happened to an execution, or to one of its jobs, oldest first."""
        request = workflows_pb2.ListExecutionEventsRequest(
            workflow_execution_id=execution_id, node_id=node_id, page_size=min(limit or PAGE_SIZE, PAGE_SIZE)
        )
        return await self._all(self._workflows.ListExecutionEvents, request, lambda page: page.events, limit)

    async def explain_placement(self, execution_id: int, node_id: str) -> workflows_pb2.ExplainPlacementResponse:
        """Every peer's verdict on a job of an execution, as things are now."""
        request = workflows_pb2.ExplainPlacementRequest(workflow_execution_id=execution_id, node_id=node_id)
        return await self._call(self._workflows.ExplainPlacement, request)

    async def explain(self, execution_id: int, node_id: str) -> workflows_pb2.ExplainJobResponse:
        """All that is known of why a job is where it is."""
        request = workflows_pb2.ExplainJobRequest(workflow_execution_id=execution_id, node_id=node_id)
        return await self._call(self._workflows.ExplainJob, request)

    async def fetch(self, execution_id: int, directory: str | Path, *, files: Sequence[str] = ()) -> list[Path]:
        """Copy what was delivered to Local Peer into a directory of this machine; see :mod:`peerd.client.fetching`.

        ``files`` are patterns as in a definition. A file that is there already is replaced once the new one is whole.
        """
        request = workflows_pb2.ReadDeliveredRequest(workflow_execution_id=execution_id, files=files)
        call = self._workflows.ReadDelivered(request, timeout=FETCH_SECONDS, metadata=self._metadata)
        try:
            return await write_files(Path(directory), call)
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        finally:
            call.cancel()

    async def keep(self, execution_id: int, *, keep: bool = True) -> workflows_pb2.Execution:
        """Save an execution's files from retention, here and where its jobs ran; or leave them to it again."""
        request = workflows_pb2.KeepExecutionRequest(
            request_id=new_request_id(), workflow_execution_id=execution_id, keep=keep
        )
        return (await self._call(self._workflows.KeepExecution, request)).execution

    async def watch(self, execution_id: int, *, timeout: float | None = None) -> AsyncIterator[workflows_pb2.Execution]:
        """The whole execution after each change, until it is final.

        A daemon that restarts meanwhile is waited for, and the watch goes on where it was.
        """
        whole = workflows_pb2.Execution()
        resume_token = 0

        def updates_since(seconds: float) -> aio.UnaryStreamCall[Any, workflows_pb2.WatchExecutionResponse]:
            request = workflows_pb2.WatchExecutionRequest(workflow_execution_id=execution_id, resume_token=resume_token)
            return self._workflows.WatchExecution(request, timeout=seconds, metadata=self._metadata)

        async with aclosing(self._lasting(updates_since, timeout=timeout)) as updates:
            async for update in updates:
                resume_token = update.resume_token
                merge_execution(whole, update.execution)
                if update.more:
                    continue
                copy = workflows_pb2.Execution()
                copy.CopyFrom(whole)
                yield copy
                if is_final(whole):
                    return

    async def wait(self, execution_id: int, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is final."""
        last = workflows_pb2.Execution()
        async for update in self.watch(execution_id, timeout=timeout):
            last = update
        return last

    async def cancel(self, execution_id: int, *, reason: str = "") -> workflows_pb2.Execution:
        """Record the wish to cancel; the answer comes when that is durable, not when all has stopped."""
        request = workflows_pb2.CancelExecutionRequest(
            request_id=new_request_id(), workflow_execution_id=execution_id, reason=reason
        )
        return (await self._call(self._workflows.CancelExecution, request)).execution

    async def logs(
        self,
        execution_id: int,
        node_id: str,
        *,
        stream: jobs_pb2.LogStream.ValueType = jobs_pb2.LOG_STREAM_UNSPECIFIED,
        follow: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[workflows_pb2.ReadLogsResponse]:
        """What a job wrote, from wherever it runs; with follow until it has ended.

        A daemon that restarts meanwhile is waited for, and reading goes on behind what was read.
        """
        request = workflows_pb2.ReadLogsRequest(
            workflow_execution_id=execution_id, node_id=node_id, stream=stream, follow=follow
        )

        def rest(seconds: float) -> aio.UnaryStreamCall[Any, workflows_pb2.ReadLogsResponse]:
            return self._workflows.ReadLogs(request, timeout=seconds, metadata=self._metadata)

        async with aclosing(self._lasting(rest, timeout=timeout, ends=True)) as pieces:
            async for piece in pieces:
                request.after.CopyFrom(piece.position)
                yield piece


def merge_execution(whole: workflows_pb2.Execution, update: workflows_pb2.Execution) -> None:
    """Bring ``whole`` up to date: an update carries only the jobs and edges that changed."""
    jobs = {job.workflow_job_id: job for job in [*whole.jobs, *update.jobs]}
    edges = {edge.edge_id: edge for edge in [*whole.edges, *update.edges]}
    merged = workflows_pb2.Execution()
    merged.CopyFrom(update)
    del merged.jobs[:], merged.edges[:]
    merged.jobs.extend(jobs[key] for key in sorted(jobs))
    merged.edges.extend(edges[key] for key in sorted(edges))
    whole.CopyFrom(merged)


def is_final(execution: workflows_pb2.Execution) -> bool:
    """Whether nothing more will happen to it."""
    return execution.status in _FINAL
