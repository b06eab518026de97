"""Which files lie below a root, and which of them a selection takes. Blocking: call it in a thread.

What is taken must be a plain file with a safe name; links, sockets and odd names that nobody asked for are no reason to
refuse the rest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from peerd.errors import PeerdError, Reason
from peerd.transfers.model import Source
from peerd.transfers.paths import MAX_DEPTH, open_directory, parse_relative_path
from peerd.transfers.selection import Selection

_LOOKED_AT = 1000
"""Files to count for somebody who wants to know what is there instead."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A file to send: where it lies below the root, and its path at the other end."""

    path: str
    name: str


def pick(source: Source) -> tuple[Path, list[Picked]]:
    """The root and what is taken, sorted by the new paths.

    Raises NO_FILES_MATCH, COLLIDING_NAMES, INVALID_PATH, NOT_A_REGULAR_FILE, or FileNotFoundError for the root.
    """
    selection = source.selection
    root, paths = _candidates(source)
    if selection.everything:
        return root, [Picked(path=path, name=path) for path in paths]
    named = selection.named(paths)
    if not named and not selection.optional:
        there = list(islice(_there(source), _LOOKED_AT + 1))
        raise selection.nothing_found(sorted(there[:_LOOKED_AT]), more=len(there) > _LOOKED_AT)
    for _, name in named:
        parse_relative_path(name)
    return root, [Picked(path=path, name=name) for path, name in named]


def _candidates(source: Source) -> tuple[Path, list[str]]:
    alone = _alone(source)
    if alone is not None:
        root, name = alone
        return root, [name] if source.selection.takes(name) else []
    found = sorted(_walk(source.root, (), source.selection), key=lambda path: path.encode("utf-8", "surrogateescape"))
    return source.root, found


def _alone(source: Source) -> tuple[Path, str] | None:
    """A source of one file."""
    if source.only is not None:
        return source.root, source.only
    if stat.S_ISREG(os.lstat(source.root).st_mode):
        return source.root.parent, source.root.name
    return None


def _walk(root: Path, components: tuple[str, ...], selection: Selection) -> Iterator[str]:
    for name, is_directory, is_file in _entries(root, components):
        path = "/".join((*components, name))
        if is_directory:
            if selection.enters((*components, name)):
                parse_relative_path(path)
                yield from _walk(root, (*components, name), selection)
        elif selection.takes(path):
            parse_relative_path(path)
            if not is_file:
                raise PeerdError(Reason.NOT_A_REGULAR_FILE, f"{path!r} is a link or a special file and is not sent")
            yield path


def _there(source: Source) -> Iterator[str]:
    """Every file, whatever it is called, down to where no path is legal any more."""
    alone = _alone(source)
    if alone is not None:
        yield alone[1]
        return
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        components = waiting.pop()
        for name, is_directory, is_file in _entries(source.root, components):
            if is_file:
                yield "/".join((*components, name))
            elif is_directory and len(components) < MAX_DEPTH:
                waiting.append((*components, name))


def _entries(root: Path, components: tuple[str, ...]) -> list[tuple[str, bool, bool]]:
    with open_directory(root, components) as directory, os.scandir(directory) as entries:
        return [
            (entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)) for entry in entries
        ]
