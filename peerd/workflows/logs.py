"""The logs of a job, from wherever it runs: found by its row, piped from its executor."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.loops import sleep_or_wake
from peerd.rpc.status import remote_errors
from peerd.store import Store
from peerd.v1 import jobs_pb2, jobs_pb2_grpc, workflows_pb2
from peerd.workflows.contacts import UNREACHABLE
from peerd.workflows.dispatch import Dials
from peerd.workflows.model import WorkflowJobStatus
from peerd.workflows.repository import no_such_execution
from peerd.workflows.watch import Changes

READ_SECONDS = 60.0
"""For a call that does not follow; one that does lasts as long as its caller wants."""
AWAY_SECONDS = 120.0
"""So long a reader that follows waits for an executor that does not answer: one that is restarted comes back."""
_AGAIN_SECONDS = 1.0


class Logs:
    """Reads logs for people."""

    def __init__(self, store: Store, dials: Dials, changes: Changes, clock: Clock) -> None:
        self._store = store
        self.dials = dials
        """Connections to executors."""
        self._changes = changes
        self._clock = clock

    async def read(self, request: workflows_pb2.ReadLogsRequest) -> AsyncIterator[workflows_pb2.ReadLogsResponse]:
        """All there is; with follow also what comes, also before the job has a place and after it has moved.

        Raises NOT_FOUND, and whatever its executor refuses.
        """
        position = workflows_pb2.LogPosition()
        position.CopyFrom(request.after)
        read: tuple[str, int] | None = None
        lost_at: float | None = None
        with self._changes.watching(request.workflow_execution_id) as changed:
            while True:
                changed.clear()
                row = await self._job(request.workflow_execution_id, request.node_id)
                place = (row["executor_peer_id"], row["remote_job_execution_id"])
                if place[1] is None and place[0] is None:
                    place = (row["reused_peer_id"], row["reused_job_execution_id"])
                if place[1] is not None and place != read:
                    if place != (position.executor_peer_id, position.job_execution_id):
                        position = workflows_pb2.LogPosition(executor_peer_id=place[0], job_execution_id=place[1])
                    began = self._clock.monotonic()
                    try:
                        async for answer in self._pipe(position, request):
                            lost_at = None
                            _advance(position, answer)
                            yield workflows_pb2.ReadLogsResponse(
                                stream=answer.stream, data=answer.data, position=position
                            )
                    except PeerdError as error:
                        now = self._clock.monotonic()
                        if lost_at is None or now - began > AWAY_SECONDS:  # it had nothing to say, but it was there
                            lost_at = now
                        if not request.follow or error.reason not in UNREACHABLE or now - lost_at > AWAY_SECONDS:
                            raise
                        await sleep_or_wake(self._clock, _AGAIN_SECONDS, changed)
                        continue
                    read = place
                    if request.follow:
                        continue
                if not request.follow or WorkflowJobStatus(row["status"]).final:
                    return
                await changed.wait()

    async def _pipe(
        self, position: workflows_pb2.LogPosition, request: workflows_pb2.ReadLogsRequest
    ) -> AsyncIterator[jobs_pb2.ReadJobLogsResponse]:
        peer = PeerId(position.executor_peer_id)
        stub: jobs_pb2_grpc.JobServiceAsyncStub = jobs_pb2_grpc.JobServiceStub(self.dials.channel(peer))
        wanted = jobs_pb2.ReadJobLogsRequest(
            job_execution_id=position.job_execution_id,
            stream=request.stream,
            follow=request.follow,
            offset=_offset_of_one(position, request.stream),
            stdout_offset=position.stdout_offset,
            stderr_offset=position.stderr_offset,
        )
        with remote_errors(peer):
            call = stub.ReadJobLogs(wanted, timeout=None if request.follow else READ_SECONDS)
            try:
                async for answer in call:
                    yield answer
            finally:
                call.cancel()

    async def _job(self, execution_id: int, node_id: str) -> sqlite3.Row:
        row = await self._store.one(
            "SELECT * FROM workflow_jobs WHERE workflow_execution_id = ? AND node_id = ?", (execution_id, node_id)
        )
        if row is not None:
            return row
        if await self._store.one("SELECT 1 FROM workflow_executions WHERE id = ?", (execution_id,)) is None:
            raise no_such_execution(execution_id)
        raise PeerdError(
            Reason.NOT_FOUND,
            f"execution {execution_id} has no job {node_id!r}",
            next_action=f"see 'peerctl executions show {execution_id}'",
        )


def _offset_of_one(position: workflows_pb2.LogPosition, stream: jobs_pb2.LogStream.ValueType) -> int:
    if stream == jobs_pb2.LOG_STREAM_STDOUT:
        return position.stdout_offset
    return position.stderr_offset if stream == jobs_pb2.LOG_STREAM_STDERR else 0


def _advance(position: workflows_pb2.LogPosition, read: jobs_pb2.ReadJobLogsResponse) -> None:
    if read.stream == jobs_pb2.LOG_STREAM_STDERR:
        position.stderr_offset = read.next_offset
    else:
        position.stdout_offset = read.next_offset
