"""Retention waits after the wall clock has jumped ahead, so that a wrong clock does not make everything old at once.

Ages are differences of wall-clock times, and nobody can tell a clock that was set right from one that was set wrong. So
after a jump nothing is removed by itself for some days, in which somebody may see that the clock is wrong; what an
operator orders with ``peerctl gc`` is removed nevertheless.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from peerd.clock import DAY_MS, Clock, Millis

_log = structlog.get_logger(__name__)

_HOUR_MS = 3_600_000
HOLD_MS = 3 * DAY_MS
JUMP_MS = _HOUR_MS
"""Seen between two looks of one boot, when it is known how much time has really passed."""
LONG_ABSENCE_MS = 30 * DAY_MS
"""From the last look of an earlier boot: being switched off looks the same, and is common for shorter."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the clocks said, and how long nothing is to be removed from then on."""

    wall: int
    steady: int
    left: int = 0


def look(before: Look | None, wall: int, steady: int) -> Look:
    """The next look. Pure."""
    if before is None:
        return Look(wall=wall, steady=steady)
    passed = steady - before.steady
    by_wall = wall - before.wall
    left = max(0, before.left - min(max(passed, 0), DAY_MS))
    if by_wall - passed > JUMP_MS or by_wall > LONG_ABSENCE_MS:
        left = HOLD_MS
    return Look(wall=wall, steady=steady, left=left)


class Hold:
    """Remembers the last look in a file, so that a restart in between hides no jump."""

    def __init__(self, clock: Clock, file: Path) -> None:
        self._clock = clock
        self._file = file
        self._last = _read(file)

    def moment(self) -> Millis | None:
        """Looks at the clocks. The time by which ages count now; None when nothing is to be removed by itself."""
        before = self._last
        self._last = after = look(before, self._clock.now(), self._clock.steady())
        self._keep(after)
        if after.left == HOLD_MS:
            _log.warning(
                "retention.on_hold",
                hours=HOLD_MS // _HOUR_MS,
                message="the clock has jumped ahead, or this machine was off for long: set the clock if it is wrong",
            )
        elif before is not None and before.left and not after.left:
            _log.info("retention.goes_on")
        return None if after.left else Millis(after.wall)

    def _keep(self, last: Look) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(asdict(last)), encoding="utf-8")
        os.replace(new, self._file)


def _read(file: Path) -> Look | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Look(wall=int(kept["wall"]), steady=int(kept["steady"]), left=int(kept["left"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # the first look, or a file cut off by a power failure
        return None
