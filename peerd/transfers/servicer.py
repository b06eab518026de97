"""The wire side of transfers: messages to calls and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from peerd.clock import Clock, to_datetime
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store
from peerd.transfers.manifest import FileEntry
from peerd.transfers.model import TransferKey
from peerd.transfers.receiver import Piece, Receiver
from peerd.transfers.sender import Sender
from peerd.transfers.wire import file_from_proto, key_from_proto, missing_to_proto
from peerd.v1 import transfers_pb2, transfers_pb2_grpc

_MAX_OFFERED_FILES = 1_000_000
_PAGE = 200


class TransferServicer(transfers_pb2_grpc.TransferServiceServicer):
    """peerd.v1.TransferService."""

    def __init__(self, self_id: PeerId, store: Store, receiver: Receiver, sender: Sender, clock: Clock) -> None:
        self._self_id = self_id
        self._store = store
        self._receiver = receiver
        self._sender = sender
        self._clock = clock

    async def Offer(
        self, request_iterator: AsyncIterator[transfers_pb2.OfferRequest], context: Any
    ) -> transfers_pb2.OfferResponse:
        header: transfers_pb2.OfferHeader | None = None
        files: list[FileEntry] = []
        async for request in request_iterator:
            if header is None:
                header = request.header
            files.extend(map(file_from_proto, request.files))
            if len(files) > min(header.file_count, _MAX_OFFERED_FILES):
                raise PeerdError(Reason.INVALID_ARGUMENT, "more files came than the offer announced")
        if header is None or len(files) != header.file_count:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the offer is not complete")
        missing = await self._receiver.offer(self._key(header.key), header.key.manifest_digest, files)
        if missing is None:
            return transfers_pb2.OfferResponse(complete=True)
        runs = await asyncio.to_thread(lambda: list(missing_to_proto(missing, files)))
        return transfers_pb2.OfferResponse(missing=runs)

    async def Push(
        self, request_iterator: AsyncIterator[transfers_pb2.PushRequest], context: Any
    ) -> transfers_pb2.PushResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the stream names no transfer")

        async def pieces() -> AsyncIterator[Piece]:
            async for request in requests:
                yield request.file_index, request.offset, request.data

        await self._receiver.push(self._key(first.key), first.key.manifest_digest, pieces())
        return transfers_pb2.PushResponse(complete=True)

    async def ListTransfers(
        self, request: transfers_pb2.ListTransfersRequest, context: Any
    ) -> transfers_pb2.ListTransfersResponse:
        size = page_size(request.page_size, default=_PAGE)
        after = page_start(request.page_token)
        rows = await self._store.all(
            "SELECT * FROM ("
            " SELECT id * 2 AS position, orchestrator_peer_id, store_id, workflow_execution_id, edge_id,"
            " source_job_execution_id, destination_job_execution_id, destination_peer_id AS peer_id, status,"
            " bytes_total, file_count, reason, message, created_at, ended_at, tries, next_try_at, 1 AS outgoing"
            " FROM outgoing_transfers"
            " UNION ALL"
            " SELECT id * 2 + 1, orchestrator_peer_id, store_id, workflow_execution_id, edge_id,"
            " source_job_execution_id, destination_job_execution_id, source_peer_id, 'received', bytes_total,"
            " file_count, '', '', received_at, received_at, 0, 0, 0 FROM incoming_transfers)"
            " WHERE position > ? AND (? = 0 OR workflow_execution_id = ?) ORDER BY position LIMIT ?",
            (after, request.workflow_execution_id, request.workflow_execution_id, size + 1),
        )
        token = str(rows[size - 1]["position"]) if len(rows) > size else ""
        return transfers_pb2.ListTransfersResponse(
            transfers=[self._transfer(row) for row in rows[:size]], next_page_token=token
        )

    def _key(self, message: transfers_pb2.TransferKey) -> TransferKey:
        return key_from_proto(message, sender=current_caller().peer_id, receiver=self._self_id)

    def _transfer(self, row: Any) -> transfers_pb2.Transfer:
        key = transfers_pb2.TransferKey(
            **{
                name: row[name]
                for name in (
                    "orchestrator_peer_id",
                    "store_id",
                    "workflow_execution_id",
                    "edge_id",
                    "source_job_execution_id",
                    "destination_job_execution_id",
                )
            }
        )
        outgoing = bool(row["outgoing"])
        transfer = transfers_pb2.Transfer(
            key=key,
            direction=(
                transfers_pb2.TRANSFER_DIRECTION_OUTGOING if outgoing else transfers_pb2.TRANSFER_DIRECTION_INCOMING
            ),
            peer_id=row["peer_id"],
            status=row["status"],
            bytes=row["bytes_total"] if row["status"] in ("delivered", "received") else 0,
            bytes_total=row["bytes_total"],
            file_count=row["file_count"],
            reason=row["reason"],
            message=row["message"],
            tries=row["tries"],
        )
        transfer.created_at.FromDatetime(to_datetime(row["created_at"]))
        if row["status"] == "sending":
            ends = {"sender": self._self_id, "receiver": PeerId(row["peer_id"])}
            transfer.bytes = self._sender.progress(key_from_proto(key, **ends))[0]
        if row["ended_at"]:
            transfer.ended_at.FromDatetime(to_datetime(row["ended_at"]))
        elif row["next_try_at"]:
            wait = row["next_try_at"] - self._clock.steady()
            transfer.next_try_at.FromDatetime(to_datetime(self._clock.now() + wait))
        return transfer
