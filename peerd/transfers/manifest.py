"""What a transfer consists of: every file with its size, its digest and the digests of its blocks.

The digest of a manifest is BLAKE3 over, for each file in the order of the paths' bytes: length of the path (8 bytes,
big-endian) and path, size (8 bytes), executable (1 byte), digest (32 bytes). Empty directories are not sent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from peerd.digest import DIGEST_BYTES, Hasher
from peerd.errors import PeerdError, Reason
from peerd.transfers.model import Source
from peerd.transfers.paths import open_directory, open_regular, parse_relative_path
from peerd.transfers.picking import pick

BLOCK_BYTES = 16 * 1024**2
"""What is verified and resumed at once."""
READ_BYTES = 1024**2
"""Messages and reads; 1 to 2 MiB measured fastest over grpc."""
MAX_FILES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file."""

    path: str
    size: int
    executable: bool
    digest: bytes
    block_digests: tuple[bytes, ...]
    """One for each 16 MiB block of a file longer than one block; else empty, the file's digest serves."""

    def block_digest(self, block: int) -> bytes:
        """The digest of the n-th block."""
        return self.block_digests[block] if self.block_digests else self.digest


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All files, sorted by the bytes of their paths."""

    files: tuple[FileEntry, ...]

    @cached_property
    def total_bytes(self) -> int:
        """Sum of all sizes."""
        return sum(entry.size for entry in self.files)

    def digest(self) -> bytes:
        """See the module's docstring."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        hasher = Hasher()
        for entry in self.files:
            path = entry.path.encode()
            hasher.update(len(path).to_bytes(8, "big") + path + entry.size.to_bytes(8, "big"))
            hasher.update(bytes([entry.executable]) + entry.digest)
        return hasher.digest()


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What a file was when its digest was taken; anything else later is another file."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, descriptor: int) -> Pin:
        status = os.fstat(descriptor)
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """A manifest together with where its files lie and what they were."""

    root: Path
    manifest: Manifest
    pins: tuple[Pin, ...]
    paths: tuple[str, ...]
    """Where each file lies below the root; in the manifest are the names it gets at the other end."""

    @cached_property
    def by_path(self) -> Mapping[str, tuple[FileEntry, Pin]]:
        """What each file was, by where it lies."""
        return dict(zip(self.paths, zip(self.manifest.files, self.pins, strict=True), strict=True))


def check_manifest(files: Sequence[FileEntry]) -> Manifest:
    """A manifest from another peer, if it makes sense. Raises INVALID_PATH or INVALID_ARGUMENT."""
    seen: dict[str, str] = {}
    previous = b""
    for entry in files:
        parse_relative_path(entry.path)
        encoded = entry.path.encode()
        if previous and encoded <= previous:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"the manifest is not sorted at {entry.path!r}")
        previous = encoded
        folded = entry.path.casefold()
        if folded in seen:
            raise PeerdError(Reason.INVALID_PATH, f"{entry.path!r} and {seen[folded]!r} differ only in case")
        seen[folded] = entry.path
        _check_digests(entry)
    _check_nesting(files)
    return Manifest(files=tuple(files))


def _check_digests(entry: FileEntry) -> None:
    blocks = -(-entry.size // BLOCK_BYTES) if entry.size > BLOCK_BYTES else 0
    lengths = {len(entry.digest), *(len(digest) for digest in entry.block_digests)}
    if len(entry.block_digests) != blocks or lengths != {DIGEST_BYTES}:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"the digests of {entry.path!r} do not fit its size")


def _check_nesting(files: Sequence[FileEntry]) -> None:
    paths = {entry.path for entry in files}
    for entry in files:
        folder = entry.path.rpartition("/")[0]
        while folder:
            if folder in paths:
                raise PeerdError(Reason.INVALID_PATH, f"{folder!r} is both a file and a directory")
            folder = folder.rpartition("/")[0]


GivenUp = Callable[[], bool]
"""Whether nobody waits any more for what is being read."""


async def scan_in_thread(scanning: Callable[[GivenUp], Scanned]) -> Scanned:
    """What a thread read. It does not read on for nobody: the daemon would not end before it."""
    gone = threading.Event()
    try:
        return await asyncio.to_thread(scanning, gone.is_set)
    finally:
        gone.set()


def scan(
    source: Source,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    given_up: GivenUp = lambda: False,
    before: Scanned | None = None,
) -> Scanned:
    """Read everything that is to be sent, or what is ``wanted`` of it. Blocking: call it in a thread.

    A file that is what it was ``before`` is not read again.

    Raises NOT_A_REGULAR_FILE or INVALID_PATH naming the file, SOURCE_CHANGED when it is gone; NO_FILES_MATCH or
    COLLIDING_NAMES for a selection; CANCELLED soon after it is ``given_up``.
    """
    try:
        root, picked = pick(source)
        picked = [file for file in picked if wanted(file.name)]
        known = before.by_path if before is not None and before.root == root else {}
        entries = [_read(root, file.path, file.name, given_up, known.get(file.path)) for file in picked]
    except FileNotFoundError as error:
        raise PeerdError(Reason.SOURCE_CHANGED, f"{error.filename or source.root} is not there any more") from error
    manifest = check_manifest([entry for entry, _ in entries])
    manifest.digest()  # here, and not on the event loop: of a million files it takes seconds
    pins, paths = tuple(pin for _, pin in entries), tuple(file.path for file in picked)
    return Scanned(root=root, manifest=manifest, pins=pins, paths=paths)


def _read(
    root: Path, path: str, name: str, given_up: GivenUp, known: tuple[FileEntry, Pin] | None
) -> tuple[FileEntry, Pin]:
    *folders, last = path.split("/")
    with open_directory(root, folders) as directory:
        descriptor = open_regular(last, directory)
    try:
        pin = Pin.of(descriptor)
        executable = bool(os.fstat(descriptor).st_mode & 0o100)
        if known is not None and known[1] == pin:
            return replace(known[0], path=name, executable=executable), pin
        whole, blocks = _digests(descriptor, pin.size, path, given_up)
        if Pin.of(descriptor) != pin:
            raise PeerdError(Reason.SOURCE_CHANGED, f"{path!r} changed while it was read")
    finally:
        os.close(descriptor)
    return FileEntry(path=name, size=pin.size, executable=executable, digest=whole, block_digests=blocks), pin


def _digests(descriptor: int, size: int, path: str, given_up: GivenUp) -> tuple[bytes, tuple[bytes, ...]]:
    whole = Hasher()
    blocks: list[bytes] = []
    for start in range(0, size, BLOCK_BYTES):
        block = Hasher()
        end = min(size, start + BLOCK_BYTES)
        for offset in range(start, end, READ_BYTES):
            if given_up():
                raise PeerdError(Reason.CANCELLED, "nobody waits for it any more")
            data = os.pread(descriptor, min(READ_BYTES, end - offset), offset)
            if len(data) != min(READ_BYTES, end - offset):
                raise PeerdError(Reason.SOURCE_CHANGED, f"{path!r} became shorter while it was read")
            whole.update(data)
            if size > BLOCK_BYTES:
                block.update(data)
        if size > BLOCK_BYTES:
            blocks.append(block.digest())
    return whole.digest(), tuple(blocks)
