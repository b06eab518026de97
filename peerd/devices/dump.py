"""DumpCollector: the configuration that a miner prints at boot, from its lines. Pure.

The dump is JSON over several lines. It is read key by key, so that a trailing comma, as clones print it, or a line of
another task in its middle, costs nothing. Names of keys: NerdMiner (poolString ...), its SD card file (PoolUrl ...).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_MAX_LINES = 64
_MAX_TEXT = 8192
_PAIR = re.compile(r'"(?P<key>[A-Za-z_]{1,40})"\s*:\s*(?P<value>"(?:[^"\\]|\\.)*"|-?\d+)')
_POOL = ("poolString", "PoolUrl")
_PORT = ("portNumber", "PoolPort")
_WALLET = ("btcString", "BtcWallet")
_FIRMWARE = ("nmVersion", "FirmwareVersion")
_MAX_VALUE = 200
_MAX_VERSION = 40
"""Cards carry it, and two hundred of them are one document."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a miner says of its settings. Never its passwords."""

    pool: str = ""
    port: int = 0
    wallet: str = ""
    firmware: str = ""

    @property
    def pool_url(self) -> str:
        """``host:port``, as people write it."""
        return f"{self.pool}:{self.port}" if self.pool and self.port else self.pool

    def merged(self, later: Configuration) -> Configuration:
        """With what was said later."""
        return Configuration(
            pool=later.pool or self.pool,
            port=later.port or self.port,
            wallet=later.wallet or self.wallet,
            firmware=later.firmware or self.firmware,
        )


class DumpCollector:
    """Collects one object at a time."""

    def __init__(self) -> None:
        self._text = ""
        self._lines = 0
        self._depth = 0

    @property
    def collecting(self) -> bool:
        """Whether an object has begun and not ended."""
        return self._lines > 0

    def line(self, text: str) -> Configuration | None:
        """The configuration that this line completes, if it does."""
        if not self.collecting and not text.lstrip().startswith("{"):
            return None
        self._lines += 1
        self._text += text + "\n"
        self._depth += _braces(text)
        if self._depth > 0 and self._lines < _MAX_LINES and len(self._text) < _MAX_TEXT:
            return None
        return self.finish()

    def finish(self) -> Configuration | None:
        """What was collected up to now: nothing more will come."""
        text, self._text, self._lines, self._depth = self._text, "", 0, 0
        return read_configuration(text)


def read_configuration(text: str) -> Configuration | None:
    """What a dump says; None if it is none."""
    values: dict[str, str] = {}
    for found in _PAIR.finditer(text[:_MAX_TEXT]):
        try:
            value = str(json.loads(found["value"]))[:_MAX_VALUE]
        except ValueError:
            continue  # an escape that JSON does not know: that value cannot be read, the others can
        # Its escapes may stand for what a terminal would obey.
        values[found["key"]] = "".join(char for char in value if char.isprintable())
    made = Configuration(
        pool=_first(values, _POOL).strip(),
        port=to_port(_first(values, _PORT)),
        wallet=_first(values, _WALLET).strip(),
        firmware=_first(values, _FIRMWARE).strip()[:_MAX_VERSION],
    )
    return made if made.pool or made.wallet else None


def to_port(text: str) -> int:
    """A port number; 0 for what is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535 else 0


def _first(values: dict[str, str], keys: tuple[str, ...]) -> str:
    return next((values[key] for key in keys if values.get(key)), "")


def _braces(text: str) -> int:
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    return bare.count("{") - bare.count("}")
