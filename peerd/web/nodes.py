"""Peers in the words of a node registry, as other programs ask for them."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from peerd.clock import to_datetime
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.selection import mismatch, selector
from peerd.v1.profiles_pb2 import Profile
from peerd.web.surroundings import Details, Externals, Peers

_OURS = ("addresses", "via", "latency_ms", "clock_offset_ms")
"""Metadata that no machine says of itself."""


def list_nodes(
    peers: Peers, externals: Externals, *, role: str = "", label: str = "", status: str = ""
) -> dict[str, Any]:
    """``{nodes, total}`` of those that match; an unknown role or status matches none."""
    wanted = selector(role=role, label=label)
    matching = (peer for peer in peers.peers() if not peer.forgotten and mismatch(wanted, peer) is None)
    nodes = [node_of(peer, externals.details(peer.peer_id) if peer.external else None) for peer in matching]
    found = [node for node in nodes if status in ("", node["status"])]
    return {"nodes": found, "total": len(found)}


def find_node(peers: Peers, externals: Externals, node_id: str) -> dict[str, Any] | None:
    """The node with exactly this id."""
    for peer in peers.peers():
        if peer.peer_id == node_id:
            return node_of(peer, externals.details(node_id) if peer.external else None)
    return None


def node_of(peer: PeerView, details: Details | None = None) -> dict[str, Any]:
    """One peer, with the fields that the source document's table has, and all else as metadata.

    A machine without peerd says its status and metadata itself; what it measured last is its load.
    """
    roles = sorted(peer.roles)
    status, metadata = peer.status.name.lower(), _metadata(peer)
    if details is not None:
        metadata |= {name: value for name, value in details.metadata.items() if name not in _OURS}
        metadata["load"] = dict(details.metrics) or metadata["load"]
        status = details.said if details.said == "degraded" and peer.status is PeerStatus.ONLINE else status
    return {
        "node_id": peer.peer_id,
        "name": peer.name,
        "hostname": peer.hostname or peer.name,
        "ip": _host(peer.addresses[0]) if peer.addresses else None,
        "role": roles[0] if roles else None,
        "roles": roles,
        "labels": sorted(peer.labels),
        "groups": sorted(peer.groups),
        "status": status,
        "status_reason": peer.why,
        "last_heartbeat": _moment(peer.last_seen),
        "external": peer.external,
        "created_at": _moment(peer.joined_at),
        "updated_at": _moment(peer.since),
        "metadata": metadata,
    }


def profile_of(profile: Profile) -> dict[str, Any]:
    """A role's profile."""
    return {
        "role": profile.role,
        "version": profile.version,
        "config": MessageToDict(profile.config, preserving_proto_field_name=True),
        "updated_at": _moment(profile.issued_at.ToMilliseconds()),
    }


def _metadata(peer: PeerView) -> dict[str, Any]:
    return {
        "addresses": list(peer.addresses),
        "platform": peer.platform,
        "version": peer.peerd_version,
        "capabilities": MessageToDict(peer.hardware, preserving_proto_field_name=True),
        "load": MessageToDict(peer.sample, preserving_proto_field_name=True),
        "latency_ms": peer.latency_ms,
        "clock_offset_ms": peer.clock_offset_ms,
        "location": MessageToDict(peer.location, preserving_proto_field_name=True),
        "via": peer.via,
    }


def _moment(millis: int | None) -> str | None:
    """RFC 3339, UTC."""
    if millis is None:
        return None
    return to_datetime(millis).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _host(address: str) -> str:
    host, _, port = address.rpartition(":")
    return host.strip("[]") if host and port.isdigit() and (":" not in host or host.startswith("[")) else address
