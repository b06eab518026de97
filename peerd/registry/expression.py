"""Capability expressions: ``gpus>=1 AND (memory_gb>=16 OR label=big)``. Pure.

The grammar is that of :mod:`peerd.filters`. Numbers take ``= != < <= > >=``; texts take ``= !=`` and ``~`` (contains,
whatever the case). A set, such as the labels, equals what it contains. A word alone is a label. Words are as in labels;
other values stand in double quotes.

Gigabytes are 10^9 bytes, as machines and disks are sold: one of "16 GB" has 15.5 GiB for its programs, and is found by
``memory_gb>=16``. What a peer has not said compares with nothing, not even with ``!=``.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peerd.filters import And, Not, Or, Token, fault, parse, quoted
from peerd.filters import Expression as Tree
from peerd.registry.model import PeerView
from peerd.v1.registry_pb2 import Hardware, IsolationLevel, LimitsLevel, Sample

__all__ = [
    "CHANGING",
    "NUMBERS",
    "TEXTS",
    "And",
    "Comparison",
    "Expression",
    "Not",
    "Or",
    "Unmet",
    "may_hold",
    "parse_expression",
    "unmet",
]

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


def _limits(peer: PeerView) -> str:
    try:
        name = LimitsLevel.Name(LimitsLevel.ValueType(peer.limits))
    except ValueError:  # said by a newer version
        return str(peer.limits)
    return name.removeprefix("LIMITS_LEVEL_").lower()


TEXTS: Mapping[str, Callable[[PeerView], frozenset[str]]] = {
    "name": lambda peer: frozenset({peer.name}),
    "hostname": lambda peer: frozenset({peer.hostname}),
    "platform": lambda peer: frozenset({peer.platform}),
    "region": lambda peer: frozenset({peer.region}),
    "status": lambda peer: frozenset({peer.status.name.lower()}),
    "isolation": lambda peer: frozenset({_isolation(peer)}),
    "limits": lambda peer: frozenset({_limits(peer)}),
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


Expression = Tree[Comparison]


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
    return parse(text, _PeerVocabulary())


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


class _PeerVocabulary:
    """What can be asked of a peer. A word alone is a label."""

    def compared(self, name: Token, sign: Token, value: Token) -> Comparison:
        return _compared(name, sign, value)

    def alone(self, word: Token) -> Comparison:
        return Comparison("label", "=", word.text)


def _compared(name: Token, sign: Token, value: Token) -> Comparison:
    key = name.text.lower()
    if key in NUMBERS:
        if sign.text not in _ORDER:
            raise fault(f"{key} is a number and takes {', '.join(_ORDER)}, not {sign.text}", sign.column)
        try:
            number = float(value.text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise fault(f"{key} is compared with a number, not with {value.text!r}", value.column)
        return Comparison(key, sign.text, number)
    if key in TEXTS:
        if sign.text not in _TEXT_OPERATORS:
            raise fault(f"{key} is a text and takes {', '.join(_TEXT_OPERATORS)}, not {sign.text}", sign.column)
        return Comparison(key, sign.text, value.text)
    near = difflib.get_close_matches(key, [*NUMBERS, *TEXTS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join([*NUMBERS, *TEXTS])}"
    raise fault(f"unknown name {name.text!r}; {hint}", name.column)


def _rounded(number: float, asked: float) -> str:
    """Short, but never so that it looks like what it is compared with and is not."""
    short = f"{number:.4g}"
    return short if number == asked or float(short) != asked else repr(float(number))


def _quoted(value: str | float) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else quoted(value)
