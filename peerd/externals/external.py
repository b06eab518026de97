"""What is known of an external machine, and when two registrations are of one. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason, Violation
from peerd.identity.peer_id import PeerId
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import check_name, from_timestamp, to_timestamp
from peerd.registry.model import PeerStatus, PeerView
from peerd.v1.registry_pb2 import ExternalPeer

EXTERNAL_TYPE = "application/vnd.peerd.external.v1+protobuf"
_NODE_ID = re.compile(r"ext-[0-9a-f]{16}")
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_-]{1,63})*")
"""RFC 1123, and the underscores that machines have all the same."""
_MAX_LABELS = 64
_MAX_METADATA = 4096
_MAX_DEPTH = 16
DEGRADED, MAINTENANCE, OFFLINE = "degraded", "maintenance", "offline"


class ExternalKind:
    """External machines as documents, keyed by node id. Implements :class:`peerd.mesh.documents.Kind`."""

    name = "external"
    payload_type = EXTERNAL_TYPE
    history = 1
    dated = True

    def parse(self, payload: bytes) -> tuple[str, int, ExternalPeer]:
        try:
            external = ExternalPeer.FromString(payload)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_RECORD, "the signed bytes are no external machine") from error
        if not is_node_id(external.node_id):
            raise PeerdError(Reason.INVALID_RECORD, f"{external.node_id[:80]!r} is no id of an external machine")
        check_external(external)
        return external.node_id, external.version, external

    def serialise(self, value: ExternalPeer, *, version: int, now: int) -> bytes:
        external = ExternalPeer()
        external.CopyFrom(value)
        external.version = version
        external.issued_at.CopyFrom(to_timestamp(now))
        return external.SerializeToString(deterministic=True)

    def may_sign(self, mesh: Mesh, signer: PeerId, value: ExternalPeer) -> bool:
        return mesh.grants(signer) is not None


@dataclass(frozen=True, kw_only=True)
class Known:
    """An external machine with what its gateway, if that is us, knows beyond its document."""

    external: ExternalPeer
    gateway: PeerId
    version: int
    last_heartbeat: Millis
    """By the wall clock as it is now; that of its gateway, if that is another peer."""
    metrics: str = "{}"

    def stale(self, now: Millis, offline_ms: int) -> bool:
        """Whether it has been silent for too long."""
        return now - self.last_heartbeat > offline_ms


def is_node_id(text: str) -> bool:
    """Whether this may be the id of an external machine; a peer id never is."""
    return _NODE_ID.fullmatch(text) is not None


def check_external(external: ExternalPeer) -> None:
    """Refuse what could not be shown. Raises INVALID_ARGUMENT with every field that is wrong."""
    wrong: list[Violation] = []
    if _HOSTNAME.fullmatch(external.hostname) is None:
        wrong.append(Violation(field="hostname", message=f"{external.hostname[:80]!r} is no host name"))
    try:
        ipaddress.ip_address(external.ip)
    except ValueError:
        wrong.append(Violation(field="ip", message=f"{external.ip[:80]!r} is no IP address"))
    wrong.extend(_name_faults(external.role, "role"))
    if len(external.labels) > _MAX_LABELS:
        wrong.append(Violation(field="labels", message=f"{len(external.labels)}; at most {_MAX_LABELS} are allowed"))
    for index, label in enumerate(external.labels[:_MAX_LABELS]):
        for part in label.split("=", 1):
            wrong.extend(_name_faults(part, f"labels[{index}]"))
    if external.said not in ("", DEGRADED, MAINTENANCE, OFFLINE):
        wrong.append(Violation(field="status", message=f"there is no status {external.said[:80]!r}"))
    fault = _metadata_fault(external.metadata)
    if fault:
        wrong.append(Violation(field="metadata", message=fault))
    if wrong:
        said = "; ".join(f"{entry.field}: {entry.message}" for entry in wrong[:5])
        raise PeerdError(Reason.INVALID_ARGUMENT, said, violations=wrong)


def match(
    known: Iterable[Known], *, node_id: str, hostname: str, ip: str, now: Millis, offline_ms: int
) -> Known | None:
    """The machine that registers again, if it is known.

    By its id; or the same host name and address; or the same host name at another address, if the known one has been
    silent: then it has moved. One that still beats there is another machine of the same name.
    """
    listed = [entry for entry in known if not entry.external.removed]
    if node_id:
        return next((entry for entry in listed if entry.external.node_id == node_id), None)
    namesakes = [entry for entry in listed if entry.external.hostname == hostname]
    same = [entry for entry in namesakes if entry.external.ip == ip]
    moved = [entry for entry in namesakes if entry.stale(now, offline_ms)]
    return next(iter(same or moved), None)


def view_of(
    known: Known, *, self_id: PeerId, gateway_present: bool, gateway_name: str, now: Millis, offline_ms: int
) -> PeerView:
    """As one of the peers."""
    external = known.external
    if known.gateway == self_id:
        silent = known.stale(now, offline_ms)
        why = f"no heartbeat for {offline_ms // 1000} s" if silent else "sends heartbeats"
    else:
        silent = not external.online or not gateway_present
        why = f"sends heartbeats to {gateway_name}" if external.online else f"was silent, says {gateway_name}"
        if external.online and not gateway_present:
            why = f"{gateway_name}, to which it sent heartbeats, is away"
    since = Millis(known.last_heartbeat + offline_ms) if silent else from_timestamp(external.registered_at)
    status = PeerStatus.OFFLINE if silent else PeerStatus.ONLINE
    if external.said and not silent:
        status, why = _SAID[external.said]
        since = from_timestamp(external.issued_at)
    return PeerView(
        peer_id=PeerId(external.node_id),
        name=external.hostname,
        status=status,
        since=min(since, now),
        why=why,
        roles=frozenset({external.role}),
        grants=frozenset(),
        labels=frozenset(external.labels),
        addresses=(external.ip,),
        hostname=external.hostname,
        last_seen=known.last_heartbeat,
        external=True,
        via=known.gateway,
        joined_at=from_timestamp(external.registered_at),
    )


_SAID = {
    DEGRADED: (PeerStatus.ONLINE, "says that it is degraded"),
    MAINTENANCE: (PeerStatus.MAINTENANCE, "says that it is in maintenance"),
    OFFLINE: (PeerStatus.OFFLINE, "says that it is offline"),
}


def _metadata_fault(text: str) -> str:
    """Why this cannot be shown as a JSON object; empty when it can."""
    if not text:
        return ""
    if len(text) > _MAX_METADATA:
        return f"has {len(text)} characters as JSON; at most {_MAX_METADATA} are allowed"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(content, dict):
        return "must be an object"
    level: list[object] = [content]
    for _ in range(_MAX_DEPTH):
        inner = (
            entry.values() if isinstance(entry, dict) else entry for entry in level if isinstance(entry, dict | list)
        )
        level = [value for values in inner for value in values]
    return f"is nested deeper than {_MAX_DEPTH} levels" if level else ""


def _name_faults(text: str, field: str) -> Sequence[Violation]:
    try:
        check_name(text, field)
    except PeerdError as error:
        return error.violations
    return ()
