"""The words of a condition: where each begins, so that a refusal can say where. Pure; see :mod:`conditions`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


class ConditionError(ValueError):
    """What is wrong with an expression; ``at`` counts its characters from 1."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(f"{message} (at character {at})")


_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<operator>==|!=|<=|>=|&&|\|\||[<>!()\[\],])"
    r"|(?P<number>-?\d+(?:\.\d+)?(?![A-Za-z0-9_.-]))|(?P<word>[A-Za-z_][A-Za-z0-9_.-]*))"
)


@dataclass(frozen=True, slots=True)
class Token:
    """One of them; ``kind`` is text, operator, number, word or end."""

    kind: str
    text: str
    at: int


def tokens(text: str) -> Iterator[Token]:
    """All of them, and an end. Raises ConditionError."""
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise ConditionError(f"{text[at]!r} cannot be read here", at + 1)
        kind = found.lastgroup or ""
        yield Token(kind, found[kind], found.start(kind) + 1)
        position = found.end()
    yield Token("end", "", len(text) + 1)
