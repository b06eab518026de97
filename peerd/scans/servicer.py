"""The wire side of scans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.scans import hand_ins, repository, scanners
from peerd.scans.changes import Changes
from peerd.scans.control import Control
from peerd.scans.signing import Signer
from peerd.scans.submission import Submissions
from peerd.scans.wire import JobMessages, to_hand_in_state, to_key, to_skipped, to_state
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import scans_pb2, scans_pb2_grpc

_PAGE = 100

M = TypeVar("M", bound=Message)


class ScanServicer(scans_pb2_grpc.ScanServiceServicer):
    """peerd.v1.ScanService."""

    def __init__(
        self,
        store: Store,
        submissions: Submissions,
        signer: Signer,
        control: Control,
        changes: Changes,
        to_message: JobMessages,
        *,
        name_of: Callable[[str], str],
        resolve: Callable[[str], PeerId],
    ) -> None:
        self._store = store
        self._submissions = submissions
        self._signer = signer
        self._control = control
        self._changes = changes
        self._to_message = to_message
        self._name_of = name_of
        self._resolve = resolve

    async def Submit(self, request: scans_pb2.SubmitRequest, context: Any) -> scans_pb2.SubmitResponse:
        return await self._submissions.submit(current_caller(), request)

    async def SubmitStream(
        self, request_iterator: AsyncIterator[scans_pb2.SubmitStreamRequest], context: Any
    ) -> scans_pb2.SubmitStreamResponse:
        return await self._submissions.submit_stream(current_caller(), request_iterator)

    async def SignScan(self, request: scans_pb2.SignScanRequest, context: Any) -> scans_pb2.SignScanResponse:
        envelope, statement = self._signer.sign(request.statement)
        return scans_pb2.SignScanResponse(envelope=envelope, statement=statement)

    async def GetIngestJob(
        self, request: scans_pb2.GetIngestJobRequest, context: Any
    ) -> scans_pb2.GetIngestJobResponse:
        job = await repository.read(self._store, request.ingest_job_id)
        return scans_pb2.GetIngestJobResponse(job=self._to_message(job))

    async def ListIngestJobs(
        self, request: scans_pb2.ListIngestJobsRequest, context: Any
    ) -> scans_pb2.ListIngestJobsResponse:
        size = page_size(request.page_size, default=_PAGE)
        found = await repository.page(
            self._store,
            start=page_start(request.page_token),
            limit=size + 1,
            state=to_state(request.state),
            scanner=await self._scanner(request.scanner),
            oldest_first=request.oldest_first,
        )
        return scans_pb2.ListIngestJobsResponse(
            jobs=[self._to_message(job) for job in found[:size]],
            next_page_token=str(found[size - 1].ingest_job_id) if len(found) > size else "",
        )

    async def ListSkippedRecords(
        self, request: scans_pb2.ListSkippedRecordsRequest, context: Any
    ) -> scans_pb2.ListSkippedRecordsResponse:
        job = await repository.read(self._store, request.ingest_job_id)
        size = page_size(request.page_size, default=_PAGE)
        found = await repository.skipped(
            self._store, job.ingest_job_id, after=page_start(request.page_token), limit=size + 1
        )
        return scans_pb2.ListSkippedRecordsResponse(
            records=[to_skipped(line) for line in found[:size]],
            next_page_token=str(found[size - 1].number) if len(found) > size else "",
        )

    async def WatchIngestJob(
        self, request: scans_pb2.WatchIngestJobRequest, context: Any
    ) -> AsyncIterator[scans_pb2.WatchIngestJobResponse]:
        with self._changes.watching(request.ingest_job_id) as changed:
            while True:
                changed.clear()
                job = await repository.read(self._store, request.ingest_job_id)
                yield scans_pb2.WatchIngestJobResponse(job=self._to_message(job))
                if job.state.final:
                    return
                await changed.wait()

    async def CancelIngestJob(
        self, request: scans_pb2.CancelIngestJobRequest, context: Any
    ) -> scans_pb2.CancelIngestJobResponse:
        who = self._name_of(current_caller().peer_id)

        def effect(tx: Tx) -> scans_pb2.CancelIngestJobResponse:
            job = self._control.cancel(tx, request.ingest_job_id, request.reason, who=who)
            return scans_pb2.CancelIngestJobResponse(job=self._to_message(job))

        answer = await self._once(request, scans_pb2.CancelIngestJobResponse, effect)
        failpoint("scans.cancel.after_commit")
        return answer

    async def RetryIngestJob(
        self, request: scans_pb2.RetryIngestJobRequest, context: Any
    ) -> scans_pb2.RetryIngestJobResponse:
        def effect(tx: Tx) -> scans_pb2.RetryIngestJobResponse:
            job = self._control.retry(tx, request.ingest_job_id)
            return scans_pb2.RetryIngestJobResponse(job=self._to_message(job))

        return await self._once(request, scans_pb2.RetryIngestJobResponse, effect)

    async def ListHandIns(self, request: scans_pb2.ListHandInsRequest, context: Any) -> scans_pb2.ListHandInsResponse:
        size = page_size(request.page_size, default=_PAGE)
        found = await hand_ins.page(
            self._store,
            before=page_start(request.page_token),
            limit=size + 1,
            state=to_hand_in_state(request.state),
        )
        return scans_pb2.ListHandInsResponse(
            hand_ins=[self._to_message.hand_in(one) for one in found[:size]],
            next_page_token=str(found[size - 1].hand_in_id) if len(found) > size else "",
        )

    async def AddScannerKey(
        self, request: scans_pb2.AddScannerKeyRequest, context: Any
    ) -> scans_pb2.AddScannerKeyResponse:
        caller = current_caller().peer_id

        def effect(tx: Tx) -> scans_pb2.AddScannerKeyResponse:
            scanner = scanners.parse_key(request.public_key)
            key = scanners.add(tx, name=request.name, scanner=scanner, created_by=caller)
            return scans_pb2.AddScannerKeyResponse(key=to_key(key))

        return await self._once(request, scans_pb2.AddScannerKeyResponse, effect)

    async def ListScannerKeys(
        self, request: scans_pb2.ListScannerKeysRequest, context: Any
    ) -> scans_pb2.ListScannerKeysResponse:
        size = page_size(request.page_size, default=_PAGE)
        found = await scanners.page(self._store, after=page_start(request.page_token), limit=size + 1)
        return scans_pb2.ListScannerKeysResponse(
            keys=[to_key(key) for key in found[:size]],
            next_page_token=str(found[size - 1].number) if len(found) > size else "",
        )

    async def RevokeScannerKey(
        self, request: scans_pb2.RevokeScannerKeyRequest, context: Any
    ) -> scans_pb2.RevokeScannerKeyResponse:
        def effect(tx: Tx) -> scans_pb2.RevokeScannerKeyResponse:
            key = scanners.revoke(tx, request.scanner, reason=request.reason)
            return scans_pb2.RevokeScannerKeyResponse(key=to_key(key))

        return await self._once(request, scans_pb2.RevokeScannerKeyResponse, effect)

    async def RotateScannerKey(
        self, request: scans_pb2.RotateScannerKeyRequest, context: Any
    ) -> scans_pb2.RotateScannerKeyResponse:
        caller = current_caller().peer_id

        def effect(tx: Tx) -> scans_pb2.RotateScannerKeyResponse:
            scanner = scanners.parse_key(request.public_key)
            key = scanners.rotate(tx, request.scanner, scanner=scanner, created_by=caller)
            return scans_pb2.RotateScannerKeyResponse(key=to_key(key))

        return await self._once(request, scans_pb2.RotateScannerKeyResponse, effect)

    async def _scanner(self, name: str) -> str:
        """The key of a scanner by its name, of a peer by name or prefix, or as it stands. Raises NOT_FOUND."""
        if not name:
            return ""
        key = await scanners.find_named(self._store, name)
        return key if key is not None else self._resolve(name)

    async def _once(self, request: Any, answer_type: type[M], effect: Callable[[Tx], M]) -> M:
        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=answer_type,
                effect=lambda: effect(tx),
            )
        )
