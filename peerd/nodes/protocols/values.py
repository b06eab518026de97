"""A value somewhere in an answer, and what it has to be like. Presence alone never counts: a type or more is checked.

Pure. Numbers are never taken for booleans, nor texts for numbers, except that ``hex_integer`` is a text such as
``0x1b4`` as Ethereum writes integers and ``decimal`` one of digits only; their ranges are those of the number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peerd.patterns import captured

TYPE_NAMES = ("string", "integer", "number", "boolean", "object", "array", "hex_integer", "decimal")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a JSON text says."""

MAX_SHOWN = 120
"""Characters of a value that are kept as evidence."""
_HEX_DIGITS = 64
_DECIMAL_DIGITS = 20


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Which value, and what it must be. Of ``field``, ``header`` and ``metric`` at most one is set."""

    field: str = ""
    """Names and list positions with dots between, such as ``info.version``; the whole result when empty."""
    header: str = ""
    """An HTTP header, lower case."""
    metric: str = ""
    """An RE2 pattern that the whole name of a metric must match."""
    label: str = ""
    """A label of that metric, whose value counts; the metric's number when empty."""
    type: str = "string"
    pattern: str = ""
    """RE2, of the whole text."""
    equals: str | int | float | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    """Of a list, an object or a text."""
    max_length: int | None = None

    def accepts(self, value: Json) -> bool:
        """Whether a value is as expected."""
        if not _TYPES[self.type](value):
            return False
        if self.pattern and (not isinstance(value, str) or captured(self.pattern, value) is None):
            return False
        if self.equals is not None and (
            value != self.equals or isinstance(value, bool) != isinstance(self.equals, bool)
        ):
            return False
        return self._in_range(value) and self._has_length(value)

    def extract(self, value: Json) -> str | None:
        """The text of a value that is as expected: what the pattern's group ``value`` matched, or all of it."""
        if not self.accepts(value):
            return None
        if self.pattern and isinstance(value, str):
            return shown(captured(self.pattern, value))
        return shown(value)

    def _in_range(self, value: Json) -> bool:
        if self.minimum is None and self.maximum is None:
            return True
        number = _number(self.type, value)
        if number is None:
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)

    def _has_length(self, value: Json) -> bool:
        if self.min_length is None and self.max_length is None:
            return True
        if not isinstance(value, str | list | dict):
            return False
        low, high = self.min_length or 0, self.max_length
        return len(value) >= low and (high is None or len(value) <= high)


def field_of(value: Json, path: str) -> tuple[bool, Json]:
    """What stands at a path, and whether anything does: a field that is null is there."""
    if not path:
        return True, value
    here = value
    for step in path.split("."):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isascii() and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            return False, None
    return True, here


def shown(value: Json) -> str:
    """A value as evidence: one short line without control characters."""
    match value:
        case str():
            text = value
        case bool() | None:
            text = str(value).lower()
        case list():
            text = f"list of {len(value)}"
        case dict():
            text = "{" + ", ".join(list(value)[:8]) + "}"
        case float() if value.is_integer():
            text = str(int(value))
        case _:
            text = str(value)
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: MAX_SHOWN + 1])
    return clean if len(clean) <= MAX_SHOWN else clean[: MAX_SHOWN - 3] + "..."


def _number(kind: str, value: Json) -> float | None:
    match value:
        case bool():
            return None
        case int() | float():
            return value
        case str() if kind == "hex_integer":
            return int(value, 16)
        case str() if kind == "decimal":
            return int(value)
        case _:
            return None


def _is_hex(value: Json) -> bool:
    if not isinstance(value, str) or not value.startswith("0x") or not 2 < len(value) <= 2 + _HEX_DIGITS:
        return False
    digits = value[2:]
    return all(letter in "0123456789abcdefABCDEF" for letter in digits) and (digits == "0" or digits[0] != "0")


def _is_decimal(value: Json) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DECIMAL_DIGITS


_TYPES: Mapping[str, Callable[[Json], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "hex_integer": _is_hex,
    "decimal": _is_decimal,
}
