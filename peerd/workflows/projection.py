"""State -> rows: what people and other code read of an execution, written in the transaction of its events.

Only rows that changed are written. They are made before the transaction, because its function may run twice and must
not look at a state that goes on meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from peerd.store import Tx
from peerd.workflows.explain import NameOf, explain, explain_execution
from peerd.workflows.model import WorkflowJobStatus
from peerd.workflows.state import ExecutionState, JobState

Row = Sequence[object]

_JOB_COLUMNS = (
    "executor_peer_id",
    "remote_job_execution_id",
    "status",
    "result",
    "error",
    "placement",
    "generation",
    "reason",
    "message",
    "next_action",
    "since",
    "started_at",
    "ended_at",
    "attempt",
    "exit_code",
    "bytes_received",
    "bytes_sent",
)


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Rows to be written."""

    execution_id: int
    execution: Row
    jobs: Sequence[Row]
    edges: Sequence[Row]

    def write(self, tx: Tx) -> None:
        """Update the rows; ``version`` grows by one."""
        tx.execute(
            "UPDATE workflow_executions SET version = version + 1, status = ?, error = ?, "
            "cancel_reason = coalesce(?, cancel_reason), reason = ?, "
            "next_action = ?, since = ?, started_at = ?, ended_at = ?, settled = ?, job_count = ? WHERE id = ?",
            (*self.execution, self.execution_id),
        )
        changed = "(SELECT version FROM workflow_executions WHERE id = ?)"
        columns = ", ".join(f"{name} = ?" for name in _JOB_COLUMNS)
        tx.executemany(
            f"UPDATE workflow_jobs SET {columns}, changed = {changed} WHERE id = ?",  # noqa: S608 - constants only
            self.jobs,
        )
        tx.executemany(
            f"UPDATE execution_edges SET status = ?, bytes = ?, bytes_total = ?, reason = ?, changed = {changed} "  # noqa: S608
            "WHERE workflow_execution_id = ? AND edge_id = ?",
            self.edges,
        )


def project(state: ExecutionState, name_of: NameOf) -> Projection:
    """The rows that no longer tell the truth; afterwards none counts as changed."""
    execution_id = state.spec.execution_id
    jobs, state.changed_jobs = state.changed_jobs, {}
    edges, state.changed_edges = state.changed_edges, {}
    return Projection(
        execution_id=execution_id,
        execution=_execution_row(state, name_of),
        jobs=[_job_row(state, state.jobs[node], name_of, execution_id) for node in jobs],
        edges=[
            (
                state.edges[edge_id].status.value,
                state.edges[edge_id].bytes,
                state.edges[edge_id].bytes_total,
                state.edges[edge_id].reason,
                execution_id,
                execution_id,
                edge_id,
            )
            for edge_id in edges
        ],
    )


def _execution_row(state: ExecutionState, name_of: NameOf) -> Row:
    said = explain_execution(state, name_of)
    since = state.ended_at or (state.cancel.at if state.cancel else state.started_at) or state.spec.created_at
    return (
        state.status.value,
        state.error,
        state.cancel.reason if state.cancel else None,
        "" if state.status.final else said.message,
        said.next_action,
        since,
        state.started_at,
        state.ended_at,
        int(state.settled),
        len(state.jobs),
    )


def _job_row(state: ExecutionState, job: JobState, name_of: NameOf, execution_id: int) -> Row:
    said = explain(state, job, name_of)
    report = job.report
    exit_code = report.exit_code if report else None
    attempt = report.attempt if report else 0
    done = job.status is WorkflowJobStatus.COMPLETED
    return (
        job.peer or (job.peers.get(job.placement) if job.final else None),  # where it was, once it is nowhere again
        job.remote_id or None,
        job.status.value,
        json.dumps({"exit_code": exit_code, "attempt": attempt}) if done else None,
        job.message or job.reason if job.status is WorkflowJobStatus.FAILED else None,
        job.placement,
        job.generation,
        said.reason,
        said.message,
        said.next_action,
        job.since,
        job.started_at,
        job.ended_at,
        attempt,
        exit_code,
        report.bytes_received if report else 0,
        report.bytes_sent if report else 0,
        execution_id,
        job.spec.workflow_job_id,
    )
