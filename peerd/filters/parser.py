"""From text to a tree, for whatever vocabulary."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from peerd.errors import PeerdError, Reason, Violation
from peerd.filters.tokens import Token, tokens
from peerd.filters.tree import And, Expression, Leaf, Not, Or

MAX_LENGTH = 1000
MAX_DEPTH = 32

C = TypeVar("C", bound=Leaf)
C_co = TypeVar("C_co", bound=Leaf, covariant=True)


class Vocabulary(Protocol[C_co]):
    """What may be compared. Both raise :func:`fault`."""

    def compared(self, name: Token, sign: Token, value: Token) -> C_co:
        """``name sign value``."""
        ...

    def alone(self, word: Token) -> C_co:
        """A word by itself."""
        ...


def parse(text: str, vocabulary: Vocabulary[C]) -> Expression[C]:
    """Read an expression. Raises INVALID_EXPRESSION, which names the column."""
    if len(text) > MAX_LENGTH:
        raise fault(f"{len(text)} characters; at most {MAX_LENGTH} are allowed", 0)
    return _Parser(text, vocabulary).parse()


def fault(message: str, column: int) -> PeerdError:
    """The refusal of an expression; columns count from 0 here, and from 1 for people."""
    return PeerdError(
        Reason.INVALID_EXPRESSION,
        f"column {column + 1}: {message}",
        violations=[Violation(field="where", message=f"column {column + 1}: {message}")],
    )


class _Parser(Generic[C]):
    def __init__(self, text: str, vocabulary: Vocabulary[C]) -> None:
        self._vocabulary = vocabulary
        self._tokens: list[Token] = []
        for token in tokens(text):
            if isinstance(token, int):
                raise fault(f"{text[token]!r} cannot stand here", token)
            self._tokens.append(token)
        self._end = Token("end", "the end", len(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression[C]:
        if not self._tokens:
            raise fault("the expression is empty", 0)
        expression = self._or()
        if self._peek().kind != "end":
            raise fault(f"expected AND, OR or the end, not {self._peek().text!r}", self._peek().column)
        return expression

    def _or(self) -> Expression[C]:
        parts = [self._and()]
        while self._keyword("OR"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Expression[C]:
        parts = [self._not()]
        while self._keyword("AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Expression[C]:
        token = self._peek()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise fault(f"nested deeper than {MAX_DEPTH}", token.column)
        try:
            if self._keyword("NOT"):
                return Not(self._not())
            if token.text == "(" and token.kind == "operator":
                self._take()
                inside = self._or()
                if self._peek().text != ")":
                    raise fault(f"expected ')', not {self._peek().text!r}", self._peek().column)
                self._take()
                return inside
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Expression[C]:
        name = self._take()
        if name.kind not in ("word", "text") or name.is_keyword:
            raise fault(f"expected a name or a label, not {name.text!r}", name.column)
        sign = self._peek()
        if name.kind == "text" or sign.kind != "operator" or sign.text in "()":
            return self._vocabulary.alone(name)
        self._take()
        value = self._take()
        if value.kind not in ("word", "text"):
            raise fault(f"expected a value after {sign.text!r}, not {value.text!r}", value.column)
        return self._vocabulary.compared(name, sign, value)

    def _keyword(self, word: str) -> bool:
        token = self._peek()
        if token.kind == "word" and token.text.upper() == word:
            self._next += 1
            return True
        return False

    def _peek(self) -> Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> Token:
        token = self._peek()
        self._next += 1
        return token
