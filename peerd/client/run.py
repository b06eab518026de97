"""A handle on one execution: watch it, wait for it, read its logs, fetch its files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peerd.errors import PeerdError, Reason
from peerd.v1 import jobs_pb2, workflows_pb2

if TYPE_CHECKING:
    from peerd.client.executions import ExecutionCalls


class Run:
    """One execution, asked about through a client. Shown in a notebook as it was last seen."""

    def __init__(self, client: ExecutionCalls, execution: workflows_pb2.Execution) -> None:
        self._client = client
        self.last = execution
        """The execution as it was last seen; nothing is asked for by reading it."""

    @property
    def id(self) -> int:
        """The execution's id on its orchestrator."""
        return self.last.workflow_execution_id

    async def refresh(self) -> workflows_pb2.Execution:
        """Look again."""
        self.last = await self._client.execution(self.id)
        return self.last

    async def watch(self, *, timeout: float | None = None) -> AsyncIterator[workflows_pb2.Execution]:
        """The whole execution after each change, until it is final."""
        async for execution in self._client.watch(self.id, timeout=timeout):
            self.last = execution
            yield execution

    async def wait(self, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is final, however it ended. Raises DEADLINE_EXCEEDED."""
        async for _ in self.watch(timeout=timeout):
            pass
        return self.last

    async def result(self, *, timeout: float | None = None) -> workflows_pb2.Execution:
        """The execution once it is completed. Raises EXECUTION_FAILED when it ends otherwise."""
        execution = await self.wait(timeout=timeout)
        if execution.status != workflows_pb2.EXECUTION_STATUS_COMPLETED:
            status = workflows_pb2.ExecutionStatus.Name(execution.status).removeprefix("EXECUTION_STATUS_").lower()
            what = execution.error or execution.cancel_reason or "no reason was given"
            raise PeerdError(
                Reason.EXECUTION_FAILED,
                f"execution {self.id} {status}: {what}",
                next_action=execution.next_action or None,
            )
        return execution

    async def fetch(self, directory: str | Path, *, files: Sequence[str] = ()) -> list[Path]:
        """Copy the delivered files here, verified; their paths. ``files`` are patterns, all files without them."""
        return await self._client.fetch(self.id, directory, files=files)

    async def logs(self, job: str, *, stream: str = "stdout") -> str:
        """What a job has written so far to ``stdout`` or ``stderr``."""
        wanted = jobs_pb2.LogStream.Value(f"LOG_STREAM_{stream.upper()}")
        pieces = [piece.data async for piece in self._client.logs(self.id, job, stream=wanted)]
        return b"".join(pieces).decode(errors="replace")

    async def why(self, job: str) -> workflows_pb2.ExplainJobResponse:
        """All that is known of why a job is where it is."""
        return await self._client.explain(self.id, job)

    async def cancel(self, *, reason: str = "") -> None:
        """End it; returns when the wish is durable, not when all has stopped."""
        await self._client.cancel(self.id, reason=reason)

    async def rerun(
        self, *, from_jobs: Sequence[str] = (), failed: bool = False, params: Mapping[str, str] | None = None
    ) -> Run:
        """Run it again once it has ended: all of it, from some jobs on, or only what did not complete."""
        return await self._client.rerun(self.id, from_jobs=from_jobs, failed=failed, params=params)

    def _repr_markdown_(self) -> str:
        from peerd.client.notebook import execution_markdown

        return execution_markdown(self.last)

    def _repr_html_(self) -> str:
        from peerd.client.notebook import execution_html

        return execution_html(self.last)

    def __repr__(self) -> str:
        status = workflows_pb2.ExecutionStatus.Name(self.last.status).removeprefix("EXECUTION_STATUS_").lower()
        return f"<execution {self.id} of {self.last.workflow_name}, {status}>"
