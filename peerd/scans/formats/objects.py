"""JSON objects one after another: in an array or not, with commas or without, on one line or on many.

masscan of all ages and arrays of naabu's objects come through here. One object is held at a time. Where one cannot be
read, reading goes on at the next place that looks like the beginning of a record.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from peerd.errors import PeerdError
from peerd.inventory.model import Record
from peerd.scans.formats.items import Item, Limits, Skipped, SkipReason
from peerd.scans.formats.source import BLOCK, too_large
from peerd.scans.formats.strict_json import NOT_UTF8, Decoder, Incomplete, UnfitError
from peerd.scans.formats.values import excerpt_of

Parse = Callable[[Any], Iterable[Record | SkipReason]]
_BETWEEN = re.compile(r"[\s,\[\]]*+")
FINISHED = re.compile(r"\{\s*\"?finished\"?\s*:\s*1\s*\}")
"""How masscan ended its file until 2017: not JSON, and no record."""
_RECORD = re.compile(r'\{\s*(?:"(?:ip|host)"|ip\s*:|"?finished)')
FIRST_VERSIONS = re.compile(r"\{\s*ip\s*:")
_BARE_KEY = re.compile(r'("(?:[^"\\]++|\\.)*+")|(?<=[{,\s])([a-z]{2,10})(?=\s?:)')
"""masscan's keys had no quotes in its first versions; texts are stepped over."""


def read_objects(blocks: Iterator[bytes], limits: Limits, parse: Parse) -> Iterator[list[Item]]:
    """The items of each block."""
    reader = _Objects(limits, parse)
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    try:
        for block in blocks:
            for at in range(0, len(block), BLOCK):
                reader.feed(decode(block[at : at + BLOCK]), last=False)
                yield reader.take()
        reader.feed(decode(b"", True), last=True)
    except PeerdError:
        yield reader.take()
        raise
    yield reader.take()


class _Objects:
    def __init__(self, limits: Limits, parse: Parse) -> None:
        self._limits = limits
        self._decoder = Decoder(limits)
        self._parse = parse
        self._buffer = ""
        self._line = 1
        self._idle = 0  # blanks, or what was passed over in search of the next record
        self._lost = False
        self._last = False
        self._items: list[Item] = []

    def take(self) -> list[Item]:
        """What was read since the last call."""
        items, self._items = self._items, []
        return items

    def feed(self, text: str, *, last: bool) -> None:
        """Read all records that are whole now."""
        self._last = last
        buffer = self._buffer + text
        counted = at = 0
        while True:
            start = self._next(buffer, at)
            self._line += buffer.count("\n", counted, start)
            counted = at = start
            if at >= len(buffer) or self._lost:
                break
            try:
                at = self._record(buffer, at)
            except Incomplete:
                if not last:
                    break
                self._skip(buffer, at, SkipReason.TRUNCATED)
                at += 1
                self._lost = True
            except UnfitError as unfit:
                if unfit.reason is SkipReason.TOO_DEEP:
                    raise too_large(f"line {self._line} is nested deeper than {self._limits.depth} levels") from unfit
                self._skip(buffer, at, unfit.reason)
                at = max(at + 1, unfit.at)
                self._lost = True
        self._buffer = buffer[at:]
        if len(self._buffer) > self._limits.item_bytes:
            raise too_large(f"the record at line {self._line} is longer than {self._limits.item_bytes} bytes")

    def _next(self, buffer: str, at: int) -> int:
        """Where the next record may begin; the end of the buffer, or a little before it when lost, if nowhere."""
        if self._lost:
            found = _RECORD.search(buffer, at)
            start = found.start() if found else max(at, len(buffer) if self._last else len(buffer) - 64)
            self._lost = found is None
        else:
            between = _BETWEEN.match(buffer, at)
            start = between.end() if between else at
            if start - at > self._limits.depth and buffer.count("[", at, start) > self._limits.depth:
                raise too_large(f"arrays are nested deeper than {self._limits.depth} levels")
        self._idle = self._idle + start - at if start >= len(buffer) - 64 else 0
        if self._idle > self._limits.item_bytes:
            raise too_large(f"more than {self._limits.item_bytes} bytes without a record after line {self._line}")
        return start

    def _record(self, buffer: str, at: int) -> int:
        if buffer[at] != "{":
            raise UnfitError(SkipReason.NOT_JSON)
        try:
            value, end = self._decoder.at(buffer, at)
        except Incomplete:
            if finished := FINISHED.match(buffer, at):
                return finished.end()
            raise
        except UnfitError as unfit:
            if unfit.reason is not SkipReason.NOT_JSON:
                raise
            if finished := FINISHED.match(buffer, at):
                return finished.end()
            value, end = self._first_versions(buffer, at, unfit)
        raw = buffer[at:end]
        if not raw.isascii() and NOT_UTF8.search(raw):
            self._skip(buffer, at, SkipReason.NOT_UTF8)
            return end
        try:
            for said in self._parse(value):
                if isinstance(said, Record):
                    self._items.append(said)
                else:
                    self._skip(buffer, at, said)
        except UnfitError as unfit:
            self._skip(buffer, at, unfit.reason)
        return end

    def _first_versions(self, buffer: str, at: int, why: UnfitError) -> tuple[Any, int]:
        """A record on one line whose keys have no quotes."""
        if not FIRST_VERSIONS.match(buffer, at):
            raise why
        end = buffer.find("\n", at)
        if end < 0 and not self._last:
            raise Incomplete from why
        line = buffer[at : end if end >= 0 else len(buffer)].rstrip(" ,\r\t")
        try:
            value = self._decoder.whole(_BARE_KEY.sub(lambda found: found[1] or f'"{found[2]}"', line))
        except UnfitError as unfit:
            raise UnfitError(SkipReason.NOT_JSON, at + len(line)) from unfit
        return value, at + len(line)

    def _skip(self, buffer: str, at: int, reason: SkipReason) -> None:
        self._items.append(Skipped(line=self._line, reason=reason, excerpt=excerpt_of(buffer[at : at + 200])))
