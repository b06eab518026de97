"""What jobs need of the sender of files."""

from __future__ import annotations

from typing import Protocol

from peerd.store import Tx
from peerd.transfers.model import OutgoingTransfer, TransferKey


class Sends(Protocol):
    """Implemented by :class:`peerd.transfers.sender.Sender`."""

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        """Send this, once the transaction is durable, until it is delivered or hopeless."""
        ...

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        """Send that no longer; no news of it will come."""
        ...

    def progress(self, key: TransferKey) -> tuple[int, int]:
        """Bytes sent so far, and in all; zeros when unknown."""
        ...
