"""What holds for every item, whatever was read."""

from __future__ import annotations

import io
import re

from peerd.errors import PeerdError, Reason
from peerd.inventory.addresses import normalise_address
from peerd.inventory.model import Record, Service
from peerd.scans.formats import Format, Item, Limits, Skipped, SkipReason, read_scan

REFUSALS = (Reason.UNKNOWN_SCAN_FORMAT, Reason.INVALID_SCAN, Reason.SCAN_LIMIT)
_MAC = re.compile(r"(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5})?")


def read_judged(data: bytes, format_: Format | None = None, limits: Limits | None = None) -> tuple[list[Item], bool]:
    """All items, each found to be sound, and whether the rest was refused; anything else is raised."""
    items: list[Item] = []
    try:
        for item in read_scan(io.BytesIO(data), format_, limits):
            judge(item)
            items.append(item)
    except PeerdError as error:
        assert error.reason in REFUSALS
        assert str(error).isprintable()
        return items, True
    return items, False


def judge(item: Item) -> None:
    """Raise AssertionError if an item is not what its type promises."""
    if isinstance(item, Skipped):
        assert item.line >= 1
        assert isinstance(item.reason, SkipReason)
        assert item.excerpt.isprintable()
        assert len(item.excerpt) <= 1600
        return
    assert isinstance(item, Record)
    assert normalise_address(item.address) == item.address
    assert item.seen_at is None or 0 <= item.seen_at < 2**53
    assert _MAC.fullmatch(item.mac)
    for name in item.hostnames:
        assert name == name.lower() and 0 < len(name) <= 253 and not name.endswith(" ")
        _text(name)
    _text(item.os)
    if port := item.port:
        assert type(port.number) is int and 1 <= port.number <= 65535
        assert len(port.banner) <= 2048
        if port.service:
            _service(port.service)
        if port.certificate:
            assert re.fullmatch(r"[0-9a-f]{64}", port.certificate.sha256)
            for text in (port.certificate.common_name, port.certificate.issuer):
                _text(text)
            for text in port.certificate.subject_alternative_names:
                _text(text)


def _service(service: Service) -> None:
    for text in (service.name, service.product, service.version, service.extra, *service.cpes):
        _text(text)
    assert 0 <= service.confidence <= 100
    assert type(service.tls) is bool


def _text(text: str) -> None:
    text.encode("utf-8")  # no lone surrogates
    assert text.isprintable()
    assert len(text) <= 1024
