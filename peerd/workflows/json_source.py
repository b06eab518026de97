"""JSON text -> tree. Strict RFC 8259: no comments, no trailing commas, no NaN; keys are unique.

The standard library's parser forgets positions and the characters of numbers; YAML's parser is no JSON parser (it
refuses surrogate pairs, and keys over 1,024 characters). So this walks the text itself, with the standard library's
C string scanner for the strings.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in typeshed, there since Python 2.6

from peerd.workflows.problems import Problem, ProblemReason
from peerd.workflows.tree import MAX_DEPTH, Mapping, Node, Scalar, Sequence, SourceError, Tree

_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null", re.ASCII)


def looks_like_json(text: str) -> bool:
    """Whether the text opens as a JSON object. YAML's flow style opens alike only with an unquoted first key."""
    return re.match(r'\ufeff?[ \t\n\r]*\{[ \t\n\r]*["}]', text) is not None


def parse_json(text: str) -> Tree:
    """The one value of the text. Raises SourceError."""
    scanner = _Scanner(text)
    root, end = scanner.value(scanner.skip(1 if text.startswith("\ufeff") else 0), 1)
    end = scanner.skip(end)
    if end != len(text):
        raise scanner.refused("something follows the end of the definition", end)
    return Tree(root=root, locate=scanner.locate)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._space = _SPACE.match
        self._line_starts: list[int] = []

    def skip(self, at: int) -> int:
        found = self._space(self._text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        first = self._text[at : at + 1]
        if first == '"':
            return self._string(at)
        if first in ("{", "[") and depth > MAX_DEPTH:
            raise self.refused(f"nested more than {MAX_DEPTH} deep", at, ProblemReason.TOO_DEEP)
        if first == "{":
            return self._object(at, depth)
        if first == "[":
            return self._array(at, depth)
        word = _WORD.match(self._text, at)
        if not word:
            raise self.refused("expected a value" if first else "the text ends in the middle", at)
        return Scalar(word[0], True, at), word.end()

    def _string(self, at: int) -> tuple[Scalar, int]:
        try:
            value, end = scanstring(self._text, at + 1, True)
            if "\\u" in self._text[at:end]:
                value.encode()
        except json.JSONDecodeError as error:
            raise self.refused(error.msg[:1].lower() + error.msg[1:], error.pos) from error
        except UnicodeEncodeError as error:
            raise self.refused("half of a surrogate pair is no character", at) from error
        return Scalar(value, False, at), end

    def _array(self, start: int, depth: int) -> tuple[Sequence, int]:
        items: list[Node] = []
        at = self.skip(start + 1)
        if self._text[at : at + 1] == "]":
            return Sequence(items, start), at + 1
        while True:
            item, at = self.value(at, depth + 1)
            items.append(item)
            at = self.skip(at)
            match self._text[at : at + 1]:
                case ",":
                    at = self.skip(at + 1)
                case "]":
                    return Sequence(items, start), at + 1
                case _:
                    raise self.refused("expected ',' or ']'", at)

    def _object(self, start: int, depth: int) -> tuple[Mapping, int]:
        entries: list[tuple[Scalar, Node]] = []
        seen: dict[str, Scalar] = {}
        at = self.skip(start + 1)
        if self._text[at : at + 1] == "}":
            return Mapping(entries, start), at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self.refused("expected a key in double quotes", at)
            key, at = self._string(at)
            if key.text in seen:
                line = self.locate(seen[key.text].mark)[0]
                raise self.refused(
                    f"the key {key.text!r} stands here a second time; first in line {line}",
                    key.mark,
                    ProblemReason.DUPLICATE_KEY,
                )
            seen[key.text] = key
            at = self.skip(at)
            if self._text[at : at + 1] != ":":
                raise self.refused("expected ':'", at)
            value, at = self.value(self.skip(at + 1), depth + 1)
            entries.append((key, value))
            at = self.skip(at)
            match self._text[at : at + 1]:
                case ",":
                    at = self.skip(at + 1)
                case "}":
                    return Mapping(entries, start), at + 1
                case _:
                    raise self.refused("expected ',' or '}'", at)

    def locate(self, offset: int) -> tuple[int, int]:
        if not self._line_starts:
            self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def refused(self, what: str, offset: int, reason: ProblemReason = ProblemReason.BAD_JSON) -> SourceError:
        line, column = self.locate(offset)
        message = f"not JSON: {what}" if reason is ProblemReason.BAD_JSON else what
        return SourceError(Problem(reason=reason, message=message, line=line, column=column))
