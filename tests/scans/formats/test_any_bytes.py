"""Whatever bytes come, nothing but records, skipped ones and refusals comes out; what is valid comes back whole."""

from __future__ import annotations

import json
from xml.sax.saxutils import quoteattr

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.inventory.addresses import normalise_address
from peerd.inventory.model import Port, PortState, Record, Service, Transport
from peerd.scans.formats import Format
from tests.scans.formats.fuzz import run
from tests.scans.formats.judging import read_judged

PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r\n", b"\\", b"\\u00", b"\\ud83d", b"\0", b"\xff", b"\xef",
     b'"ip"', b'"host"', b'"port"', b'"ports"', b'"proto"', b'"rec_type"', b'"data"', b'"service"', b'"banner"', b"80",
     b'"192.0.2.1"', b'"2001:db8::1"', b'"tcp"', b'"status"', b'"open"', b"null", b"true", b"NaN", b"1e999", b"-0",
     b"{finished: 1}", b"<nmaprun>", b'<nmaprun scanner="masscan">', b"</nmaprun>", b"<host>", b"</host>", b"<ports>",
     b"</ports>", b'<port protocol="tcp" portid="80">', b"</port>", b'<state state="open"/>', b'<script id="ssl-cert">',
     b'<address addr="192.0.2.1" addrtype="ipv4"/>', b'<elem key="pem">', b"</elem>", b"</script>", b"<table>",
     b"<!DOCTYPE nmaprun>", b"<!DOCTYPE nmaprun [", b'<?xml version="1.0"?>', b"<!--", b"-->", b"<![CDATA[", b"]]>",
     b'<service name="X509" banner="MIIB"/>', b"192.0.2.1:80", b"[::1]:53/udp", b"#", b" ", b"&amp;", b"&x;"]
)  # fmt: skip
JUNK = st.binary(max_size=400) | st.lists(PIECES | st.binary(max_size=5), max_size=60).map(b"".join)
FORMATS = st.none() | st.sampled_from(list(Format))
ADDRESSES = st.ip_addresses().map(lambda address: normalise_address(str(address)) or "")
NUMBERS = st.integers(min_value=1, max_value=65535)
TEXTS = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)


@settings(max_examples=400, deadline=None)
@given(data=JUNK, format_=FORMATS)
def test_no_bytes_bring_anything_but_records_skipped_ones_and_refusals(data: bytes, format_: Format | None) -> None:
    read_judged(data, format_)


RECORDS = st.builds(
    Record,
    address=ADDRESSES,
    port=st.builds(
        Port,
        number=NUMBERS,
        transport=st.sampled_from(list(Transport)),
        service=st.none() | st.builds(Service, name=TEXTS.filter(bool), product=TEXTS, version=TEXTS, extra=TEXTS),
    ),
)


@settings(max_examples=40, deadline=None)
@given(records=st.lists(RECORDS, min_size=1, max_size=20))
def test_what_is_valid_comes_back_whole_in_every_format(records: list[Record]) -> None:
    """Written as each format writes it, by the few lines below, and read."""
    plain = [_plain(record) for record in records]
    assert read_judged(_naabu(records), Format.NAABU) == (records, False)
    assert read_judged(json.dumps([json.loads(line) for line in _naabu(records).splitlines()]).encode()) == (
        records,
        False,
    )
    nmap, _ = read_judged(_nmap(records))
    assert [item for item in nmap if isinstance(item, Record) and item.port] == records
    assert read_judged(_masscan(records)) == (plain, False)
    assert read_judged(_masscan_lines(records)) == (plain, False)
    assert read_judged(_host_port(records)) == (plain, False)


def test_twenty_thousand_mutated_lines_crash_nothing() -> None:
    summary = run(lines=20_000, seed=7)
    assert summary["lines"] >= 20_000
    assert summary["crashes"] == []
    read = summary["formats"]
    assert set(read) == {str(format_) for format_ in Format}
    assert all(told["records"] > 50 and told["skipped"] + told["refused"] > 50 for told in read.values()), read


def _plain(record: Record) -> Record:
    assert record.port
    return Record(address=record.address, port=Port(number=record.port.number, transport=record.port.transport))


def _naabu(records: list[Record]) -> bytes:
    lines = []
    for record in records:
        assert record.port
        value = {"ip": record.address, "port": record.port.number, "protocol": str(record.port.transport), "tls": False}
        if service := record.port.service:
            value |= {"name": service.name, "product": service.product, "version": service.version}
            value |= {"extra_info": service.extra}
        lines.append(json.dumps(value))
    return "\n".join(lines).encode()


def _nmap(records: list[Record]) -> bytes:
    hosts = []
    for record in records:
        port = record.port
        assert port and port.state is PortState.OPEN
        inside = ""
        if service := port.service:
            inside = (
                f"<service name={quoteattr(service.name)} product={quoteattr(service.product)} "
                f"version={quoteattr(service.version)} extrainfo={quoteattr(service.extra)}/>"
            )
        hosts.append(
            f'<host><status state="up" reason="echo-reply"/><address addr="{record.address}" addrtype="ip"/><ports>'
            f'<port protocol="{port.transport}" portid="{port.number}"><state state="open"/>{inside}</port>'
            "</ports></host>\n"
        )
    return f'<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap">{"".join(hosts)}</nmaprun>'.encode()


def _masscan(records: list[Record]) -> bytes:
    lines = []
    for record in records:
        assert record.port
        port = {"port": record.port.number, "proto": str(record.port.transport), "status": "open"}
        lines.append(json.dumps({"ip": record.address, "ports": [port]}))
    return ("[\n" + "\n,\n".join(lines) + "\n]\n").encode()


def _masscan_lines(records: list[Record]) -> bytes:
    lines = []
    for record in records:
        assert record.port
        value = {"ip": record.address, "port": record.port.number, "proto": str(record.port.transport)}
        lines.append(json.dumps(value | {"rec_type": "status", "data": {"status": "open"}}))
    return "\n".join(lines).encode()


def _host_port(records: list[Record]) -> bytes:
    lines = []
    for record in records:
        assert record.port
        host = f"[{record.address}]" if ":" in record.address else record.address
        lines.append(f"{host}:{record.port.number}/{record.port.transport}")
    return "\n".join(lines).encode()
