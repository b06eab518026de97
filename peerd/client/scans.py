"""Scans: handing them in, their ingest jobs, and the keys of scanners."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import Any, BinaryIO

from grpc import aio

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import daemon_pb2, daemon_pb2_grpc, scans_pb2, scans_pb2_grpc, signed_pb2

UNARY_BYTES = 2 * 1024 * 1024
"""Larger scans are streamed: a message has at most 4 MiB."""
PIECE_BYTES = 1024 * 1024
STREAM_SECONDS = 3600.0

FINAL = frozenset({scans_pb2.INGEST_STATE_COMPLETED, scans_pb2.INGEST_STATE_FAILED, scans_pb2.INGEST_STATE_CANCELLED})


class ScanCalls(Calls):
    """The calls about scans."""

    @cached_property
    def _scans(self) -> scans_pb2_grpc.ScanServiceAsyncStub:
        return scans_pb2_grpc.ScanServiceStub(self._channel)

    @cached_property
    def _who(self) -> daemon_pb2_grpc.DaemonServiceAsyncStub:
        return daemon_pb2_grpc.DaemonServiceStub(self._channel)

    async def submit_scan(self, content: BinaryIO, statement: scans_pb2.ScanStatement) -> scans_pb2.SubmitResponse:
        """Sign the scan as this machine's peer and hand it in, here or to the peer of this client.

        ``content`` is read twice from where it stands, so it must be seekable. What the statement leaves empty is
        filled in.
        """
        begin = content.tell()
        hasher = hashlib.sha256()
        while piece := content.read(PIECE_BYTES):
            hasher.update(piece)
        draft = scans_pb2.ScanStatement()
        draft.CopyFrom(statement)
        draft.data_sha256 = hasher.digest()
        draft.data_size = content.tell() - begin
        if not draft.audience:
            draft.audience = (await self._call(self._who.GetStatus, daemon_pb2.GetStatusRequest())).peer_id
        content.seek(begin, os.SEEK_SET)
        return await self.submit_envelope((await self.sign_scan(draft)).envelope, content, draft.data_size)

    async def sign_scan(self, statement: scans_pb2.ScanStatement) -> scans_pb2.SignScanResponse:
        """The statement signed as the peer of this machine, whichever peer this client speaks to."""
        try:
            request = scans_pb2.SignScanRequest(statement=statement)
            return await self._scans.SignScan(request, timeout=self._timeout)
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc

    async def submit_envelope(
        self, envelope: signed_pb2.Envelope, content: BinaryIO, size: int
    ) -> scans_pb2.SubmitResponse:
        """Hand in a scan that somebody has signed. The same scan again answers with its first job."""
        request_id = new_request_id()
        if size <= UNARY_BYTES:
            request = scans_pb2.SubmitRequest(request_id=request_id, envelope=envelope, data=content.read())
            return await self._call(self._scans.Submit, request)

        async def messages() -> AsyncIterator[scans_pb2.SubmitStreamRequest]:
            yield scans_pb2.SubmitStreamRequest(request_id=request_id, envelope=envelope)
            while piece := await asyncio.to_thread(content.read, PIECE_BYTES):
                yield scans_pb2.SubmitStreamRequest(data=piece)

        try:
            answer = await self._scans.SubmitStream(messages(), timeout=STREAM_SECONDS, metadata=self._metadata)
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        return scans_pb2.SubmitResponse(job=answer.job, repeated=answer.repeated)

    async def ingest_job(self, ingest_job_id: int) -> scans_pb2.IngestJob:
        """One of them."""
        request = scans_pb2.GetIngestJobRequest(ingest_job_id=ingest_job_id)
        return (await self._call(self._scans.GetIngestJob, request)).job

    async def ingest_jobs(
        self,
        *,
        state: scans_pb2.IngestState.ValueType = scans_pb2.INGEST_STATE_UNSPECIFIED,
        scanner: str = "",
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> list[scans_pb2.IngestJob]:
        """Ingest jobs, newest first."""
        request = scans_pb2.ListIngestJobsRequest(
            page_size=min(limit or PAGE_SIZE, PAGE_SIZE), state=state, scanner=scanner, oldest_first=oldest_first
        )
        return await self._all(self._scans.ListIngestJobs, request, lambda page: page.jobs, limit)

    async def skipped_records(self, ingest_job_id: int, *, limit: int | None = None) -> list[scans_pb2.SkippedRecord]:
        """What was skipped of a scan, and why; of more than a thousand the first."""
        request = scans_pb2.ListSkippedRecordsRequest(
            ingest_job_id=ingest_job_id, page_size=min(limit or PAGE_SIZE, PAGE_SIZE)
        )
        return await self._all(self._scans.ListSkippedRecords, request, lambda page: page.records, limit)

    async def scan_hand_ins(
        self,
        *,
        state: scans_pb2.HandInState.ValueType = scans_pb2.HAND_IN_STATE_UNSPECIFIED,
        limit: int | None = None,
    ) -> list[scans_pb2.ScanHandIn]:
        """Scans that jobs there left, and that the peer hands in; newest first."""
        request = scans_pb2.ListHandInsRequest(page_size=min(limit or PAGE_SIZE, PAGE_SIZE), state=state)
        return await self._all(self._scans.ListHandIns, request, lambda page: page.hand_ins, limit)

    async def watch_ingest_job(
        self, ingest_job_id: int, *, timeout: float | None = None
    ) -> AsyncIterator[scans_pb2.IngestJob]:
        """The job after each change until it is final; a daemon that restarts meanwhile is waited for."""
        request = scans_pb2.WatchIngestJobRequest(ingest_job_id=ingest_job_id)

        def updates_now(seconds: float) -> aio.UnaryStreamCall[Any, scans_pb2.WatchIngestJobResponse]:
            return self._scans.WatchIngestJob(request, timeout=seconds, metadata=self._metadata)

        async with aclosing(self._lasting(updates_now, timeout=timeout)) as updates:
            async for update in updates:
                yield update.job
                if update.job.state in FINAL:
                    return

    async def wait_for_ingest(self, ingest_job_id: int, *, timeout: float | None = None) -> scans_pb2.IngestJob:
        """The job once it is final."""
        last = scans_pb2.IngestJob()
        async for job in self.watch_ingest_job(ingest_job_id, timeout=timeout):
            last = job
        return last

    async def cancel_ingest_job(self, ingest_job_id: int, *, reason: str = "") -> scans_pb2.IngestJob:
        """Process no more of it."""
        request = scans_pb2.CancelIngestJobRequest(
            request_id=new_request_id(), ingest_job_id=ingest_job_id, reason=reason
        )
        return (await self._call(self._scans.CancelIngestJob, request)).job

    async def retry_ingest_job(self, ingest_job_id: int) -> scans_pb2.IngestJob:
        """Process one that has failed or was cancelled once more."""
        request = scans_pb2.RetryIngestJobRequest(request_id=new_request_id(), ingest_job_id=ingest_job_id)
        return (await self._call(self._scans.RetryIngestJob, request)).job

    async def add_scanner(self, name: str, public_key: str) -> scans_pb2.ScannerKey:
        """Accept scans that this key has signed."""
        request = scans_pb2.AddScannerKeyRequest(request_id=new_request_id(), name=name, public_key=public_key)
        return (await self._call(self._scans.AddScannerKey, request)).key

    async def scanners(self) -> list[scans_pb2.ScannerKey]:
        """All keys there ever were."""
        request = scans_pb2.ListScannerKeysRequest(page_size=PAGE_SIZE)
        return await self._all(self._scans.ListScannerKeys, request, lambda page: page.keys)

    async def revoke_scanner(self, scanner: str, *, reason: str = "") -> scans_pb2.ScannerKey:
        """Never accept that key again."""
        request = scans_pb2.RevokeScannerKeyRequest(request_id=new_request_id(), scanner=scanner, reason=reason)
        return (await self._call(self._scans.RevokeScannerKey, request)).key

    async def rotate_scanner(self, scanner: str, public_key: str) -> scans_pb2.ScannerKey:
        """Revoke a scanner's key and give its name to another one."""
        request = scans_pb2.RotateScannerKeyRequest(request_id=new_request_id(), scanner=scanner, public_key=public_key)
        return (await self._call(self._scans.RotateScannerKey, request)).key
