"""A peer as this one sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.v1 import registry_pb2


class PeerStatus(Enum):
    """Computed when read, from three axes: membership, liveness, maintenance. The first that applies is shown."""

    REVOKED = registry_pb2.PEER_STATUS_REVOKED  # is out for good
    LEFT = registry_pb2.PEER_STATUS_LEFT  # said that it goes, and went
    OFFLINE = registry_pb2.PEER_STATUS_OFFLINE  # does not answer
    SUSPECT = registry_pb2.PEER_STATUS_SUSPECT  # did not answer lately, and may still be there
    MAINTENANCE = registry_pb2.PEER_STATUS_MAINTENANCE  # is there and takes nothing new
    ONLINE = registry_pb2.PEER_STATUS_ONLINE  # answers

    @property
    def present(self) -> bool:
        """Whether it is taken to be there: it can be called, whether or not it takes new work."""
        return self in (PeerStatus.ONLINE, PeerStatus.SUSPECT, PeerStatus.MAINTENANCE)


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """An operator's word that a peer takes nothing new."""

    reason: str
    by: PeerId
    """The peer on which it was said."""
    since: Millis


@dataclass(frozen=True, kw_only=True)
class PeerWarning:
    """Something that an operator should look at."""

    reason: str
    """Stable: clock_offset, duplicate_identity, same_name, slow."""
    message: str
    next_action: str


@dataclass(frozen=True, kw_only=True)
class PeerView:
    """All that is known of one peer: signed record, own advert, operators' notes, and contact."""

    peer_id: PeerId
    name: str
    status: PeerStatus
    since: Millis
    why: str
    roles: frozenset[str]
    grants: frozenset[int]
    labels: frozenset[str]
    groups: frozenset[str] = frozenset()
    location: registry_pb2.Location = field(default_factory=registry_pb2.Location)
    addresses: tuple[str, ...] = ()
    hostname: str = ""
    isolation: int = registry_pb2.ISOLATION_LEVEL_UNSPECIFIED
    """registry_pb2.IsolationLevel."""
    limits: int = registry_pb2.LIMITS_LEVEL_UNSPECIFIED
    """registry_pb2.LimitsLevel: how strictly jobs are kept to theirs."""
    catalog_digest: bytes = b""
    is_self: bool = False
    is_founder: bool = False
    platform: str = ""
    """Such as ``linux-x86_64``."""
    peerd_version: str = ""
    hardware: registry_pb2.Hardware = field(default_factory=registry_pb2.Hardware)
    """What it says that it has; empty when it has not said."""
    sample: registry_pb2.Sample = field(default_factory=registry_pb2.Sample)
    """How it was when it last answered."""
    sample_at: Millis | None = None
    last_seen: Millis | None = None
    latency_ms: float | None = None
    clock_offset_ms: float | None = None
    """Its clock minus ours."""
    maintenance: Maintenance | None = None
    warnings: tuple[PeerWarning, ...] = ()
    external: bool = False
    """A machine without peerd: listed, never trusted, never given jobs."""
    via: PeerId | None = None
    """For an external peer: the peer that it beats to."""
    forgotten: bool = False
    joined_at: Millis | None = None
    profile_version: int = 0

    @property
    def running_jobs(self) -> int:
        """As of its last sample."""
        return self.sample.running_jobs

    @property
    def region(self) -> str:
        """Where its operator says that it stands."""
        return self.location.region
