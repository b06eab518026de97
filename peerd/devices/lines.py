"""LineAssembler: bytes of a console in pieces of any size -> whole lines, clean, without secrets. Pure.

Both CR and LF end a line and empty ones are left out, so that it does not matter where a piece was cut. Memory is
bounded: of a longer line the rest is dropped and counted.
"""

from __future__ import annotations

import re

from peerd.devices.redaction import Redactor

MAX_LINE = 4096
"""Bytes; the longest line of the firmware, a job of a pool, has some 2 KiB."""
_END = re.compile(rb"[\r\n]")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
"""Colours and the like (ECMA-48)."""


class LineAssembler:
    """The lines of one console; ``torn`` if listening may begin in the middle of one."""

    def __init__(self, *, torn: bool = False) -> None:
        self._pending = bytearray()
        self._redactor = Redactor(torn=torn)
        self.dropped_bytes = 0

    def tear(self) -> None:
        """Something is missing here: what comes next may be the rest of any line."""
        self._pending.clear()
        self._redactor = Redactor(torn=True)

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        lines = []
        start = 0
        for end in _END.finditer(data):
            self._keep(data[start : end.start()])
            start = end.end()
            if self._pending:
                lines.append(self._redactor.line(printable(bytes(self._pending))))
                self._pending.clear()
        self._keep(data[start:])
        return lines

    def _keep(self, piece: bytes) -> None:
        room = MAX_LINE - len(self._pending)
        self._pending += piece[:room]
        self.dropped_bytes += max(0, len(piece) - room)


def printable(line: bytes) -> str:
    """As text that is safe on a terminal: what is no UTF-8 or controls something is written out."""
    text = line.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return _ESCAPES.sub("", text).translate(_WRITTEN_OUT)


class _WrittenOut(dict[int, str]):
    """Character -> how it is written; kept for the few that noise is made of, since noise is all of them soon."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode("ascii")
        if code < _KEPT:
            self[code] = shown
        return shown


_KEPT = 0x800
_WRITTEN_OUT = _WrittenOut()
