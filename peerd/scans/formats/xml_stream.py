"""XML in blocks through expat: nothing that a document may declare, and no tree.

nmap writes ``<!DOCTYPE nmaprun>`` and nothing in it; that is let through. A document that declares something of its
own (an entity, an attribute's default) or names an external one is refused before any of it is used. expat itself
bounds what entities may grow to; here none is ever known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol
from xml.parsers import expat

from peerd.errors import PeerdError, Reason
from peerd.scans.formats.items import Item, Limits, Skipped, SkipReason
from peerd.scans.formats.source import too_large

_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1")


class Listener(Protocol):
    """What takes the elements and makes items of them."""

    items: list[Item]
    text: list[str] | None
    """Where character data goes; None where nobody wants it."""
    complete: bool
    """Whether the root was closed."""

    line: Callable[[], int]
    """Where the parser is; set before the first element."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        ...

    def end(self, tag: str) -> None:
        """An element ends."""
        ...


class _Parser:
    def __init__(self, limits: Limits, listener: Listener) -> None:
        self._limits = limits
        self._listener = listener
        self._depth = 0
        self._since_tag = 0
        self._tag_seen = False
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._entity
        self._expat = parser
        listener.line = lambda: parser.CurrentLineNumber

    def feed(self, block: bytes, *, last: bool) -> None:
        """Parse some more; raises ``expat.ExpatError`` where it is not XML any more."""
        self._tag_seen = False
        self._expat.Parse(block, last)
        self._since_tag = 0 if self._tag_seen else self._since_tag + len(block)
        if self._since_tag > self._limits.item_bytes:
            line = self._expat.CurrentLineNumber
            raise too_large(f"more than {self._limits.item_bytes} bytes between two tags at line {line}")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._tag_seen = True
        self._depth += 1
        if self._depth > self._limits.depth:
            raise too_large(f"elements are nested deeper than {self._limits.depth} levels")
        self._listener.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._tag_seen = True
        self._depth -= 1
        self._listener.end(tag)

    def _text(self, text: str) -> None:
        if self._listener.text is not None:
            self._listener.text.append(text)

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise PeerdError(Reason.INVALID_SCAN, "the XML is neither UTF-8 nor ISO-8859-1")

    def _doctype(self, name: str, system_id: str | None, public_id: str | None, has_internal_subset: int) -> None:
        if system_id is not None or public_id is not None or has_internal_subset:
            raise PeerdError(Reason.INVALID_SCAN, "the XML brings a document type of its own or names an external one")

    def _entity(self, *declared: object) -> None:
        raise PeerdError(Reason.INVALID_SCAN, "the XML declares an entity")


def parse_xml(blocks: Iterator[bytes], limits: Limits, listener: Listener) -> Iterator[list[Item]]:
    """The items of each block. A file that breaks off or becomes nonsense is read up to there, and that is an item."""
    parser = _Parser(limits, listener)
    try:
        for block in blocks:
            parser.feed(block, last=False)
            yield _take(listener)
        parser.feed(b"", last=True)
    except expat.ExpatError as error:
        yield _take(listener)
        if error.code in _CUT_SHORT and not listener.complete:
            yield [Skipped(line=error.lineno, reason=SkipReason.TRUNCATED, excerpt="the file ends before it is closed")]
        else:
            yield [Skipped(line=error.lineno, reason=SkipReason.NOT_XML, excerpt=expat.ErrorString(error.code) or "")]
    except PeerdError:
        yield _take(listener)
        raise
    yield _take(listener)


_CUT_SHORT = (
    expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS],
    expat.errors.codes[expat.errors.XML_ERROR_UNCLOSED_TOKEN],
    expat.errors.codes[expat.errors.XML_ERROR_PARTIAL_CHAR],
    expat.errors.codes[expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION],
)
"""What expat says where a file ends too early."""


def _take(listener: Listener) -> list[Item]:
    items, listener.items = listener.items, []
    return items
