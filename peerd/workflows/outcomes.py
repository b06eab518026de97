"""How jobs of executions ended, for whoever started the execution and wants their files: one answer for each job.

A job has an outcome when it completed and what it delivers to Local Peer is verified, or when neither can happen any
more. Read-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.store import Store, Tx
from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.model import EdgeStatus, WorkflowJobStatus


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """What came of one job."""

    executor: str
    """Peer id; empty if it had no peer."""
    delivered: bool
    """Whether all that it delivers is there, below the execution's delivery directory."""
    reason: str = ""
    message: str = ""


def delivery_directory(data_dir: Path, own_peer_id: PeerId, execution_id: int) -> Path:
    """Where an execution's deliveries lie."""
    return JobPlace(
        data_dir=data_dir,
        orchestrator=own_peer_id,
        workflow_execution_id=execution_id,
        executor=own_peer_id,
        job_execution_id=0,
    ).input


async def job_outcomes(store: Store, execution_id: int, names: Collection[str]) -> Mapping[str, JobOutcome]:
    """Of those of these jobs that have one. Of an execution that is not there any more, every job has."""
    wanted = json.dumps(list(names))
    jobs = await store.all(
        "SELECT node_id, status, executor_peer_id, reason, message, error FROM workflow_jobs"  # noqa: S608 - ours
        f" WHERE workflow_execution_id = ? AND status IN ({_FINAL}) AND node_id IN (SELECT value FROM json_each(?))",
        (execution_id, wanted),
    )
    if not jobs and not await store.all(
        "SELECT 1 FROM workflow_jobs WHERE workflow_execution_id = ? LIMIT 1", (execution_id,)
    ):
        gone = JobOutcome(
            executor="", delivered=False, reason="files_removed", message="retention has taken the execution"
        )
        return dict.fromkeys(names, gone)
    ended = json.dumps([job["node_id"] for job in jobs])
    edges = await store.all(
        "SELECT source_node_id, status, reason FROM execution_edges WHERE workflow_execution_id = ?"
        " AND destination_node_id = ? AND source_node_id IN (SELECT value FROM json_each(?))",
        (execution_id, LOCAL_PEER, ended),
    )
    deliveries: dict[str, list[sqlite3.Row]] = {}
    for edge in edges:
        deliveries.setdefault(edge["source_node_id"], []).append(edge)
    outcomes = {job["node_id"]: _outcome(job, deliveries.get(job["node_id"], [])) for job in jobs}
    return {name: outcome for name, outcome in outcomes.items() if outcome is not None}


def job_statuses(tx: Tx, execution_id: int) -> Mapping[str, WorkflowJobStatus]:
    """Of every job of an execution, as far as is known here; none of one that is not there any more."""
    rows = tx.all("SELECT node_id, status FROM workflow_jobs WHERE workflow_execution_id = ?", (execution_id,))
    return {row["node_id"]: WorkflowJobStatus(row["status"]) for row in rows}


async def begun(store: Store, execution_id: int, names: Collection[str]) -> Mapping[str, str]:
    """Those of these jobs that run as far as is known, or have completed, and their executors: of such a one without an
    outcome, the peer it is on owes something."""
    rows = await store.all(
        "SELECT node_id, executor_peer_id FROM workflow_jobs WHERE workflow_execution_id = ? AND status IN (?, ?)"
        " AND node_id IN (SELECT value FROM json_each(?))",
        (
            execution_id,
            WorkflowJobStatus.RUNNING.value,
            WorkflowJobStatus.COMPLETED.value,
            json.dumps(list(names)),
        ),
    )
    return {row["node_id"]: row["executor_peer_id"] or "" for row in rows}


_FINAL = ", ".join(f"'{status.value}'" for status in WorkflowJobStatus if status.final)


def _outcome(job: sqlite3.Row, edges: list[sqlite3.Row]) -> JobOutcome | None:
    status = WorkflowJobStatus(job["status"])
    executor = job["executor_peer_id"] or ""
    if status is not WorkflowJobStatus.COMPLETED:
        reason, message = job["reason"] or status.value, job["message"] or job["error"] or f"the job was {status.value}"
        return JobOutcome(executor=executor, delivered=False, reason=reason, message=message)
    for edge in edges:
        if edge["status"] == EdgeStatus.FAILED.value:
            message = "what the job found could not be delivered"
            return JobOutcome(executor=executor, delivered=False, reason=edge["reason"] or "transfer", message=message)
    if all(edge["status"] == EdgeStatus.DELIVERED.value for edge in edges):
        return JobOutcome(executor=executor, delivered=True)
    return None
