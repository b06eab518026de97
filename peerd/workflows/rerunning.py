"""Runs an execution that has ended again, as a whole or from some of its jobs on: a new execution that names it.

What is decided is in :mod:`peerd.workflows.rerun_plan`. Before anything is stored, the executors whose files are
needed are asked whether they still have them; one that is away is waited for by the execution, like any peer of a job.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping

import structlog

from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.store.requests import answered, once
from peerd.v1 import jobs_pb2, jobs_pb2_grpc, workflows_pb2
from peerd.workflows import repository, views
from peerd.workflows.contacts import UNREACHABLE
from peerd.workflows.dispatch import CALL_SECONDS, Dials
from peerd.workflows.lifecycle import Lifecycle
from peerd.workflows.model import ExecutionStatus, WorkflowJobStatus
from peerd.workflows.rerun_plan import Origin, Plan, plan_rerun
from peerd.workflows.reuse import Reused, named
from peerd.workflows.secrets import check_requester

_log = structlog.get_logger(__name__)

_JOBS_PER_CALL = 1000
_NAMED = 3
_HELPED = 20
"""With more names than this, what helps is to run all of it again."""


class Rerunning:
    """Carries out the request."""

    def __init__(self, store: Store, viewer: views.Viewer, lifecycle: Lifecycle, dials: Dials) -> None:
        self._store = store
        self._viewer = viewer
        self._lifecycle = lifecycle
        self._dials = dials

    async def rerun(
        self, caller: str, request: workflows_pb2.RerunExecutionRequest
    ) -> workflows_pb2.RerunExecutionResponse:
        """Start the new execution.

        Raises NOT_FOUND, ILLEGAL_TRANSITION (it has not ended), INVALID_ARGUMENT (jobs, params), FILES_REMOVED,
        SECRET_NOT_ALLOWED, OVERLOADED, DISK_LOW, GROUP_BUSY.
        """
        known = await answered(
            self._store,
            caller=caller,
            request_id=request.request_id,
            request=request,
            answer_type=workflows_pb2.RerunExecutionResponse,
        )
        if known is not None:
            return known
        origin = await self._origin(request.workflow_execution_id)
        check_requester(origin.version.definition, caller, self._viewer.own_peer_id)
        plan = await asyncio.to_thread(plan_rerun, origin, request)
        await self._check_files(plan.sent_again)

        def write(tx: Tx) -> workflows_pb2.RerunExecutionResponse:
            answer = once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=workflows_pb2.RerunExecutionResponse,
                effect=lambda: self._start(tx, plan, keep=request.keep),
            )
            failpoint("workflow.rerun.before_commit")
            return answer

        answer = await self._store.write(write)
        failpoint("workflow.rerun.after_commit")
        return answer

    async def _origin(self, execution_id: int) -> Origin:
        version = await repository.read_pinned(self._store, execution_id)
        row = await self._store.one("SELECT * FROM workflow_executions WHERE id = ?", (execution_id,))
        if row is None:
            raise repository.no_such_execution(execution_id)
        status = ExecutionStatus(row["status"])
        if not status.final:
            raise PeerdError(
                Reason.ILLEGAL_TRANSITION,
                f"execution {execution_id} has not ended",
                next_action=f"wait for it ('peerctl executions watch {execution_id}') or cancel it first",
            )
        rows = await self._store.all(
            "SELECT * FROM workflow_jobs WHERE workflow_execution_id = ? ORDER BY id", (execution_id,)
        )
        completed = [job for job in rows if job["status"] == WorkflowJobStatus.COMPLETED.value]
        return Origin(
            execution_id=execution_id,
            version=version,
            params=json.loads(row["params"]),
            completed={job["node_id"]: _completed(job) for job in completed},
            unfinished=frozenset(job["node_id"] for job in rows) - {job["node_id"] for job in completed},
            status=status,
        )

    async def _check_files(self, wanted: Mapping[str, Reused]) -> None:
        """Return if no executor says that it lacks what is needed. Raises FILES_REMOVED, and what a peer refuses."""
        by_peer: defaultdict[str, dict[str, Reused]] = defaultdict(dict)
        for node, reused in wanted.items():
            by_peer[reused.peer_id][node] = reused
        found = await asyncio.gather(*(self._missing(PeerId(peer), jobs) for peer, jobs in by_peer.items()))
        missing = sorted(node for nodes in found for node in nodes)
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise PeerdError(
                Reason.FILES_REMOVED,
                f"files that would be sent again are gone: of {', '.join(missing[:_NAMED])}{more}",
                next_action=f"run it again from there, too: {' '.join(f'--from {node}' for node in missing)}"
                if len(missing) <= _HELPED
                else "run all of it again: without --from and --failed",
            )

    async def _missing(self, peer: PeerId, jobs: Mapping[str, Reused]) -> list[str]:
        stub: jobs_pb2_grpc.JobServiceAsyncStub = jobs_pb2_grpc.JobServiceStub(self._dials.channel(peer))
        nodes = {reused.job_execution_id: node for node, reused in jobs.items()}
        entries = [named(node, reused) for node, reused in jobs.items()]
        found: list[str] = []
        for start in range(0, len(entries), _JOBS_PER_CALL):
            part = jobs_pb2.CheckJobFilesRequest(jobs=entries[start : start + _JOBS_PER_CALL])
            try:
                with remote_errors(peer):
                    answer = await stub.CheckJobFiles(part, timeout=CALL_SECONDS)
            except PeerdError as error:
                if error.reason not in UNREACHABLE:
                    raise
                _log.info("rerun.not_asked", peer=peer, reason=error.reason.text)
                break
            # What was not asked for is nothing that this execution needs.
            found += [nodes[one] for one in answer.missing_job_execution_ids if one in nodes]
        return found

    def _start(self, tx: Tx, plan: Plan, *, keep: bool) -> workflows_pb2.RerunExecutionResponse:
        views.execution_row(tx, self._viewer, plan.rerun.of)  # retention may have taken its definition with it
        execution_id = self._lifecycle.start(tx, plan.version, plan.params, keep=keep, rerun=plan.rerun)
        return workflows_pb2.RerunExecutionResponse(
            workflow_execution_id=execution_id, execution=views.execution_row(tx, self._viewer, execution_id)
        )


def _completed(row: sqlite3.Row) -> Reused:
    """Where its files are: where it ran, or else where they were when the execution before this one reused them."""
    if row["remote_job_execution_id"] is not None:
        return Reused(
            execution_id=row["workflow_execution_id"],
            peer_id=row["executor_peer_id"],
            job_execution_id=row["remote_job_execution_id"],
        )
    if row["reused_execution_id"] is None:  # a job with a map is nowhere
        return Reused(execution_id=row["workflow_execution_id"], peer_id="", job_execution_id=0)
    return Reused(
        execution_id=row["reused_execution_id"],
        peer_id=row["reused_peer_id"],
        job_execution_id=row["reused_job_execution_id"],
    )
