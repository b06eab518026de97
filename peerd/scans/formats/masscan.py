"""masscan's JSON and NDJSON: one record for each answer of a port, banners in records of their own.

JSON: ``{"ip":"192.0.2.1","timestamp":"1508213445","ports":[{"port":80,"proto":"tcp","status":"open",...}]}``, with
``"service":{"name":"http","banner":"..."}`` in place of the status for a banner. NDJSON:
``{"ip":...,"timestamp":...,"port":80,"proto":"tcp","rec_type":"status"|"banner","data":{...}}``. Invalid commas, a
missing array, ``{finished: 1}`` and keys without quotes, as its versions had them, are seen to in
:mod:`peerd.scans.formats.objects`. ICMP and ARP answers have no port: they say that the host is there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from peerd.clock import Millis
from peerd.inventory.model import Certificate, Port, PortState, Record, Service
from peerd.scans.formats.certificates import read_certificate
from peerd.scans.formats.items import SkipReason
from peerd.scans.formats.strict_json import UnfitError
from peerd.scans.formats.values import TRANSPORTS, address_reader, banner_of, millis_of_seconds, text_of

HOST_ONLY = ("icmp", "arp")
_STATES = {"open": PortState.OPEN, "closed": PortState.CLOSED}


def masscan_reader() -> Callable[[Any], Iterable[Record | SkipReason]]:
    """What reads one object of masscan's JSON."""
    address_of = address_reader()

    def read(value: Any) -> Iterator[Record | SkipReason]:
        address, seen_at = _who(value, address_of)
        ports = value.get("ports")
        if type(ports) is not list or not ports:
            raise UnfitError(SkipReason.MISSING_FIELD)
        for port in ports:
            if type(port) is not dict:
                yield SkipReason.NOT_AN_OBJECT
                continue
            service = port.get("service")
            if type(service) is dict:
                yield banner_record(address, seen_at, port, service.get("name"), service.get("banner"))
            else:
                yield _status_record(address, seen_at, port, port.get("status"))

    return read


def masscan_line_reader() -> Callable[[Any], Iterable[Record | SkipReason]]:
    """What reads one object of masscan's NDJSON."""
    address_of = address_reader()

    def read(value: Any) -> Iterable[Record | SkipReason]:
        address, seen_at = _who(value, address_of)
        data = value.get("data")
        if type(data) is not dict:
            raise UnfitError(SkipReason.MISSING_FIELD)
        if value.get("rec_type") == "banner":
            return (banner_record(address, seen_at, value, data.get("service_name"), data.get("banner")),)
        if value.get("rec_type") == "status":
            return (_status_record(address, seen_at, value, data.get("status")),)
        return (SkipReason.MISSING_FIELD,)

    return read


def _who(value: Any, address_of: Callable[[str], str | None]) -> tuple[str, Millis | None]:
    if type(value) is not dict:
        raise UnfitError(SkipReason.NOT_AN_OBJECT)
    ip = value.get("ip")
    if ip is None:
        raise UnfitError(SkipReason.MISSING_FIELD)
    address = address_of(ip) if type(ip) is str else None
    if address is None:
        raise UnfitError(SkipReason.INVALID_ADDRESS)
    return address, millis_of_seconds(value.get("timestamp"))


def _status_record(address: str, seen_at: Millis | None, port: dict[str, Any], status: object) -> Record | SkipReason:
    proto = port.get("proto", "tcp")
    if proto in HOST_ONLY:
        return Record(address=address, seen_at=seen_at)
    state = _STATES.get(status) if isinstance(status, str) else None
    if state is None:
        return SkipReason.INVALID_STATE
    return port_record(address, seen_at, port.get("port"), proto, state=state)


def banner_record(
    address: str, seen_at: Millis | None, port: dict[str, Any], name: object, banner: object
) -> Record | SkipReason:
    """What a banner says. A certificate comes as one, in base64; certificates of its issuers are not the host's."""
    kind = text_of(name)
    certificate: Certificate | None = None
    said = b""
    if kind == "X509":
        certificate = certificate_of(banner)
    elif kind != "X509CA":
        said = banner_of(banner)
    return port_record(
        address,
        seen_at,
        port.get("port"),
        port.get("proto", "tcp"),
        service=service_of(kind),
        banner=said,
        certificate=certificate,
    )


def service_of(kind: str) -> Service | None:
    """The service that masscan's name of a banner means: some name a part of an answer."""
    if kind in ("X509", "X509CA"):
        return Service(tls=True)
    if kind in ("", "unknown", "vuln"):
        return None
    if kind == "ssl":
        return Service(name="ssl", tls=True)
    return Service(name="http" if kind in ("title", "html") else kind.partition(".")[0])


def port_record(
    address: str,
    seen_at: Millis | None,
    number: object,
    proto: object,
    *,
    state: PortState = PortState.OPEN,
    service: Service | None = None,
    banner: bytes = b"",
    certificate: Certificate | None = None,
) -> Record | SkipReason:
    """The record of one port, if number and protocol can be ones."""
    if type(number) is not int:
        return SkipReason.MISSING_FIELD if number is None else SkipReason.INVALID_PORT
    if not 1 <= number <= 65535:
        return SkipReason.INVALID_PORT
    transport = TRANSPORTS.get(proto.lower()) if isinstance(proto, str) else None
    if transport is None:
        return SkipReason.INVALID_PROTOCOL
    return Record(
        address=address,
        seen_at=seen_at,
        port=Port(
            number=number, transport=transport, state=state, service=service, banner=banner, certificate=certificate
        ),
    )


def certificate_of(banner: object) -> Certificate | None:
    """The certificate that masscan writes in base64 as a banner named X509."""
    if not isinstance(banner, str):
        return None
    try:
        return read_certificate(base64.b64decode(banner.encode("ascii", "replace"), validate=True))
    except binascii.Error:
        return None
