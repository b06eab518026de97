"""What goes into a container and comes out of it, while it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiodocker.stream import Stream

from peerd.jobs.runner.containers.engine import close

_BLOCK = 1024 * 1024
_STDOUT, _STDERR = 1, 2


class Log:
    """A file with a longest length; what was written by a holder before counts, and what does not fit is counted.

    A disk that is full, or broken, costs the log and never the job, whose end is still to be told.
    """

    def __init__(self, path: Path, cap: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._left = max(0, cap - os.fstat(self._file).st_size)
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Write what fits."""
        fits = data[: self._left]
        self.dropped += len(data) - len(fits)
        self._left -= len(fits)
        while fits:
            try:
                fits = fits[os.write(self._file, fits) :]
            except OSError:
                self.dropped += len(fits)
                self._left += len(fits)
                return

    def sync(self) -> None:
        """To the disk."""
        with suppress(OSError):
            os.fsync(self._file)


class Output:
    """Stdout and stderr of a container."""

    def __init__(self, stdout: Path, stderr: Path, cap: int) -> None:
        self.stdout = Log(stdout, cap)
        self.stderr = Log(stderr, cap)
        self.ended = asyncio.Event()
        """Nothing more comes."""

    def missed(self) -> None:
        """Something may have been written while nobody listened."""
        self.stdout.dropped += 1
        self.stderr.dropped += 1

    async def pump(self, stream: Stream) -> None:
        """Until the container closes both, or the connection breaks."""
        logs = {_STDOUT: self.stdout, _STDERR: self.stderr}
        try:
            while (message := await stream.read_out()) is not None:
                if (log := logs.get(message.stream)) is not None:
                    log.write(message.data)
        except (aiohttp.ClientError, OSError):
            pass  # whether the engine is gone or the container, its state will tell
        finally:
            self.ended.set()

    def sync(self) -> None:
        """To the disk, before the end is recorded."""
        self.stdout.sync()
        self.stderr.sync()


async def feed(stdin: Stream, files: Iterable[Path]) -> bool:
    """Give stdin the files one after the other, and close it. False when the container or the engine took no more."""
    try:
        for file in files:
            with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
                while data := source.read(_BLOCK):
                    await stdin.write_in(data)
        await close(stdin)
    except (aiohttp.ClientError, OSError, RuntimeError, AssertionError):
        return False
    return True
