"""One scan, read from its first byte to its last.

The items come in an order that the bytes alone decide, so that ``position`` means the same whenever the same file is
read: a reading that was interrupted begins anew with ``start`` and goes on where the first one was.

Everything is held in pieces: a block of 64 KiB, at most one record that the blocks cut, and the items of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from peerd.clock import Clock
from peerd.scans.formats.detection import detect
from peerd.scans.formats.host_port import HostPortReader
from peerd.scans.formats.items import Format, Item, Limits, Notes, Skipped, SkipReason
from peerd.scans.formats.lines import read_lines
from peerd.scans.formats.masscan import masscan_line_reader, masscan_reader
from peerd.scans.formats.naabu import naabu_reader
from peerd.scans.formats.nmap_xml import read_xml
from peerd.scans.formats.objects import read_objects
from peerd.scans.formats.source import Source, too_large
from peerd.scans.formats.strict_json import Decoder, UnfitError


class Reading(Iterator[Item]):
    """The items of one scan, in order."""

    def __init__(self, format_: Format, notes: Notes, batches: Iterator[list[Item]]) -> None:
        self.format = format_
        self.notes = notes
        self.position = 0
        """How many items have come so far, those that ``start`` passed over included."""
        self._items = chain.from_iterable(batches)

    def __next__(self) -> Item:
        item = next(self._items)
        self.position += 1
        if isinstance(item, Skipped) and item.reason is SkipReason.TRUNCATED:
            self.notes.whole = False
        return item


def read_scan(
    stream: BinaryIO,
    format: Format | None = None,  # noqa: A002 - the user's noun
    limits: Limits | None = None,
    *,
    clock: Clock | None = None,
    start: int = 0,
) -> Reading:
    """What the scan says, item for item; the format told by its content if it is not named.

    ``start`` passes over so many items at the beginning. Raises, at once or between two items, UNKNOWN_SCAN_FORMAT,
    INVALID_SCAN (what no scanner writes: entities in XML) or SCAN_LIMIT.
    """
    limits = limits or Limits()
    source = Source(stream, limits)
    format_ = format or detect(source.head)
    notes = Notes()
    batches = _bounded(_batches(source, format_, limits, notes), limits, clock)
    reading = Reading(format_, notes, batches)
    for _ in range(start):
        if next(reading, None) is None:
            break
    return reading


def _batches(source: Source, format_: Format, limits: Limits, notes: Notes) -> Iterator[list[Item]]:
    decode = Decoder(limits).whole
    if format_ in (Format.NMAP_XML, Format.MASSCAN_XML):
        return read_xml(source.blocks(), limits, notes)
    if format_ is Format.MASSCAN_JSON:
        notes.tool = "masscan"
        return read_objects(source.blocks(), limits, masscan_reader())
    if format_ is Format.MASSCAN_NDJSON:
        notes.tool = "masscan"
        read = masscan_line_reader()
        return read_lines(source.blocks(), limits, lambda line: read(decode(line)))
    if format_ is Format.NAABU:
        notes.tool = "naabu"
        read = naabu_reader()
        if _spread(source.head):
            return read_objects(source.blocks(), limits, read)
        return read_lines(source.blocks(), limits, lambda line: read(decode(line)))
    return read_lines(source.blocks(), limits, HostPortReader())


def _spread(head: bytes) -> bool:
    """Whether it is an array, or an object on several lines, and not one object a line."""
    text = head.decode("utf-8", "surrogateescape").strip()
    if not text.startswith("{"):
        return text.startswith("[")
    first, newline, _ = text.partition("\n")
    if not newline or first.rstrip().endswith("}"):
        return False
    try:
        Decoder(Limits()).at(text, 0)
    except UnfitError:
        return False
    return True


def _bounded(batches: Iterator[list[Item]], limits: Limits, clock: Clock | None) -> Iterator[list[Item]]:
    """The same batches, with an end to their number and to the time that reading them took."""
    left = limits.records
    spent = 0.0
    while True:
        begun = clock.monotonic() if clock else 0.0
        batch = next(batches, None)
        if batch is None:
            return
        if clock:
            spent += clock.monotonic() - begun
        if len(batch) > left:
            yield batch[:left]
            raise too_large(f"the scan has more than {limits.records} records")
        left -= len(batch)
        yield batch
        if spent > limits.seconds:
            raise too_large(f"reading the scan took longer than {limits.seconds:g} seconds")
