"""Peers in the words of a node registry, as other programs ask for them."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from peerd.clock import to_datetime
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.selection import mismatch, selector
from peerd.v1.profiles_pb2 import Profile
from peerd.web.surroundings import Peers


def list_nodes(peers: Peers, *, role: str = "", label: str = "", status: str = "") -> dict[str, Any]:
    """``{nodes, total}`` of those that match; an unknown role or status matches none."""
    wanted = selector(role=role, label=label)
    found = [
        node_of(peer)
        for peer in peers.peers()
        if not peer.forgotten and mismatch(wanted, peer) is None and status in ("", peer.status.name.lower())
    ]
    return {"nodes": found, "total": len(found)}


def find_node(peers: Peers, node_id: str) -> dict[str, Any] | None:
    """The node with exactly this id."""
    return next((node_of(peer) for peer in peers.peers() if peer.peer_id == node_id), None)


def node_of(peer: PeerView) -> dict[str, Any]:
    """One peer, with the fields that the source document's table has, and all else as metadata."""
    roles = sorted(peer.roles)
    return {
        "node_id": peer.peer_id,
        "name": peer.name,
        "hostname": peer.hostname or peer.name,
        "ip": _host(peer.addresses[0]) if peer.addresses else None,
        "role": roles[0] if roles else None,
        "roles": roles,
        "labels": sorted(peer.labels),
        "groups": sorted(peer.groups),
        "status": peer.status.name.lower(),
        "status_reason": peer.why,
        "last_heartbeat": _moment(peer.last_seen),
        "external": peer.external,
        "created_at": _moment(peer.joined_at),
        "updated_at": _moment(peer.since),
        "metadata": _metadata(peer),
    }


def profile_of(profile: Profile) -> dict[str, Any]:
    """A role's profile."""
    return {
        "role": profile.role,
        "version": profile.version,
        "config": MessageToDict(profile.config, preserving_proto_field_name=True),
        "updated_at": _moment(profile.issued_at.ToMilliseconds()),
    }


def is_active(peer: PeerView) -> bool:
    """Whether it is there now."""
    return peer.status.present and peer.status is not PeerStatus.SUSPECT


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
