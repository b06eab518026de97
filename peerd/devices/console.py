"""Console: the last lines of a port, and who reads along. Lines come without passwords; see redaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

KEPT = 200
"""Lines; some ten minutes of a board that prints everything."""
_BEHIND = 1000
"""Lines that a reader may be behind; of a slower one the oldest are left out."""


class Console:
    """Of one port, for as long as something is plugged in there."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._readers: set[asyncio.Queue[str | None]] = set()
        self._ended = False

    def add(self, line: str) -> None:
        """A line came."""
        self._kept.append(line)
        for reader in self._readers:
            if reader.qsize() >= _BEHIND:
                reader.get_nowait()
            reader.put_nowait(line)

    def end(self) -> None:
        """It is unplugged: readers end, those that come later, too."""
        self._ended = True
        for reader in self._readers:
            reader.put_nowait(None)

    async def read(self, *, follow: bool) -> AsyncIterator[str]:
        """The last lines; with follow also those that come, until it is unplugged."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        kept = list(self._kept)
        follow = follow and not self._ended
        if follow:
            self._readers.add(queue)
        try:
            for line in kept:
                yield line
            while follow and (line_or_end := await queue.get()) is not None:
                yield line_or_end
        finally:
            self._readers.discard(queue)
