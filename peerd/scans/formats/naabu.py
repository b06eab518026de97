"""naabu: one JSON object for each open port, in all the shapes it had since 2020.

Today: ``{"host":"www.example.org","ip":"192.0.2.10","timestamp":"...","port":443,"protocol":"tcp","tls":true}``, where
``host`` stands only if the target was a name. Until July 2023 ``port`` was ``{"Port":443,"Protocol":0,"TLS":false}``,
and the very first versions wrote ``host`` for whatever the target was. A live host without ports has port 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from peerd.inventory.model import Port, Record, Service, Transport
from peerd.scans.formats.items import SkipReason
from peerd.scans.formats.strict_json import UnfitError
from peerd.scans.formats.values import (
    TRANSPORTS,
    address_reader,
    confidence_of,
    mac_of,
    millis_of_rfc3339,
    name_of,
    text_of,
    texts_of,
)

_NUMBERED = (Transport.TCP, Transport.UDP)
"""naabu's own numbers of protocols; its third is ARP, which has no ports."""


def naabu_reader() -> Callable[[Any], Iterable[Record | SkipReason]]:
    """What reads one object of naabu."""
    address_of = address_reader()

    def read(value: Any) -> Iterable[Record | SkipReason]:
        if type(value) is not dict:
            return (SkipReason.NOT_AN_OBJECT,)
        address, names = _who(value, address_of)
        said = value.get("port")
        number, protocol, tls = _port(said) if type(said) is dict else (said, value.get("protocol"), value.get("tls"))
        service = value
        if type(said) is dict and type(said.get("service")) is dict:
            service = said["service"]
        if type(number) is not int:
            return (SkipReason.MISSING_FIELD if number is None else SkipReason.INVALID_PORT,)
        if not 0 <= number <= 65535:
            return (SkipReason.INVALID_PORT,)
        if inner := name_of(service.get("hostname")):
            names = tuple(dict.fromkeys((*names, inner)))
        return (
            Record(
                address=address,
                seen_at=millis_of_rfc3339(value.get("timestamp")),
                hostnames=names,
                mac=mac_of(value.get("mac_address")),
                os=text_of(service.get("os_type")),
                port=None
                if number == 0
                else Port(number=number, transport=_transport(protocol), service=_service(service, tls is True)),
            ),
        )

    return read


def _who(value: dict[str, Any], address_of: Callable[[str], str | None]) -> tuple[str, tuple[str, ...]]:
    ip, host = value.get("ip"), value.get("host")
    if type(ip) is str and ip:
        address = address_of(ip)
        if address is None:
            raise UnfitError(SkipReason.INVALID_ADDRESS)
        name = name_of(host)
        return address, (name,) if name else ()
    if ip is not None and ip != "":
        raise UnfitError(SkipReason.INVALID_ADDRESS)
    if type(host) is not str or not host:
        raise UnfitError(SkipReason.MISSING_FIELD)
    address = address_of(host)
    if address is None:
        raise UnfitError(SkipReason.NO_ADDRESS)
    return address, ()


def _port(said: dict[str, Any]) -> tuple[Any, Any, Any]:
    lowered = {key.lower(): inner for key, inner in said.items()}
    protocol = lowered.get("protocol")
    if type(protocol) is int:
        if not 0 <= protocol < len(_NUMBERED):
            raise UnfitError(SkipReason.INVALID_PROTOCOL)
        protocol = _NUMBERED[protocol]
    return lowered.get("port"), protocol, lowered.get("tls")


def _transport(protocol: object) -> Transport:
    if protocol is None or protocol == "":
        return Transport.TCP
    transport = TRANSPORTS.get(protocol.lower()) if isinstance(protocol, str) else None
    if transport is None:
        raise UnfitError(SkipReason.INVALID_PROTOCOL)
    return transport


def _service(value: dict[str, Any], tls: bool) -> Service | None:
    tls = tls or value.get("tunnel") in ("ssl", "tls")
    name, product, version = text_of(value.get("name")), text_of(value.get("product")), text_of(value.get("version"))
    extra, cpes = text_of(value.get("extra_info")), texts_of(value.get("cpes"))
    if not (tls or name or product or version or extra or cpes):
        return None
    return Service(
        name=name,
        product=product,
        version=version,
        extra=extra,
        cpes=cpes,
        tls=tls,
        confidence=confidence_of(value.get("confidence")),
    )
