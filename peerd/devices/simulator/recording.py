"""Consoles as text files: one line each, ``SECONDS TEXT``, since the line before; what is no text written out.

What is recorded holds no password: the lines come from the same place as those of ``peerctl devices tail``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peerd.devices.lines import LineAssembler
from peerd.errors import PeerdError, Reason

_LONGEST_PAUSE = 86400


class Recorder:
    """Bytes with their times -> rows of a recording."""

    def __init__(self, now: float) -> None:
        self._lines = LineAssembler(torn=True)
        self._last = now

    def feed(self, data: bytes, now: float) -> list[str]:
        """The rows that these bytes complete."""
        rows = []
        for line in self._lines.feed(data):
            rows.append(f"{now - self._last:.3f} {line}")
            self._last = now
        return rows


def replay(rows: Iterable[str]) -> Iterator[tuple[float, bytes]]:
    """What a recording printed, as (pause in seconds, bytes). Raises INVALID_ARGUMENT naming the line."""
    for number, row in enumerate(rows, start=1):
        text = row.rstrip("\r\n")
        if not text or text.startswith("#"):
            continue
        pause, _, line = text.partition(" ")
        try:
            seconds = float(pause)
            if not 0 <= seconds <= _LONGEST_PAUSE:
                raise ValueError(pause)
        except ValueError as error:
            raise PeerdError(
                Reason.INVALID_ARGUMENT,
                f"line {number} does not begin with seconds, 0 to {_LONGEST_PAUSE}: {text[:60]!r}",
            ) from error
        yield seconds, line.encode() + b"\r\n"
