"""The wire side of the registry: messages to calls and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.model import to_timestamp
from peerd.registry.model import PeerView
from peerd.registry.registry import Registry
from peerd.rpc.caller import current_caller
from peerd.v1 import access_pb2, registry_pb2, registry_pb2_grpc

_PAGE = 200


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """peerd.v1.RegistryService."""

    def __init__(self, self_id: PeerId, registry: Registry, clock: Clock, *, running_jobs: Callable[[], int]) -> None:
        self._self_id = self_id
        self._registry = registry
        self._clock = clock
        self._running_jobs = running_jobs

    async def ListPeers(self, request: registry_pb2.ListPeersRequest, context: Any) -> registry_pb2.ListPeersResponse:
        size = min(max(request.page_size, 0) or _PAGE, 1000)
        start = _parse_token(request.page_token)
        found = [view for view in self._registry.peers() if _matches(view, request)]
        token = str(start + size) if len(found) > start + size else ""
        return registry_pb2.ListPeersResponse(
            peers=[self._peer(view) for view in found[start : start + size]], next_page_token=token
        )

    async def GetPeer(self, request: registry_pb2.GetPeerRequest, context: Any) -> registry_pb2.GetPeerResponse:
        return registry_pb2.GetPeerResponse(peer=self._peer(self._registry.get(request.peer)))

    async def Probe(self, request: registry_pb2.ProbeRequest, context: Any) -> registry_pb2.ProbeResponse:
        caller = current_caller().peer_id
        if caller != self._self_id:
            self._registry.greeted(caller)
        return registry_pb2.ProbeResponse(
            peer_id=self._self_id, running_jobs=self._running_jobs(), now=to_timestamp(self._clock.now())
        )

    def _peer(self, view: PeerView) -> registry_pb2.Peer:
        peer = registry_pb2.Peer(
            peer_id=view.peer_id,
            name=view.name,
            status=view.status.value,
            status_since=to_timestamp(view.since),
            status_reason=view.why,
            roles=sorted(view.roles),
            grants=[access_pb2.Grant.ValueType(grant) for grant in sorted(view.grants)],
            labels=sorted(view.labels),
            groups=sorted(view.groups),
            location=view.location,
            hardware=view.hardware,
            hostname=view.hostname,
            addresses=view.addresses,
            platform=view.platform,
            peerd_version=view.peerd_version,
            isolation=registry_pb2.IsolationLevel.ValueType(view.isolation),
            running_jobs=self._running_jobs() if view.is_self else view.running_jobs,
            self=view.is_self,
            founder=view.is_founder,
        )
        if view.last_seen is not None:
            peer.last_seen_at.CopyFrom(to_timestamp(view.last_seen))
        return peer


def _matches(view: PeerView, request: registry_pb2.ListPeersRequest) -> bool:
    return (
        (not request.role or request.role in view.roles)
        and (not request.label or request.label in view.labels)
        and (not request.status or request.status == view.status.value)
    )


def _parse_token(token: str) -> int:
    if token and not token.isdigit():
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not one of ours")
    return int(token or 0)
