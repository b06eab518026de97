"""The executor's work on a job's directory. Blocking: call it in a thread.

A job may have replaced any of its directories by a link; nothing here follows one. What a job made is synced before
anybody is told that it is complete.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from peerd import trees
from peerd.jobs.model import JobFile
from peerd.jobs.paths import JobPlace
from peerd.transfers.staging import FOLDER

_SYNC_EACH = 1000
"""Up to so many files are synced one by one; for more, one sync of everything is cheaper."""


def make_place(place: JobPlace, mounts: Iterable[str]) -> None:
    """Create the job's directories."""
    for directory in (place.input, place.output, place.mounts, place.package, place.logs):
        _make(directory)
    for path in mounts:
        folder = place.mounts
        for component in path.split("/"):
            folder = folder / component
            _make(folder)


def empty_outputs(place: JobPlace, out_mounts: Iterable[str], keep: Iterable[str]) -> None:
    """Remove what an earlier attempt made; ``keep`` are received files, relative to the job's directory."""
    kept = {place.directory / path for path in keep}
    for root in (place.output, *(place.mount(path) for path in out_mounts)):
        _make(root)
        _empty(root, kept, frozenset())
    for log in (place.stdout, place.stderr):
        log.unlink(missing_ok=True)


def remove_made(place: JobPlace, keep: Iterable[str]) -> None:
    """Remove everything a job wrote, wherever in its directory, but its logs; ``keep`` are received files."""
    if place.directory.is_dir():
        trees.open_all(place.directory)
        kept = {place.directory / path for path in keep}
        _empty(place.directory, kept, frozenset({place.logs, place.directory / FOLDER}))


def clear_received(directory: Path, keep: Iterable[Path], others: Iterable[Path]) -> None:
    """Remove what an edge brought, but no file of ``keep`` and nothing below the directories of other edges."""
    if directory.is_dir() and not directory.is_symlink():
        _empty(directory, set(keep), frozenset(other for other in others if other != directory))


def made_files(place: JobPlace, out_mounts: Iterable[str]) -> list[JobFile]:
    """The regular files under output/ and the outgoing mounts, synced to disk."""
    found: dict[str, int] = {}
    for root in (place.output, *(place.mount(path) for path in out_mounts)):
        if root.is_dir() and not root.is_symlink():
            trees.open_all(root)
        for path, size in _regular_files(root):
            found[str(path.relative_to(place.directory))] = size
    logs = [log for log in (place.stdout, place.stderr) if log.is_file() and not log.is_symlink()]
    _sync([*(place.directory / path for path in found), *logs], place.directory)
    return _listed(found)


def offered_files(path: Path) -> list[JobFile]:
    """What a data service offers. Raises FileNotFoundError, or OSError for what cannot be read."""
    information = path.stat()
    if stat.S_ISREG(information.st_mode):
        return _listed({path.name: information.st_size})
    if not stat.S_ISDIR(information.st_mode):
        raise NotADirectoryError(f"{path} is neither a file nor a directory")
    os.scandir(path).close()  # os.walk would take a directory that it may not read for an empty one
    return _listed({str(found.relative_to(path)): size for found, size in _regular_files(path)})


def _listed(found: Mapping[str, int]) -> list[JobFile]:
    """By path, as the store and people can read them: a name that is no text shows its bytes, ``a\\xff``."""
    listed = {
        path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"): found[path] for path in found
    }
    return [JobFile(path=path, size=size) for path, size in sorted(listed.items())]


def _make(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        directory.unlink()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _empty(root: Path, keep: set[Path], spare: frozenset[Path]) -> None:
    for entry in os.scandir(root):
        path = Path(entry.path)
        if path in keep or path in spare:
            continue
        if not entry.is_dir(follow_symlinks=False):
            path.unlink()
        elif any(path in kept.parents for kept in (*keep, *spare)):
            _empty(path, keep, spare)
        else:
            trees.clear(path)


def _regular_files(root: Path) -> Iterator[tuple[Path, int]]:
    if root.is_symlink():
        return
    waiting = [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                inside = list(entries)
        except OSError:
            continue
        for entry in inside:
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_size
            elif entry.is_dir(follow_symlinks=False) and len(os.fsencode(entry.path)) <= trees.LONGEST_PATH:
                waiting.append(entry.path)  # what lies deeper has no path that could be sent


def _sync(files: list[Path], directory: Path) -> None:
    if len(files) > _SYNC_EACH:
        os.sync()
        return
    for folder in {path.parent for path in files} | {directory}:
        _fsync(folder, os.O_DIRECTORY)
    for path in files:
        _fsync(path, 0)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
