"""One line of the inventory: a port with its host, or a host without ports. What filters look at, and lists show."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.inventory.model import Transport


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceFacts:
    """What answers at a port."""

    service_id: int = 0
    name: str = ""
    product: str = ""
    version: str = ""
    version_key: str = ""
    extra: str = ""
    cpes: tuple[str, ...] = ()
    tls: bool = False
    confidence: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFacts:
    """A TLS certificate."""

    certificate_id: int
    sha256: str
    common_name: str
    names: tuple[str, ...]
    issuer: str
    not_before: int | None
    not_after: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFacts:
    """One host."""

    host_id: int
    key: bytes
    address: str
    up: bool
    first_seen: int
    last_seen: int
    asn: int | None = None
    as_name: str | None = None
    country: str | None = None
    hostnames: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    open_ports: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PortFacts:
    """One port."""

    port_id: int
    transport: Transport
    number: int
    state: str
    first_seen: int
    last_seen: int
    last_open: int | None
    service: ServiceFacts | None = None
    certificate: CertificateFacts | None = None
    banner: bytes = b""
    scanners: tuple[str, ...] = ()
    """Who sees it as it is said to be: independent of each other as far as their keys are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What a comparison is about."""

    host: HostFacts
    port: PortFacts | None = None
    scanners: tuple[str, ...] = ()
    """Of all that said anything of it."""
