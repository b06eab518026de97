"""Whole directories: what they take on the disk, and taking them away. Blocking; no link is followed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

_TO_LOOK = 0o500
_TO_CHANGE = 0o700


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
    for folder, folders, names in os.walk(path, followlinks=False):
        if without is not None and Path(folder) == without.parent and without.name in folders:
            folders.remove(without.name)
        for name in (*folders, *names):
            place = os.path.join(folder, name)
            with contextlib.suppress(*unseen):
                information = os.lstat(place)
                total += _occupied(information)
                if opening:
                    _let_us_in(place, information, _TO_LOOK)
    return total


def remove(path: Path, *, up_to: Path) -> None:
    """Delete a directory with all below it, then the directories above it that are empty now, but not ``up_to``.

    What is gone already is no error, so that a removal that was interrupted can be done again. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            open_all(path)
            shutil.rmtree(path)
    above = path.parent
    while above != up_to and up_to in above.parents:
        try:
            above.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        above = above.parent


def open_all(path: Path) -> None:
    """Let us into all directories, to look and to change: a job may have closed its own, and they are ours to open."""
    _let_us_in(path, path.lstat(), _TO_CHANGE)
    for folder, folders, _ in os.walk(path, topdown=True, followlinks=False):
        for name in folders:
            inside = os.path.join(folder, name)
            _let_us_in(inside, os.lstat(inside), _TO_CHANGE)


def _occupied(information: os.stat_result) -> int:
    return information.st_blocks * 512


def _let_us_in(place: str | Path, information: os.stat_result, bits: int) -> None:
    """Give the owner those bits of a directory. By descriptor: a job that runs may put a link in its place."""
    if not stat.S_ISDIR(information.st_mode) or information.st_mode & bits == bits:
        return
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.chmod(f"/proc/self/fd/{descriptor}", mode | bits)
    finally:
        os.close(descriptor)
