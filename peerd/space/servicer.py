"""The wire side of space."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from peerd.datadir import DataDir
from peerd.disk import Reserve
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.moments import moment
from peerd.retention import Remains, Wanted
from peerd.rpc.caller import current_caller
from peerd.space.collector import Collector, Kind
from peerd.space.usage import LARGEST, measure_usage
from peerd.store import Store
from peerd.store.requests import once_outside
from peerd.v1 import space_pb2, space_pb2_grpc

_LISTED = 1000
_MAX_EXECUTIONS = 1000
_LONGEST_SECONDS = 1e10


class SpaceServicer(space_pb2_grpc.SpaceServiceServicer):
    """peerd.v1.SpaceService."""

    def __init__(
        self,
        store: Store,
        folder: DataDir,
        collector: Collector,
        *,
        self_id: PeerId,
        name_of: Callable[[str], str],
        reserve: Reserve,
        quota_bytes: int,
        scan_bytes: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._folder = folder
        self._collector = collector
        self._self_id = self_id
        self._name_of = name_of
        self._reserve = reserve
        self._quota_bytes = quota_bytes
        self._scan_bytes = scan_bytes

    async def GetUsage(self, request: space_pb2.GetUsageRequest, context: Any) -> space_pb2.GetUsageResponse:
        scans = await self._scan_bytes()
        usage = await asyncio.to_thread(measure_usage, self._folder, self._reserve, scans)
        return space_pb2.GetUsageResponse(
            disk_bytes=usage.disk.total_bytes,
            free_bytes=usage.disk.free_bytes,
            reserve_bytes=usage.disk.reserve_bytes,
            areas=[space_pb2.Area(name=name, bytes=count) for name, count in usage.areas.items()],
            orchestrators=[
                space_pb2.OrchestratorUsage(
                    peer_id=peer_id,
                    name=self._name_of(peer_id),
                    bytes=total,
                    executions=count,
                    quota_bytes=0 if peer_id == self._self_id else self._quota_bytes,
                )
                for peer_id, (total, count) in usage.by_orchestrator.items()
            ],
            executions=[
                space_pb2.ExecutionUsage(
                    orchestrator_peer_id=each.orchestrator,
                    orchestrator_name=self._name_of(each.orchestrator),
                    workflow_execution_id=each.workflow_execution_id,
                    bytes=each.bytes,
                )
                for each in usage.executions[:LARGEST]
            ],
        )

    async def CollectGarbage(
        self, request: space_pb2.CollectGarbageRequest, context: Any
    ) -> space_pb2.CollectGarbageResponse:
        wanted = _wanted(request)
        if request.dry_run:
            return _response(await self._collector.find(wanted))

        async def work() -> space_pb2.CollectGarbageResponse:
            return _response(await self._collector.collect(wanted))

        return await once_outside(
            self._store,
            caller=current_caller().peer_id,
            request_id=request.request_id,
            request=request,
            answer_type=space_pb2.CollectGarbageResponse,
            work=work,
        )


def _wanted(request: space_pb2.CollectGarbageRequest) -> Wanted:
    seconds = request.older_than_seconds if request.HasField("older_than_seconds") else None
    if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= _LONGEST_SECONDS):
        raise PeerdError(Reason.INVALID_ARGUMENT, "older_than_seconds must be a number from 0 on")
    if len(request.workflow_execution_ids) > _MAX_EXECUTIONS:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"at most {_MAX_EXECUTIONS} executions can be named")
    return Wanted(
        older_than_ms=None if seconds is None else round(seconds * 1000),
        executions=frozenset(request.workflow_execution_ids),
    )


def _response(removals: list[tuple[Kind, Remains]]) -> space_pb2.CollectGarbageResponse:
    return space_pb2.CollectGarbageResponse(
        removals=[_message(kind, each) for kind, each in removals[:_LISTED]],
        count=len(removals),
        bytes=sum(each.bytes for _, each in removals),
    )


def _message(kind: Kind, remains: Remains) -> space_pb2.Removal:
    return space_pb2.Removal(
        kind=kind,
        orchestrator_peer_id=remains.orchestrator,
        workflow_execution_id=remains.workflow_execution_id,
        job_execution_id=remains.job_execution_id,
        name=remains.name,
        ended_at=moment(remains.ended_at),
        bytes=remains.bytes,
    )
