"""Peers and heartbeats as messages."""

from __future__ import annotations

from peerd.mesh.model import to_timestamp
from peerd.registry.heartbeats import Heartbeat
from peerd.registry.model import PeerView
from peerd.v1 import access_pb2, registry_pb2


def peer_message(view: PeerView) -> registry_pb2.Peer:
    """All that is known of a peer."""
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
        addresses=view.addresses,
        platform=view.platform,
        peerd_version=view.peerd_version,
        isolation=registry_pb2.IsolationLevel.ValueType(view.isolation),
        limits=registry_pb2.LimitsLevel.ValueType(view.limits),
        running_jobs=view.running_jobs,
        self=view.is_self,
        founder=view.is_founder,
        location=view.location,
        hardware=view.hardware,
        hostname=view.hostname,
        sample=view.sample,
        latency_ms=view.latency_ms,
        clock_offset_ms=view.clock_offset_ms,
        warnings=[
            registry_pb2.PeerWarning(reason=entry.reason, message=entry.message, next_action=entry.next_action)
            for entry in view.warnings
        ],
        external=view.external,
        via_peer_id=view.via or "",
        forgotten=view.forgotten,
        profile_version=view.profile_version,
    )
    if view.last_seen is not None:
        peer.last_seen_at.CopyFrom(to_timestamp(view.last_seen))
    if view.sample_at is not None:
        peer.sample_at.CopyFrom(to_timestamp(view.sample_at))
    if view.joined_at is not None:
        peer.joined_at.CopyFrom(to_timestamp(view.joined_at))
    if view.maintenance is not None:
        peer.maintenance.reason = view.maintenance.reason
        peer.maintenance.by = view.maintenance.by
        peer.maintenance.since.CopyFrom(to_timestamp(view.maintenance.since))
    return peer


def heartbeat_message(entry: Heartbeat) -> registry_pb2.Heartbeat:
    """One kept probe."""
    return registry_pb2.Heartbeat(
        at=to_timestamp(entry.at),
        status=entry.status.value,
        latency_ms=entry.latency_ms,
        clock_offset_ms=entry.clock_offset_ms,
        running_jobs=entry.running_jobs,
        cpu_percent=entry.cpu_percent,
        memory_percent=entry.memory_percent,
        disk_percent=entry.disk_percent,
    )
