"""What a condition asks, and how its parts are answered. Pure; see :mod:`conditions`, which reads them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = bool | float | str | None


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job has ended."""

    status: str
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an expression may ask."""

    params: Mapping[str, str]
    # Of the jobs that this one needs or takes files from.
    ends: Mapping[str, End]
    # Every one of them completed, or failed where that is allowed; one failed where that is not.
    success: bool
    failure: bool


Answer = Callable[[Facts], Value]

ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Also as parameters of type number are written that are very large or small.
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d{1,3})?", re.ASCII)


def number_of(text: str) -> float | None:
    """The number that a parameter spells."""
    return float(text) if _NUMBER.fullmatch(text) else None


def either(left: Answer, right: Answer) -> Answer:
    """Left or right."""
    return lambda facts: left(facts) is True or right(facts) is True


def both(left: Answer, right: Answer) -> Answer:
    """Left and right."""
    return lambda facts: left(facts) is True and right(facts) is True


def ordered(left: Answer, right: Answer, word: str) -> Answer:
    """Whether two numbers are in that order; false where one of them is not there."""

    def answer(facts: Facts) -> bool:
        one, other = left(facts), right(facts)
        if one is None or other is None:
            return False
        return ORDER[word](float(one), float(other))

    return answer


def equal(left: Answer, right: Answer, *, wanted: bool) -> Answer:
    """Whether two values are equal, or are not; what is not there equals nothing."""

    def answer(facts: Facts) -> bool:
        one, other = left(facts), right(facts)
        same = one is not None and other is not None and _comparable(one, other) == _comparable(other, one)
        return same is wanted

    return answer


def _comparable(value: Value, other: Value) -> Value:
    """A parameter is text also where it is compared with true or false."""
    return str(value).lower() if isinstance(value, bool) and isinstance(other, str) else value
