"""Fields that several formats share: texts, names, times, ports, banners. Nonsense in an optional one is left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from peerd.clock import Millis
from peerd.inventory.addresses import normalise_address
from peerd.inventory.model import Transport

MAX_TEXT = 1024
MAX_BANNER = 2048
MAX_NAMES = 64
"""Names or CPEs of one host or port; more are left out."""
_EXCERPT = 160
_LATEST_SECONDS = 253_402_300_799  # the end of the year 9999
_ADDRESS_LENGTH = 80  # the longest IPv6 spelling has 45 characters, a zone some more
_NAME = re.compile(r"[^\s\x00-\x20/:@\x7f]{1,253}")
_MAC = re.compile(r"[0-9a-f]{2}(?:[:-]?[0-9a-f]{2}){5}")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")

TRANSPORTS = {str(transport): transport for transport in Transport}


def address_reader() -> Callable[[str], str | None]:
    """:func:`normalise_address` that remembers: the records of one host stand together."""
    remembered = lru_cache(maxsize=4096)(normalise_address)

    def read(text: str) -> str | None:
        return remembered(text) if len(text) <= _ADDRESS_LENGTH else None

    return read


def text_of(value: object) -> str:
    """Printable text that any encoding takes, cut at 1,024 characters; empty for what is no text."""
    if type(value) is not str:
        return ""
    if value.isascii() and value.isprintable():
        return value[:MAX_TEXT].strip()
    return "".join(character if character.isprintable() else "\ufffd" for character in value[:MAX_TEXT]).strip()


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of a list, each once."""
    if type(value) is not list:
        return ()
    return tuple(dict.fromkeys(text for entry in value[:MAX_NAMES] if (text := text_of(entry))))


def name_of(value: object) -> str:
    """A host name in its one spelling; empty for an address and for what cannot be a name."""
    if type(value) is not str or len(value) > 254:
        return ""
    name = value.strip().removesuffix(".").lower()
    if (
        not _NAME.fullmatch(name)
        or not name.isprintable()
        or (name[-1].isdigit() and normalise_address(name) is not None)
    ):
        return ""
    return name


def mac_of(value: object) -> str:
    """A MAC address in lower case with colons, or empty."""
    if type(value) is not str or not _MAC.fullmatch(lowered := value.strip().lower()):
        return ""
    digits = lowered.replace(":", "").replace("-", "")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def millis_of_seconds(value: object) -> Millis | None:
    """Seconds since 1970 as a number or as its digits."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 12:
        value = int(value)
    if type(value) is not int or not 0 < value <= _LATEST_SECONDS:
        return None
    return Millis(value * 1000)


def millis_of_rfc3339(value: object) -> Millis | None:
    """A time such as ``2023-07-11T08:15:30.123456789Z``; None for others and for those before 1970."""
    if type(value) is not str or not 19 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        seconds = moment.timestamp() if moment.tzinfo is not None else moment.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return Millis(int(seconds * 1000)) if seconds > 0 else None


def confidence_of(value: object) -> int:
    """nmap's 0 to 10, and what naabu took over from it, as 0 to 100."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 3:
        value = int(value)
    if type(value) is not int or value < 0:
        return 0
    return value * 10 if value <= 10 else min(value, 100)


def banner_of(value: object) -> bytes:
    """The bytes of a banner as masscan writes them in JSON: one character of U+0000 to U+00FF for each byte."""
    if type(value) is not str:
        return b""
    cut = value[:MAX_BANNER]
    try:
        return cut.encode("latin-1")
    except UnicodeEncodeError:
        return cut.encode("utf-8", "replace")[:MAX_BANNER]


def unescaped_banner(value: str) -> bytes:
    """The bytes of a banner as masscan and nmap write them in XML: ``\\x0d`` for each byte that is not printable."""
    raw = value[: MAX_BANNER * 4].encode("utf-8", "replace")
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), raw)[:MAX_BANNER]


def excerpt_of(raw: str) -> str:
    """How a record begins, fit for a terminal. Bytes that were not UTF-8 came as surrogates, and show as ``\\x80``."""
    cut = raw[:_EXCERPT]
    if cut.isascii() and cut.isprintable():
        return cut
    shown = cut.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in shown)
