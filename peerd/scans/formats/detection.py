"""Which format a scan has, told by how it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peerd.errors import PeerdError, Reason
from peerd.scans.formats.host_port import LINE as HOST_PORT
from peerd.scans.formats.items import Format, Limits
from peerd.scans.formats.objects import FINISHED, FIRST_VERSIONS
from peerd.scans.formats.strict_json import Decoder, UnfitError
from peerd.scans.formats.values import excerpt_of

_LOOKED_AT = 100
"""Lines; garbage before the first line that tells is no reason to refuse the rest."""
_BEFORE_OBJECT = re.compile(r"[\s,\[]*+")
_ROOT = re.compile(r"<nmaprun(?=[\s>])[^>]*+")
_BY_MASSCAN = re.compile(r"\sscanner=[\"']masscan[\"']")


def detect(head: bytes) -> Format:
    """The format of what begins so. The first 64 KiB are enough. Raises UNKNOWN_SCAN_FORMAT."""
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").lstrip()
    if not text:
        raise PeerdError(Reason.UNKNOWN_SCAN_FORMAT, "the scan is empty, or begins with nothing but blanks")
    found = _xml(text) if text.startswith("<") else _lines(text)
    if found is None:
        raise PeerdError(
            Reason.UNKNOWN_SCAN_FORMAT,
            f"this is the output of no scanner that is known here; it begins with: {excerpt_of(text[:60])}",
        )
    return found


def _xml(text: str) -> Format | None:
    root = _ROOT.search(text)
    if root is None:
        return None
    return Format.MASSCAN_XML if _BY_MASSCAN.search(root[0]) else Format.NMAP_XML


def _lines(text: str) -> Format | None:
    decoder = Decoder(Limits())
    for line_start in _line_starts(text):
        end = text.find("\n", line_start)
        line = text[line_start : end if end >= 0 else len(text)].strip()
        if HOST_PORT.fullmatch(line):
            return Format.HOST_PORT
        if line == "]" and text[0] == "[":
            return Format.MASSCAN_JSON  # how masscan says that it found nothing
        before = _BEFORE_OBJECT.match(text, line_start)
        start = before.end() if before else line_start
        if text.startswith("{", start):
            if FIRST_VERSIONS.match(text, start) or FINISHED.match(text, start):
                return Format.MASSCAN_JSON
            try:
                value, _ = decoder.at(text, start)
            except UnfitError:
                continue
            if found := _object(value):
                return found
    return None


def _line_starts(text: str) -> Iterator[int]:
    at = 0
    for _ in range(_LOOKED_AT):
        yield at
        at = text.find("\n", at) + 1
        if at == 0:
            return


def _object(value: Any) -> Format | None:
    if type(value) is not dict:
        return None
    if "rec_type" in value:
        return Format.MASSCAN_NDJSON
    if type(value.get("ports")) is list:
        return Format.MASSCAN_JSON
    if "port" in value and ("ip" in value or "host" in value):
        return Format.NAABU
    return None
