"""Local Peer: this peer's own end of an execution's edges, with job execution id 0.

Deliveries, and the lists of maps, are expected by the execution's edges: from exactly the peer and job that the edge
starts at now. They lie in ``.../jobs/<orchestrator>/0/input[/<directory>]``, lists in ``.../0/lists/<job>``. Package
files leave from here; what becomes of them is told here.
Implements Destinations and Outcomes of transfers for id 0.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.paths import JobPlace
from peerd.store import Tx
from peerd.transfers.model import Expectation, Received, TransferKey
from peerd.workflows import events as e
from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.lists import list_folder
from peerd.workflows.maps import MAX_LIST_BYTES
from peerd.workflows.model import EdgeStatus, ExecutionStatus

Post = Callable[[Tx, int, e.Event], None]
"""Orchestrator.post."""

_EDGE = (
    "SELECT d.directory, d.is_list, d.status, x.status AS execution_status, j.executor_peer_id, "
    "j.remote_job_execution_id, j.placement FROM execution_edges d "
    "JOIN workflow_executions x ON x.id = d.workflow_execution_id "
    "JOIN workflow_jobs j ON j.workflow_execution_id = d.workflow_execution_id AND j.node_id = "
)
_HOME = (
    f"{_EDGE} d.source_node_id WHERE d.workflow_execution_id = ? AND d.edge_id = ? "
    "AND (d.destination_node_id = ? OR d.is_list = 1)"
)
_PACKAGE = f"{_EDGE} d.destination_node_id WHERE d.workflow_execution_id = ? AND d.edge_id = ? AND d.source_node_id = ?"


class LocalPeer:
    """Expects deliveries, hears of packages."""

    def __init__(self, post: Post, *, own_peer_id: PeerId, store_id: str, data_dir: Path) -> None:
        self._post = post
        self._own_peer_id = own_peer_id
        self._store_id = store_id
        self._data_dir = data_dir

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        """Where a delivery belongs. Raises NOT_YET_EXPECTED or UNEXPECTED_TRANSFER."""
        row = self._expected(tx, key)
        place = JobPlace(
            data_dir=self._data_dir,
            orchestrator=self._own_peer_id,
            workflow_execution_id=key.workflow_execution_id,
            executor=self._own_peer_id,
            job_execution_id=0,
        )
        if row["is_list"]:
            return Expectation(directory=list_folder(place, row["directory"]), root=place.directory)
        parts = row["directory"].split("/") if row["directory"] else []
        return Expectation(directory=place.input.joinpath(*parts), root=place.directory)

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """Home has no quota, but what is too large for a list is not taken in to be refused then. Raises TOO_LARGE."""
        row = self._expected(tx, key)
        if row["is_list"] and total_bytes > MAX_LIST_BYTES:
            raise PeerdError(
                Reason.TOO_LARGE,
                f"the list of {row['directory']!r} has {total_bytes} bytes; {MAX_LIST_BYTES >> 20} MiB are taken",
                next_action="make a shorter list, and name its file in 'from' of the map",
            )

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        """Nothing to note: no job waits here, and the sender tells why its transfer does."""

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        """A delivery is verified and in its place. Raises as ``expect``."""
        row = self._expected(tx, key)
        if row["status"] != EdgeStatus.DELIVERED.value:
            event = e.EdgeDelivered(
                edge_id=key.edge_id, placement=row["placement"], bytes=received.total_bytes, at=tx.now
            )
            self._post(tx, key.workflow_execution_id, event)

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """Package files have arrived."""
        placement = self._package_placement(tx, key)
        if placement is not None:
            event = e.EdgeDelivered(edge_id=key.edge_id, placement=placement, bytes=total_bytes, at=tx.now)
            self._post(tx, key.workflow_execution_id, event)

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        """Package files never will."""
        placement = self._package_placement(tx, key)
        if placement is not None:
            event = e.EdgeFailed(edge_id=key.edge_id, placement=placement, reason=reason, message=message, at=tx.now)
            self._post(tx, key.workflow_execution_id, event)

    def _expected(self, tx: Tx, key: TransferKey) -> sqlite3.Row:
        ours = (self._own_peer_id, self._store_id, self._own_peer_id, 0)
        theirs = (key.orchestrator, key.store_id, key.destination_peer_id, key.destination_job_execution_id)
        row = tx.one(_HOME, (key.workflow_execution_id, key.edge_id, LOCAL_PEER)) if ours == theirs else None
        if row is None:
            raise _unexpected(f"no execution here has a delivery {key.workflow_execution_id}/{key.edge_id}")
        delivered = row["status"] == EdgeStatus.DELIVERED.value
        if ExecutionStatus(row["execution_status"]).final and not delivered:
            raise _unexpected(f"execution {key.workflow_execution_id} is {row['execution_status']}")
        if row["remote_job_execution_id"] is None:
            raise PeerdError(
                Reason.NOT_YET_EXPECTED, "the job that delivers this has no place now", retry_after_seconds=0.5
            )
        now = (row["executor_peer_id"], row["remote_job_execution_id"])
        if now != (key.source_peer_id, key.source_job_execution_id):
            raise _unexpected(f"delivery {key.edge_id} comes from another job or peer")
        return row

    def _package_placement(self, tx: Tx, key: TransferKey) -> int | None:
        """Of the job that the files went to; None if it has moved on."""
        if (key.orchestrator, key.store_id) != (self._own_peer_id, self._store_id):
            return None
        row = tx.one(_PACKAGE, (key.workflow_execution_id, key.edge_id, LOCAL_PEER))
        if row is None or ExecutionStatus(row["execution_status"]).final:
            return None
        now = (row["executor_peer_id"], row["remote_job_execution_id"])
        went_to = (key.destination_peer_id, key.destination_job_execution_id)
        return int(row["placement"]) if now == went_to else None


def _unexpected(message: str) -> PeerdError:
    return PeerdError(Reason.UNEXPECTED_TRANSFER, message)
