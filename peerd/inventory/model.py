"""What one tool said of one host or one of its ports, whichever format it said it in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from peerd.clock import Millis


class Transport(StrEnum):
    """What a port belongs to."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class PortState(StrEnum):
    """What was seen of a port. ``OPEN_OR_FILTERED`` is what silence over UDP means."""

    OPEN = "open"
    CLOSED = "closed"
    FILTERED = "filtered"
    OPEN_OR_FILTERED = "open|filtered"


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What answers at a port. Empty texts: not said."""

    name: str = ""
    product: str = ""
    version: str = ""
    extra: str = ""
    cpes: tuple[str, ...] = ()
    tls: bool = False
    confidence: int = 0
    """0 to 100, as far as the tool says; nmap's 0 to 10 times ten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """A TLS certificate. ``sha256`` is the digest of its DER form, in lower-case hexadecimal."""

    sha256: str
    common_name: str = ""
    subject_alternative_names: tuple[str, ...] = ()
    issuer: str = ""
    not_before: Millis | None = None
    not_after: Millis | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """One port of one host."""

    number: int
    """1 to 65535."""
    transport: Transport = Transport.TCP
    state: PortState = PortState.OPEN
    service: Service | None = None
    banner: bytes = b""
    """What it said first, cut at 2 KiB."""
    certificate: Certificate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One thing that a tool said of one host: of the host alone, or of one port."""

    address: str
    """Normalised (:mod:`peerd.inventory.addresses`): dotted IPv4, compressed lower-case IPv6; v4-mapped is IPv4."""
    seen_at: Millis | None = None
    """When, as far as the tool says; else the time of the scan counts."""
    up: bool = True
    """Whether it answered. One that did not is kept only if it was there before."""
    hostnames: tuple[str, ...] = ()
    """Lower case, without the last dot."""
    mac: str = ""
    """Lower case, with colons."""
    os: str = ""
    port: Port | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Who says it, from where, and when: what all records of one scan have in common."""

    ingest_job_id: int
    scan_id: str
    scanner: str
    """Who signed it, as a peer id or as the same spelling of a scanner's key."""
    vantage: str = ""
    """The point of the network from which it was seen, in the scanner's words."""
    tool: str = ""
    tool_version: str = ""
    organization: str = ""
    """The slug or UUID of an organization, as a tag. Empty: none."""
    scanned_at: Millis
    """When the scan was made: what counts for records that say no time."""
    ended_at: Millis | None = None
    """By when it was over; None where that is not known better."""
    scope: str = ""
    """What was looked at (:mod:`peerd.inventory.scopes`). Empty: not said."""
