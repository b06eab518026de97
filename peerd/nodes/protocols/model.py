"""What a protocol is, as data: where it is looked for, what is asked, and which values in the answers count.

Nothing here knows a protocol by name. The files beside this module are the ones that peerd brings along; the format is
described in docs/protocols.md and read by :mod:`peerd.nodes.protocols.reading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from peerd.nodes.messages import Severity
from peerd.nodes.protocols.values import Expectation

GENERIC = "generic"
"""The protocol whose probes belong to no network: what any machine may offer."""


class QueryKind(StrEnum):
    """How a probe asks."""

    JSON_RPC = "json_rpc"  # a JSON-RPC 2.0 call in an HTTP POST
    HTTP = "http"  # an HTTP GET
    METRICS = "metrics"  # an HTTP GET of a page in the Prometheus text format
    BANNER = "banner"  # nothing is sent: what the server says first


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is sent to one port. Equal queries of several protocols are sent once."""

    kind: QueryKind
    path: str = "/"
    """Of an HTTP request, with its query string."""
    method: str = ""
    """Of a JSON-RPC call."""
    params: str = "[]"
    """Of a JSON-RPC call: a JSON array or object, as text."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One query, and the ports it is sent to when the target names no port of its own."""

    name: str
    query: Query
    ports: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One value that speaks for the protocol when it is as expected."""

    name: str
    probe: str
    expect: Expectation
    weight: float
    """How much it speaks for the protocol: above 0, below 1. See :mod:`peerd.nodes.probing.recognition`."""


@dataclass(frozen=True, kw_only=True)
class VersionSource:
    """Where the version stands. The first that has one counts."""

    probe: str
    expect: Expectation
    """If its pattern has a group ``(?P<value>...)``, the version is what that matched."""
    prefix: str = ""
    """Put before it, such as ``Prometheus ``."""


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A value that a healthy node has. A value that is missing is unknown, not ill."""

    name: str
    probe: str
    expect: Expectation
    severity: Severity
    failed: str
    """What to say of a node whose value is another."""


@dataclass(frozen=True, kw_only=True)
class SensitiveCall:
    """Something that strangers must not be able to read. Asked at level 3 only, and only with written permission."""

    name: str
    probe: str
    expect: Expectation
    """What an answer looks like that gives it away."""
    severity: Severity
    title: str


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One protocol."""

    name: str
    display_name: str
    category: str
    description: str
    ports: tuple[int, ...]
    """The ones it is known for: what a port scan looks at besides the usual ones."""
    allowed_ports: tuple[int, ...]
    """Those that may be open on such a node without costing points."""
    fallback: bool
    """Whether it is named only where nothing else was found."""
    probes: Mapping[str, Probe]
    signatures: tuple[Signature, ...]
    versions: tuple[VersionSource, ...]
    metrics_words: tuple[str, ...]
    """What names of metrics begin with on such a node."""
    health: tuple[HealthCheck, ...]
    sensitive: tuple[SensitiveCall, ...]
    source: str
    """The file it was read from; ``built-in NAME.toml`` for those of peerd."""

    @cached_property
    def discovery_probes(self) -> tuple[Probe, ...]:
        """Those whose answers say whether it is this protocol, and which version."""
        used = {signature.probe for signature in self.signatures} | {source.probe for source in self.versions}
        if self.metrics_words:
            used |= {probe.name for probe in self.probes.values() if probe.query.kind is QueryKind.METRICS}
        return tuple(probe for probe in self.probes.values() if probe.name in used)

    @cached_property
    def health_probes(self) -> tuple[Probe, ...]:
        """Those that say how it is; asked from level 2 on."""
        return self._used(check.probe for check in self.health)

    @cached_property
    def sensitive_probes(self) -> tuple[Probe, ...]:
        """Those that strangers should get no answer to; asked at level 3."""
        return self._used(call.probe for call in self.sensitive)

    def _used(self, names: Iterator[str]) -> tuple[Probe, ...]:
        wanted = set(names)
        return tuple(probe for probe in self.probes.values() if probe.name in wanted)
