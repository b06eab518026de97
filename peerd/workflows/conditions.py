"""The expression in a job's ``when``. Pure: it is read, its types are checked, and it is answered from given facts.

    or    := and ("||" and)*
    and   := not ("&&" not)*
    not   := "!" not | comparison
    comparison := value [("==" | "!=" | "<" | "<=" | ">" | ">=") value | "in" "[" literal ("," literal)* "]"]
    value := "(" or ")" | literal | "params." NAME | "jobs." NAME (".status" | ".exit_code") | FUNCTION "()"

A parameter is text; against a number it counts as the number it spells, against true or false as that word. What has
no exit code equals nothing and is neither less nor more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from peerd.workflows.condition_answers import ORDER, Answer, Facts, Value, both, either, equal, number_of, ordered
from peerd.workflows.condition_tokens import ConditionError, Token, tokens

MAX_LENGTH = 1000
MAX_DEPTH = 32

STATUSES = ("completed", "failed", "skipped")
"""What a job that has ended may be in an execution that is not cancelled."""


class Kind(Enum):
    """Types, by what people call them."""

    BOOL = "true or false"
    NUMBER = "a number"
    TEXT = "a text"
    STATUS = "a status"
    PARAM = "a parameter"


@dataclass(frozen=True, slots=True)
class _Node:
    kind: Kind
    at: int
    answer: Answer
    # Of a literal.
    literal: Value = None


@dataclass(kw_only=True)
class Condition:
    """An expression that makes sense."""

    text: str
    # Whose ends it asks for by name; whether it asks how any job ended, and so decides alone.
    jobs: frozenset[str] = frozenset()
    params: frozenset[str] = frozenset()
    # Those that are compared with numbers.
    numeric_params: frozenset[str] = frozenset()
    asks_ends: bool = False
    answer: Answer = field(repr=False)

    def holds(self, facts: Facts) -> bool:
        """Whether the job is to run."""
        return self.answer(facts) is True


def parse_condition(text: str) -> Condition:
    """Read an expression. Raises ConditionError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"it is longer than {MAX_LENGTH} characters", MAX_LENGTH + 1)
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._next = 0
        self._depth = 0
        self._jobs: set[str] = set()
        self._params: set[str] = set()
        self._numeric: set[str] = set()
        self._asks_ends = False
        self._names: dict[int, str] = {}

    def parse(self) -> Condition:
        whole = _boolean(self._or())
        if self._token.kind != "end":
            raise ConditionError(f"{self._token.text!r} is one too many", self._token.at)
        return Condition(
            text=self._text,
            jobs=frozenset(self._jobs),
            params=frozenset(self._params),
            numeric_params=frozenset(self._numeric),
            asks_ends=self._asks_ends,
            answer=whole.answer,
        )

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> Token | None:
        token = self._token
        if token.kind in ("operator", "word") and token.text in texts:
            self._next += 1
            return token
        return None

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            found = repr(self._token.text) if self._token.text else "the end"
            raise ConditionError(f"expected {text!r}, found {found}", self._token.at)

    def _or(self) -> _Node:
        node = self._and()
        while self._take("||"):
            left, right = _boolean(node), _boolean(self._and())
            node = _Node(Kind.BOOL, left.at, either(left.answer, right.answer))
        return node

    def _and(self) -> _Node:
        node = self._not()
        while self._take("&&"):
            left, right = _boolean(node), _boolean(self._not())
            node = _Node(Kind.BOOL, left.at, both(left.answer, right.answer))
        return node

    def _not(self) -> _Node:
        if (token := self._take("!")) is None:
            return self._comparison()
        self._deeper(token)
        inner = _boolean(self._not())
        self._depth -= 1
        return _Node(Kind.BOOL, token.at, lambda facts: inner.answer(facts) is not True)

    def _comparison(self) -> _Node:
        left = self._value()
        if self._take("in"):
            return self._within(left)
        if (token := self._take("==", "!=", *ORDER)) is None:
            return left
        return self._compare(left, token, self._value())

    def _within(self, left: _Node) -> _Node:
        self._expect("[")
        equal = []
        while True:
            item = self._value()
            if item.literal is None:
                raise ConditionError("only texts, numbers, true and false may stand in a list", item.at)
            equal.append(self._compare(left, Token("operator", "==", item.at), item))
            if not self._take(","):
                break
        self._expect("]")
        return _Node(Kind.BOOL, left.at, lambda facts: any(one.answer(facts) is True for one in equal))

    def _compare(self, left: _Node, token: Token, right: _Node) -> _Node:
        kinds = {left.kind, right.kind}
        if token.text in ORDER:
            for side in (left, right):
                if side.kind not in (Kind.NUMBER, Kind.PARAM):
                    message = f"{token.text!r} compares numbers, and this is {side.kind.value}"
                    raise ConditionError(message, side.at)
            return _Node(Kind.BOOL, left.at, ordered(self._number(left).answer, self._number(right).answer, token.text))
        if kinds == {Kind.STATUS, Kind.TEXT}:
            literal = left if left.kind is Kind.TEXT else right
            if literal.literal not in STATUSES:
                message = f"{literal.literal!r} is no status that a job ends in: {', '.join(STATUSES)}"
                raise ConditionError(message, literal.at)
        elif kinds == {Kind.PARAM, Kind.NUMBER}:
            left, right = self._number(left), self._number(right)
        elif len(kinds) > 1 and Kind.PARAM not in kinds:
            message = f"{left.kind.value} is never equal to {right.kind.value}"
            raise ConditionError(message, token.at)
        return _Node(Kind.BOOL, left.at, equal(left.answer, right.answer, wanted=token.text == "=="))

    def _number(self, node: _Node) -> _Node:
        if node.kind is Kind.NUMBER:
            return node
        self._numeric.add(self._names[node.at])
        return _Node(Kind.NUMBER, node.at, lambda facts: number_of(str(node.answer(facts))))

    def _value(self) -> _Node:
        token = self._token
        self._next += token.kind != "end"
        match token:
            case Token(text="("):
                self._deeper(token)
                node = self._or()
                self._depth -= 1
                self._expect(")")
                return node
            case Token(kind="text"):
                return _literal(Kind.TEXT, token.at, token.text[1:-1])
            case Token(kind="number"):
                return _literal(Kind.NUMBER, token.at, float(token.text))
            case Token(kind="word", text="true" | "false"):
                return _literal(Kind.BOOL, token.at, token.text == "true")
            case Token(kind="word") if self._take("("):
                self._expect(")")
                return self._call(token)
            case Token(kind="word"):
                return self._name(token)
        found = repr(token.text) if token.text else "nothing"
        raise ConditionError(f"expected a value, found {found}", token.at)

    def _call(self, token: Token) -> _Node:
        if token.text == "cancelled":
            message = "cancelled() would never hold: a cancel ends every job that has not ended"
            raise ConditionError(message, token.at)
        answer = _FUNCTIONS.get(token.text)
        if answer is None:
            known = ", ".join(f"{name}()" for name in _FUNCTIONS)
            raise ConditionError(f"there is no {token.text}(), only {known}", token.at)
        self._asks_ends = True
        return _Node(Kind.BOOL, token.at, answer)

    def _name(self, token: Token) -> _Node:
        space, _, name = token.text.partition(".")
        if space == "params" and name:
            self._params.add(name)
            self._names[token.at] = name
            return _Node(Kind.PARAM, token.at, lambda facts: facts.params[name])
        job, _, what = name.rpartition(".")
        if space == "jobs" and job and what in ("status", "exit_code"):
            self._jobs.add(job)
            self._asks_ends = True
            if what == "status":
                return _Node(Kind.STATUS, token.at, lambda facts: facts.ends[job].status)
            return _Node(Kind.NUMBER, token.at, lambda facts: facts.ends[job].exit_code)
        if token.text in _FUNCTIONS or token.text == "cancelled":
            raise ConditionError(f"write {token.text}()", token.at)
        message = f"{token.text!r} is not params.NAME, jobs.NAME.status or jobs.NAME.exit_code; texts stand in quotes"
        raise ConditionError(message, token.at)

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConditionError(f"it is nested deeper than {MAX_DEPTH}", token.at)


_FUNCTIONS: Mapping[str, Answer] = {
    "success": lambda facts: facts.success,
    "failure": lambda facts: facts.failure,
    "always": lambda _: True,
}


def _literal(kind: Kind, at: int, value: Value) -> _Node:
    return _Node(kind, at, lambda _: value, literal=value)


def _boolean(node: _Node) -> _Node:
    if node.kind is not Kind.BOOL:
        raise ConditionError(f"expected {Kind.BOOL.value}, found {node.kind.value}: compare it with something", node.at)
    return node
