"""Writing files that a daemon sends: never outside the directory, never through a link, never half.

A file is written beside its place under a name of its own, compared with the digest that came with it, synced, and only
then put in its place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterable
from pathlib import Path

from peerd.digest import Hasher
from peerd.errors import PeerdError, Reason
from peerd.transfers.paths import open_directory, parse_relative_path
from peerd.v1 import workflows_pb2


async def write_files(directory: Path, chunks: AsyncIterable[workflows_pb2.FileChunk]) -> list[Path]:
    """Write all files of the stream below the directory, which is made if need be; their paths.

    Raises INVALID_PATH, NOT_A_REGULAR_FILE (a directory on the way is a link), DIGEST_MISMATCH.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    writing: _Writing | None = None
    try:
        async for chunk in chunks:
            if chunk.HasField("file"):
                if writing is not None:
                    written.append(writing.finish())
                writing = _Writing(directory, chunk.file)
            if chunk.data:
                if writing is None:
                    raise PeerdError(Reason.INVALID_ARGUMENT, "the daemon sent data of no file")
                writing.write(chunk.data)
        if writing is not None:
            written.append(writing.finish())
            writing = None
    finally:
        if writing is not None:
            writing.give_up()
    return written


class _Writing:
    """One file on its way."""

    def __init__(self, root: Path, header: workflows_pb2.FileHeader) -> None:
        self._root = root
        self._header = header
        *self._folders, self._name = parse_relative_path(header.path)
        self._beside = f".{uuid.uuid4().hex}.part"
        self._hasher = Hasher()
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open_directory(root, self._folders, create=True) as folder:
            self._descriptor = os.open(self._beside, flags, 0o755 if header.executable else 0o644, dir_fd=folder)
        self._open = True

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._hasher.update(data)
        self._size += len(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def finish(self) -> Path:
        """Compare and put it in its place."""
        try:
            if self._size != self._header.size or self._hasher.digest() != self._header.digest:
                raise PeerdError(Reason.DIGEST_MISMATCH, f"{self._header.path!r} did not arrive as it was sent")
            os.fsync(self._descriptor)
            with open_directory(self._root, self._folders) as folder:
                os.rename(self._beside, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            self.give_up()
            raise
        self._close()
        return self._root.joinpath(*self._folders, self._name)

    def give_up(self) -> None:
        """Leave nothing half behind."""
        if not self._open:
            return
        self._close()
        with open_directory(self._root, self._folders) as folder:
            os.unlink(self._beside, dir_fd=folder)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)
