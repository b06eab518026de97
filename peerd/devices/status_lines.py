"""parse_status(line): what a mining firmware says of itself while it mines. Pure.

Every board prints ``>>> Completed N share(s), N Khashes, avg. hashrate X KH/s``; boards with a LED or without a display
print single values after it, those with an SSD1306 one line of their own, and a board that has nothing to do one line
every second.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace

_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?)"
_COMPLETED = re.compile(rf">>> Completed {_NUMBER} share\(s\), {_NUMBER} Khashes, avg\. hashrate {_NUMBER} KH/s")
_OLED = re.compile(rf">>> Hashrate: {_NUMBER} KH/s \| Shares: {_NUMBER} \| Best diff: {_NUMBER}\s?([KMGTPE]?)")
_SINGLE = re.compile(
    r">>> (Valid blocks|Block templates|Best difficulty|32Bit shares|Temperature|Total MHashes|Time mining):\s*(\S.*)"
)
_LEADING = re.compile(rf"{_NUMBER}\s?([KMGTPE]?)")
_TIME = re.compile(r"(?:(\d{1,6})\s+)?(\d{1,3}):(\d{2}):(\d{2})")
_IDLE = re.compile(
    r">>> \[i\] Miner: newJob>(true|false) / inRun>(true|false)\)? - Client: connected>(true|false) / "
    r"subscribed>(true|false) / wificonnected>(true|false)"
)
_SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_HOTTEST = 150.0
"""Degrees Celsius: more is a torn number."""
_COUNTS = ("Valid blocks", "Block templates", "32Bit shares")
_MOST = 2**53
"""Of shares and the like: more is a torn number, too, and no column of the store holds it."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one or several lines said; None for what they did not say."""

    hash_rate_khs: float | None = None
    total_khashes: float | None = None
    shares: int | None = None
    valid_blocks: int | None = None
    block_templates: int | None = None
    best_difficulty: float | None = None
    temperature_celsius: float | None = None
    mining_seconds: int | None = None
    # From the line of a board that has nothing to do.
    connected: bool | None = None
    subscribed: bool | None = None
    wifi: bool | None = None

    def merged(self, later: Reading) -> Reading:
        """With what was said later."""
        said = {field.name: getattr(later, field.name) for field in fields(later)}
        return replace(self, **{name: value for name, value in said.items() if value is not None})

    @property
    def hashing(self) -> bool:
        """Whether it says that it computes."""
        return bool(self.hash_rate_khs)


def parse_status(line: str) -> Reading | None:
    """The reading in a line; None if there is none."""
    at = line.find(">>> ")
    if at < 0:
        return None
    if found := _COMPLETED.search(line, at):
        return Reading(shares=int(float(found[1])), total_khashes=float(found[2]), hash_rate_khs=float(found[3]))
    if found := _OLED.search(line, at):
        return Reading(
            hash_rate_khs=float(found[1]),
            shares=int(float(found[2])),
            best_difficulty=float(found[3]) * _SCALE[found[4]],
        )
    if found := _IDLE.search(line, at):
        return Reading(
            hash_rate_khs=None if found[2] == "true" else 0.0,
            connected=found[3] == "true",
            subscribed=found[4] == "true",
            wifi=found[5] == "true",
        )
    if found := _SINGLE.search(line, at):
        return _single(found[1], found[2])
    return None


def _single(key: str, value: str) -> Reading | None:
    if key == "Time mining":
        time = _TIME.match(value)
        if time is None or int(time[3]) > 59 or int(time[4]) > 59:
            return None
        days, hours = int(time[1] or 0), int(time[2])
        return Reading(mining_seconds=((days * 24 + hours) * 60 + int(time[3])) * 60 + int(time[4]))
    leading = _LEADING.match(value)
    if leading is None:
        return None
    number = float(leading[1]) * _SCALE[leading[2]]
    if not math.isfinite(number) or (key in _COUNTS and number > _MOST):
        return None
    match key:
        case "Valid blocks":
            return Reading(valid_blocks=int(number))
        case "Block templates":
            return Reading(block_templates=int(number))
        case "Best difficulty":
            return Reading(best_difficulty=number)
        case "32Bit shares":
            return Reading(shares=int(number))
        case "Total MHashes":
            return Reading(total_khashes=number * 1000)
        case _:
            return Reading(temperature_celsius=number) if number <= _HOTTEST else None
