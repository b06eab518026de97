"""The two ways in over gRPC: in one message, or as a stream that is written down as it comes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import structlog

from peerd import metrics
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.rpc.caller import Caller
from peerd.scans import data
from peerd.scans.model import IngestJob
from peerd.scans.receiving import Receiving, mismatch, stored, target_of
from peerd.scans.statement import Claim, open_statement
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.uninterrupted import uninterrupted
from peerd.v1 import scans_pb2

MAX_STREAMS = 8
SILENT_SECONDS = 60.0
"""Between two messages of a stream: one that stalls would keep its place from others for ever."""
_WRITE_BYTES = 4 * data.PIECE_BYTES

_log = structlog.get_logger(__name__)

A = TypeVar("A", scans_pb2.SubmitResponse, scans_pb2.SubmitStreamResponse)


class Submissions:
    """What Submit and SubmitStream do."""

    def __init__(self, store: Store, receiving: Receiving, to_message: Callable[[IngestJob], scans_pb2.IngestJob]):
        self._store = store
        self._receiving = receiving
        self._to_message = to_message
        self._streams = 0
        self._left: set[int] = set()
        """Bytes of streams that are over, to be removed unless a job owns them."""

    async def submit(self, caller: Caller, request: scans_pb2.SubmitRequest) -> scans_pb2.SubmitResponse:
        """One message. Raises as :meth:`Receiving.accept` does, and SCAN_DATA_MISMATCH."""
        self._limit(caller)
        claim = open_statement(request.envelope)
        self._receiving.check(claim, local=caller.local)
        pieces = await self._receiving.packed(claim, request.data)
        return await self._finish(
            caller.peer_id, request, scans_pb2.SubmitResponse, claim, request.request_id, lambda tx: stored(tx, pieces)
        )

    async def submit_stream(
        self, caller: Caller, requests: AsyncIterator[scans_pb2.SubmitStreamRequest]
    ) -> scans_pb2.SubmitStreamResponse:
        """The envelope first. A scan that is known is answered before its bytes have come."""
        self._limit(caller)
        messages = _timely(requests)
        header = await anext(messages, None)
        if header is None or not header.HasField("envelope") or header.data:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the first message must have the envelope, and no data")
        claim = open_statement(header.envelope)
        self._receiving.check(claim, local=caller.local)
        known = await self._receiving.audited(claim, caller.peer_id, lambda tx: self._receiving.known(tx, claim))
        if known is not None:
            return scans_pb2.SubmitStreamResponse(job=self._to_message(known.job), repeated=True)
        if self._streams >= MAX_STREAMS:
            raise PeerdError(
                Reason.OVERLOADED, f"{MAX_STREAMS} scans are being streamed in already", retry_after_seconds=2.0
            )
        self._streams += 1
        try:
            return await self._stream(caller.peer_id, header, claim, messages)
        finally:
            self._streams -= 1

    async def clear(self) -> None:
        """Remove what streams have left that did not come to their end."""
        for scan_data_id in tuple(self._left):
            await self._store.write(lambda tx, number=scan_data_id: data.remove_unowned(tx, number))  # type: ignore[misc]
            self._left.discard(scan_data_id)

    def _limit(self, caller: Caller) -> None:
        if not caller.local:
            self._receiving.limit_caller(caller.peer_id)

    async def _stream(
        self,
        caller: str,
        header: scans_pb2.SubmitStreamRequest,
        claim: Claim,
        requests: AsyncIterator[scans_pb2.SubmitStreamRequest],
    ) -> scans_pb2.SubmitStreamResponse:
        scan_data_id = await self._store.write(data.begin)
        try:
            await self._take_in(scan_data_id, claim, requests)
            return await self._finish(
                caller, header, scans_pb2.SubmitStreamResponse, claim, header.request_id, lambda _: scan_data_id
            )
        finally:
            self._left.add(scan_data_id)
            await uninterrupted(self._clear_up())

    async def _clear_up(self) -> None:
        try:
            await self.clear()
        except PeerdError as error:  # such as a full disk: it is tried again, and is not what the stream ended with
            _log.warning("scans.bytes_not_removed", reason=error.reason.text, message=error.message)

    async def _take_in(
        self, scan_data_id: int, claim: Claim, requests: AsyncIterator[scans_pb2.SubmitStreamRequest]
    ) -> None:
        """Write the bytes down as they come; nobody owns them yet."""
        hasher, buffer, total, written = hashlib.sha256(), bytearray(), 0, 0
        async for message in requests:
            total += len(message.data)
            if total > claim.data_size:
                raise mismatch(f"more than the {claim.data_size} bytes came that were stated")
            buffer += message.data
            if len(buffer) >= _WRITE_BYTES:
                whole = len(buffer) - len(buffer) % data.PIECE_BYTES
                written += await self._write(scan_data_id, written, bytes(buffer[:whole]), hasher.update)
                del buffer[:whole]
        if total != claim.data_size:
            raise mismatch(f"{total} bytes came, {claim.data_size} were stated")
        await self._write(scan_data_id, written, bytes(buffer), hasher.update)
        if hasher.digest() != claim.data_sha256:
            raise mismatch("the bytes do not have the SHA-256 that was stated")

    async def _write(self, scan_data_id: int, first: int, raw: bytes, hash_it: Callable[[bytes], None]) -> int:
        """Returns how many pieces were written."""

        def pack() -> list[bytes]:
            hash_it(raw)
            return data.compressed(raw)

        pieces = await asyncio.to_thread(pack)

        def write(tx: Tx) -> None:
            data.append(tx, scan_data_id, first, pieces)
            failpoint("scans.piece.before_commit")

        await self._store.write(write)
        failpoint("scans.piece.after_commit")
        return len(pieces)

    async def _finish(
        self,
        caller: str,
        request: scans_pb2.SubmitRequest | scans_pb2.SubmitStreamRequest,
        answer_type: type[A],
        claim: Claim,
        request_id: str,
        store_data: Callable[[Tx], int],
    ) -> A:
        job_uuid = self._receiving.new_uuid()

        def write(tx: Tx) -> A:
            def effect() -> A:
                found = self._receiving.accept(tx, claim, store_data, job_uuid=job_uuid, submitted_by=caller)
                return answer_type(job=self._to_message(found.job), repeated=found.repeated)

            return once(
                tx,
                caller=caller,
                request_id=request_id,
                request=request,
                answer_type=answer_type,
                effect=effect,
                target=target_of(claim),
            )

        answer = await self._receiving.audited(claim, caller, write)
        failpoint("scans.submit.after_commit")
        metrics.scan_submissions.labels("repeated" if answer.repeated else "accepted").inc()
        return answer


async def _timely(
    requests: AsyncIterator[scans_pb2.SubmitStreamRequest],
) -> AsyncIterator[scans_pb2.SubmitStreamRequest]:
    """The same messages. Raises DEADLINE_EXCEEDED where one does not come."""
    messages = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                message = await anext(messages, None)
        except TimeoutError as error:
            raise PeerdError(
                Reason.DEADLINE_EXCEEDED,
                f"the stream was silent for {SILENT_SECONDS:g} s",
                next_action="hand the scan in again, under the same scan id",
            ) from error
        if message is None:
            return
        yield message
