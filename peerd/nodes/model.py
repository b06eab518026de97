"""Organizations and their nodes: what they are, and how a node's status may change. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason


class NodeStatus(StrEnum):
    """How far we are with a node."""

    NEW = "new"
    DISCOVERED = "discovered"
    SCANNED = "scanned"
    ERROR = "error"


class NodeEvent(StrEnum):
    """What changes a status. Stable."""

    CREATED = "created"
    PROTOCOL_GIVEN = "protocol_given"
    DISCOVERED = "discovered"
    SCANNED = "scanned"
    DISCOVERY_FAILED = "discovery_failed"
    SCAN_FAILED = "scan_failed"


_S, _E = NodeStatus, NodeEvent
TRANSITIONS: dict[tuple[NodeStatus | None, NodeEvent], NodeStatus] = {
    (None, _E.CREATED): _S.NEW,
    (_S.NEW, _E.PROTOCOL_GIVEN): _S.DISCOVERED,
    (_S.ERROR, _E.PROTOCOL_GIVEN): _S.DISCOVERED,
    (_S.DISCOVERED, _E.PROTOCOL_GIVEN): _S.DISCOVERED,  # its protocol was taken from the definitions since
    (_S.SCANNED, _E.PROTOCOL_GIVEN): _S.DISCOVERED,  # the same
    **{(status, _E.DISCOVERED): _S.DISCOVERED for status in _S},
    (_S.DISCOVERED, _E.SCANNED): _S.SCANNED,
    (_S.SCANNED, _E.SCANNED): _S.SCANNED,
    (_S.ERROR, _E.SCANNED): _S.SCANNED,
    **{(status, _E.DISCOVERY_FAILED): _S.ERROR for status in _S},
    **{(status, _E.SCAN_FAILED): _S.ERROR for status in _S},
}
"""Everything that is not here is a mistake of ours."""


def after(status: NodeStatus | None, event: NodeEvent) -> NodeStatus:
    """The status that follows. Raises ILLEGAL_TRANSITION."""
    following = TRANSITIONS.get((status, event))
    if following is None:
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"a node that is {status or 'nothing'} cannot become {event}")
    return following


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What an organization allows; see peerd.v1.OrganizationPolicy."""

    allowed_networks: tuple[str, ...] = ()
    blocked_hosts: tuple[str, ...] = ()
    allowed_protocols: frozenset[str] = frozenset()
    max_level: int = 2
    cool_down_ms: int = 24 * 3_600_000
    daily_budget: int = 1000
    max_concurrent: int = 10
    allow_special: frozenset[str] = frozenset()
    permission_by: str = ""
    permission_reference: str = ""

    @property
    def length(self) -> int:
        """Characters of its lists."""
        lists = (*self.allowed_networks, *self.blocked_hosts, *self.allowed_protocols)
        return sum(len(entry) + len('"",') for entry in lists)


@dataclass(frozen=True, kw_only=True)
class Organization:
    """Whose nodes they are."""

    org_id: str
    slug: str
    active: bool
    policy: Policy
    members: frozenset[str] = frozenset()
    """Peer ids and roles that may act for it; everybody when empty."""

    def admits(self, peer_id: str, roles: frozenset[str]) -> bool:
        """Whether that peer may act for it."""
        return not self.members or peer_id in self.members or bool(self.members & roles)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A tracked target."""

    node_id: str
    org_id: str
    target: str
    host: str
    port: int | None
    status: NodeStatus
    protocol: str = ""
    scanned_at: Millis | None = None
    """When the newest scan that went well ended."""


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A discovery or scan that is under way."""

    run_id: int
    kind: str
    workflow_execution_id: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How much of what its policy allows the organization uses."""

    running: int = 0
    """Discoveries and scans under way."""
    last_day: int = 0
    """Scans that began in the last 24 hours."""
    of_node: OpenRun | None = None
    """What is under way for the node in question."""
