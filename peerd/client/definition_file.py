"""Definition files as the daemon takes them, with the package files that they name.

A definition is sent as the text it is, so that the daemon's problems carry the lines of the file. Only
``package[].source`` is resolved here, because only this side has the file: the value is replaced in the text by its
content, on the same line, so lines stay true.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peerd.errors import PeerdError, Reason

if TYPE_CHECKING:
    import yaml

    from peerd.v1 import workflows_pb2

MAX_PACKAGE_BYTES = 2 * 1024 * 1024
"""What the daemon takes as well: a definition is sent and stored whole; larger things belong into a data service."""

_MAY_HAVE_SOURCES = re.compile(r"\bsource\b[\"']?\s*:")


def looks_like_file(text: str) -> bool:
    """Whether ``run`` means a file or the name of a stored workflow; names have no slash and no such ending."""
    return "/" in text or Path(text).suffix in (".yaml", ".yml", ".json")


def read_definition(path: Path) -> workflows_pb2.DefinitionSource:
    """The file as the daemon takes it, with its package files in it."""
    from peerd.v1 import workflows_pb2

    text = read_text(path)
    if _MAY_HAVE_SOURCES.search(text):
        text = _with_package_files(text, path)
    return workflows_pb2.DefinitionSource(text=text, file_name=path.name)


def read_text(path: Path) -> str:
    """A text that somebody named. Raises INVALID_ARGUMENT."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"there is no file {path}", next_action="check the path") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise PeerdError(
            Reason.INVALID_ARGUMENT, f"cannot read {path}: {exc}", next_action="give a readable UTF-8 text file"
        ) from exc


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One ``source: NAME`` in the text: where key and value begin and end, and the name."""

    key: tuple[int, int]
    value: tuple[int, int]
    name: str


def _span(event: yaml.ScalarEvent) -> tuple[int, int]:
    assert event.start_mark is not None and event.end_mark is not None  # noqa: S101  # events of a parser have both
    return event.start_mark.index, event.end_mark.index


def _with_package_files(text: str, path: Path) -> str:
    import yaml

    try:
        entries = list(_package_sources(text))
    except (yaml.YAMLError, RecursionError):
        return text  # the daemon says what is wrong with it, in its own words
    left = MAX_PACKAGE_BYTES
    for entry in reversed(entries):
        before = text[: entry.value[0]].split("\n")
        where = f"{path}:{len(before)}:{len(before[-1]) + 1}"
        content = _package_content(path.parent / entry.name, where)
        left -= len(content)
        if left < 0:
            raise PeerdError(
                Reason.TOO_LARGE,
                f"{where}: the package files of one definition may be {MAX_PACKAGE_BYTES // 1024**2} MiB together",
                next_action="offer large files with a data service",
            )
        encoded = base64.b64encode(content).decode()
        text = (
            text[: entry.key[0]]
            + '"content"'
            + text[entry.key[1] : entry.value[0]]
            + f'"{encoded}"'
            + text[entry.value[1] :]
        )
    return text


def _package_content(file: Path, where: str) -> bytes:
    try:
        if not file.is_file():
            raise FileNotFoundError("there is no such file")
        return file.read_bytes()
    except OSError as exc:
        raise PeerdError(
            Reason.INVALID_DEFINITION,
            f"{where}: cannot read the package file {file}: {exc}",
            next_action="put the file beside the definition, or correct 'source'",
        ) from exc


def _package_sources(text: str) -> Iterator[_Source]:
    """Key and value of each ``jobs[].package[].source``, found in the parser's events so that marks are exact."""
    import yaml

    path: list[str | int] = []  # where we are: a key while in a mapping, a position while in a list
    keys: list[yaml.ScalarEvent | None] = []  # per open mapping the key whose value comes next; None: a key comes next
    kinds: list[str] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            kinds.pop(), path.pop(), keys.pop()
        elif not isinstance(event, yaml.NodeEvent):
            continue
        elif kinds and kinds[-1] == "map" and keys[-1] is None:
            if not isinstance(event, yaml.ScalarEvent):
                return  # a key that is no text: no definition
            keys[-1], path[-1] = event, event.value
            continue
        elif isinstance(event, yaml.CollectionStartEvent):
            kinds.append("map" if isinstance(event, yaml.MappingStartEvent) else "list")
            keys.append(None)
            path.append("" if kinds[-1] == "map" else 0)
            continue
        elif isinstance(event, yaml.ScalarEvent) and keys and (key := keys[-1]) is not None:
            match path:
                case ["jobs", int(), "package", int(), "source"]:
                    yield _Source(key=_span(key), value=_span(event), name=event.value)
        # A value is complete: in a mapping a key comes next, in a list the next position.
        if kinds and kinds[-1] == "map":
            keys[-1] = None
        elif path and isinstance(last := path[-1], int):
            path[-1] = last + 1
