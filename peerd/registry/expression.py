"""Capability expressions: ``gpus>=1 AND (memory_gb>=16 OR label=big)``. Pure.

    or    := and ("OR" and)*
    and   := not ("AND" not)*
    not   := "NOT" not | "(" or ")" | comparison
    comparison := name operator value | word

Numbers take ``= != < <= > >=``; texts take ``= !=`` and ``~`` (contains, whatever the case). A set, such as the labels,
equals what it contains. A word alone is a label. Words are as in labels; other values stand in double quotes.

Gigabytes are 10^9 bytes, as machines and disks are sold: one of "16 GB" has 15.5 GiB for its programs, and is found by
``memory_gb>=16``. What a peer has not said compares with nothing, not even with ``!=``.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from peerd.errors import PeerdError, Reason, Violation
from peerd.registry.model import PeerView
from peerd.v1.registry_pb2 import Hardware, IsolationLevel, Sample

MAX_LENGTH = 1000
MAX_DEPTH = 32

_GB = 1000**3


def _of_hardware(measure: Callable[[Hardware], float]) -> Callable[[PeerView], float | None]:
    """None as long as the peer has not said what it has."""
    return lambda peer: measure(peer.hardware) if peer.hardware.ByteSize() else None


def _of_sample(measure: Callable[[Sample], float]) -> Callable[[PeerView], float | None]:
    """None as long as the peer has not said how it is."""
    return lambda peer: measure(peer.sample) if peer.sample.ByteSize() else None


NUMBERS: Mapping[str, Callable[[PeerView], float | None]] = {
    "cpus": _of_hardware(lambda hardware: hardware.cpu_cores),
    "memory_gb": _of_hardware(lambda hardware: hardware.memory_bytes / _GB),
    "memory_free_gb": _of_sample(lambda sample: sample.memory_available_bytes / _GB),
    "disk_gb": _of_hardware(lambda hardware: sum(disk.total_bytes for disk in hardware.disks) / _GB),
    "disk_free_gb": _of_sample(lambda sample: sample.disk_free_bytes / _GB),
    "gpus": _of_hardware(lambda hardware: len(hardware.gpus)),
    "gpu_memory_gb": _of_hardware(lambda hardware: max((gpu.memory_bytes for gpu in hardware.gpus), default=0) / _GB),
    "serial_ports": _of_hardware(lambda hardware: len(hardware.serial_ports)),
    "running_jobs": _of_sample(lambda sample: sample.running_jobs),
    "cpu_percent": _of_sample(lambda sample: sample.cpu_percent),
    "latency_ms": lambda peer: 0.0 if peer.is_self else peer.latency_ms,
}
"""What is compared as a number; None where it is not known."""

CHANGING = frozenset({"memory_free_gb", "disk_free_gb", "running_jobs", "cpu_percent", "latency_ms", "status"})
"""What changes by itself: a peer that lacks it now may have it in a minute."""


def _isolation(peer: PeerView) -> str:
    try:
        name = IsolationLevel.Name(IsolationLevel.ValueType(peer.isolation))
    except ValueError:  # said by a newer version
        return str(peer.isolation)
    return name.removeprefix("ISOLATION_LEVEL_").lower()


TEXTS: Mapping[str, Callable[[PeerView], frozenset[str]]] = {
    "name": lambda peer: frozenset({peer.name}),
    "hostname": lambda peer: frozenset({peer.hostname}),
    "platform": lambda peer: frozenset({peer.platform}),
    "region": lambda peer: frozenset({peer.region}),
    "status": lambda peer: frozenset({peer.status.name.lower()}),
    "isolation": lambda peer: frozenset({_isolation(peer)}),
    "version": lambda peer: frozenset({peer.peerd_version}),
    "cpu_model": lambda peer: frozenset({peer.hardware.cpu_model}),
    "gpu": lambda peer: frozenset(gpu.model for gpu in peer.hardware.gpus),
    "role": lambda peer: peer.roles,
    "label": lambda peer: peer.labels,
    "group": lambda peer: peer.groups,
    "runner": lambda peer: frozenset(runner.name for runner in peer.hardware.runners),
}
"""What is compared as a text, or as a set of them."""

_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TEXT_OPERATORS = ("=", "!=", "~")
_TOKEN = re.compile(r'\s*(?:(?P<text>"[^"]*")|(?P<operator><=|>=|!=|[=<>~()])|(?P<word>[^\s"()<>=!~]+))')


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that is asked of a peer."""

    name: str
    operator: str
    value: str | float

    def holds(self, peer: PeerView) -> bool:
        """Whether the peer has it."""
        if isinstance(self.value, float):
            number = NUMBERS[self.name](peer)
            return number is not None and _ORDER[self.operator](number, self.value)
        has = TEXTS[self.name](peer)
        if self.operator == "~":
            return any(self.value.casefold() in text.casefold() for text in has)
        return (self.value in has) == (self.operator == "=")

    def found(self, peer: PeerView) -> str:
        """What the peer has instead."""
        if isinstance(self.value, float):
            number = NUMBERS[self.name](peer)
            return "unknown" if number is None else _rounded(number, self.value)
        return ", ".join(sorted(text for text in TEXTS[self.name](peer) if text)) or "nothing"

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: Expression

    def holds(self, peer: PeerView) -> bool:
        return not self.of.holds(peer)

    def __str__(self) -> str:
        return f"NOT {_wrapped(self.of)}"


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    parts: tuple[Expression, ...]

    def holds(self, peer: PeerView) -> bool:
        return all(part.holds(peer) for part in self.parts)

    def __str__(self) -> str:
        return " AND ".join(_wrapped(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    parts: tuple[Expression, ...]

    def holds(self, peer: PeerView) -> bool:
        return any(part.holds(peer) for part in self.parts)

    def __str__(self) -> str:
        return " OR ".join(_wrapped(part) for part in self.parts)


Expression = Comparison | Not | And | Or


@dataclass(frozen=True, slots=True)
class Unmet:
    """A comparison that does not turn out as it must."""

    comparison: Comparison
    wanted: bool
    found: str

    def __str__(self) -> str:
        asked = str(self.comparison) if self.wanted else f"not {self.comparison}"
        return f"{self.comparison.name} is {self.found}, {asked} is asked"


def parse_expression(text: str) -> Expression:
    """Read an expression. Raises INVALID_EXPRESSION, which names the column."""
    if len(text) > MAX_LENGTH:
        raise _fault(f"{len(text)} characters; at most {MAX_LENGTH} are allowed", 0)
    return _Parser(text).parse()


def unmet(expression: Expression, peer: PeerView) -> tuple[Unmet, ...]:
    """The fewest comparisons that would have to turn out otherwise; empty when it holds."""
    return _unmet(expression, peer, wanted=True)


def may_hold(expression: Expression, peer: PeerView) -> bool:
    """Whether it holds, or would if nothing but :data:`CHANGING` facts were otherwise."""
    return _chances(expression, peer)[0]


def _chances(expression: Expression, peer: PeerView) -> tuple[bool, bool]:
    """(may be true, may be false)."""
    if isinstance(expression, Comparison):
        holds, changing = expression.holds(peer), expression.name in CHANGING
        return holds or changing, not holds or changing
    if isinstance(expression, Not):
        true, false = _chances(expression.of, peer)
        return false, true
    trues, falses = zip(*(_chances(part, peer) for part in expression.parts), strict=True)
    return (all(trues), any(falses)) if isinstance(expression, And) else (any(trues), all(falses))


def _unmet(expression: Expression, peer: PeerView, *, wanted: bool) -> tuple[Unmet, ...]:
    if isinstance(expression, Not):
        return _unmet(expression.of, peer, wanted=not wanted)
    if isinstance(expression, Comparison):
        if expression.holds(peer) == wanted:
            return ()
        return (Unmet(expression, wanted, expression.found(peer)),)
    parts = [_unmet(part, peer, wanted=wanted) for part in expression.parts]
    if isinstance(expression, And) == wanted:
        return tuple(dict.fromkeys(entry for part in parts for entry in part))
    return min(parts, key=len)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._end = _Token("end", "the end", len(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        if not self._tokens:
            raise _fault("the expression is empty", 0)
        expression = self._or()
        if self._peek().kind != "end":
            raise _fault(f"expected AND, OR or the end, not {self._peek().text!r}", self._peek().column)
        return expression

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._keyword("OR"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._keyword("AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Expression:
        token = self._peek()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH}", token.column)
        try:
            if self._keyword("NOT"):
                return Not(self._not())
            if token.text == "(" and token.kind == "operator":
                self._take()
                inside = self._or()
                if self._peek().text != ")":
                    raise _fault(f"expected ')', not {self._peek().text!r}", self._peek().column)
                self._take()
                return inside
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Expression:
        name = self._take()
        if name.kind not in ("word", "text") or name.text.upper() in _KEYWORDS:
            raise _fault(f"expected a name or a label, not {name.text!r}", name.column)
        sign = self._peek()
        if name.kind == "text" or sign.kind != "operator" or sign.text in "()":
            return Comparison("label", "=", name.text)
        self._take()
        value = self._take()
        if value.kind not in ("word", "text"):
            raise _fault(f"expected a value after {sign.text!r}, not {value.text!r}", value.column)
        return _compared(name, sign, value)

    def _keyword(self, word: str) -> bool:
        token = self._peek()
        if token.kind == "word" and token.text.upper() == word:
            self._next += 1
            return True
        return False

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token


_KEYWORDS = ("AND", "OR", "NOT")


def _compared(name: _Token, sign: _Token, value: _Token) -> Comparison:
    key = name.text.lower()
    if key in NUMBERS:
        if sign.text not in _ORDER:
            raise _fault(f"{key} is a number and takes {', '.join(_ORDER)}, not {sign.text}", sign.column)
        try:
            number = float(value.text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _fault(f"{key} is compared with a number, not with {value.text!r}", value.column)
        return Comparison(key, sign.text, number)
    if key in TEXTS:
        if sign.text not in _TEXT_OPERATORS:
            raise _fault(f"{key} is a text and takes {', '.join(_TEXT_OPERATORS)}, not {sign.text}", sign.column)
        return Comparison(key, sign.text, value.text)
    near = difflib.get_close_matches(key, [*NUMBERS, *TEXTS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join([*NUMBERS, *TEXTS])}"
    raise _fault(f"unknown name {name.text!r}; {hint}", name.column)


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip())
            raise _fault(f"{text[column]!r} cannot stand here", column)
        kind = str(match.lastgroup)
        found = match[kind]
        yield _Token(kind, found.strip('"') if kind == "text" else found, match.start(kind))
        position = match.end()


def _rounded(number: float, asked: float) -> str:
    """Short, but never so that it looks like what it is compared with and is not."""
    short = f"{number:.4g}"
    return short if number == asked or float(short) != asked else repr(float(number))


def _quoted(value: str | float) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    plain = _TOKEN.fullmatch(value)
    return value if plain is not None and plain["word"] == value and value.upper() not in _KEYWORDS else f'"{value}"'


def _wrapped(expression: Expression) -> str:
    return f"({expression})" if isinstance(expression, And | Or) else str(expression)


def _fault(message: str, column: int) -> PeerdError:
    return PeerdError(
        Reason.INVALID_EXPRESSION,
        f"column {column + 1}: {message}",
        violations=[Violation(field="where", message=f"column {column + 1}: {message}")],
    )
