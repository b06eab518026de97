"""What moves along an edge, and what both ends ask of the capability that owns the job.

A transfer is keyed by its edge in its execution and the two job executions at the ends; the digest of the manifest is
added on the wire, so that a repeated offer of the same files is answered and a different one is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Tx
from peerd.transfers.selection import EVERYTHING, Selection

NO_ROOM = frozenset({Reason.STORAGE_QUOTA, Reason.DISK_LOW})
"""Why an offer is refused for now."""


@dataclass(frozen=True, kw_only=True)
class TransferKey:
    """One edge instance. Job execution id 0 is Local Peer, on the orchestrator."""

    orchestrator: PeerId
    store_id: str
    workflow_execution_id: int
    edge_id: int
    source_peer_id: PeerId
    source_job_execution_id: int
    destination_peer_id: PeerId
    destination_job_execution_id: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to send: a directory's whole tree, or one file of it, or (``root`` a file) that file under its own name."""

    root: Path
    only: str | None = None
    selection: Selection = EVERYTHING


@dataclass(frozen=True, kw_only=True)
class OutgoingTransfer:
    """An order to the sender."""

    key: TransferKey
    source: Source
    deadline: Millis | None = None


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Where a transfer belongs on the receiver."""

    directory: Path
    """Absolute; files land below it."""
    root: Path
    """The job's directory, in which ``directory`` lies; temporary files lie here too, on the same file system."""
    room_bytes: int | None = None
    """How large it may be; no limit when None. Otherwise the owner hears what was accepted, and counts it."""
    was_refused: bool = False
    """The owner tells that there was no room for an earlier offer, and wants to hear when one is accepted."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """What was verified and is in its place."""

    manifest_digest: bytes
    file_count: int
    total_bytes: int
    files: tuple[str, ...]


class OutgoingStatus(Enum):
    """Life of an order to send."""

    WAITING = "waiting"
    """For its turn, for the receiver, or for the next try."""
    SENDING = "sending"
    DELIVERED = "delivered"
    """The receiver's verdict is stored."""
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    """Another destination took its place."""


OUTGOING_MOVES: dict[OutgoingStatus, frozenset[OutgoingStatus]] = {
    OutgoingStatus.WAITING: frozenset(OutgoingStatus) - {OutgoingStatus.WAITING},
    OutgoingStatus.SENDING: frozenset(OutgoingStatus) - {OutgoingStatus.SENDING},
    OutgoingStatus.DELIVERED: frozenset(),
    OutgoingStatus.FAILED: frozenset({OutgoingStatus.WAITING}),
    OutgoingStatus.WITHDRAWN: frozenset({OutgoingStatus.WAITING}),
}
"""Legal moves; from failed and withdrawn only by a new order for the same key."""


class Destinations(Protocol):
    """What a receiver asks the owner of the destination job."""

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        """Where it belongs. Raises NOT_YET_EXPECTED (try again) or UNEXPECTED_TRANSFER."""
        ...

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """An offer is accepted; in the transaction that found room for it. Raises as ``expect``."""
        ...

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        """There is no room for an offer (one of ``NO_ROOM``); it will come again."""
        ...

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        """It is verified and in its place; in the transaction that records this."""
        ...


class Outcomes(Protocol):
    """What a sender tells the owner of the source job, in the transaction that records it."""

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        """The receiver has all of it."""
        ...

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        """It will never arrive."""
        ...
