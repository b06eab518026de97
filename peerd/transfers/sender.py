"""Sends what jobs have made: durable orders, a few at once, again and again until the receiver's verdict is stored.

Nothing is forgotten by a restart: an order is a row, and everything in memory can be built again from it. Errors that
may pass are tried again with growing pauses until the order's deadline; permanent ones go to the job's owner.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from peerd import metrics
from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.transfers import repository, wire
from peerd.transfers.manifest import BLOCK_BYTES, MAX_FILES, READ_BYTES, Pin, Scanned, scan, scan_in_thread
from peerd.transfers.model import Outcomes, OutgoingStatus, OutgoingTransfer, TransferKey
from peerd.transfers.paths import open_file
from peerd.transfers.repository import Outgoing
from peerd.v1 import transfers_pb2, transfers_pb2_grpc

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_IDLE_SECONDS = 1.0
_FIRST_PAUSE_MS = 200
_LONGEST_PAUSE_MS = 5_000
_NOT_YET_PAUSE_MS = 500
"""The receiver's job gets its interfaces any moment now."""
_OFFER_SECONDS = 60.0
"""For an offer of nothing, to which comes the time that its manifest needs on a slow link."""
_SLOW_BYTES = 10_000
"""A second. An offer begins anew at each try: with too little time a large one would never be heard."""
_ENTRY_BYTES = 100
"""What a file takes in an offer, about; its blocks come on top."""
_FRAIL_BYTES = 256 * 1024
"""A message on a connection that has broken before: what of it was under way when it breaks again is sent again."""
MAX_HELD_FILES = MAX_FILES
"""Of all orders, what of their files was read is kept for the next try; some kilobyte each."""
_MAX_MISMATCHES = 5
"""A block that arrives wrong this often is no accident of the wire."""


class Sender:
    """Works through the orders of this peer."""

    def __init__(
        self,
        self_id: PeerId,
        store: Store,
        channels: Channels,
        outcomes: Outcomes,
        clock: Clock,
        *,
        concurrency: int = 4,
    ) -> None:
        self._self_id = self_id
        self._store = store
        self._channels = channels
        self._outcomes = outcomes
        self._clock = clock
        self._concurrency = concurrency
        self._wake = asyncio.Event()
        self._active: dict[int, TransferKey] = {}
        self._progress: dict[TransferKey, tuple[int, int]] = {}
        self._mismatches: dict[int, int] = {}
        self._broken_off: set[TransferKey] = set()
        """Pushes that ended without a verdict."""
        self._scans: dict[int, Scanned] = {}
        """By order: what was read for a try that failed. Else all of it would be read again at each try, for days."""

    def enqueue(self, tx: Tx, transfer: OutgoingTransfer) -> None:
        """Order a transfer, in the transaction of the reason for it."""
        repository.enqueue(tx, transfer)
        tx.on_commit(self._wake.set)

    def withdraw(self, tx: Tx, key: TransferKey) -> None:
        """Take an order back, if it is not over."""
        repository.withdraw(tx, key)

    def progress(self, key: TransferKey) -> tuple[int, int]:
        """(bytes at the receiver, bytes in all) of a transfer that runs now; zeros otherwise."""
        return self._progress.get(key, (0, 0))

    async def peer_online(self, peer_id: PeerId) -> None:
        """A peer is back: what waits for it is tried now."""
        await self._store.write(lambda tx: repository.retry_now(tx, peer_id))
        self._wake.set()

    @property
    def active(self) -> int:
        """Transfers that are under way."""
        return len(self._active)

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                try:
                    await self._look(tasks)
                except Exception:  # noqa: BLE001 - one look that fails must not end the daemon
                    _log.exception("sender.look_failed")
                try:
                    async with asyncio.timeout(_IDLE_SECONDS if not self._active else _FIRST_PAUSE_MS / 1000):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        orders = await repository.open_transfers(self._store, self._self_id)
        for over in self._scans.keys() - self._active.keys() - {order.id for order in orders}:
            del self._scans[over]
        for order in orders:
            due = order.next_try_at <= self._clock.steady()
            if due and order.id not in self._active and len(self._active) < self._concurrency:
                self._active[order.id] = order.key
                tasks.create_task(self._work(order))

    async def _work(self, order: Outgoing) -> None:
        try:
            error = await self._tried(order)
            if error is not None:
                await self._failed(order, error)
        except Exception:  # noqa: BLE001 - the disk is full, most likely; what became of it is found out again later
            _log.exception("sender.not_recorded", edge_id=order.key.edge_id)
            await self._clock.sleep(_LONGEST_PAUSE_MS / 1000)
        finally:
            self._active.pop(order.id, None)
            self._progress.pop(order.key, None)
            self._wake.set()

    async def _tried(self, order: Outgoing) -> PeerdError | None:
        """Why it did not succeed, if it did not."""
        try:
            await self._attempt(order)
        except PeerdError as error:
            return error
        except OSError as error:
            return PeerdError(Reason.SOURCE_CHANGED, f"cannot read what is to be sent: {error}")
        except Exception as error:  # noqa: BLE001 - one broken order must not stop the others; it is tried again, and said
            _log.exception("sender.crashed", edge_id=order.key.edge_id)
            return PeerdError(Reason.OVERLOADED, f"sending failed: {type(error).__name__}")
        return None

    async def _attempt(self, order: Outgoing) -> None:
        if order.deadline is not None and self._clock.steady() > order.deadline:
            raise PeerdError(Reason.DEADLINE_EXCEEDED, "the deadline of the transfer has passed")
        if not await self._store.write(lambda tx: repository.begin(tx, order.id)):
            return
        before, source = self._scans.pop(order.id, None), order.source
        scanned = await scan_in_thread(lambda given_up: scan(source, given_up=given_up, before=before))
        if sum(len(held.paths) for held in self._scans.values()) + len(scanned.paths) <= MAX_HELD_FILES:
            self._scans[order.id] = scanned
        total, count = scanned.manifest.total_bytes, len(scanned.manifest.files)
        self._progress[order.key] = (0, total)
        if (order.bytes_total, order.file_count) != (total, count):
            await self._store.write(lambda tx: repository.note_size(tx, order.id, bytes_total=total, file_count=count))
        began = self._clock.monotonic()
        await self._deliver(order.key, scanned)
        metrics.transfer_duration.observe(self._clock.monotonic() - began)
        failpoint("sender.delivered.before_commit")

        def record(tx: Tx) -> None:
            if repository.move(tx, order.id, OutgoingStatus.DELIVERED):
                self._outcomes.delivered(tx, order.key, total)

        await self._store.write(record)
        failpoint("sender.delivered.after_commit")

    async def _deliver(self, key: TransferKey, scanned: Scanned) -> None:
        """Offer, and push what is missing. Returns with the receiver's verdict."""
        stub = transfers_pb2_grpc.TransferServiceStub(self._channels.channel(key.destination_peer_id))
        failpoint("sender.offer.before_send")
        with remote_errors(key.destination_peer_id):
            answer = await stub.Offer(wire.offer_messages(key, scanned.manifest), timeout=_offer_seconds(scanned))
            failpoint("sender.offer.after_send")
            if answer.complete:
                return
            size = _FRAIL_BYTES if key in self._broken_off else READ_BYTES
            self._broken_off.add(key)
            missing = await asyncio.to_thread(wire.missing_from_proto, answer.missing, scanned.manifest.files)
            pieces = _Pieces(self._pieces(key, scanned, missing, size))
            verdict = await pieces.sent(stub.Push)
            self._broken_off.discard(key)
        if not verdict.complete:
            raise PeerdError(Reason.OVERLOADED, f"{key.destination_peer_id} gave no verdict")

    async def _pieces(
        self, key: TransferKey, scanned: Scanned, missing: Sequence[tuple[int, int]], size: int
    ) -> AsyncIterator[transfers_pb2.PushRequest]:
        """The key, then the bytes that are missing, in order; one read ahead of the wire."""
        yield transfers_pb2.PushRequest(key=wire.key_to_proto(key, scanned.manifest.digest()))
        total = scanned.manifest.total_bytes
        left = sum(scanned.manifest.files[index].size - offset for index, offset in missing)
        for index, offset in missing:
            async for piece in self._file(scanned, index, offset, size):
                left -= len(piece.data)
                self._progress[key] = (total - left, total)
                if key.destination_peer_id != self._self_id:
                    metrics.transfer_pushed_bytes.inc(len(piece.data))
                yield piece

    async def _file(
        self, scanned: Scanned, index: int, begin: int, size: int
    ) -> AsyncIterator[transfers_pb2.PushRequest]:
        entry, pin = scanned.manifest.files[index], scanned.pins[index]
        descriptor = open_file(scanned.root, scanned.paths[index].split("/"))
        ahead: asyncio.Future[bytes] | None = None
        try:
            _check_unchanged(descriptor, pin, entry.path)
            offsets = range(begin, entry.size, size)
            for offset in offsets:
                data = await ahead if ahead is not None else os.pread(descriptor, size, offset)
                following = offset + size
                ahead = (
                    asyncio.ensure_future(asyncio.to_thread(os.pread, descriptor, size, following))
                    if following < entry.size
                    else None
                )
                yield transfers_pb2.PushRequest(file_index=index, offset=offset, data=data)
                if following // BLOCK_BYTES > offset // BLOCK_BYTES:
                    failpoint("sender.push.after_block")
            if ahead is not None:
                await ahead
            _check_unchanged(descriptor, pin, entry.path)
        finally:
            _close_after(ahead, descriptor)

    async def _failed(self, order: Outgoing, error: PeerdError) -> None:
        if error.reason is Reason.DIGEST_MISMATCH:
            self._scans.pop(order.id, None)  # the fault may be in what was read
            self._mismatches[order.id] = self._mismatches.get(order.id, 0) + 1
        overdue = order.deadline is not None and self._clock.steady() > order.deadline
        hopeless = self._mismatches.get(order.id, 0) >= _MAX_MISMATCHES
        if error.retryable and not overdue and not hopeless:
            at = Millis(self._clock.steady() + _pause_ms(order.tries, error))
            reason, message = error.reason.text, error.message
            await self._store.write(lambda tx: repository.try_again(tx, order.id, at, reason=reason, message=message))
            return
        self._broken_off.discard(order.key)
        _log.warning("sender.gave_up", edge_id=order.key.edge_id, reason=error.reason.text, message=error.message)
        reason = Reason.DEADLINE_EXCEEDED.text if overdue else error.reason.text

        def record(tx: Tx) -> None:
            if repository.move(tx, order.id, OutgoingStatus.FAILED, reason=reason, message=error.message):
                self._outcomes.undeliverable(tx, order.key, reason, error.message)

        await self._store.write(record)


class _Pieces:
    """What is read for a stream. grpc tells nobody why reading failed: it cancels the call, as if we had done so."""

    def __init__(self, pieces: AsyncIterator[transfers_pb2.PushRequest]) -> None:
        self._pieces = pieces
        self._error: Exception | None = None

    async def sent(self, push: Callable[[AsyncIterator[transfers_pb2.PushRequest]], Awaitable[T]]) -> T:
        """The answer. Raises what reading raised."""
        try:
            return await push(self._read())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._error is None or (task is not None and task.cancelling()):
                raise
            raise self._error from None

    async def _read(self) -> AsyncIterator[transfers_pb2.PushRequest]:
        try:
            async for piece in self._pieces:
                yield piece
        except Exception as error:
            self._error = error
            raise


def _offer_seconds(scanned: Scanned) -> float:
    files = scanned.manifest.files
    size = _ENTRY_BYTES * len(files) + sum(len(digest) for entry in files for digest in entry.block_digests)
    return _OFFER_SECONDS + size / _SLOW_BYTES


def _pause_ms(tries: int, error: PeerdError) -> int:
    longest = _NOT_YET_PAUSE_MS if error.reason is Reason.NOT_YET_EXPECTED else _LONGEST_PAUSE_MS
    return min(longest, _FIRST_PAUSE_MS << min(tries, 8))


def _close_after(reading: asyncio.Future[bytes] | None, descriptor: int) -> None:
    """Close a file once no thread reads it any more: its number may be another file's the next moment."""
    if reading is None or reading.done():
        os.close(descriptor)
        return

    def close(done: asyncio.Future[bytes]) -> None:
        os.close(descriptor)
        if not done.cancelled():
            done.exception()  # nobody waits for it any more

    reading.add_done_callback(close)


def _check_unchanged(descriptor: int, pin: Pin, path: str) -> None:
    if Pin.of(descriptor) != pin:
        raise PeerdError(Reason.SOURCE_CHANGED, f"{path!r} is not the file any more that was offered")
