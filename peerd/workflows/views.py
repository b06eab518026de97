"""Rows -> messages: executions, jobs and edges as people see them. Read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.moments import moment
from peerd.store import Store, Tx
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows.edge_reasons import explain_edges
from peerd.workflows.model import ExecutionStatus
from peerd.workflows.repository import WorkflowVersion, no_such_execution

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
# What an answer may hold is limited, and nobody reads more; of one job, ExplainJob tells it whatever their number.
_EXPLAINED_EDGES = 2000
PIECE_BYTES = 2 * 1024 * 1024
"""Of an execution in one message; half of what a message may have."""
_PER_ENTRY = 8

_EXECUTIONS = "SELECT x.*, w.name FROM workflow_executions x JOIN workflows w ON w.id = x.workflow_id"


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """What a view needs besides rows."""

    own_peer_id: PeerId
    data_dir: Path
    name_of: Callable[[str], str]


async def read_execution(
    store: Store, viewer: Viewer, execution_id: int, *, since: int = 0, after_job: int = 0, after_edge: int = 0
) -> tuple[workflows_pb2.Execution, int]:
    """An execution with the jobs and edges changed after a version (all for 0), and its version. Raises NOT_FOUND.

    ``after_job`` and ``after_edge`` leave out those up to these numbers.
    """
    row = await store.one(f"{_EXECUTIONS} WHERE x.id = ?", (execution_id,))
    if row is None:
        raise no_such_execution(execution_id)
    # Rows may be newer than the version read before them; they will be sent once more, which does no harm.
    after = since if since else -1
    execution = to_execution(row, viewer)
    for job in await store.all(
        "SELECT * FROM workflow_jobs WHERE workflow_execution_id = ? AND changed > ? AND id > ? ORDER BY id",
        (execution_id, after, after_job),
    ):
        execution.jobs.append(_to_job(job, viewer))
    for edge in await store.all(
        "SELECT * FROM execution_edges WHERE workflow_execution_id = ? AND changed > ? AND edge_id > ? "
        "ORDER BY edge_id",
        (execution_id, after, after_edge),
    ):
        execution.edges.append(_to_edge(edge))
    if not since and not after_job and len(execution.edges) <= _EXPLAINED_EDGES:
        explain_edges(execution)
    return execution, row["version"]


async def execution_page(
    store: Store, viewer: Viewer, request: workflows_pb2.GetExecutionRequest
) -> workflows_pb2.GetExecutionResponse:
    """As much of an execution as fits a message. Raises NOT_FOUND, INVALID_PAGE_TOKEN."""
    after = [0, 0]
    if request.page_token:
        numbers = request.page_token.split(".")
        after = [page(0, number)[1] for number in numbers if number]
        if len(numbers) != 2 or len(after) != 2:
            raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not from here")
    execution, _ = await read_execution(
        store, viewer, request.workflow_execution_id, after_job=after[0], after_edge=after[1]
    )
    first, *others = pieces(execution)
    if not others:
        return workflows_pb2.GetExecutionResponse(execution=first)
    last_job = first.jobs[-1].workflow_job_id if first.jobs else after[0]
    last_edge = first.edges[-1].edge_id if first.edges else after[1]
    return workflows_pb2.GetExecutionResponse(execution=first, next_page_token=f"{last_job}.{last_edge}")


def pieces(execution: workflows_pb2.Execution) -> list[workflows_pb2.Execution]:
    """The same in messages that can be sent: the jobs in order, then the edges."""
    if execution.ByteSize() <= PIECE_BYTES:
        return [execution]
    head = workflows_pb2.Execution()
    head.CopyFrom(execution)
    del head.jobs[:], head.edges[:]
    made: list[workflows_pb2.Execution] = []
    room = 0

    def piece(size: int) -> workflows_pb2.Execution:
        nonlocal room
        room -= size
        if room < 0 or not made:
            made.append(workflows_pb2.Execution())
            made[-1].CopyFrom(head)
            room = PIECE_BYTES - size
        return made[-1]

    for job in execution.jobs:
        piece(job.ByteSize() + _PER_ENTRY).jobs.append(job)
    for edge in execution.edges:
        piece(edge.ByteSize() + _PER_ENTRY).edges.append(edge)
    return made


def execution_row(tx: Tx, viewer: Viewer, execution_id: int) -> workflows_pb2.Execution:
    """An execution without jobs and edges, as this transaction sees it. Raises NOT_FOUND."""
    row = tx.one(f"{_EXECUTIONS} WHERE x.id = ?", (execution_id,))
    if row is None:
        raise no_such_execution(execution_id)
    return to_execution(row, viewer)


async def list_executions(
    store: Store, viewer: Viewer, request: workflows_pb2.ListExecutionsRequest
) -> workflows_pb2.ListExecutionsResponse:
    """A page, newest first."""
    size, before = page(request.page_size, request.page_token)
    conditions, values = ["x.id < ?"], list[object]([before])
    if request.statuses:
        wanted = [_status_text(status) for status in request.statuses]
        conditions.append(f"x.status IN ({', '.join('?' * len(wanted))})")
        values += wanted
    if request.workflow:
        conditions.append("(w.name = ? OR CAST(w.id AS TEXT) = ?)")
        values += [request.workflow, request.workflow]
    rows = await store.all(
        f"{_EXECUTIONS} WHERE {' AND '.join(conditions)} ORDER BY x.id DESC LIMIT ?",
        (*values, size + 1),
    )
    return workflows_pb2.ListExecutionsResponse(
        executions=[to_execution(row, viewer) for row in rows[:size]],
        next_page_token=str(rows[size - 1]["id"]) if len(rows) > size else "",
    )


def to_execution(row: sqlite3.Row, viewer: Viewer) -> workflows_pb2.Execution:
    """Without jobs and edges."""
    place = JobPlace(
        data_dir=viewer.data_dir,
        orchestrator=viewer.own_peer_id,
        workflow_execution_id=row["id"],
        executor=viewer.own_peer_id,
        job_execution_id=0,
    )
    return workflows_pb2.Execution(
        workflow_execution_id=row["id"],
        orchestrator_peer_id=viewer.own_peer_id,
        workflow_id=str(row["workflow_id"]),
        workflow_name=row["name"],
        workflow_version=row["workflow_version"],
        status=workflows_pb2.ExecutionStatus.Value(f"EXECUTION_STATUS_{row['status'].upper()}"),
        error=row["error"],
        created_at=moment(row["created_at"]),
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        delivery_directory=str(place.input),
        cancel_reason=row["cancel_reason"] or "",
        reason=row["reason"],
        next_action=row["next_action"],
        since=moment(row["since"]),
        job_count=row["job_count"],
        kept=bool(row["kept"]),
        files_removed=row["files"] != "present",
        started_by=row["started_by"],
        rerun_of=row["rerun_of"],
        concurrency_group=row["group_name"],
        waits_for_turn=bool(row["group_name"]) and row["turn_at"] is None and row["ended_at"] is None,
    )


def to_workflow(version: WorkflowVersion, *, with_definition: bool) -> workflows_pb2.Workflow:
    """A stored definition."""
    return workflows_pb2.Workflow(
        workflow_id=str(version.workflow_id),
        name=version.name,
        version=version.version,
        digest=version.digest,
        created_at=moment(version.created_at),
        job_count=version.job_count,
        definition=version.definition if with_definition else None,
    )


def is_final(execution: workflows_pb2.Execution) -> bool:
    """Whether nothing more will happen to it."""
    return _STATUSES[execution.status].final


def page(size: int, token: str) -> tuple[int, int]:
    """(rows, id that all rows must be below). Raises INVALID_PAGE_TOKEN."""
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not from here")
    return min(size if size > 0 else DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE), int(token) if token else 2**62


def _to_job(row: sqlite3.Row, viewer: Viewer) -> workflows_pb2.WorkflowJob:
    peer = row["executor_peer_id"] or row["reused_peer_id"] or ""
    return workflows_pb2.WorkflowJob(
        workflow_job_id=row["id"],
        node_id=row["node_id"],
        job_name=row["job_name"],
        service=row["service_id"],
        executor_peer_id=peer,
        executor_name=viewer.name_of(peer) if peer else "",
        remote_job_execution_id=row["remote_job_execution_id"] or 0,
        placement=row["placement"],
        generation=row["generation"],
        status=workflows_pb2.WorkflowJobStatus.Value(f"WORKFLOW_JOB_STATUS_{row['status'].upper()}"),
        reason=row["reason"],
        message=row["message"],
        next_action=row["next_action"],
        since=moment(row["since"]),
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        attempt=row["attempt"],
        exit_code=row["exit_code"],
        bytes_received=row["bytes_received"],
        bytes_sent=row["bytes_sent"],
        reused_execution_id=row["reused_execution_id"],
        reused_job_execution_id=row["reused_job_execution_id"],
    )


def _to_edge(row: sqlite3.Row) -> workflows_pb2.ExecutionEdge:
    return workflows_pb2.ExecutionEdge(
        edge_id=row["edge_id"],
        source_node_id=row["source_node_id"],
        source_kind=row["source_kind"],
        source_path=row["source_path"],
        destination_node_id=row["destination_node_id"],
        destination_kind=row["destination_kind"],
        destination_path=row["destination_path"],
        status=jobs_pb2.EdgeStatus.Value(f"EDGE_STATUS_{row['status'].upper()}"),
        bytes=row["bytes"],
        bytes_total=row["bytes_total"],
        reason=row["reason"],
    )


_STATUSES = {
    workflows_pb2.ExecutionStatus.Value(f"EXECUTION_STATUS_{status.name}"): status for status in ExecutionStatus
}


def _status_text(status: int) -> str:
    if status not in _STATUSES:
        known: Sequence[str] = [status.value for status in ExecutionStatus]
        raise PeerdError(Reason.INVALID_ARGUMENT, f"statuses are {', '.join(known)}")
    return _STATUSES[workflows_pb2.ExecutionStatus.ValueType(status)].value
