"""Which capability owns an end of a transfer: job execution id 0 is Local Peer, everything else is a job here."""

from __future__ import annotations

from peerd.errors import PeerdError
from peerd.store import Tx
from peerd.transfers.model import Destinations, Expectation, Outcomes, Received, TransferKey


class RoutedDestinations:
    """Routes what arrives."""

    def __init__(self, *, jobs: Destinations, home: Destinations) -> None:
        self._jobs = jobs
        self._home = home

    def expect(self, tx: Tx, key: TransferKey) -> Expectation:
        return self._owner(key).expect(tx, key)

    def accepted(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self._owner(key).accepted(tx, key, total_bytes)

    def refused(self, tx: Tx, key: TransferKey, error: PeerdError) -> None:
        self._owner(key).refused(tx, key, error)

    def received(self, tx: Tx, key: TransferKey, received: Received) -> None:
        self._owner(key).received(tx, key, received)

    def _owner(self, key: TransferKey) -> Destinations:
        return self._home if key.destination_job_execution_id == 0 else self._jobs


class RoutedOutcomes:
    """Routes what became of what was sent."""

    def __init__(self, *, jobs: Outcomes, home: Outcomes) -> None:
        self._jobs = jobs
        self._home = home

    def delivered(self, tx: Tx, key: TransferKey, total_bytes: int) -> None:
        self._owner(key).delivered(tx, key, total_bytes)

    def undeliverable(self, tx: Tx, key: TransferKey, reason: str, message: str) -> None:
        self._owner(key).undeliverable(tx, key, reason, message)

    def _owner(self, key: TransferKey) -> Outcomes:
        return self._home if key.source_job_execution_id == 0 else self._jobs
