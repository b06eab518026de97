"""One table of a protocol file: what is taken out of it is checked, and what is left over is refused."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from peerd.errors import PeerdError, Reason

NEXT_ACTION = "mend that file; docs/protocols.md describes every key"

EXPECTATION_KEYS = (
    *("field", "header", "metric", "label", "type", "pattern"),
    *("equals", "minimum", "maximum", "min_length", "max_length"),
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Table:
    """Keys are taken out of it one by one; those that nobody takes are unknown."""

    def __init__(self, source: str, path: str, values: Mapping[str, Any]) -> None:
        self.source = source
        self.path = path
        self.values = dict(values)
        self._known: list[str] = []

    def wrong(self, key: str, reason: str) -> PeerdError:
        return refusal(self.source, f"{self.path}.{key}" if self.path else key, reason)

    def take(self, key: str, default: Any = None) -> Any:
        self._known.append(key)
        return self.values.pop(key, default)

    def done(self) -> None:
        """Refuse what nobody took."""
        for key in self.values:
            near = difflib.get_close_matches(key, [*self._known, *EXPECTATION_KEYS], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.wrong(key, f"not a known key here{hint}")

    def tables(self, key: str) -> list[Table]:
        items = self.take(key, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self.wrong(key, f"must be tables, each under [[{key}]]")
        return [Table(self.source, f"{key}[{number}]", item) for number, item in enumerate(items)]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.take(key, default)
        if value is None:
            raise self.wrong(key, "missing")
        if not isinstance(value, str) or len(value) > 500 or not value.replace("\n", " ").isprintable():
            raise self.wrong(key, "must be a printable text of at most 500 characters")
        return value

    def matching(self, key: str, shape: re.Pattern[str], what: str, default: str | None = None) -> str:
        value = self.take(key, default)
        if value is None:
            raise self.wrong(key, "missing")
        if not isinstance(value, str) or not shape.fullmatch(value):
            raise self.wrong(key, f"must be {what}")
        return value

    def name(self, key: str) -> str:
        return self.matching(key, _NAME, "lower-case letters, digits and '-', at most 32 characters")

    def one_of(self, key: str, choices: Collection[str]) -> str:
        value = self.take(key)
        if value is None:
            raise self.wrong(key, "missing")
        if value not in choices:
            raise self.wrong(key, f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    def flag(self, key: str) -> bool:
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def weight(self, key: str) -> float:
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise self.wrong(key, "must be a number above 0 and below 1")
        return float(value)

    def ports(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self.take(key, default)
        if value is None:
            raise self.wrong(key, "missing")
        if not isinstance(value, list | tuple) or len(value) > 100:
            raise self.wrong(key, "must be a list of at most 100 ports")
        for port in value:
            if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
                raise self.wrong(key, f"{port!r} is not a port from 1 to 65535")
        return tuple(dict.fromkeys(value))

    def words(self, key: str) -> tuple[str, ...]:
        value = self.take(key, [])
        if not isinstance(value, list) or not all(
            isinstance(word, str) and re.fullmatch(r"[A-Za-z_:][A-Za-z0-9_:]{3,}", word) for word in value
        ):
            raise self.wrong(key, "must be a list of beginnings of metric names, at least four characters each")
        return tuple(value)

    def params(self, key: str) -> Any:
        value = self.take(key, [])
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self.wrong(key, "must be a list or a table of JSON values") from error
        if not isinstance(value, list | dict) or len(text) > 1000:
            raise self.wrong(key, "must be a list or a table of JSON values, at most 1000 characters")
        return value


def refusal(source: str, key: str, reason: str) -> PeerdError:
    """What is wrong with a file, at which key, and why."""
    where = f"{source}: {key}" if key else source
    return PeerdError(Reason.INVALID_CONFIG, f"protocol file {where}: {reason}", next_action=NEXT_ACTION)
