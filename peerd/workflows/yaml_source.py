"""YAML text -> tree, from the parser's events.

Only the part of YAML that means the same as JSON: one document, string keys, no tags, no merge keys. Anchors and
aliases work, but what they expand to is counted, so that a few lines cannot become a billion.

Working on events rather than with PyYAML's composer is deliberate: the composer recurses on the C stack (200,000
opening brackets end the process **[ran]**), is five times slower on a large definition, and no longer knows which
tags were written and which were guessed.
"""

from __future__ import annotations

from typing import Any

import yaml

from peerd.workflows.problems import Problem, ProblemReason
from peerd.workflows.tree import MAX_DEPTH, Mapping, Mark, Node, Scalar, Sequence, SourceError, Tree

# Nodes that all aliases together may stand for, the aliases inside them included.
MAX_ALIASED_NODES = 100_000

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Tree:
    """The one document of the text. Raises SourceError."""
    try:
        return Tree(root=_Builder(text).document(), locate=_locate)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "not YAML"
        if "\t" in what:
            what += " (YAML does not allow tabs as indentation)"
        line, column = _locate(mark) if mark else (0, 0)
        raise SourceError(
            Problem(reason=ProblemReason.BAD_YAML, message=f"not YAML: {what}", line=line, column=column)
        ) from error
    except yaml.reader.ReaderError as error:
        line, column = _first_unprintable(text)
        raise SourceError(
            Problem(
                reason=ProblemReason.BAD_YAML,
                message="not YAML: it contains a control character",
                line=line,
                column=column,
                next_action='write it as an escape in double quotes, such as "\\x07"',
            )
        ) from error


class _Builder:
    """Pulls events and builds nodes; recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self._next = _Parser(text).get_event
        # Anchor -> node and how many nodes it stands for.
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._aliased = 0

    def document(self) -> Node:
        self._next()  # stream start
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise _refused(ProblemReason.MISSING, "the text is empty", event.start_mark, "write a definition into it")
        root = self._node(self._next(), 1)
        self._next()  # document end
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise _refused(
                ProblemReason.BAD_YAML,
                "a second document starts here",
                event.start_mark,
                "keep one definition per file",
            )
        return root

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if event.tag is not None and event.tag != "!":
            raise _refused(
                ProblemReason.BAD_YAML, f"the tag {event.tag!r} is not allowed", event.start_mark, "remove the tag"
            )
        before = self._nodes
        self._nodes += 1
        node: Node
        if kind is yaml.ScalarEvent:
            node = Scalar(event.value, event.style is None or event.style == "", event.start_mark)
        else:
            if depth > MAX_DEPTH:
                raise _refused(ProblemReason.TOO_DEEP, f"nested more than {MAX_DEPTH} deep", event.start_mark)
            if kind is yaml.MappingStartEvent:
                node = Mapping(self._entries(depth), event.start_mark)
            else:
                node = Sequence(self._items(depth), event.start_mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        following = self._next
        while type(event := following()) is not yaml.SequenceEndEvent:
            items.append(self._node(event, depth + 1))
        return items

    def _entries(self, depth: int) -> list[tuple[Scalar, Node]]:
        entries: list[tuple[Scalar, Node]] = []
        seen: dict[str, Scalar] = {}
        following = self._next
        while type(event := following()) is not yaml.MappingEndEvent:
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise _refused(
                    ProblemReason.BAD_YAML, "a key must be a plain word", event.start_mark, "write the key as text"
                )
            if (first := seen.get(key.text)) is not None:
                raise _refused(
                    ProblemReason.DUPLICATE_KEY,
                    f"the key {key.text!r} stands here a second time; first in line {first.mark.line + 1}",
                    event.start_mark,
                )
            seen[key.text] = key
            entries.append((key, self._node(following(), depth + 1)))
        return entries

    def _alias(self, event: Any) -> Node:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise _refused(
                ProblemReason.BAD_YAML,
                f"the alias *{event.anchor} stands before the end of its anchor",
                event.start_mark,
                "define the anchor above, outside of what uses it",
            )
        node, size = found
        self._nodes += size
        self._aliased += size
        if self._aliased > MAX_ALIASED_NODES:
            raise _refused(
                ProblemReason.TOO_LARGE,
                f"the aliases of this text stand for more than {MAX_ALIASED_NODES} values",
                event.start_mark,
                "write out what they stand for, or use fewer",
            )
        return node


def _refused(reason: ProblemReason, message: str, mark: Mark, next_action: str = "") -> SourceError:
    line, column = _locate(mark)
    return SourceError(Problem(reason=reason, message=message, line=line, column=column, next_action=next_action))


def _locate(mark: Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _first_unprintable(text: str) -> tuple[int, int]:
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if not found:
        return 0, 0
    before = text[: found.start()]
    return before.count("\n") + 1, found.start() - (before.rfind("\n") + 1) + 1
