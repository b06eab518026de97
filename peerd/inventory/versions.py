"""Versions in their natural order: 1.9 before 1.10, 2.0-rc1 before 2.0."""

from __future__ import annotations

import re

_PIECES = re.compile(r"(\d{1,40})|([a-z]+)", re.ASCII)
_BEFORE_RELEASE = ("alpha", "beta", "dev", "pre", "preview", "rc", "snapshot")


def version_key(text: str) -> str:
    """A text that compares, byte by byte, as the versions do. Empty for none.

    Numbers are written with how many digits they have before them; a release sorts behind what leads up to it and
    before what follows it, such as the patch levels of OpenSSH (9.6p1).
    """
    pieces = []
    for number, word in _PIECES.findall(text.lower()):
        if number:
            digits = number.lstrip("0") or "0"
            pieces.append(f"5{len(digits):02d}{digits}")
        else:
            pieces.append(f"{'1' if word in _BEFORE_RELEASE else '4'}{word}")
    return " ".join([*pieces, "3"]) if pieces else ""
