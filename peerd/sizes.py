"""Sizes as people write and read them. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_SIZE_BYTES = 1 << 60
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?)([KMGT]?)(?:i?B)?", re.ASCII)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """ "512M" or "2G" -> bytes; K, M, G and T are powers of 1024, a bare number is bytes. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a size")
    size = int(Decimal(found[1]) * _FACTORS[found[2]])
    if not 0 < size <= MAX_SIZE_BYTES:
        raise ValueError(f"{text!r} is not between 1 byte and {MAX_SIZE_BYTES >> 40}T")
    return size


def show_size(count: int) -> str:
    """ "64M", "1.5G": as it would be written; a number without unit is bytes."""
    for unit in ("T", "G", "M", "K"):
        if count >= _FACTORS[unit]:
            return f"{count / _FACTORS[unit]:.5g}{unit}"
    return str(count)
