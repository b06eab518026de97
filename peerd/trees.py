"""Whole directories: what they take on the disk, and taking them away. Blocking; no link is followed.

A job may nest directories deeper than a path can be long, a process may have files open, or calls may go; so they are
walked with one descriptor at a time and without recursion.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_TO_LOOK = 0o500
_TO_CHANGE = 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Identity = tuple[int, int]

LONGEST_PATH = 3800
"""In bytes: what lies in a directory of a longer path is reached by descriptors only."""


def measure(path: Path, *, without: Path | None = None, opening: bool = False) -> int:
    """Bytes that a file or a directory with all below it occupies, ``without`` left out; 0 for what is not there.

    ``opening`` lets us into directories that a job has closed, even while it runs and closes them again: what cannot
    be seen then is not counted. Otherwise raises OSError for it.
    """
    unseen: tuple[type[OSError], ...] = (FileNotFoundError,)
    if opening:
        unseen = (FileNotFoundError, PermissionError, NotADirectoryError)
    try:
        information = path.lstat()
    except FileNotFoundError:
        return 0
    total = _occupied(information)
    if not stat.S_ISDIR(information.st_mode):
        return total
    if opening:
        with contextlib.suppress(*unseen):
            _let_us_in(path, information, _TO_LOOK)
    passed_over: _Identity | None = None
    if without is not None:
        with contextlib.suppress(FileNotFoundError):
            passed_over = _identity(without.lstat())
    for here, folders, others in _walk(path):
        for name in (*folders, *others):
            with contextlib.suppress(*unseen):
                information = os.stat(name, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(information.st_mode) and _identity(information) == passed_over:
                    folders.remove(name)
                    continue
                total += _occupied(information)
                if opening:
                    _let_us_in(name, information, _TO_LOOK, dir_fd=here)
    return total


def remove(path: Path, *, up_to: Path) -> None:
    """Delete a directory with all below it, then the directories above it that are empty now, but not ``up_to``.

    What is gone already is no error, so that a removal that was interrupted can be done again. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            clear(path)
        except PermissionError:
            open_all(path)
            clear(path)
    above = path.parent
    while above != up_to and up_to in above.parents:
        try:
            above.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        above = above.parent


def clear(path: Path) -> None:
    """Delete a directory with all below it. Raises OSError, FileNotFoundError when it is not there."""
    here = os.open(path, _FOLDER)
    above: list[tuple[_Identity, str, list[str]]] = []
    try:
        pending = _emptied(here)
        while True:
            if pending:
                name = pending.pop()
                try:
                    down = os.open(name, _FOLDER, dir_fd=here)
                except FileNotFoundError:
                    continue
                above.append((_identity(os.fstat(here)), name, pending))
                os.close(here)
                here, pending = down, _emptied(down)
            elif above:
                identity, name, pending = above.pop()
                here = _up(here, identity)
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(name, dir_fd=here)
            else:
                break
    finally:
        os.close(here)
    path.rmdir()


def open_all(path: Path) -> None:
    """Let us into all directories, to look and to change: a job may have closed its own, and they are ours to open."""
    _let_us_in(path, path.lstat(), _TO_CHANGE)
    for here, folders, _ in _walk(path):
        for name in folders:
            _let_us_in(name, os.stat(name, dir_fd=here, follow_symlinks=False), _TO_CHANGE, dir_fd=here)


def _walk(top: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Every directory from the top on: its descriptor, its directories, and what else is in it.

    Like os.walk: a directory that cannot be opened is passed over, and so is one that is taken out of the list.
    """
    try:
        here = os.open(top, _FOLDER)
    except OSError:
        return
    above: list[tuple[_Identity, list[str]]] = []
    try:
        pending, others = _entries(here)
        yield here, pending, others
        while True:
            if pending:
                try:
                    down = os.open(pending.pop(), _FOLDER, dir_fd=here)
                except OSError:
                    continue
                above.append((_identity(os.fstat(here)), pending))
                os.close(here)
                here = down
                pending, others = _entries(here)
                yield here, pending, others
            elif above:
                identity, pending = above.pop()
                try:
                    here = _up(here, identity)
                except OSError:  # a job that runs has moved it: who comes next sees it
                    return
            else:
                return
    finally:
        os.close(here)


def _up(here: int, identity: _Identity) -> int:
    """The directory above, if it still is the one we came from; ``here`` is closed then. Raises OSError."""
    above = os.open("..", _FOLDER, dir_fd=here)
    if _identity(os.fstat(above)) != identity:
        os.close(above)
        raise OSError(errno.ESTALE, "a directory was moved while it was walked")
    os.close(here)
    return above


def _entries(here: int) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    others: list[str] = []
    with contextlib.suppress(OSError), os.scandir(here) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
    return folders, others


def _emptied(here: int) -> list[str]:
    """Delete the files of a directory; returns its directories."""
    with os.scandir(here) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=here)
    return [name for name, is_folder in found if is_folder]


def _identity(information: os.stat_result) -> _Identity:
    return information.st_dev, information.st_ino


def _occupied(information: os.stat_result) -> int:
    return information.st_blocks * 512


def _let_us_in(place: str | Path, information: os.stat_result, bits: int, *, dir_fd: int | None = None) -> None:
    """Give the owner those bits of a directory. By descriptor: a job that runs may put a link in its place."""
    if not stat.S_ISDIR(information.st_mode) or information.st_mode & bits == bits:
        return
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.chmod(f"/proc/self/fd/{descriptor}", mode | bits)
    finally:
        os.close(descriptor)
