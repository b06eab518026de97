"""How many records a second each scan format is read at, and the memory that takes. Prints one JSON object.

usage: scripts/bench formats [RECORDS]      the default is 200,000 of each format
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from peerd.scans.formats import read_scan
from tests.scans.formats.hostile import Generated

PER_HOST = 10


def address(number: int) -> str:
    host = number // PER_HOST
    return f"10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"


def port(number: int) -> int:
    return 1 + number * 7919 % 65535


def naabu(number: int) -> str:
    return (
        f'{{"ip":"{address(number)}","timestamp":"2024-05-04T10:00:00.123456789Z","port":{port(number)},'
        '"protocol":"tcp","tls":false}\n'
    )


def masscan(number: int) -> str:
    return (
        f'{{   "ip": "{address(number)}",   "timestamp": "1714816800", "ports": [ {{"port": {port(number)}, '
        '"proto": "tcp", "status": "open", "reason": "syn-ack", "ttl": 64} ] }\n,\n'
    )


def masscan_line(number: int) -> str:
    return (
        f'{{"ip":"{address(number)}","timestamp":"1714816800","port":{port(number)},"proto":"tcp",'
        '"rec_type":"status","data":{"status":"open","reason":"syn-ack","ttl":64}}\n'
    )


def masscan_xml(number: int) -> str:
    return (
        f'<host endtime="1714816800"><address addr="{address(number)}" addrtype="ipv4"/><ports><port protocol="tcp" '
        f'portid="{port(number)}"><state state="open" reason="syn-ack" reason_ttl="64"/></port></ports></host>\r\n'
    )


def nmap(number: int) -> str:
    opening = closing = ""
    if number % PER_HOST == 0:
        opening = (
            '<host endtime="1714816800"><status state="up" reason="reset"/>'
            f'<address addr="{address(number)}" addrtype="ipv4"/>\n<ports>'
        )
    if number % PER_HOST == PER_HOST - 1:
        closing = "</ports></host>\n"
    return (
        f'{opening}<port protocol="tcp" portid="{port(number)}"><state state="open" reason="syn-ack" reason_ttl="64"/>'
        f'<service name="ssh" product="OpenSSH" version="8.9p1" method="probed" conf="10"><cpe>cpe:/a:openbsd:openssh'
        f":8.9p1</cpe></service></port>\n{closing}"
    )


FORMATS: dict[str, tuple[str, Callable[[int], str], str]] = {
    "naabu": ("", naabu, ""),
    "masscan_ndjson": ("", masscan_line, ""),
    "masscan_json": ("[\n", masscan, "]\n"),
    "masscan_xml": ('<?xml version="1.0"?>\n<nmaprun scanner="masscan">', masscan_xml, "</nmaprun>"),
    "nmap_xml": ('<?xml version="1.0"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap">', nmap, "</nmaprun>"),
    "host_port": ("", lambda number: f"{address(number)}:{port(number)}\n", ""),
}


def written(name: str, count: int) -> Iterator[bytes]:
    head, line, tail = FORMATS[name]
    yield head.encode()
    for start in range(0, count, 1000):
        yield "".join(line(number) for number in range(start, min(start + 1000, count))).encode()
    yield tail.encode()


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    figures = {}
    for name in FORMATS:
        before = peak_mib()
        begun = time.process_time()
        size = sum(len(piece) for piece in written(name, count))
        writing = time.process_time() - begun
        begun = time.process_time()
        items = sum(1 for _ in read_scan(cast(BinaryIO, Generated(written(name, count)))))
        reading = time.process_time() - begun - writing  # the generator writes it once more
        figures[name] = {
            "items": items,
            "megabytes": round(size / 1e6, 1),
            "records_per_cpu_second": round(items / reading),
            "megabytes_per_cpu_second": round(size / 1e6 / reading, 1),
            "peak_grew_mib": round(peak_mib() - before, 1),
        }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
