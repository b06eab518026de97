"""What a peer that probes is told, and what it answers: the files of the program :mod:`peerd.nodes.prober`.

``python -m peerd.nodes.prober REQUEST OUTPUT_DIR [--owner OWNER]``

REQUEST is the path of a file with the JSON of :class:`ProbeRequest` or :class:`BatchRequest` (it has ``nodes``), or
that JSON itself (it begins with ``{``). OWNER is the JSON of :class:`Owner`: what the owner of the executing machine
allows, fixed in the argv of its service and never taken from the request; left out, nothing is allowed. The program
writes ``OUTPUT_DIR/result.json`` (:class:`ProbeResult`) and, of a scan, ``OUTPUT_DIR/report.md``; of a batch
``OUTPUT_DIR/results.jsonl`` instead (:class:`BatchLine`, one a line). It ends with 0 whenever it wrote a result, an
outcome ``failed`` included: a job that fails is one that could not say anything. :mod:`peerd.nodes.message_json` has
the JSON.

An address is dialed only if networks of both sides contain it (``allowed_networks`` of the request *and* of the owner),
neither blocks it, and, when it is of a special kind, both name that kind in ``allow_special``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

RESULT, REPORT, RESULTS = "result.json", "report.md", "results.jsonl"
MAX_BATCH = 64
MAX_AT_ONCE = 8
"""Targets of a batch: each may hold megabytes of what its host answers."""


class Kind(StrEnum):
    """What is to be done."""

    DISCOVER = "discover"
    SCAN = "scan"


class Special(StrEnum):
    """Kinds of addresses that are refused unless both sides name them. Always refused: multicast, unspecified, and the
    metadata services of clouds. Private networks are no special kind: they only have to be allowed."""

    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"


class Outcome(StrEnum):
    """Whether there is something to say of the target."""

    OK = "ok"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why there is not. Stable."""

    INVALID_REQUEST = "invalid_request"
    DNS_FAILED = "dns_failed"
    NOT_ALLOWED = "not_allowed"
    """No address of the host may be dialed from there."""
    UNREACHABLE = "unreachable"
    """Nothing answered at any port that was tried."""
    NOT_RECOGNISED = "not_recognised"
    """Something answers, and it is no protocol that we know; or, of a scan, not the one that was named."""
    DEADLINE = "deadline"
    PERMISSION_MISSING = "permission_missing"
    """Level 3 without the organization's permission."""
    UNKNOWN_PROTOCOL = "unknown_protocol"
    """The executing machine does not have the definition of that protocol."""
    INTERNAL = "internal"


class Severity(StrEnum):
    """Of a finding."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class Risk(StrEnum):
    """What a score means."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Normalised: see peerd.nodes.targets."""

    host: str
    """A host name in lower-case ASCII, an IPv4 address with dots, or an IPv6 address without brackets and zone."""
    port: int | None = None
    """If given, only this port is tried for the protocol (a scan's port scan looks at others, too)."""


@dataclass(frozen=True, kw_only=True)
class Permission:
    """An organization's written permission to have sensitive methods tried (level 3)."""

    by: str
    """Who gave it."""
    reference: str
    """Where it is written."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a request says whatever its target: how far, and what may be dialed."""

    kind: Kind
    level: int = 1
    """Of a scan: 1 to 3."""
    allowed_protocols: tuple[str, ...] = ()
    """Of whatever discovers: only these are tried; all when empty."""
    allowed_networks: tuple[str, ...] = ()
    """CIDR; the organization's. Empty: none. ``0.0.0.0/0`` and ``::/0``: all."""
    blocked_hosts: tuple[str, ...] = ()
    """Host names (with all below them, when they begin with a dot), addresses and CIDR."""
    allow_special: tuple[Special, ...] = ()
    deadline_seconds: float = 60.0
    """Of each target."""
    connects_per_second: float = 50.0
    """To each target, at most."""
    permission: Permission | None = None
    org_id: str = ""
    """For the report."""


@dataclass(frozen=True, kw_only=True)
class BatchNode:
    """One target of a batch; its fields as in :class:`ProbeRequest`."""

    node_id: str
    target: Target
    protocol: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeRequest(Terms):
    """What is to be found out of one target."""

    target: Target
    protocol: str = ""
    """Of a scan: which one; when empty, it is discovered first and the surest is scanned (the result then has both, and
    fails with the reason of the discovery if nothing was recognised). Of a discovery: empty."""
    node_id: str = ""
    """For the report, and of a batch to tell its results apart."""

    @classmethod
    def of(cls, terms: Terms, node: BatchNode) -> Self:
        """What the terms say, of one node."""
        return cls(**_fields(terms), node_id=node.node_id, target=node.target, protocol=node.protocol)


@dataclass(frozen=True, kw_only=True)
class BatchRequest(Terms):
    """What is to be found out of several targets by one program."""

    nodes: tuple[BatchNode, ...]
    """1 to :data:`MAX_BATCH`."""
    at_once: int = 1
    """So many of them at a time, 1 to :data:`MAX_AT_ONCE`."""

    def requests(self) -> Iterator[ProbeRequest]:
        """One for each target."""
        return (ProbeRequest.of(self, node) for node in self.nodes)

    @classmethod
    def of(cls, terms: Terms, nodes: tuple[BatchNode, ...], *, at_once: int) -> Self:
        """What the terms say, of several nodes."""
        return cls(**_fields(terms), nodes=nodes, at_once=at_once)


def _fields(terms: Terms) -> dict[str, Any]:
    return {field.name: getattr(terms, field.name) for field in dataclasses.fields(Terms)}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What the owner of the executing machine allows; nothing by default."""

    allowed_networks: tuple[str, ...] = ()
    blocked_hosts: tuple[str, ...] = ()
    allow_special: tuple[Special, ...] = ()
    connects_per_second: float = 200.0
    protocols_directory: str = ""
    """With more protocols than the built-in ones; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Connect:
    """One address that was dialed."""

    address: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A protocol that was found on the host."""

    protocol: str
    confidence: float
    """0 to 1."""
    version: str = ""
    address: str = ""
    port: int = 0
    evidence: tuple[str, ...] = ()
    """What was seen and where, one sentence each."""


@dataclass(frozen=True, kw_only=True)
class OpenPort:
    """A port that a scan saw."""

    number: int
    address: str = ""
    transport: str = "tcp"
    state: str = "open"
    service: str = ""
    product: str = ""
    version: str = ""
    tls: bool = False
    banner: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that somebody should know or mend."""

    id: str
    """Stable, such as ``docker-exposed``."""
    severity: Severity
    title: str
    detail: str = ""
    remediation: str = ""
    port: int = 0
    points: int = 0
    """What it takes from the score."""


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """What a scan says."""

    protocol: str
    level: int
    score: int
    """0 to 100."""
    risk: Risk
    version: str = ""
    findings: tuple[Finding, ...] = ()
    ports: tuple[OpenPort, ...] = ()
    health: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Such as ``syncing`` -> ``false``, ``peers`` -> ``12``."""
    scanner: str = ""
    """Name and version of the program that made it."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What came of it."""

    kind: Kind
    outcome: Outcome
    reason: FailureReason | None = None
    message: str = ""
    """Of a failure: one sentence."""
    addresses: tuple[str, ...] = ()
    """What the host resolved to, all of them."""
    recognitions: tuple[Recognition, ...] = ()
    """Of a discovery: the surest first."""
    scan: ScanReport | None = None
    connects: tuple[Connect, ...] = ()
    """Every address that was dialed, in order."""
    notes: tuple[str, ...] = ()
    """What is worth knowing, such as a redirect that was not followed."""
    seconds: float = 0.0
    """How long it took."""


@dataclass(frozen=True, kw_only=True)
class BatchLine:
    """What came of one target of a batch: the files that it would have alone."""

    node_id: str
    result: str
    """The JSON of a :class:`ProbeResult`."""
    report: str = ""
    """Markdown, of a scan."""
