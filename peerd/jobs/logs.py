"""Reading what a job wrote to stdout and stderr, while it runs and afterwards.

Logs are read by offset, so that a reader that lost its connection goes on where it was. A new attempt starts its files
anew: a reader that follows starts anew with it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Clock

PIECE_BYTES = 64 * 1024
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some bytes of one file."""

    path: Path
    data: bytes
    next_offset: int


async def read_logs(
    paths: dict[Path, int], *, follow: bool, ended: Callable[[], Awaitable[bool]], clock: Clock
) -> AsyncIterator[Piece]:
    """The bytes of each file from its offset on; with ``follow`` until the job has ended and all is read."""
    offsets = dict(paths)
    while True:
        # Asked first: what the job wrote before it ended is then read below, however late we are.
        last = not follow or await ended()
        for path in offsets:
            while True:
                data, offsets[path] = await asyncio.to_thread(_read, path, offsets[path])
                if not data:
                    break
                yield Piece(path=path, data=data, next_offset=offsets[path])
        if last:
            return
        await clock.sleep(_POLL_SECONDS)


def _read(path: Path, offset: int) -> tuple[bytes, int]:
    """Bytes from there and the offset after them. A job may replace its log by a link, which is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b"", offset
    try:
        information = os.fstat(descriptor)
        if not stat.S_ISREG(information.st_mode):
            return b"", offset
        if information.st_size < offset:
            offset = 0
        data = os.pread(descriptor, PIECE_BYTES, offset)
        return data, offset + len(data)
    finally:
        os.close(descriptor)
