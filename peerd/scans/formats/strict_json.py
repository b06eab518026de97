"""JSON as scanners may write it: no key twice, no NaN, no endless number, no bottomless nesting."""

from __future__ import annotations

import json
import re
from typing import Any

from peerd.scans.formats.items import Limits, SkipReason

_BRACKET_OR_TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, after decoding with ``surrogateescape``."""


class UnfitError(ValueError):
    """A value that is JSON, or nearly, but not to be had."""

    def __init__(self, reason: SkipReason, at: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        """Up to where the text was understood, if that is known."""


class Incomplete(UnfitError):  # noqa: N818 - a state of the buffer, not a mistake of the file
    """The text ends where more of the value may come."""

    def __init__(self) -> None:
        super().__init__(SkipReason.TRUNCATED)


class Decoder:
    """Reads one JSON value at a time."""

    def __init__(self, limits: Limits) -> None:
        self._depth = limits.depth
        self._digits = limits.digits
        self._scan = json.JSONDecoder(
            object_pairs_hook=_object, parse_int=self._integer, parse_float=self._real, parse_constant=_constant
        ).raw_decode

    def whole(self, text: str) -> Any:
        """The one value that the text is; raises :class:`UnfitError`."""
        value, end = self.at(text, 0)
        if end != len(text):
            raise UnfitError(SkipReason.NOT_JSON)
        return value

    def at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends; raises :class:`UnfitError`, :class:`Incomplete`."""
        try:
            value, end = self._scan(text, start)
        except json.JSONDecodeError as error:
            # A word or an escape that the end of the text cuts is complained of where it begins.
            if error.pos >= len(text) - 12 or error.msg.startswith("Unterminated string"):
                raise Incomplete from error
            raise UnfitError(SkipReason.NOT_JSON, error.pos) from error
        except RecursionError as error:
            raise UnfitError(SkipReason.TOO_DEEP) from error
        if text.count("{", start, end) + text.count("[", start, end) > self._depth and self._deeper(text[start:end]):
            raise UnfitError(SkipReason.TOO_DEEP)
        return value, end

    def _deeper(self, text: str) -> bool:
        depth = 0
        for found in _BRACKET_OR_TEXT.finditer(text):
            first = text[found.start()]
            if first in "[{":
                depth += 1
                if depth > self._depth:
                    return True
            elif first in "]}":
                depth -= 1
        return False

    def _integer(self, digits: str) -> int:
        if len(digits) > self._digits:
            raise UnfitError(SkipReason.NUMBER_TOO_LONG)
        return int(digits)

    def _real(self, digits: str) -> float:
        if len(digits) > self._digits:
            raise UnfitError(SkipReason.NUMBER_TOO_LONG)
        return float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise UnfitError(SkipReason.DUPLICATE_KEY)
    return value


def _constant(name: str) -> Any:
    raise UnfitError(SkipReason.NOT_JSON)
