"""A peer as this one sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.v1 import registry_pb2


class PeerStatus(Enum):
    """Computed when read: revoked wins over offline, offline over online."""

    ONLINE = registry_pb2.PEER_STATUS_ONLINE  # answered lately
    OFFLINE = registry_pb2.PEER_STATUS_OFFLINE  # did not
    REVOKED = registry_pb2.PEER_STATUS_REVOKED  # is out for good


@dataclass(frozen=True, kw_only=True)
class PeerView:
    """All that is known of one peer: signed record, own advert, and contact."""

    peer_id: PeerId
    name: str
    status: PeerStatus
    since: Millis
    why: str
    roles: frozenset[str]
    grants: frozenset[int]
    labels: frozenset[str]
    group: str
    addresses: tuple[str, ...]
    isolation: int
    """registry_pb2.IsolationLevel."""
    running_jobs: int
    catalog_digest: bytes
    is_self: bool
    is_founder: bool
    platform: str
    peerd_version: str
    cpu_cores: int
    memory_bytes: int
    last_seen: Millis | None
