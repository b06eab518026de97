# ruff: noqa: RUF001 - the spellings are the point
"""200 spellings of targets: each has one normal form, or is refused with what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.nodes.targets import parse_target

NORMAL = {
    # names
    "example.com": "example.com",
    "EXAMPLE.com": "example.com",
    "Example.COM.": "example.com",
    " example.com ": "example.com",
    "\texample.com\r\n": "example.com",
    "localhost": "localhost",
    "LOCALHOST.": "localhost",
    "node1": "node1",
    "a": "a",
    "a-b.c-d": "a-b.c-d",
    "a--b.example": "a--b.example",
    "1a.example": "1a.example",
    "123.example": "123.example",
    "0x7f.example": "0x7f.example",
    "1.2.3.4.example": "1.2.3.4.example",
    "192-168-1-1.example": "192-168-1-1.example",
    f"{'a' * 63}.example": f"{'a' * 63}.example",
    ".".join(["a" * 49] * 5) + ".io": ".".join(["a" * 49] * 5) + ".io",
    "cafe": "cafe",
    "dead.beef": "dead.beef",
    "x0.y0": "x0.y0",
    "host-0": "host-0",
    "mainnet.sui.rpcpool.com": "mainnet.sui.rpcpool.com",
    # international names
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "XN--BCHER-KVA.EXAMPLE": "xn--bcher-kva.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",
    "straße.de": "xn--strae-oqa.de",
    "faß.de": "xn--fa-hia.de",
    "例え.テスト": "xn--r8jz45g.xn--zckzah",
    "例え。テスト": "xn--r8jz45g.xn--zckzah",
    "пример.испытание": "xn--e1afmkfd.xn--80akhbyknj4f",
    "παράδειγμα.δοκιμή": "xn--hxajbheg2az3al.xn--jxalpdlp",
    "münchen.de:9000": "xn--mnchen-3ya.de:9000",
    "ｅｘａｍｐｌｅ.com": "example.com",
    "example．com": "example.com",
    "example。com": "example.com",
    "ⓔxample.com": "example.com",
    "ﬁle.example": "file.example",
    # names with a port
    "example.com:9000": "example.com:9000",
    "example.com.:9000": "example.com:9000",
    "EXAMPLE.COM:443": "example.com:443",
    "localhost:1": "localhost:1",
    "localhost:65535": "localhost:65535",
    # IPv4
    "192.168.1.1": "192.168.1.1",
    "192.168.1.1.": "192.168.1.1",
    "10.0.0.1": "10.0.0.1",
    "127.0.0.1": "127.0.0.1",
    "1.1.1.1:53": "1.1.1.1:53",
    "１２７.0.0.1": "127.0.0.1",
    "127。0。0。1": "127.0.0.1",
    "①②⑦.0.0.1": "127.0.0.1",
    "169.254.169.254": "169.254.169.254",
    "100.64.0.1": "100.64.0.1",
    "223.255.255.255": "223.255.255.255",
    # IPv6
    "::1": "::1",
    "[::1]": "::1",
    "[::1]:9000": "[::1]:9000",
    "0:0:0:0:0:0:0:1": "::1",
    "0000:0000:0000:0000:0000:0000:0000:0001": "::1",
    "[0:0:0:0:0:0:0:1]:80": "[::1]:80",
    "2001:DB8::1": "2001:db8::1",
    "2001:db8:0:0:1:0:0:1": "2001:db8::1:0:0:1",
    "2001:0db8::0001": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:DB8:0::1]:443": "[2001:db8::1]:443",
    "2001:db8::1:9000": "2001:db8::1:9000",
    "fe80::1": "fe80::1",
    "fd00::1": "fd00::1",
    "fd00:ec2::254": "fd00:ec2::254",
    "2001:db8::192.0.2.1": "2001:db8::c000:201",
    "64:ff9b::192.0.2.1": "64:ff9b::c000:201",
    "2002:c000:0201::1": "2002:c000:201::1",
    # v4-mapped is the IPv4 address
    "::ffff:10.0.0.1": "10.0.0.1",
    "[::ffff:10.0.0.1]": "10.0.0.1",
    "[::ffff:10.0.0.1]:80": "10.0.0.1:80",
    "::ffff:0a00:0001": "10.0.0.1",
    "::FFFF:10.0.0.1": "10.0.0.1",
    "0:0:0:0:0:ffff:10.0.0.1": "10.0.0.1",
    "::ffff:7f00:1": "127.0.0.1",
    # URLs
    "http://example.com": "example.com",
    "http://example.com/": "example.com",
    "https://example.com": "example.com",
    "HTTPS://Example.Com/": "example.com",
    "https://example.com:8443": "example.com:8443",
    "https://example.com:443/": "example.com:443",
    "ws://example.com:9944": "example.com:9944",
    "wss://example.com": "example.com",
    "tcp://10.0.0.1:30303": "10.0.0.1:30303",
    "http://[::1]:9000/": "[::1]:9000",
    "http://192.168.1.1/": "192.168.1.1",
    "http://[::ffff:192.168.1.1]": "192.168.1.1",
}
REFUSED = {
    # nothing, or too much
    "": "empty",
    " ": "empty",
    "\n": "empty",
    "x" * 401: "longer than 400",
    f"{'a' * 64}.example": "in its host name",
    ".".join(["a" * 49] * 6): "longer than 253",
    # IPv4 that programs read in different ways
    "192.168.001.001": "different ways",
    "192.168.1.01": "different ways",
    "0177.0.0.1": "different ways",
    "0300.0250.0.1": "different ways",
    "00.0.0.1": "different ways",
    "0x7f.0.0.1": "different ways",
    "0x7f.0x0.0x0.0x1": "different ways",
    "0x7f000001": "different ways",
    "0X7F000001": "different ways",
    "2130706433": "different ways",
    "017700000001": "different ways",
    "127.1": "different ways",
    "127.0.1": "different ways",
    "10.1": "different ways",
    "1": "different ways",
    "0": "different ways",
    "0x": "different ways",
    "256.1.1.1": "different ways",
    "1.2.3.256": "different ways",
    "1.2.3.999": "different ways",
    "1.2.3.4.5": "different ways",
    "1.2.3": "different ways",
    "4294967295": "different ways",
    "99999999999": "different ways",
    "a.b.1": "different ways",
    "example.0x1": "different ways",
    "09.0.0.1": "different ways",
    "127.0.0.08": "different ways",
    "１２７.1": "different ways",
    "192.168.1.1:80:90": "not an IPv6",
    "2130706433:80": "different ways",
    "http://2130706433/": "different ways",
    "http://0x7f.1": "different ways",
    # addresses of no machine
    "0.0.0.0": "no machine",
    "0.0.0.1": "no machine",
    "[::]": "no machine",
    "::": "no machine",
    "[::]:80": "no machine",
    "::ffff:0.0.0.0": "no machine",
    "224.0.0.1": "no machine",
    "239.255.255.250": "no machine",
    "::ffff:224.0.0.1": "no machine",
    "ff02::1": "no machine",
    "[ff02::1]:80": "no machine",
    "255.255.255.255": "no machine",
    "240.0.0.1": "no machine",
    "0:0:0:0:0:0:0:0": "no machine",
    # zone ids
    "fe80::1%eth0": "zone",
    "[fe80::1%eth0]:80": "zone",
    "[fe80::1%25eth0]": "zone",
    "fe80::1%1": "zone",
    # IPv6 that is none
    ":::1": "not an IPv6",
    "1::2::3": "not an IPv6",
    "[1:2:3]": "not an IPv6",
    "[::g]": "not an IPv6",
    "12345::": "not an IPv6",
    "::ffff:1.2.3.256": "not an IPv6",
    "::ffff:01.2.3.4": "not an IPv6",
    "::ffff:1.2.3": "not an IPv6",
    "1:2:3:4:5:6:7:8:9": "not an IPv6",
    "[example.com]": "not an IPv6",
    "[127.0.0.1]": "not an IPv6",
    "[]": "not an IPv6",
    "[::1": "brackets",
    "[::1]x": "brackets",
    "[::1]9000": "brackets",
    "::1]:9000": "not an IPv6",
    # ports
    "example.com:": "port",
    "example.com:0": "port",
    "example.com:080": "port",
    "example.com:65536": "port",
    "example.com:99999": "port",
    "example.com:-1": "port",
    "example.com:+80": "port",
    "example.com:8a": "port",
    "example.com:http": "port",
    "example.com:８０": "port",
    "[::1]:": "port",
    "[::1]:0": "port",
    "127.0.0.1:70000": "port",
    # more than a host
    "user@example.com": "user name",
    "http://user:pass@example.com/": "user name",
    "http://a@127.0.0.1:80@b/": "user name",
    "http://example.com/path": "path",
    "http://example.com?x=1": "path",
    "http://example.com#x": "path",
    "http://example.com//": "path",
    "example.com/": "path",
    "example.com\\@evil.example": "path",
    "example.com\\evil": "path",
    "ftp://example.com": "scheme",
    "file:///etc/passwd": "scheme",
    "gopher://x": "scheme",
    "javascript://x": "scheme",
    "10.0.0.0/8": "path",
    # what no name has
    "exa mple.com": "space",
    "example.com\x00": "space or a control",
    "exam\x00ple.com": "space or a control",
    "exam\nple.com": "space or a control",
    "exam\u200bple.com": "space or a control",
    "\u00adexample.com": "space or a control",
    "example\u202e.com": "space or a control",
    "exa_mple.com": "in its host name",
    "_dmarc.example.com": "in its host name",
    "-example.com": "in its host name",
    "example-.com": "in its host name",
    "a..b": "empty label",
    ".example.com": "empty label",
    ".": "empty label",
    "example.com..": "empty label",
    "*.example.com": "in its host name",
    "example.com;id": "in its host name",
    "$(id).example": "in its host name",
    "exam%70le.com": "'%'",
    "example,com": "in its host name",
    "'example'": "in its host name",
    "xn--zzzzzzzz.com": "IDNA",
    "xn--.com": "IDNA",
    "xn--a.com": "IDNA",
    "☃.example": "IDNA",
    "💩.example": "IDNA",
    "255.255.255.0:80": "no machine",
}


def test_there_are_at_least_two_hundred() -> None:
    assert len(NORMAL) + len(REFUSED) >= 200


@pytest.mark.parametrize("text", NORMAL)
def test_a_target_has_one_spelling(text: str) -> None:
    parsed = parse_target(text)
    assert parsed.text == NORMAL[text]
    assert parse_target(parsed.text) == parsed


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(PeerdError) as refused:
        parse_target(text)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert REFUSED[text] in refused.value.message
    assert refused.value.next_action


def test_a_long_target_is_shown_cut() -> None:
    with pytest.raises(PeerdError) as refused:
        parse_target("a_" * 190)
    assert len(refused.value.message) < 300


@given(st.text(max_size=60))
def test_whatever_comes_is_normalised_once_or_refused(text: str) -> None:
    try:
        parsed = parse_target(text)
    except PeerdError as error:
        assert error.reason is Reason.INVALID_ARGUMENT
    else:
        assert parsed.text.isascii()
        assert parse_target(parsed.text) == parsed


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_every_spelling_of_an_address_is_one_target(address: object, port: int | None) -> None:
    spelling = getattr(address, "exploded")  # noqa: B009 - of both versions
    written = f"[{spelling}]" if ":" in spelling else spelling
    try:
        parsed = parse_target(f"{written}:{port}" if port else written)
    except PeerdError as error:
        assert "no machine" in error.message
    else:
        assert (parsed.host, parsed.port) == (parse_target(str(address)).host, port)
