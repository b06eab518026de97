"""Transfers as the simulated machines do them: orders that last, offers, pieces, verdicts. By the contract of
:mod:`peerd.transfers`, with its tables; files are numbers of pieces, a manifest names the attempt that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerd.errors import PeerdError, Reason
from peerd.transfers.model import OUTGOING_MOVES, OutgoingStatus, TransferKey

from .network import Network

PIECES = 2

Manifest = tuple[str, int, int]
"""(executor, job execution id, attempt) that made the files."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """These files are to come."""

    key: TransferKey
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Push:
    """One piece of them."""

    key: TransferKey
    manifest: Manifest
    piece: int


@dataclass(kw_only=True)
class Parcel:
    """An order to send, as stored."""

    key: TransferKey
    manifest: Manifest
    status: OutgoingStatus = OutgoingStatus.WAITING
    active: bool = False  # in memory

    def move(self, to: OutgoingStatus) -> bool:
        if to not in OUTGOING_MOVES[self.status]:
            return False
        self.status = to
        return True

    @property
    def open(self) -> bool:
        return self.status in (OutgoingStatus.WAITING, OutgoingStatus.SENDING)


@dataclass(kw_only=True)
class Sender:
    """Sends what is ordered until it is delivered or hopeless."""

    name: str
    network: Network
    # Told in the same step as the parcel's end: delivered, or not.
    settled: Callable[[TransferKey, bool], None]
    parcels: list[Parcel] = field(default_factory=list)

    def enqueue(self, key: TransferKey, manifest: Manifest) -> None:
        same_edge = [
            parcel
            for parcel in self.parcels
            if (parcel.key.orchestrator, parcel.key.edge_id) == (key.orchestrator, key.edge_id)
            and parcel.key.workflow_execution_id == key.workflow_execution_id
        ]
        for parcel in same_edge:
            if parcel.key == key:
                if parcel.status in (OutgoingStatus.FAILED, OutgoingStatus.WITHDRAWN):
                    parcel.move(OutgoingStatus.WAITING)
                return
        for parcel in same_edge:
            if parcel.open:
                parcel.move(OutgoingStatus.WITHDRAWN)
        self.parcels.append(Parcel(key=key, manifest=manifest))

    def withdraw(self, key: TransferKey) -> None:
        for parcel in self.parcels:
            if (parcel.key.orchestrator, parcel.key.workflow_execution_id, parcel.key.edge_id) == (
                key.orchestrator,
                key.workflow_execution_id,
                key.edge_id,
            ) and parcel.open:
                parcel.move(OutgoingStatus.WITHDRAWN)

    def crash(self) -> None:
        for parcel in self.parcels:
            parcel.active = False

    def steps(self) -> list[Callable[[], None]]:
        return [lambda p=parcel: self._offer(p) for parcel in self.parcels if parcel.open and not parcel.active]  # type: ignore[misc]

    def _offer(self, parcel: Parcel) -> None:
        parcel.active = True
        parcel.move(OutgoingStatus.SENDING)
        self._call(parcel, Offer(key=parcel.key, manifest=parcel.manifest))

    def _call(self, parcel: Parcel, body: Offer | Push) -> None:
        target = parcel.key.destination_peer_id
        self.network.call(self.name, target, body, lambda answer: self._answered(parcel, answer))

    def _answered(self, parcel: Parcel, answer: object) -> None:
        if isinstance(answer, PeerdError):
            parcel.active = False
            if answer.retryable:
                parcel.move(OutgoingStatus.WAITING)
            elif parcel.move(OutgoingStatus.FAILED):
                self.settled(parcel.key, False)
            return
        assert isinstance(answer, int)
        if answer < PIECES:
            self._call(parcel, Push(key=parcel.key, manifest=parcel.manifest, piece=answer))
            return
        parcel.active = False
        if parcel.move(OutgoingStatus.DELIVERED):
            self.settled(parcel.key, True)


@dataclass(kw_only=True)
class Receiver:
    """Takes in what is expected; what has arrived stays, what was agreed on is forgotten in a crash."""

    # Raises NOT_YET_EXPECTED or UNEXPECTED_TRANSFER.
    expect: Callable[[TransferKey], None]
    # It is verified and in its place.
    publish: Callable[[TransferKey, Manifest], None]
    received: set[tuple[TransferKey, Manifest]] = field(default_factory=set)
    staged: dict[tuple[TransferKey, Manifest], int] = field(default_factory=dict)
    sessions: set[tuple[TransferKey, Manifest]] = field(default_factory=set)

    def crash(self) -> None:
        self.sessions.clear()

    def serve(self, request: Offer | Push) -> int:
        """How many pieces are here; all of them is the verdict."""
        what = (request.key, request.manifest)
        if isinstance(request, Offer):
            if what in self.received:
                return PIECES
            self.expect(request.key)
            self.sessions.add(what)
            here = self.staged.get(what, 0)
            return min(here, PIECES - 1)  # a whole one that was never published is pushed for its end alone
        if what not in self.sessions:
            raise PeerdError(Reason.OFFER_FIRST, "no offer")
        here = self.staged[what] = max(self.staged.get(what, 0), request.piece + 1)
        if here < PIECES:
            return here
        if what not in self.received:
            self.expect(request.key)
            self.received.add(what)
            self.publish(request.key, request.manifest)
        self.sessions.discard(what)
        return PIECES

    def forget(self, key: TransferKey) -> None:
        """What came along that edge of that job is dropped, whoever sent it."""
        edge = (key.orchestrator, key.workflow_execution_id, key.edge_id, key.destination_job_execution_id)
        self.received = {
            (k, m)
            for k, m in self.received
            if (k.orchestrator, k.workflow_execution_id, k.edge_id, k.destination_job_execution_id) != edge
        }
