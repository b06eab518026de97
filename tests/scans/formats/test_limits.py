"""Each limit refuses the rest of a file, and what came before it counts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.inventory.model import Record
from peerd.scans.formats import Format, Item, Limits, Skipped, read_scan
from tests.scans.formats.hostile import Generated
from tests.scans.formats.test_real_nmap import certificate

LINE = b'{"ip":"192.0.2.1","port":80,"protocol":"tcp"}\n'
SMALL = Limits(total_bytes=1 << 20, records=100, depth=8, item_bytes=4096, digits=10, seconds=10)


def read_until_refused(data: bytes, limits: Limits, format_: Format | None = None) -> tuple[list[Item], PeerdError]:
    items: list[Item] = []
    with pytest.raises(PeerdError) as caught:
        for item in read_scan(io.BytesIO(data), format_, limits):
            items.append(item)
    assert caught.value.reason is Reason.SCAN_LIMIT
    assert caught.value.next_action
    return items, caught.value


def test_a_scan_of_too_many_bytes_is_refused() -> None:
    items, error = read_until_refused(LINE * 30_000, replace(SMALL, records=1_000_000))
    assert "1048576 bytes" in error.message
    assert len(items) > 20_000


def test_exactly_as_many_records_as_allowed_are_read() -> None:
    assert len(list(read_scan(io.BytesIO(LINE * 100), limits=SMALL))) == 100
    items, error = read_until_refused(LINE * 101, SMALL)
    assert len(items) == 100
    assert "100 records" in error.message


@pytest.mark.parametrize(
    ("format_", "head"),
    [
        (Format.NAABU, LINE + b'{"ip":"'),
        (Format.NAABU, b"[" + LINE + b',{"ip":"'),
        (Format.MASSCAN_JSON, b'{"ip":"192.0.2.1","ports":[{"port":80,"proto":"tcp","status":"open"}]},{"ip":"'),
        (Format.HOST_PORT, b"192.0.2.1:80\n"),
        (Format.NMAP_XML, b'<nmaprun><host><address addr="192.0.2.1" addrtype="ipv4"/></host><host a="'),
    ],
)
def test_an_endless_record_is_refused_and_those_before_it_count(format_: Format, head: bytes) -> None:
    items, _ = read_until_refused(head + b"x" * 300_000, SMALL, format_)
    assert [type(item) for item in items] == [Record]


def test_depth_skips_a_line_and_refuses_what_has_no_lines() -> None:
    def nested(depth: int) -> bytes:
        return b'{"ip":"192.0.2.1","port":80,"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert [type(item) for item in read_scan(io.BytesIO(nested(8) + b"\n" + nested(9) + b"\n"), limits=SMALL)] == [
        Record,
        Skipped,
    ]
    text = json.dumps({"ip": "192.0.2.1", "port": 80, "x": "[" * 100})
    assert [type(item) for item in read_scan(io.BytesIO(text.encode()), limits=SMALL)] == [Record]
    items, _ = read_until_refused(b"[" + nested(8) + b"," + nested(9) + b"]", SMALL, Format.NAABU)
    assert [type(item) for item in items] == [Record]
    read_until_refused(b"<nmaprun>" + b"<a>" * 8, SMALL, Format.NMAP_XML)


def test_only_the_time_of_reading_counts() -> None:
    clock = FakeClock()

    def slow() -> Iterator[bytes]:
        for _ in range(100):
            clock.advance(1)
            yield LINE * 2000

    reading = read_scan(cast(BinaryIO, Generated(slow())), Format.NAABU, Limits(seconds=10), clock=clock)
    with pytest.raises(PeerdError, match="longer than 10 seconds"):
        for _ in reading:
            pass
    assert 5_000 < reading.position < 40_000
    reading = read_scan(io.BytesIO(LINE * 5000), Format.NAABU, Limits(seconds=10), clock=clock)
    for _ in reading:
        clock.advance(1)
    assert reading.position == 5000


def test_certificates_of_masscan_are_read_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    _, der = certificate(tmp_path)

    def banner(kind: str, text: str) -> bytes:
        service = {"name": kind, "banner": text}
        return json.dumps({"ip": "192.0.2.1", "ports": [{"port": 443, "proto": "tcp", "service": service}]}).encode()

    encoded = base64.b64encode(der).decode()
    lines = [banner("X509", encoded), banner("X509CA", encoded), banner("X509", "!"), banner("X509", encoded[:40])]
    records = [item for item in read_scan(io.BytesIO(b",\n".join(lines))) if isinstance(item, Record)]
    assert len(records) == 4
    shown = [record.port.certificate for record in records if record.port]
    assert shown[0] and (shown[0].sha256, shown[0].common_name) == (sha256(der).hexdigest(), "web.example.org")
    assert shown[0].not_before and shown[0].not_after and shown[0].not_before < shown[0].not_after
    assert shown[1] is None and shown[2] is None
    assert shown[3] and shown[3].common_name == ""  # a digest is all that one can have of what cannot be parsed
    assert all(record.port and record.port.service and record.port.service.tls for record in records)
    xml = (
        f'<nmaprun scanner="masscan"><host><address addr="192.0.2.1" addrtype="ipv4"/><ports><port protocol="tcp" '
        f'portid="443"><state state="open"/><service name="X509" banner="{encoded}"/></port></ports></host></nmaprun>'
    )
    (item,) = read_scan(io.BytesIO(xml.encode()))
    assert isinstance(item, Record) and item.port and item.port.certificate == shown[0]
