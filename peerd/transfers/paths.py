"""Relative paths from other machines, and opening them without ever following a link.

A path is checked as text first and then walked component by component with directory descriptors and O_NOFOLLOW, so
that neither ``..`` nor a symlink that appears meanwhile leads out of the root.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peerd.errors import PeerdError, Reason

MAX_COMPONENT_BYTES = 255
"""What Linux file systems take."""
MAX_DEPTH = 32
MAX_PATH_BYTES = 4096


def parse_relative_path(text: str) -> tuple[str, ...]:
    """The components of a safe relative path. Raises INVALID_PATH saying what is wrong with it."""
    problem = _problem(text)
    if problem:
        raise PeerdError(Reason.INVALID_PATH, f"{text[:200]!r} {problem}")
    return tuple(text.split("/"))


def _problem(text: str) -> str | None:
    if not text:
        return "is empty"
    if text.startswith("/"):
        return "is absolute"
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if unicodedata.normalize("NFC", text) != text:
        return "is not in Unicode normal form C"
    components = text.split("/")
    if len(components) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} levels"
    for component in components:
        if component in ("", ".", ".."):
            return f"has a component {component!r}"
        if component.startswith("-"):
            return "has a component that starts with '-'"
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            return f"has a component longer than {MAX_COMPONENT_BYTES} bytes"
        if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in component):
            return "has a control character"
    return None


@contextmanager
def open_directory(root: Path, components: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory below ``root``; with ``create``, made on the way.

    Raises NOT_A_REGULAR_FILE when a component is a link or no directory.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for component in components:
            if create:
                try:
                    os.mkdir(component, 0o755, dir_fd=descriptor)
                except FileExistsError:
                    pass
            try:
                inner = os.open(component, flags, dir_fd=descriptor)
            except (NotADirectoryError, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise PeerdError(
                    Reason.NOT_A_REGULAR_FILE, f"{'/'.join(components)} leads through {component!r}, no directory"
                ) from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(root: Path, components: Sequence[str]) -> int:
    """A descriptor for reading a regular file below ``root``. Raises NOT_A_REGULAR_FILE, or FileNotFoundError."""
    with open_directory(root, components[:-1]) as directory:
        return open_regular(components[-1], directory)


def open_regular(name: str, directory: int) -> int:
    """Open a regular file of a directory for reading; links, pipes, sockets and devices are refused unopened."""
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PeerdError(Reason.NOT_A_REGULAR_FILE, f"{name!r} cannot be opened as a plain file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PeerdError(Reason.NOT_A_REGULAR_FILE, f"{name!r} is not a regular file")
    return descriptor
