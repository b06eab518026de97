"""The SQL of jobs that are not run again: ``reused_*`` of ``workflow_jobs``, written when an execution is made."""

from __future__ import annotations

from collections.abc import Mapping

from peerd.store import Store, Tx
from peerd.workflows.reuse import Reused


def insert_reused(tx: Tx, execution_id: int, reused: Mapping[str, Reused]) -> None:
    """Where and as what each of these jobs completed."""
    tx.executemany(
        "UPDATE workflow_jobs SET reused_execution_id = ?, reused_peer_id = ?, reused_job_execution_id = ? "
        "WHERE workflow_execution_id = ? AND node_id = ?",
        ((one.execution_id, one.peer_id, one.job_execution_id, execution_id, node) for node, one in reused.items()),
    )


async def read_reused(store: Store, execution_id: int) -> dict[str, Reused]:
    """By node, what :func:`insert_reused` wrote."""
    rows = await store.all(
        "SELECT * FROM workflow_jobs WHERE workflow_execution_id = ? AND reused_job_execution_id IS NOT NULL "
        "ORDER BY id",
        (execution_id,),
    )
    return {
        row["node_id"]: Reused(
            execution_id=row["reused_execution_id"],
            peer_id=row["reused_peer_id"],
            job_execution_id=row["reused_job_execution_id"],
        )
        for row in rows
    }
