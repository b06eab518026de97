"""Every format, as its tool writes it, with the exact records that come of it."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.inventory.model import PortState, Record, Service, Transport
from peerd.scans.formats import Format, Item, Limits, Skipped, SkipReason, detect, read_scan

FIXTURES = Path(__file__).parent / "fixtures"


def read(name: str, format_: Format | None = None) -> list[Item]:
    return read_bytes((FIXTURES / name).read_bytes(), format_)


def read_bytes(data: bytes, format_: Format | None = None, limits: Limits | None = None) -> list[Item]:
    return list(read_scan(io.BytesIO(data), format_, limits))


def ports(items: list[Item]) -> list[tuple[str, int, str, str]]:
    return [
        (item.address, item.port.number, str(item.port.transport), str(item.port.state))
        for item in items
        if isinstance(item, Record) and item.port
    ]


def hosts(items: list[Item]) -> list[tuple[str, bool]]:
    return [(item.address, item.up) for item in items if isinstance(item, Record) and item.port is None]


def skipped(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.line, str(item.reason)) for item in items if isinstance(item, Skipped)]


def record(items: list[Item], address: str, number: int) -> Record:
    return next(
        item for item in items if isinstance(item, Record) and item.address == address and item.port
        and item.port.number == number
    )  # fmt: skip


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step)


FORMATS = {
    "naabu.jsonl": Format.NAABU,
    "nmap.xml": Format.NMAP_XML,
    "masscan.json": Format.MASSCAN_JSON,
    "masscan-old.json": Format.MASSCAN_JSON,
    "masscan-first.json": Format.MASSCAN_JSON,
    "masscan.ndjson": Format.MASSCAN_NDJSON,
    "masscan.xml": Format.MASSCAN_XML,
    "hosts.txt": Format.HOST_PORT,
}


@pytest.mark.parametrize(("name", "format_"), FORMATS.items())
def test_a_format_is_told_by_its_content(name: str, format_: Format) -> None:
    data = (FIXTURES / name).read_bytes()
    assert detect(data) is format_
    assert read_scan(io.BytesIO(data)).format is format_
    assert read_bytes(data) == read_bytes(data, format_)
    assert {path.name for path in FIXTURES.iterdir()} == set(FORMATS)


def test_every_generation_of_naabu_is_read() -> None:
    items = read("naabu.jsonl")
    assert ports(items) == [
        ("192.0.2.10", 443, "tcp", "open"),
        ("192.0.2.10", 80, "tcp", "open"),
        ("192.0.2.10", 80, "tcp", "open"),
        ("192.0.2.11", 53, "udp", "open"),
        ("2001:db8::1", 22, "tcp", "open"),
        ("192.0.2.13", 443, "tcp", "open"),
        ("192.0.2.13", 161, "udp", "open"),
        ("192.0.2.14", 8080, "tcp", "open"),
        ("192.0.2.16", 65535, "tcp", "open"),
    ]
    assert hosts(items) == [("192.0.2.12", True)]
    assert skipped(items) == [
        (11, "no_address"),
        (12, "invalid_port"),
        (13, "invalid_port"),
        (14, "invalid_port"),
        (15, "invalid_port"),
        (16, "missing_field"),
        (17, "invalid_protocol"),
        (18, "invalid_address"),
        (19, "missing_field"),
        (20, "duplicate_key"),
        (21, "not_json"),
        (22, "not_json"),
        (23, "not_an_object"),
    ]
    named = record(items, "192.0.2.10", 443)
    assert (named.hostnames, named.seen_at) == (("www.example.org",), 1_714_816_800_123)
    assert named.port and named.port.service == Service(tls=True)
    assert record(items, "192.0.2.11", 53).seen_at == 1_714_816_802_000
    assert record(items, "192.0.2.13", 443).hostnames == ("old.example.org",)
    ssh = record(items, "2001:db8::1", 22)
    assert (ssh.hostnames, ssh.mac, ssh.os) == (("gate.example.org",), "aa:bb:cc:00:11:22", "Linux")
    assert ssh.port and ssh.port.service == Service(
        name="ssh",
        product="OpenSSH",
        version="8.9p1",
        extra="protocol 2.0",
        cpes=("cpe:/a:openbsd:openssh:8.9p1", "cpe:/o:linux:linux_kernel"),
        confidence=100,
    )


def test_naabu_is_read_from_an_array_one_object_and_a_json_string() -> None:
    lines = (FIXTURES / "naabu.jsonl").read_text().splitlines()
    good = [
        json.loads(line) for line in lines if line and not line.startswith("[") and "NaN" not in line and "}" in line
    ]
    expected = read_bytes("\n".join(json.dumps(value) for value in good).encode())
    records = [item for item in expected if isinstance(item, Record)]
    assert len(records) == 11  # the one with a key twice is mended by writing it anew
    for text in (json.dumps(good), json.dumps(good, indent=2), json.dumps(good, separators=(",", ":")) + "\n"):
        assert [item for item in read_bytes(text.encode()) if isinstance(item, Record)] == records
        assert Counter(reason for _, reason in skipped(read_bytes(text.encode()))) == Counter(
            reason for _, reason in skipped(expected)
        )
    for text in (json.dumps(good[0]), json.dumps(good[0], indent=4)):
        assert read_bytes(text.encode()) == records[:1]
    quoted = json.dumps("\n".join(lines), ensure_ascii=True)
    assert read_bytes(quoted.encode()) == read("naabu.jsonl")
    assert read_bytes(json.dumps((FIXTURES / "nmap.xml").read_text()).encode()) == read("nmap.xml")


def test_nmap_xml_is_read_with_all_that_it_says() -> None:
    items = read("nmap.xml")
    assert ports(items) == [
        ("192.0.2.1", 22, "tcp", "open"),
        ("192.0.2.1", 443, "tcp", "open"),
        ("192.0.2.1", 8080, "tcp", "filtered"),
        ("192.0.2.1", 25, "tcp", "closed"),
        ("192.0.2.1", 123, "udp", "open|filtered"),
        ("2001:db8::5", 5060, "sctp", "open"),
    ]
    # 192.0.2.1 twice: once it is known to be up, and once its operating system is known.
    assert hosts(items) == [
        ("192.0.2.1", True),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("192.0.2.3", False),
        ("2001:db8::5", True),
    ]
    assert skipped(items) == [
        (34, "invalid_state"),
        (35, "invalid_protocol"),
        (36, "invalid_port"),
        (55, "missing_field"),
    ]
    first = items[0]
    assert isinstance(first, Record)
    assert (first.mac, first.seen_at) == ("02:00:5e:10:00:01", 1_714_816_830_000)
    assert first.hostnames == ("gate.example.org", "www.example.org")
    assert [item.os for item in items if isinstance(item, Record) and item.os] == ["Linux 4.15 - 5.6"]
    ssh = record(items, "192.0.2.1", 22).port
    assert ssh and ssh.banner == b"SSH-2.0-OpenSSH_8.9p1\r\n"
    assert ssh.service == Service(
        name="ssh",
        product="OpenSSH",
        version="8.9p1",
        extra="protocol 2.0",
        cpes=("cpe:/a:openbsd:openssh:8.9p1", "cpe:/o:linux:linux_kernel"),
        confidence=100,
    )
    web = record(items, "192.0.2.1", 443)
    assert web.hostnames == ("inner.example.org",)
    assert web.port and web.port.service and web.port.service.tls
    certificate = web.port.certificate
    assert certificate and certificate.sha256 == "a" * 64
    assert certificate.common_name == "www.example.org"
    assert certificate.issuer == "Example Trust"
    assert certificate.subject_alternative_names == ("www.example.org", "example.org", "192.0.2.1")
    assert (certificate.not_before, certificate.not_after) == (1_704_067_200_000, 1_735_689_600_000)
    guessed = record(items, "192.0.2.1", 25).port
    assert guessed and guessed.service == Service(name="smtp", confidence=30)


def test_what_nmap_says_of_the_whole_scan_is_noted() -> None:
    reading = read_scan(io.BytesIO((FIXTURES / "nmap.xml").read_bytes()))
    assert len(list(reading)) == reading.position == 15
    notes = reading.notes
    assert (notes.tool, notes.tool_version) == ("nmap", "7.93")
    assert (notes.started_at, notes.finished_at) == (1_714_816_800_000, 1_714_816_900_000)
    assert notes.hosts_down == 2
    assert notes.other_ports == {"closed": 995, "filtered": 1000}
    assert notes.covered == [("tcp", "1,3-4,6-7,9")]


def test_an_interrupted_nmap_file_counts_as_far_as_it_is_whole_and_says_so() -> None:
    whole = (FIXTURES / "nmap.xml").read_bytes()
    everything = [item for item in read("nmap.xml") if isinstance(item, Record)]
    before = 0
    for end in range(whole.index(b"<nmaprun") + 8, whole.rindex(b"</nmaprun>") + 9, 5):
        items = read_bytes(whole[:end], Format.NMAP_XML)
        cut = items.pop()
        assert isinstance(cut, Skipped) and cut.reason is SkipReason.TRUNCATED, end
        records = [item for item in items if isinstance(item, Record)]
        assert records == everything[: len(records)]
        assert len(records) >= before
        before = len(records)
    assert before == len(everything)


@pytest.mark.parametrize(
    ("name", "expected", "seen_at"),
    [
        (
            "masscan.json",
            [
                ("192.0.2.20", 80, "tcp", "open"),
                ("192.0.2.20", 80, "tcp", "open"),
                ("2001:db8::20", 22, "tcp", "closed"),
                ("192.0.2.21", 53, "udp", "open"),
            ],
            1_714_816_800_000,
        ),
        (
            "masscan-old.json",
            [
                ("192.0.2.20", 80, "tcp", "open"),
                ("192.0.2.20", 443, "tcp", "open"),
                ("192.0.2.21", 80, "tcp", "open"),
            ],
            1_508_213_445_000,
        ),
        ("masscan-first.json", [("192.0.2.20", 80, "tcp", "open"), ("192.0.2.20", 80, "tcp", "open")], None),
        (
            "masscan.ndjson",
            [
                ("192.0.2.20", 80, "tcp", "open"),
                ("192.0.2.20", 80, "tcp", "open"),
                ("2001:db8::20", 22, "tcp", "closed"),
            ],
            1_714_816_800_000,
        ),
        (
            "masscan.xml",
            [
                ("192.0.2.20", 80, "tcp", "open"),
                ("192.0.2.20", 80, "tcp", "open"),
                ("2001:db8::20", 22, "tcp", "closed"),
            ],
            1_714_816_801_000,
        ),
    ],
)
def test_masscan_of_all_ages_is_read(name: str, expected: list[tuple[str, int, str, str]], seen_at: int | None) -> None:
    items = read(name)
    assert ports(items) == expected
    assert record(items, "192.0.2.20", 80).seen_at == seen_at


def test_what_masscan_writes_that_is_no_port_is_a_host_or_skipped() -> None:
    assert hosts(read("masscan.json")) == [("192.0.2.22", True)]
    assert skipped(read("masscan.json")) == [
        (8, "invalid_port"),
        (8, "invalid_state"),
        (12, "invalid_address"),
        (14, "missing_field"),
    ]
    assert hosts(read("masscan.ndjson")) == [("192.0.2.21", True)]
    assert skipped(read("masscan.ndjson")) == [(5, "missing_field"), (6, "missing_field")]
    assert hosts(read("masscan.xml")) == [("192.0.2.22", True)]
    assert (
        skipped(read("masscan.xml")) == skipped(read("masscan-old.json")) == skipped(read("masscan-first.json")) == []
    )
    assert read_bytes(b"[\n]\n") == []


def test_the_banners_of_masscan_are_its_bytes() -> None:
    def banners(name: str) -> list[tuple[bytes, Service | None]]:
        found = [item.port for item in read(name) if isinstance(item, Record) and item.port]
        return [(port.banner, port.service) for port in found if port.banner]

    assert banners("masscan.json") == [(b"HTTP/1.1 200 OK\r\nServer: <x>\xff", Service(name="http"))]
    assert banners("masscan-old.json") == [(b"TLS/1.1 cipher:0xc013, www.example.org", Service(name="ssl", tls=True))]
    assert banners("masscan-first.json") == [(b"say: {ttl: 3}", Service(name="http"))]
    assert banners("masscan.ndjson") == [(b"nginx/1.18", Service(name="http"))]
    assert banners("masscan.xml") == [(b"HTTP/1.1 200 OK\r\nX: \\x41", Service(name="http"))]


def test_a_broken_record_of_masscan_costs_no_other() -> None:
    def one(address: str) -> str:
        return f'{{"ip":"{address}","timestamp":"1714816800","ports":[{{"port":80,"proto":"tcp","status":"open"}}]}}'

    broken = [
        '{"ip":"192.0.2.9","ports":[{"port":80',
        '{"ip":"192.0.2.9","ports":[}',
        '{"ip":"192.0.2.9',
        "garbage",
        '"ip":"192.0.2.9"}',
        '{"ip":"192.0.2.9","ports":[{"port":80,"port":80}]}',
    ]
    for text in broken:
        for glue in (",\n", "\n,\n", "\n"):
            data = "[\n" + glue.join((one("192.0.2.1"), text, one("192.0.2.2"), one("192.0.2.3"))) + "\n]\n"
            items = read_bytes(data.encode(), Format.MASSCAN_JSON)
            assert [address for address, *_ in ports(items)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"], (text, glue)
            assert len(skipped(items)) >= 1, (text, glue)
    assert skipped(read_bytes(f'[{one("192.0.2.1")},{{"ip":"192.0'.encode(), Format.MASSCAN_JSON)) == [(1, "truncated")]


def test_lines_of_host_and_port_are_read() -> None:
    items = read("hosts.txt")
    assert ports(items) == [
        ("192.0.2.30", 80, "tcp", "open"),
        ("192.0.2.30", 53, "udp", "open"),
        ("2001:db8::30", 443, "tcp", "open"),
        ("192.0.2.31", 22, "tcp", "open"),
        ("192.0.2.32", 65535, "tcp", "open"),
    ]
    assert skipped(items) == [
        (7, "no_address"),
        (8, "invalid_port"),
        (9, "invalid_port"),
        (10, "invalid_address"),
        (11, "invalid_protocol"),
        (12, "not_host_port"),
        (13, "not_host_port"),
    ]
    assert ports(read_bytes(b"[2001:db8::1]:80\n")) == [("2001:db8::1", 80, "tcp", "open")]
    assert Transport.UDP in {item.port.transport for item in items if isinstance(item, Record) and item.port}
    assert {item.port.state for item in items if isinstance(item, Record) and item.port} == {PortState.OPEN}


@pytest.mark.parametrize(
    "data",
    [b"", b"\xef\xbb\xbf", b"  \n\n ", b"\0" * 100, b"hello\nworld\n", b"<html></html>", b"{}", b'{"a":1}\n',
        b"[]",
     b"\x1f\x8b\x08\x00", b"a,b,c\n1,2,3\n", b"null", b'"null"', b"[1,2,3]", b"<?xml version='1.0'?>"],
)  # fmt: skip
def test_what_no_scanner_writes_is_refused_with_a_stable_reason(data: bytes) -> None:
    with pytest.raises(PeerdError) as caught:
        read_scan(io.BytesIO(data))
    assert caught.value.reason is Reason.UNKNOWN_SCAN_FORMAT
    assert caught.value.reason.text == "unknown_scan_format"
    assert caught.value.next_action


@pytest.mark.parametrize("name", FORMATS)
def test_a_reading_that_was_interrupted_goes_on_where_it_was(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    everything = read_bytes(data)
    for start in range(len(everything) + 2):
        reading = read_scan(io.BytesIO(data), start=start)
        assert reading.position == min(start, len(everything))
        assert list(reading) == everything[start:]


@pytest.mark.parametrize("name", FORMATS)
def test_how_a_stream_is_cut_into_blocks_changes_nothing(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    for step in (1, 7, 64):
        assert list(read_scan(Dripping(data, step))) == read(name)
    # Long enough for several blocks, so that records lie across their borders.
    if name.startswith(("naabu", "hosts", "masscan.nd", "masscan-")):
        assert ports(read_bytes((data.removeprefix(b"\xef\xbb\xbf") + b"\n") * 400)) == ports(read(name)) * 400
