"""Where a transfer grows until it is whole: a directory of numbered files inside the job's own directory.

Blocks are verified as they arrive, and again from the disk when a transfer is resumed. What is there of a block that is
not whole is kept and hashed again, so that a connection that breaks often costs little; it counts for nothing until its
block is whole and right, and is thrown away with it otherwise. When all is there, files are renamed into their places.
A list of what is about to be renamed is kept first, so that a transfer that takes the place of a half-published one can
take its files away again.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from peerd.digest import Hasher
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.transfers.manifest import BLOCK_BYTES, READ_BYTES, FileEntry, Manifest
from peerd.transfers.model import Expectation
from peerd.transfers.paths import open_directory, open_regular

FOLDER = ".incoming"
_PUBLISHING = "publishing.json"
_SYNC_ALL_FROM = 256
"""From so many files on, one syncfs is cheaper than an fsync for each; it also waits for everybody else's writes."""


class Staging:
    """The partial files of one transfer. All methods block: call them in a thread, one at a time."""

    def __init__(self, expectation: Expectation, edge_id: int, manifest: Manifest, manifest_digest: bytes) -> None:
        self._manifest = manifest
        self._destination = expectation.directory
        self._folder = expectation.root / FOLDER
        self._prefix = f"{edge_id}-"
        self.path = self._folder / f"{self._prefix}{manifest_digest.hex()[:32]}"
        self._current: _Partial | None = None
        self._growing = threading.Lock()
        """A stream may end while a thread writes for it: nothing is closed under its hands."""
        self._open = False
        self._due: dict[int, int] = {}
        """By file: the byte that must come next."""

    def prepare(self) -> list[tuple[int, int]]:
        """Make room, drop what an older manifest of this edge left, and find out what is missing.

        Returns (file index, first missing byte) in order.
        """
        self.close()
        self._drop_others()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        published = set(self._read_publishing(self.path))
        missing = []
        for index, entry in enumerate(self._manifest.files):
            if entry.path in published and self._in_place(entry):
                continue
            if entry.size == 0:
                self._staged(index).touch(mode=0o600)
                continue
            offset = self._kept_bytes(index, entry)
            if offset < entry.size:
                missing.append((index, offset))
        self._due = dict(missing)
        self._open = True
        return missing

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Take the next bytes of a file. Raises DIGEST_MISMATCH, or INVALID_ARGUMENT when they are out of order."""
        if index >= len(self._manifest.files):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"there is no file number {index}")
        with self._growing:
            if not self._open:
                raise PeerdError(Reason.OFFER_FIRST, "the stream that these bytes belong to is over")
            if self._current is None or self._current.index != index:
                self._finish_file()
                # What was skipped would never be verified.
                _check_due(self._manifest.files[index], offset, self._due.get(index))
                self._current = _Partial(self._staged(index), index, self._manifest.files[index], offset)
            self._current.write(offset, data)

    def publish(self) -> tuple[str, ...]:
        """Sync everything, rename it into place, sync the directories. Returns the paths.

        Raises DIGEST_MISMATCH when something is still missing.
        """
        self.close()
        pending = [(index, entry) for index, entry in enumerate(self._manifest.files) if self._complete(index, entry)]
        self._sync([self._staged(index) for index, _ in pending])
        paths = tuple(entry.path for entry in self._manifest.files)
        self._write_publishing(paths)
        self._destination.mkdir(mode=0o755, parents=True, exist_ok=True)
        failpoint("transfer.publish.before_rename")
        folders = set()
        with open_directory(self.path, ()) as staged:
            for index, entry in pending:
                *components, name = entry.path.split("/")
                with open_directory(self._destination, components, create=True) as directory:
                    os.chmod(str(index), 0o755 if entry.executable else 0o644, dir_fd=staged)
                    os.rename(str(index), name, src_dir_fd=staged, dst_dir_fd=directory)
                folders.add(tuple(components))
                folders.update(tuple(components[:depth]) for depth in range(len(components)))
        for components_ in folders:
            with open_directory(self._destination, components_) as directory:
                os.fsync(directory)
        failpoint("transfer.publish.after_rename")
        return paths

    def remove(self) -> None:
        """Take the temporary files away, once the transfer is recorded or refused."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self._folder.rmdir()
        except OSError:  # another edge is still arriving
            pass

    def close(self) -> None:
        """Close the file that grows now; what it has stays for a resume. Waits for a thread that writes."""
        with self._growing:
            self._open = False
            self._finish_file()

    def _finish_file(self) -> None:
        if self._current is not None:
            self._due[self._current.index] = self._current.offset
            self._current.close()
            self._current = None

    def _staged(self, index: int) -> Path:
        return self.path / str(index)

    def _complete(self, index: int, entry: FileEntry) -> bool:
        """True: staged and whole. False: already in its place. Raises when it is neither."""
        staged = self._staged(index)
        if staged.exists() and staged.stat().st_size == entry.size:
            return True
        if self._in_place(entry):
            return False
        raise PeerdError(Reason.DIGEST_MISMATCH, f"{entry.path!r} is not complete")

    def _in_place(self, entry: FileEntry) -> bool:
        *folders, name = entry.path.split("/")
        try:
            with open_directory(self._destination, folders) as directory:
                descriptor = open_regular(name, directory)
        except (FileNotFoundError, PeerdError):
            return False
        try:
            return os.fstat(descriptor).st_size == entry.size and _digest(descriptor, 0, entry.size) == entry.digest
        finally:
            os.close(descriptor)

    def _kept_bytes(self, index: int, entry: FileEntry) -> int:
        """From which byte on a file is missing: after whole blocks that are right, and what came of the next one.

        The file is cut to that.
        """
        try:
            descriptor = os.open(self._staged(index), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            size = min(os.fstat(descriptor).st_size, entry.size)
            good = 0
            while good < entry.size:
                length = min(BLOCK_BYTES, entry.size - good)
                if good + length > size:
                    good = size
                    break
                if _digest(descriptor, good, length) != entry.block_digest(good // BLOCK_BYTES):
                    break
                good += length
            os.ftruncate(descriptor, good)
            return good
        finally:
            os.close(descriptor)

    def _sync(self, paths: Sequence[Path]) -> None:
        if len(paths) >= _SYNC_ALL_FROM:
            with open_directory(self.path, ()) as directory:
                if ctypes.CDLL(None, use_errno=True).syncfs(directory) == 0:
                    return
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _write_publishing(self, paths: Sequence[str]) -> None:
        descriptor = os.open(self.path / _PUBLISHING, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(paths, file)
            file.flush()
            os.fsync(file.fileno())

    def _read_publishing(self, folder: Path) -> list[str]:
        try:
            paths: list[str] = json.loads((folder / _PUBLISHING).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        return paths

    def _drop_others(self) -> None:
        if not self._folder.exists():
            return
        for other in self._folder.iterdir():
            if other.name.startswith(self._prefix) and other != self.path:
                # Another producer of this edge may be publishing at this moment: without its files it ends.
                for staged in other.glob("[0-9]*"):
                    staged.unlink(missing_ok=True)
                for path in self._read_publishing(other):
                    (self._destination / path).unlink(missing_ok=True)
                shutil.rmtree(other, ignore_errors=True)


class _Partial:
    """One file while its bytes arrive; verifies each block as it is filled."""

    def __init__(self, path: Path, index: int, entry: FileEntry, offset: int) -> None:
        self.index = index
        self._entry = entry
        self.offset = offset
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        os.ftruncate(self._descriptor, offset)
        block = offset // BLOCK_BYTES * BLOCK_BYTES
        self._hasher = _hashed(self._descriptor, block, offset - block)

    def write(self, offset: int, data: bytes) -> None:
        _check_due(self._entry, offset, self.offset)
        if offset + len(data) > self._entry.size:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"more bytes of {self._entry.path!r} came than it has")
        view = memoryview(data)
        while view:
            room = BLOCK_BYTES - self.offset % BLOCK_BYTES
            piece = view[:room]
            self._write(piece)
            view = view[room:]

    def _write(self, piece: memoryview) -> None:
        self._hasher.update(piece)
        written = 0
        while written < len(piece):
            written += os.pwrite(self._descriptor, piece[written:], self.offset + written)
        self.offset += len(piece)
        if self.offset % BLOCK_BYTES == 0 or self.offset == self._entry.size:
            block = (self.offset - 1) // BLOCK_BYTES
            if self._hasher.digest() != self._entry.block_digest(block):
                os.ftruncate(self._descriptor, block * BLOCK_BYTES)
                raise PeerdError(Reason.DIGEST_MISMATCH, f"block {block} of {self._entry.path!r} arrived damaged")
            self._hasher = Hasher()
            failpoint("transfer.block.after_write")

    def close(self) -> None:
        os.close(self._descriptor)


def _check_due(entry: FileEntry, offset: int, due: int | None) -> None:
    if offset != due:
        wanted = "nothing" if due is None else due
        raise PeerdError(Reason.INVALID_ARGUMENT, f"bytes of {entry.path!r} at {offset} came when {wanted} was due")


def _digest(descriptor: int, start: int, length: int) -> bytes:
    return _hashed(descriptor, start, length).digest()


def _hashed(descriptor: int, start: int, length: int) -> Hasher:
    hasher = Hasher()
    for offset in range(start, start + length, READ_BYTES):
        hasher.update(os.pread(descriptor, min(READ_BYTES, start + length - offset), offset))
    return hasher
