"""The bytes of a scan in blocks, counted, without what wraps them: a byte-order mark, the quotes of a JSON string."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from peerd.errors import PeerdError, Reason
from peerd.scans.formats.items import Limits

BLOCK = 64 * 1024
HEAD = 64 * 1024
"""So much is looked at to tell the format."""
_WHOLE = re.compile(r'(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+')
_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


class Source:
    """What is left to read of one scan."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._blocks = _without_mark(_counted(stream, limits))
        self.head = self._collect()
        if self.head.lstrip()[:1] == b'"':
            self._blocks = _unquoted(self._again(self.head))
            self.head = self._collect()

    def blocks(self) -> Iterator[bytes]:
        """All of it from the beginning; once."""
        return self._again(self.head)

    def _collect(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        for block in self._blocks:
            parts.append(block)
            size += len(block)
            if size >= HEAD:
                break
        return b"".join(parts)

    def _again(self, head: bytes) -> Iterator[bytes]:
        return chain((head,), self._blocks)


def too_large(what: str) -> PeerdError:
    """The refusal of a scan that exceeds a limit."""
    return PeerdError(Reason.SCAN_LIMIT, what)


def _counted(stream: BinaryIO, limits: Limits) -> Iterator[bytes]:
    total = 0
    while block := stream.read(BLOCK):
        total += len(block)
        if total > limits.total_bytes:
            raise too_large(f"the scan is longer than {limits.total_bytes} bytes")
        yield block


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = b""
    for block in blocks:
        first += block
        if len(first) >= len(codecs.BOM_UTF8):
            break
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from blocks


def _unquoted(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The contents of one JSON string, without holding more of it than a block."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    opened = False
    pending = ""
    for block in blocks:
        pending += decoder.decode(block)
        if not opened:
            pending = pending.lstrip().removeprefix('"')
            opened = True
        found = _WHOLE.match(pending)
        end = found.end() if found else 0
        if end < len(pending) and pending[end] == '"':
            yield _unescape(pending[:end])
            _nothing_more(pending[end + 1 :], blocks)
            return
        if half := _HALF.search(pending, max(0, end - 6), end):
            end = half.start()  # the other half of a character may come with the next block
        if len(pending) - end > 12:  # the longest that may be incomplete: two escapes of six characters
            break
        yield _unescape(pending[:end])
        pending = pending[end:]
    raise PeerdError(Reason.INVALID_SCAN, "the scan begins as a JSON string but does not end as one")


def _unescape(piece: str) -> bytes:
    try:
        return str(json.loads(f'"{piece}"', strict=False)).encode("utf-8", "surrogatepass")
    except ValueError as error:
        raise PeerdError(Reason.INVALID_SCAN, "the scan is a JSON string with an escape that means nothing") from error


def _nothing_more(rest: str, blocks: Iterator[bytes]) -> None:
    if rest.strip() or any(block.strip() for block in blocks):
        raise PeerdError(Reason.INVALID_SCAN, "something follows the JSON string that holds the scan")
