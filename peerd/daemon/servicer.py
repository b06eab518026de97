"""The daemon's own service: how it is, and certificates for other gRPC clients."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peerd import __version__
from peerd.clock import Clock, Millis, to_datetime
from peerd.config import Config
from peerd.errors import PeerdError, Reason
from peerd.identity.certificates import MAX_LIFETIME, anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.registry.model import PeerStatus
from peerd.registry.registry import Registry
from peerd.v1 import daemon_pb2, daemon_pb2_grpc
from peerd.v1.registry_pb2 import IsolationLevel

_DEFAULT_LIFETIME = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What does not change while the daemon runs."""

    mesh_id: PeerId
    store_id: str
    started_at: Millis
    listen_address: str
    isolation: IsolationLevel.ValueType


class DaemonServicer(daemon_pb2_grpc.DaemonServiceServicer):
    """peerd.v1.DaemonService."""

    def __init__(
        self,
        identity: Identity,
        config: Config,
        registry: Registry,
        clock: Clock,
        *,
        facts: Callable[[], Facts],
        load: Callable[[], tuple[int, int]],
    ) -> None:
        """``load`` tells (running jobs, executions that are not final)."""
        self._identity = identity
        self._config = config
        self._registry = registry
        self._clock = clock
        self._facts = facts
        self._load = load

    async def GetStatus(self, request: daemon_pb2.GetStatusRequest, context: Any) -> daemon_pb2.GetStatusResponse:
        facts = self._facts()
        members = [peer for peer in self._registry.peers() if peer.status is not PeerStatus.REVOKED]
        running, active = self._load()
        response = daemon_pb2.GetStatusResponse(
            peer_id=self._identity.peer_id,
            mesh_id=facts.mesh_id,
            name=self._config.peer_name,
            peerd_version=__version__,
            listen_address=facts.listen_address,
            socket_path=str(self._config.socket),
            data_dir=str(self._config.data_dir),
            store_id=facts.store_id,
            isolation=facts.isolation,
            peers_online=sum(peer.status is PeerStatus.ONLINE for peer in members),
            peers_total=len(members),
            running_jobs=running,
            active_executions=active,
        )
        response.started_at.FromDatetime(to_datetime(facts.started_at))
        return response

    async def ExportTls(self, request: daemon_pb2.ExportTlsRequest, context: Any) -> daemon_pb2.ExportTlsResponse:
        seconds = request.ttl_seconds or _DEFAULT_LIFETIME.total_seconds()
        if not 0 < seconds <= MAX_LIFETIME.total_seconds():
            raise PeerdError(Reason.INVALID_ARGUMENT, "a certificate lives from 1 second to 30 days")
        lifetime = datetime.timedelta(seconds=seconds)
        leaf = issue_leaf(self._identity, self._clock, lifetime)
        return daemon_pb2.ExportTlsResponse(
            certificate_pem=leaf.certificate_pem,
            private_key_pem=leaf.private_key_pem,
            anchor_pem=anchor_pem(self._identity.peer_id),
        )
