"""The SQL of transfers. Every status of an outgoing one goes through :func:`move`, which checks the table of moves."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Store, Tx
from peerd.transfers.model import OUTGOING_MOVES, OutgoingStatus, OutgoingTransfer, Received, Source, TransferKey
from peerd.transfers.selection import Selection

_EDGE = "orchestrator_peer_id = ? AND store_id = ? AND workflow_execution_id = ? AND edge_id = ?"


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A stored order to send."""

    id: int
    key: TransferKey
    root: Path
    only: str | None
    selection: str
    """As it was stored."""
    status: OutgoingStatus
    tries: int
    next_try_at: Millis
    deadline: Millis | None
    bytes_total: int
    file_count: int
    """As far as somebody has looked."""

    @property
    def source(self) -> Source:
        """What to send. Raises STORE_CORRUPT; only here, so that the orders beside it are carried out."""
        try:
            return Source(root=self.root, only=self.only, selection=Selection.decode(self.selection))
        except (ValueError, KeyError, TypeError) as error:
            raise PeerdError(
                Reason.STORE_CORRUPT, "what was to be sent can no longer be read: its row in the store was damaged"
            ) from error


def enqueue(tx: Tx, transfer: OutgoingTransfer) -> None:
    """Store an order; orders of the same edge and source for another destination are withdrawn."""
    key = transfer.key
    edge = (key.orchestrator, key.store_id, key.workflow_execution_id, key.edge_id)
    rows = tx.all(f"SELECT * FROM outgoing_transfers WHERE {_EDGE}", edge)  # noqa: S608 - a constant
    for row in rows:
        same_source = row["source_job_execution_id"] == key.source_job_execution_id
        destination = (row["destination_peer_id"], row["destination_job_execution_id"])
        status = OutgoingStatus(row["status"])
        if same_source and destination == (key.destination_peer_id, key.destination_job_execution_id):
            if status in (OutgoingStatus.FAILED, OutgoingStatus.WITHDRAWN):
                move(tx, row["id"], OutgoingStatus.WAITING)
            return
    for row in rows:
        if OutgoingStatus(row["status"]) in (OutgoingStatus.WAITING, OutgoingStatus.SENDING):
            move(tx, row["id"], OutgoingStatus.WITHDRAWN)
    tx.execute(
        "INSERT INTO outgoing_transfers (orchestrator_peer_id, store_id, workflow_execution_id, edge_id,"
        " source_job_execution_id, destination_peer_id, destination_job_execution_id, root, only_name,"
        " selection, status, deadline_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *edge,
            key.source_job_execution_id,
            key.destination_peer_id,
            key.destination_job_execution_id,
            str(transfer.source.root),
            transfer.source.only,
            transfer.source.selection.encode(),
            OutgoingStatus.WAITING.value,
            transfer.deadline,
            tx.now,
        ),
    )


def withdraw(tx: Tx, key: TransferKey) -> None:
    """Stop sending along an edge, if it is not over."""
    edge = (key.orchestrator, key.store_id, key.workflow_execution_id, key.edge_id)
    for row in tx.all(f"SELECT id FROM outgoing_transfers WHERE {_EDGE} AND ended_at IS NULL", edge):  # noqa: S608
        move(tx, row["id"], OutgoingStatus.WITHDRAWN)


def move(tx: Tx, transfer_id: int, to: OutgoingStatus, *, reason: str = "", message: str = "") -> bool:
    """Give a transfer its next status; False, and nothing changes, when that move is not legal."""
    row = tx.one("SELECT status FROM outgoing_transfers WHERE id = ?", (transfer_id,))
    if row is None or to not in OUTGOING_MOVES[OutgoingStatus(row["status"])]:
        return False
    ended = to in (OutgoingStatus.DELIVERED, OutgoingStatus.FAILED, OutgoingStatus.WITHDRAWN)
    tx.execute(
        "UPDATE outgoing_transfers SET status = ?, reason = ?, message = ?, ended_at = ? WHERE id = ?",
        (to.value, reason, message, tx.now if ended else None, transfer_id),
    )
    return True


def begin(tx: Tx, transfer_id: int) -> bool:
    """Waiting or interrupted -> sending. False when it is over."""
    row = tx.one("SELECT status, reason, message FROM outgoing_transfers WHERE id = ?", (transfer_id,))
    if row is None or OutgoingStatus(row["status"]) not in (OutgoingStatus.WAITING, OutgoingStatus.SENDING):
        return False
    if OutgoingStatus(row["status"]) is OutgoingStatus.WAITING:
        # Why the last try did not succeed stays known during this one.
        move(tx, transfer_id, OutgoingStatus.SENDING, reason=row["reason"], message=row["message"])
    tx.execute("UPDATE outgoing_transfers SET tries = tries + 1 WHERE id = ?", (transfer_id,))
    return True


def note_size(tx: Tx, transfer_id: int, *, bytes_total: int, file_count: int) -> None:
    """Keep what is to be sent, for people."""
    tx.execute(
        "UPDATE outgoing_transfers SET bytes_total = ?, file_count = ? WHERE id = ?",
        (bytes_total, file_count, transfer_id),
    )


def try_again(tx: Tx, transfer_id: int, at: Millis, *, reason: str, message: str) -> None:
    """Sending -> waiting for the next try."""
    if move(tx, transfer_id, OutgoingStatus.WAITING, reason=reason, message=message):
        tx.execute("UPDATE outgoing_transfers SET next_try_at = ? WHERE id = ?", (at, transfer_id))


def retry_now(tx: Tx, peer_id: PeerId) -> None:
    """Its peer is back: what waits for it is due."""
    tx.execute(
        "UPDATE outgoing_transfers SET next_try_at = 0 WHERE destination_peer_id = ? AND ended_at IS NULL", (peer_id,)
    )


async def open_transfers(store: Store, sender: PeerId) -> list[Outgoing]:
    """All orders that are not over, the most urgent first."""
    rows = await store.all(
        "SELECT * FROM outgoing_transfers WHERE ended_at IS NULL ORDER BY next_try_at, id LIMIT 1000"
    )
    return [_outgoing(row, sender) for row in rows]


def was_received(tx: Tx, key: TransferKey, manifest_digest: bytes) -> bool:
    """Whether exactly these files came along this edge before."""
    return tx.one(f"SELECT 1 FROM incoming_transfers WHERE {_INCOMING}", (*_incoming(key), manifest_digest)) is not None  # noqa: S608


def record_received(tx: Tx, key: TransferKey, received: Received) -> None:
    """Keep that all of it is in its place."""
    tx.execute(
        "INSERT INTO incoming_transfers (orchestrator_peer_id, store_id, workflow_execution_id, edge_id,"
        " source_peer_id, source_job_execution_id, destination_job_execution_id, manifest_digest, bytes_total,"
        " file_count, received_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*_incoming(key), received.manifest_digest, received.total_bytes, received.file_count, tx.now),
    )


def forget_received(tx: Tx, key: TransferKey) -> None:
    """What came along this edge is dropped by its job: the same files must be taken again."""
    edge = (key.orchestrator, key.store_id, key.workflow_execution_id, key.edge_id, key.destination_job_execution_id)
    tx.execute(
        f"DELETE FROM incoming_transfers WHERE {_EDGE} AND destination_job_execution_id = ?",  # noqa: S608
        edge,
    )


def forget_job(
    tx: Tx, orchestrator: str, store_id: str | None, workflow_execution_id: int, job_execution_id: int
) -> None:
    """Delete what is known of all that a job sent and received; id 0 is Local Peer's end, no store id is any."""
    job = (orchestrator, store_id, workflow_execution_id, job_execution_id)
    for table, end in (("outgoing_transfers", "source"), ("incoming_transfers", "destination")):
        tx.execute(
            f"DELETE FROM {table} WHERE orchestrator_peer_id = ? AND store_id = coalesce(?, store_id)"  # noqa: S608
            " AND workflow_execution_id = ?"
            f" AND {end}_job_execution_id = ?",
            job,
        )


def check_known(row: sqlite3.Row | None, what: str) -> sqlite3.Row:
    """The row, or NOT_FOUND."""
    if row is None:
        raise PeerdError(Reason.NOT_FOUND, f"there is no {what}")
    return row


_INCOMING = (
    _EDGE + " AND source_peer_id = ? AND source_job_execution_id = ? AND destination_job_execution_id = ?"
    " AND manifest_digest = ?"
)


def _incoming(key: TransferKey) -> tuple[object, ...]:
    return (
        key.orchestrator,
        key.store_id,
        key.workflow_execution_id,
        key.edge_id,
        key.source_peer_id,
        key.source_job_execution_id,
        key.destination_job_execution_id,
    )


def _outgoing(row: sqlite3.Row, sender: PeerId) -> Outgoing:
    return Outgoing(
        id=row["id"],
        key=TransferKey(
            orchestrator=row["orchestrator_peer_id"],
            store_id=row["store_id"],
            workflow_execution_id=row["workflow_execution_id"],
            edge_id=row["edge_id"],
            source_peer_id=sender,
            source_job_execution_id=row["source_job_execution_id"],
            destination_peer_id=row["destination_peer_id"],
            destination_job_execution_id=row["destination_job_execution_id"],
        ),
        root=Path(row["root"]),
        only=row["only_name"],
        selection=row["selection"],
        status=OutgoingStatus(row["status"]),
        tries=row["tries"],
        next_try_at=row["next_try_at"],
        deadline=row["deadline_at"],
        bytes_total=row["bytes_total"],
        file_count=row["file_count"],
    )
