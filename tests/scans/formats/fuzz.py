"""Mutate the lines of the fixtures, read what comes of it, and print JSON: what was read, and what crashed.

Every line is broken by itself, so a file of many mutated lines must still give the items of the others.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from peerd.scans.formats import Format, Skipped
from tests.scans.formats.judging import read_judged

FIXTURES = Path(__file__).parent / "fixtures"
SHARES = {
    "naabu.jsonl": (Format.NAABU, 6),
    "masscan.ndjson": (Format.MASSCAN_NDJSON, 3),
    "hosts.txt": (Format.HOST_PORT, 3),
    "masscan.json": (Format.MASSCAN_JSON, 2),
    "masscan-old.json": (Format.MASSCAN_JSON, 1),
    "masscan-first.json": (Format.MASSCAN_JSON, 1),
    "nmap.xml": (Format.NMAP_XML, 1),
    "masscan.xml": (Format.MASSCAN_XML, 1),
}
"""File -> its format, and its share of all lines."""
INTERESTING = [
    b"0", b"-1", b"65535", b"65536", b"1e400", b"9" * 30, b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\\u0000",
    b"\\ud800", b"\\x00", b"\0", b"\xff\xfe", b"\xc3", b"\xe2\x80\xae", b"\xf0\x9f\x92\xa9", b"\r", b'"', b"\\", b"::1",
    b"255.255.255.255", b"[" * 80, b"{\"ip\":", b"]", b"}", b",", b"<", b">", b"&", b"&#0;", b"&#55296;", b"&a;",
    b"<!--", b"]]>", b"<![CDATA[", b"<host>", b"</host>", b"</port>", b"#", b"/udp", b"%00", b"A" * 3000,
]  # fmt: skip
_NUMBER = re.compile(rb"[0-9]+")
_LETTER = re.compile(rb"[A-Za-z0-9]")
LINES_AT_ONCE = 100
CRASHES_KEPT = 20


def mutate(line: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The line with one to four of its bytes, pieces or words changed."""
    changed = bytearray(line)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        what = rng.randrange(12)
        if what == 0 and changed:
            changed[at - 1] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[at:at] = bytes((rng.randrange(256),))
        elif what == 2:
            del changed[at : at + rng.choice((1, 1, 2, 8, 40))]
        elif what == 3:
            changed[at:at] = rng.choice(INTERESTING)
        elif what == 4:
            end = at + rng.randrange(1, 12)
            changed[at:end] = rng.choice(INTERESTING)
        elif what == 5:
            other = rng.choice(others)
            changed[at:] = other[rng.randrange(len(other) + 1) :]
        elif what == 6:
            piece = changed[at : at + rng.randrange(1, 60)]
            changed[at:at] = piece * rng.choice((1, 2, 30))
        elif what == 7:
            del changed[at:]
        elif what < 10 and (numbers := list(_NUMBER.finditer(changed))):
            found = rng.choice(numbers)
            changed[found.start() : found.end()] = str(rng.choice((0, 1, 80, 255, 256, 65535, 65536, 10**9))).encode()
        elif words := list(_LETTER.finditer(changed)):
            changed[rng.choice(words).start()] = rng.choice(b"abcxyzABC019.-_: ")
    return bytes(changed)


def file_of(lines: list[bytes], xml: bool, rng: random.Random) -> tuple[bytes, int]:
    """A file, and how many of its lines are mutated: all of them, or one or two where the rest hangs on each."""
    if not xml:
        chosen = [mutate(rng.choice(lines), lines, rng) for _ in range(LINES_AT_ONCE)]
        return b"\n".join(chosen), len(chosen)
    copied = list(lines)
    number = rng.choice((1, 1, 2))
    for _ in range(number):
        at = rng.randrange(len(copied))
        copied[at] = mutate(copied[at], lines, rng)
    return b"\n".join(copied), number


def run(*, lines: int, seed: int) -> dict[str, Any]:
    """Mutate at least so many lines; the same seed makes the same ones."""
    rng = random.Random(seed)
    sources = {name: (FIXTURES / name).read_bytes().split(b"\n") for name in SHARES}
    all_shares = sum(share for _, share in SHARES.values())
    told: dict[str, Counter[str]] = {str(format_): Counter() for format_ in Format}
    crashes: list[dict[str, str]] = []
    begun = time.monotonic()
    for name, (format_, share) in SHARES.items():
        wanted = -(-lines * share // all_shares)
        counts = told[str(format_)]
        done = 0
        while done < wanted:
            data, number = file_of(sources[name], name.endswith(".xml"), rng)
            done += number
            named = format_ if rng.random() < 0.9 else None
            try:
                items, refused = read_judged(data, named)
            except Exception:
                counts["crashes"] += 1
                if len(crashes) < CRASHES_KEPT:
                    crashes.append({"file": name, "data": repr(data), "error": traceback.format_exc()})
                continue
            skipped = sum(isinstance(item, Skipped) for item in items)
            counts.update(lines=number, records=len(items) - skipped, skipped=skipped, refused=int(refused))
    return {
        "seed": seed,
        "lines": sum(counts["lines"] for counts in told.values()),
        "seconds": round(time.monotonic() - begun, 1),
        "max_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "formats": {name: {key: counts[key] for key in ("lines", "records", "skipped", "refused")}
                    for name, counts in told.items()},
        "crashes": crashes,
    }  # fmt: skip


def main() -> None:
    """Print the summary; exit with 1 if anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    summary = run(lines=options.lines, seed=options.seed)
    print(json.dumps(summary, indent=2))
    sys.exit(1 if summary["crashes"] else 0)


if __name__ == "__main__":
    main()
