"""The words of an expression, each with its column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

KEYWORDS = ("AND", "OR", "NOT")
_TOKEN = re.compile(r'\s*(?:(?P<text>"[^"]*")|(?P<operator><=|>=|!=|[=<>~()])|(?P<word>[^\s"()<>=!~]+))')


@dataclass(frozen=True, slots=True)
class Token:
    """One word, sign, or text that stood in double quotes. The column counts from 0."""

    kind: str
    text: str
    column: int

    @property
    def is_keyword(self) -> bool:
        """Whether it joins comparisons."""
        return self.text.upper() in KEYWORDS


def tokens(text: str) -> Iterator[Token | int]:
    """Each in its turn; the column of the first character that can start none ends it."""
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            yield position + len(text[position:]) - len(text[position:].lstrip())
            return
        kind = str(match.lastgroup)
        found = match[kind]
        yield Token(kind, found.strip('"') if kind == "text" else found, match.start(kind))
        position = match.end()


def quoted(value: str) -> str:
    """The value as it is written: in double quotes unless it is a word."""
    plain = _TOKEN.fullmatch(value)
    is_word = plain is not None and plain["word"] == value and value.upper() not in KEYWORDS
    return value if is_word else f'"{value}"'
