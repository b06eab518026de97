"""Durations and sizes as people write them. Pure; raises ValueError with a sentence fit to show."""

from __future__ import annotations

import re
from decimal import Decimal

from peerd.clock import Millis
from peerd.sizes import MAX_SIZE_BYTES
from peerd.sizes import parse_size as parse_memory

__all__ = ["MAX_DURATION", "MAX_MEMORY_BYTES", "parse_duration", "parse_memory"]

# A job that runs or waits longer than this has been forgotten.
MAX_DURATION = Millis(366 * 24 * 3_600_000)
MAX_MEMORY_BYTES = MAX_SIZE_BYTES
MAX_EXIT_CODE = 255

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile(
    r"(?=.)(?:(?P<d>\d{1,9}(?:\.\d{1,6})?)d)?(?:(?P<h>\d{1,9}(?:\.\d{1,6})?)h)?(?:(?P<m>\d{1,9}(?:\.\d{1,6})?)m(?!s))?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,6})?)s)?(?:(?P<ms>\d{1,12})ms)?",
    re.ASCII,
)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,6})?", re.ASCII)
_CODES = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def parse_duration(text: str) -> Millis:
    """ "90s", "10m", "1h30m", "1.5s", "250ms", or a bare number of seconds -> milliseconds."""
    if _SECONDS.fullmatch(text):
        millis = int(Decimal(text) * 1000)
    elif found := _DURATION.fullmatch(text):
        millis = int(sum(Decimal(value) * _UNITS[unit] for unit, value in found.groupdict().items() if value))
    else:
        raise ValueError(f"{text!r} is not a duration")
    if millis > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than 366 days")
    return Millis(millis)


def parse_exit_codes(text: str) -> tuple[int, int]:
    """ "3" or "10-19" -> the first and the last; a process ended by signal N has the code 128+N."""
    found = _CODES.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:80]!r} is neither an exit code nor a range of them")
    first = int(found[1])
    last = int(found[2] or first)
    if not 1 <= first <= last <= MAX_EXIT_CODE:
        raise ValueError(f"{text!r} is not from 1 to {MAX_EXIT_CODE}, the smaller first")
    return first, last
