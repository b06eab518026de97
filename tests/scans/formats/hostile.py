"""Scans made to hurt, read one after another in one process that tells what each of them cost.

python -m tests.scans.formats.hostile [NAME...]     some of CASES, or all; prints JSON
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from peerd.clock import SystemClock
from peerd.errors import PeerdError
from peerd.scans.formats import Format, Limits, Skipped, read_scan

MIB = 1 << 20


class Generated(io.RawIOBase):
    """A stream of pieces that nobody holds all at once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        while len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        given, self._left = self._left[:size], self._left[size:]
        return given


def _repeat(head: bytes, piece: bytes, total: int, tail: bytes = b"") -> Iterator[bytes]:
    yield head
    block = piece * (MIB // len(piece))
    for _ in range(total // len(block)):
        yield block
    yield tail


NMAP = b'<?xml version="1.0"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap">'
HOST = b'<host><status state="up"/><address addr="192.0.2.1" addrtype="ipv4"/><ports>'
LAUGHS = (
    b'<?xml version="1.0"?>\n<!DOCTYPE nmaprun [\n<!ENTITY a0 "laugh">\n'
    + b"".join(b'<!ENTITY a%d "%s">\n' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
    + b']>\n<nmaprun scanner="nmap"><host>&a11;</host></nmaprun>'
)
GIB = 1 << 30

CASES: dict[str, tuple[Format | None, Callable[[], Iterator[bytes]]]] = {
    "billion laughs": (None, lambda: iter([LAUGHS])),
    "billion laughs, named": (Format.NMAP_XML, lambda: iter([LAUGHS])),
    "quadratic blow-up": (
        Format.NMAP_XML,
        lambda: iter(
            [b'<!DOCTYPE nmaprun [<!ENTITY a "', b"x" * 100_000, b'">]><nmaprun>', b"&a;" * 100_000, b"</nmaprun>"]
        ),
    ),
    "external entity": (
        None,
        lambda: iter(
            [b'<!DOCTYPE nmaprun [<!ENTITY x SYSTEM "file:///etc/passwd">]><nmaprun scanner="nmap">&x;</nmaprun>']
        ),
    ),
    "external document type": (
        None,
        lambda: iter([b'<!DOCTYPE nmaprun SYSTEM "http://127.0.0.1:9/x.dtd"><nmaprun scanner="nmap"></nmaprun>']),
    ),
    "external parameter entity": (
        None,
        lambda: iter(
            [b'<!DOCTYPE nmaprun [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><nmaprun scanner="nmap"></nmaprun>']
        ),
    ),
    "defaults of attributes": (
        None,
        lambda: iter([b'<!DOCTYPE nmaprun [<!ATTLIST port portid CDATA "80">]><nmaprun scanner="nmap"></nmaprun>']),
    ),
    "utf-7": (None, lambda: iter([b'<?xml version="1.0" encoding="utf-7"?><nmaprun scanner="nmap"></nmaprun>'])),
    "1 GB of spaces": (None, lambda: _repeat(b"", b" ", GIB)),
    "1 GB of spaces, naabu": (Format.NAABU, lambda: _repeat(b"", b" ", GIB)),
    "1 GB of line ends, naabu": (Format.NAABU, lambda: _repeat(b"", b"\n", GIB)),
    "1 GB of spaces, array": (Format.NAABU, lambda: _repeat(b"[", b" ", GIB)),
    "1 GB of spaces, masscan": (Format.MASSCAN_JSON, lambda: _repeat(b"[", b" ", GIB)),
    "1 GB of commas, masscan": (Format.MASSCAN_JSON, lambda: _repeat(b"[", b",", GIB)),
    "1 GB of spaces, nmap": (None, lambda: _repeat(NMAP, b" ", GIB)),
    "1 GB of spaces, nmap attribute": (None, lambda: _repeat(NMAP + b'<host starttime="', b" ", GIB)),
    "1 GB of spaces, lines": (Format.HOST_PORT, lambda: _repeat(b"192.0.2.1:80\n", b" ", GIB)),
    "1 GB of spaces, text": (None, lambda: _repeat(b'"', b" ", GIB)),
    "1 GB in one line, naabu": (Format.NAABU, lambda: _repeat(b'{"ip":"', b"1", GIB)),
    "1 GB in one line, masscan": (Format.MASSCAN_JSON, lambda: _repeat(b'[{"ip":"', b"1", GIB)),
    "1 GB in one comment, nmap": (None, lambda: _repeat(NMAP + b"<!--", b"x", GIB)),
    "10,000 deep, naabu": (Format.NAABU, lambda: iter([b"[" * 10_000 + b"]" * 10_000 + b"\n"])),
    "10,000 deep inside, naabu": (
        None,
        lambda: iter([b'{"ip":"192.0.2.1","port":80}\n{"ip":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n"]),
    ),
    "10,000 deep, masscan": (Format.MASSCAN_JSON, lambda: iter([b'{"ip":' * 10_000 + b"1" + b"}" * 10_000])),
    "10,000 deep, nmap": (None, lambda: iter([NMAP, b"<a>" * 10_000, b"</a>" * 10_000, b"</nmaprun>"])),
    "million-digit number, naabu": (
        Format.NAABU, lambda: iter([b'{"ip":"192.0.2.1","port":', b"9" * 1_000_000, b"}\n"])
    ),
    "million-digit number, masscan": (
        Format.MASSCAN_JSON,
        lambda: iter([b'[{"ip":"192.0.2.1","ports":[{"proto":"tcp","port":', b"9" * 1_000_000, b"}]}]"]),
    ),
    "million-digit number, nmap": (
        None, lambda: iter([NMAP, HOST, b'<port protocol="tcp" portid="', b"9" * 1_000_000, b'"/></ports></host>'])
    ),
    "million-digit number, lines": (Format.HOST_PORT, lambda: iter([b"192.0.2.1:", b"9" * 1_000_000, b"\n"])),
    "million-digit fraction, naabu": (
        Format.NAABU, lambda: iter([b'{"ip":"192.0.2.1","port":0.', b"9" * 1_000_000, b"}\n"])
    ),
    "NUL bytes": (None, lambda: _repeat(b"", b"\0", 10 * MIB)),
    "NUL bytes, naabu": (Format.NAABU, lambda: _repeat(b"", b"\0", 10 * MIB)),
    "NUL bytes in lines, naabu": (Format.NAABU, lambda: iter([b'{"ip":"192.0.2.1\0","port":80}\n' * 1000])),
    "NUL bytes, nmap": (Format.NMAP_XML, lambda: iter([NMAP, b"\0" * 1000, b"</nmaprun>"])),
    "NUL bytes, masscan": (Format.MASSCAN_JSON, lambda: _repeat(b"", b"\0", 10 * MIB)),
    "endless attributes, nmap": (
        None, lambda: iter([NMAP, b"<host ", b" ".join(b'a%d="1"' % n for n in range(300_000)), b"/>"])
    ),
    "records nested in records, masscan": (
        Format.MASSCAN_JSON, lambda: iter([b'{"ip":"192.0.2.1","ports":[\n' * 20_000])
    ),
    "quotes, masscan": (Format.MASSCAN_JSON, lambda: iter([b'{"ip":"' * 14_000])),
    "escapes without end": (None, lambda: iter([b'"' + b"\\" * 999_999])),
}  # fmt: skip


def run(name: str) -> dict[str, object]:
    """Read one case: how it ended, seconds of this process, MiB by which the most memory ever used has grown."""
    format_, pieces = CASES[name]
    before = _memory()
    begun = resource.getrusage(resource.RUSAGE_SELF)
    records = skipped = 0
    refused = ""
    try:
        for item in read_scan(
            cast(BinaryIO, Generated(pieces())), format_, Limits(total_bytes=4 << 30), clock=SystemClock()
        ):
            if isinstance(item, Skipped):
                skipped += 1
            else:
                records += 1
    except PeerdError as error:
        refused = error.reason.text
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "records": records,
        "skipped": skipped,
        "refused": refused,
        "seconds": ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime,
        "mib": _memory() - before,
    }


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    print(json.dumps({name: run(name) for name in sys.argv[1:] or CASES}, indent=2))
