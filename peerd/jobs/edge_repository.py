"""The SQL of a job's edges and files, ``job_edges`` and ``job_files``.

Nobody else writes them; :mod:`peerd.jobs.occupancy` deletes them with their job.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from peerd.catalog.model import InterfaceKind
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import Edge, EdgeStatus, JobFile
from peerd.store import Tx
from peerd.transfers.selection import Selection

OWN_FILES = 0
"""As edge id: files that the job made."""
ANY_CLEARING = "SELECT 1 FROM job_edges WHERE status = 'clearing' LIMIT 1"


def to_edge(row: sqlite3.Row) -> Edge:
    """A row as a value."""
    return Edge(
        edge_id=row["edge_id"],
        incoming=bool(row["incoming"]),
        kind=InterfaceKind(row["kind"]),
        path=row["path"],
        peer_id=PeerId(row["peer_id"]),
        peer_workflow_job_id=row["peer_workflow_job_id"],
        peer_job_execution_id=row["peer_job_execution_id"],
        destination=row["destination"],
        position=row["position"],
        status=EdgeStatus(row["status"]),
        bytes=row["bytes"],
        reason=row["reason"],
        message=row["message"],
        selection=Selection.decode(row["selection"]),
    )


def edges_of(tx: Tx, job_execution_id: int) -> list[Edge]:
    """All edges of a job in the order of their numbers."""
    rows = tx.all("SELECT * FROM job_edges WHERE job_execution_id = ? ORDER BY edge_id", (job_execution_id,))
    return [to_edge(row) for row in rows]


def find_edge(tx: Tx, job_execution_id: int, edge_id: int) -> Edge | None:
    """One edge of a job."""
    row = tx.one("SELECT * FROM job_edges WHERE job_execution_id = ? AND edge_id = ?", (job_execution_id, edge_id))
    return to_edge(row) if row is not None else None


def put_edge(tx: Tx, job_execution_id: int, edge: Edge) -> None:
    """Write an edge, new or changed."""
    tx.execute(
        "INSERT OR REPLACE INTO job_edges (job_execution_id, edge_id, incoming, kind, path, peer_id,"
        " peer_workflow_job_id, peer_job_execution_id, destination, position, status, bytes, reason, message,"
        " selection) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job_execution_id,
            edge.edge_id,
            int(edge.incoming),
            edge.kind.value,
            edge.path,
            edge.peer_id,
            edge.peer_workflow_job_id,
            edge.peer_job_execution_id,
            edge.destination,
            edge.position,
            edge.status.value,
            edge.bytes,
            edge.reason,
            edge.message,
            edge.selection.encode(),
        ),
    )


def drop_edge(tx: Tx, job_execution_id: int, edge_id: int) -> None:
    """Forget an edge that a new generation no longer has. Its files stay until the job's directory goes."""
    tx.execute("DELETE FROM job_edges WHERE job_execution_id = ? AND edge_id = ?", (job_execution_id, edge_id))


def files_of(tx: Tx, job_execution_id: int, edge_id: int) -> list[JobFile]:
    """The files recorded for an edge, sorted by path."""
    rows = tx.all(
        "SELECT path, size FROM job_files WHERE job_execution_id = ? AND edge_id = ? ORDER BY path",
        (job_execution_id, edge_id),
    )
    return [JobFile(path=row["path"], size=row["size"]) for row in rows]


def received_files(tx: Tx, job_execution_id: int) -> dict[int, list[str]]:
    """Paths received along each edge."""
    found: dict[int, list[str]] = {}
    for row in tx.all(
        "SELECT edge_id, path FROM job_files WHERE job_execution_id = ? AND edge_id != ? ORDER BY edge_id, path",
        (job_execution_id, OWN_FILES),
    ):
        found.setdefault(row["edge_id"], []).append(row["path"])
    return found


def replace_files(tx: Tx, job_execution_id: int, edge_id: int, files: Iterable[JobFile]) -> None:
    """Record exactly these files for an edge."""
    tx.execute("DELETE FROM job_files WHERE job_execution_id = ? AND edge_id = ?", (job_execution_id, edge_id))
    tx.executemany(
        "INSERT INTO job_files (job_execution_id, edge_id, path, size) VALUES (?, ?, ?, ?)",
        [(job_execution_id, edge_id, file.path, file.size) for file in files],
    )


def clearing(tx: Tx) -> list[tuple[int, Edge]]:
    """Edges whose old files are still to be removed, with their jobs."""
    rows = tx.all("SELECT * FROM job_edges WHERE status = 'clearing' ORDER BY job_execution_id, edge_id LIMIT 200")
    return [(row["job_execution_id"], to_edge(row)) for row in rows]
