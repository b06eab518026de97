"""Formats of one record a line: cut into lines without holding more than a block and one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from peerd.inventory.model import Record
from peerd.scans.formats.items import Item, Limits, Skipped, SkipReason
from peerd.scans.formats.source import too_large
from peerd.scans.formats.strict_json import NOT_UTF8, UnfitError
from peerd.scans.formats.values import excerpt_of

Parse = Callable[[str], Iterable[Record | SkipReason]]
"""What one line says; it may raise :class:`UnfitError`."""


def read_lines(blocks: Iterator[bytes], limits: Limits, parse: Parse) -> Iterator[list[Item]]:
    """The items of each block. Blank lines say nothing."""
    for number, batch, ascii_only, ended in _lines(blocks, limits):
        items: list[Item] = []
        for offset, raw in enumerate(batch):
            line = raw.strip()
            if not line:
                continue
            try:
                if not ascii_only and NOT_UTF8.search(line):
                    raise UnfitError(SkipReason.NOT_UTF8)
                for said in parse(line):
                    if isinstance(said, Record):
                        items.append(said)
                    else:
                        items.append(Skipped(line=number + offset, reason=said, excerpt=excerpt_of(line)))
            except UnfitError as unfit:
                reason = unfit.reason
                if reason is SkipReason.TRUNCATED and (ended or offset < len(batch) - 1):
                    reason = SkipReason.NOT_JSON
                items.append(Skipped(line=number + offset, reason=reason, excerpt=excerpt_of(line)))
        yield items


def _lines(blocks: Iterator[bytes], limits: Limits) -> Iterator[tuple[int, list[str], bool, bool]]:
    """(number of the first, lines, whether all of them are ASCII, whether the last one has an end)."""
    number = 1
    blank = 0
    tail: list[bytes] = []
    held = 0
    for block in blocks:
        cut = block.rfind(b"\n")
        if cut < 0:
            tail.append(block)
            held += len(block)
            if held > limits.item_bytes:
                raise too_large(f"line {number} is longer than {limits.item_bytes} bytes")
            continue
        data = b"".join((*tail, block[:cut]))
        tail, held = [block[cut + 1 :]], len(block) - cut - 1
        batch = data.decode("utf-8", "surrogateescape").split("\n")
        if data.strip():
            blank = 0
            yield from _bounded(number, batch, data.isascii(), True, limits)
        else:
            blank += len(data) + 1
            if blank > limits.item_bytes:
                raise too_large(f"more than {limits.item_bytes} blanks in a row before line {number + len(batch)}")
        number += len(batch)
    data = b"".join(tail)
    if data.strip():
        yield from _bounded(number, [data.decode("utf-8", "surrogateescape")], data.isascii(), False, limits)


def _bounded(
    number: int, batch: list[str], ascii_only: bool, ended: bool, limits: Limits
) -> Iterator[tuple[int, list[str], bool, bool]]:
    for offset, line in enumerate(batch):
        if len(line) > limits.item_bytes:
            yield number, batch[:offset], ascii_only, True
            raise too_large(f"line {number + offset} is longer than {limits.item_bytes} bytes")
    yield number, batch, ascii_only, ended
