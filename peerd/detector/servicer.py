"""The wire side of the failure detector."""

from __future__ import annotations

from typing import Any

from peerd.detector.prober import Prober
from peerd.rpc.caller import current_caller
from peerd.v1 import detector_pb2, detector_pb2_grpc

_LONGEST_SECONDS = 5.0


class DetectorServicer(detector_pb2_grpc.DetectorServiceServicer):
    """peerd.v1.DetectorService."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober

    async def Ping(self, request: detector_pb2.PingRequest, context: Any) -> detector_pb2.PingResponse:
        return self._prober.pinged(current_caller().peer_id, request)

    async def PingFor(self, request: detector_pb2.PingForRequest, context: Any) -> detector_pb2.PingForResponse:
        seconds = min(context.time_remaining() or _LONGEST_SECONDS, _LONGEST_SECONDS)
        return await self._prober.ping_for(current_caller().peer_id, request, seconds)

    async def CompareViews(
        self, request: detector_pb2.CompareViewsRequest, context: Any
    ) -> detector_pb2.CompareViewsResponse:
        return self._prober.entries(request.groups)

    async def ExchangeUpdates(
        self, request: detector_pb2.ExchangeUpdatesRequest, context: Any
    ) -> detector_pb2.ExchangeUpdatesResponse:
        return self._prober.exchanged(current_caller().peer_id, request)
