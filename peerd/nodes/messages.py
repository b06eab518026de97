"""What a peer that probes is told, and what it answers: the files of the program :mod:`peerd.nodes.prober`.

``python -m peerd.nodes.prober REQUEST OUTPUT_DIR [--owner OWNER]``

REQUEST is the path of a file with the JSON of :class:`ProbeRequest`, or that JSON itself (it begins with ``{``).
OWNER is the JSON of :class:`Owner`: what the owner of the executing machine allows, fixed in the argv of its service
and never taken from the request; left out, nothing is allowed. The program writes ``OUTPUT_DIR/result.json``
(:class:`ProbeResult`) and, of a scan, ``OUTPUT_DIR/report.md``. It ends with 0 whenever it wrote a result, an outcome
``failed`` included: a job that fails is one that could not say anything.

An address is dialed only if networks of both sides contain it (``allowed_networks`` of the request *and* of the owner),
neither blocks it, and, when it is of a special kind, both name that kind in ``allow_special``.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

MAX_RESULT_BYTES = 4 * 1024**2
_MAX_TEXT = 64 * 1024
_MAX_ITEMS = 10_000

T = TypeVar("T")


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
class ProbeRequest:
    """What is to be found out."""

    kind: Kind
    target: Target
    protocol: str = ""
    """Of a scan: which one; when empty, it is discovered first and the surest is scanned (the result then has both, and
    fails with the reason of the discovery if nothing was recognised). Of a discovery: empty."""
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
    """Of the whole program."""
    connects_per_second: float = 50.0
    """At most."""
    permission: Permission | None = None
    node_id: str = ""
    """These two: for the report."""
    org_id: str = ""


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


def to_json(message: ProbeRequest | Owner | ProbeResult) -> str:
    """Compact JSON, with every field."""
    return json.dumps(dataclasses.asdict(message), ensure_ascii=False, separators=(",", ":"))


def request_from_json(text: str | bytes) -> ProbeRequest:
    """Raises ValueError that names the field."""
    return _decode(ProbeRequest, _load(text), "request")


def owner_from_json(text: str | bytes) -> Owner:
    """Raises ValueError that names the field."""
    return _decode(Owner, _load(text), "owner")


def result_from_json(text: str | bytes) -> ProbeResult:
    """From another machine: sizes and types are checked. Raises ValueError that names the field."""
    if len(text) > MAX_RESULT_BYTES:
        raise ValueError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
    result = _decode(ProbeResult, _load(text), "result")
    if result.scan is not None and not 0 <= result.scan.score <= 100:
        raise ValueError(f"result.scan.score: {result.scan.score} is not between 0 and 100")
    if any(not 0 <= found.confidence <= 1 for found in result.recognitions):
        raise ValueError("result.recognitions: a confidence is not between 0 and 1")
    for field, port in _ports(result):
        if not 0 <= port <= 65535:
            raise ValueError(f"result.{field}: {str(port)[:20]} is no port")
    return result


def _ports(result: ProbeResult) -> Iterator[tuple[str, int]]:
    """Every port that is named; 0 stands for none."""
    for connect in result.connects:
        yield "connects", connect.port
    for found in result.recognitions:
        yield "recognitions", found.port
    if result.scan is not None:
        for port in result.scan.ports:
            yield "scan.ports", port.number
        for finding in result.scan.findings:
            yield "scan.findings", finding.port


def _load(text: str | bytes) -> object:
    def no_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decode(cls: type[T], value: object, path: str) -> T:
    """A dataclass of this module; a field that is left out has its default, one that is unknown is refused."""
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not an object")  # noqa: TRY004 - one kind of error for whoever reads
    hints = typing.get_type_hints(cls)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{path}: unknown field {min(unknown)!r}")
    given = {name: _value(hints[name], item, f"{path}.{name}") for name, item in value.items()}
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def _value(wanted: Any, value: object, path: str) -> object:
    origin = typing.get_origin(wanted)
    if origin is types.UnionType:  # X | None
        (inner,) = (arm for arm in typing.get_args(wanted) if arm is not types.NoneType)
        return None if value is None else _value(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise ValueError(f"{path}: not a list of at most {_MAX_ITEMS}")
        inner = typing.get_args(wanted)[0]
        return tuple(_value(inner, item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None:  # Mapping[str, str]
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            raise ValueError(f"{path}: not an object of at most {_MAX_ITEMS}")
        return {_value(str, key, path): _value(str, item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _decode(wanted, value, path)
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise ValueError(f"{path}: {value!r} is none of {', '.join(wanted)}")
        return wanted(str(value))
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted or (isinstance(value, str) and len(value) > _MAX_TEXT):
        raise ValueError(f"{path}: not a {wanted.__name__}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{path}: half a character, which no store and no message can hold")
    return value
