"""Text as a tree that remembers where everything stood. Knows neither YAML nor JSON nor definitions.

Scalars keep the characters of the file and whether they were quoted; what they mean is decided by the field that
takes them (:mod:`peerd.workflows.decode`), never by how they look. So ``x: no``, ``1.10`` and ``on:`` stay themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peerd.workflows.problems import FieldPath, Problem

# A text of 20,000 jobs takes some 5 MiB.
MAX_TEXT_BYTES = 16 * 1024 * 1024
# A definition is nested six deep; parsers with a C stack must not be led further down.
MAX_DEPTH = 100

# What the parser can turn into a line and column later: only problems need them.
Mark = Any


@dataclass(slots=True)
class Scalar:
    """A string, number, true, false or null, as written."""

    text: str
    # Written without quotes, so it may be a number, a truth value or null.
    plain: bool
    mark: Mark


@dataclass(slots=True)
class Sequence:
    """A list."""

    items: list[Node]
    mark: Mark


@dataclass(slots=True)
class Mapping:
    """Keys with their values, in the order of the file; keys are unique."""

    entries: list[tuple[Scalar, Node]]
    mark: Mark


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A parsed text."""

    root: Node
    # Line and column of a mark, both from 1.
    locate: Callable[[Mark], tuple[int, int]]

    def place_of(self, path: FieldPath) -> tuple[int, int]:
        """Where the field stands, or the nearest thing around it that is written."""
        node = self.root
        for step in path:
            inner = _child(node, step)
            if inner is None:
                break
            node = inner
        return self.locate(node.mark)


class SourceError(Exception):
    """The text cannot be read at all; carries the one problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _child(node: Node, step: str | int) -> Node | None:
    if isinstance(step, int):
        return node.items[step] if isinstance(node, Sequence) and step < len(node.items) else None
    if not isinstance(node, Mapping):
        return None
    # A field may be written in either spelling: max_backoff, maxBackoff.
    wanted = (step, camel_case(step))
    return next((value for key, value in node.entries if key.text in wanted), None)


def camel_case(name: str) -> str:
    """The JSON name of a proto field."""
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)
