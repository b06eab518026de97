"""Regular expressions that others wrote: matched in time linear in the text, whatever they say.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax): no look-around, no back references, and ``\\d`` and its
kin are ASCII. Python's own engine can be kept busy for hours by a short pattern and a short text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

MAX_PATTERN_LENGTH = 200


def pattern_flaw(pattern: str) -> str | None:
    """What is wrong with a pattern, or None."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        return f"longer than {MAX_PATTERN_LENGTH} characters"
    try:
        _compiled(pattern)
    except re2.error as error:
        (reason,) = error.args
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        return f"not an RE2 expression: {shown}"
    return None


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text; ``.`` matches a line end, too. Only for patterns without a flaw."""
    return _compiled(pattern).fullmatch(text) is not None


def captured(pattern: str, text: str) -> str | None:
    """If the pattern matches the whole text: what its group ``(?P<value>...)`` matched, or the text; else None."""
    found = _compiled(pattern).fullmatch(text)
    return None if found is None else str(found.groupdict().get("value") or text)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(pattern, options)
