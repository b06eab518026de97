"""Whole directories: what they take on the disk, and taking them away. Blocking; no link is followed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def measure(path: Path) -> int:
    """Bytes that a file or a directory with all below it occupies; 0 for what is not there."""
    try:
        total = _occupied(path.lstat())
    except FileNotFoundError:
        return 0
    if path.is_dir() and not path.is_symlink():
        for folder, folders, names in os.walk(path, onerror=None, followlinks=False):
            for name in (*folders, *names):
                with contextlib.suppress(FileNotFoundError):
                    total += _occupied(os.lstat(os.path.join(folder, name)))
    return total


def remove(path: Path, *, up_to: Path) -> None:
    """Delete a directory with all below it, then the directories above it that are empty now, but not ``up_to``.

    What is gone already is no error, so that a removal that was interrupted can be done again. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_all(path)
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


def _occupied(information: os.stat_result) -> int:
    return information.st_blocks * 512


def _open_all(path: Path) -> None:
    """A job may have closed its own directories; they are ours to open."""
    os.chmod(path, 0o700)
    for folder, folders, _ in os.walk(path, topdown=True, followlinks=False):
        for name in folders:
            inside = os.path.join(folder, name)
            if not os.path.islink(inside):
                os.chmod(inside, 0o700)
