"""Watcher: what the console of an Active miner says, line by line. Pure; times in seconds of a clock never set."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from peerd.devices.dump import Configuration, DumpCollector
from peerd.devices.health import Health, Vitals, assess
from peerd.devices.model import Stage
from peerd.devices.phrases import BANNER, BOOT, ERROR, PORTAL, STAGES, UNAUTHORIZED, may_say_something, settings_in
from peerd.devices.status_lines import Reading, parse_status

_REBOOTS_KEPT = 10
RATE_SECONDS = 120.0
"""An older hash rate is none: who says nothing does not hash on as before."""


@dataclass
class Window:
    """What is summed up for one row of telemetry."""

    rates: list[float] = field(default_factory=list)
    newest: Reading = field(default_factory=Reading)

    @property
    def samples(self) -> int:
        """How often it said its hash rate."""
        return len(self.rates)


class Watcher:
    """Of one miner, from when its monitor opened the port."""

    def __init__(
        self, now: float, *, pool: str = "", wallet: str = "", configuration: Configuration | None = None
    ) -> None:
        """``pool`` and ``wallet`` as they should be; ``configuration``: what it has said of them since its plug."""
        self._since = now
        self.expected_pool = pool
        self.expected_wallet = wallet
        self._last_line: float | None = None
        self._last_hashing: float | None = None
        self._last_rate = now
        self._reboots: deque[float] = deque(maxlen=_REBOOTS_KEPT)
        self._progressed = True
        self._portal = False
        self._pool_error = ""
        self._dump = DumpCollector()
        self.configuration = configuration or Configuration()
        self.reading = Reading()
        self._window = Window()

    def line(self, text: str, now: float) -> None:
        """Take in one line."""
        self._last_line = now
        if not self._dump.collecting and not may_say_something(text):
            return
        ours, receiving, _ = text.partition("Receiving:")
        if (BOOT.search(ours) or BANNER.search(ours)) and self._progressed:
            self._progressed, self._portal, self._pool_error = False, False, ""
            self._reboots.append(now)
        if any(pattern.search(ours) for pattern, stage in STAGES if stage is not Stage.AUTHORIZE):
            self._progressed, self._portal = True, False
        if PORTAL.search(ours):
            self._portal = self._progressed = True
        if (error := ERROR.search(ours)) is not None and int(error["code"]) == UNAUTHORIZED:
            self._pool_error = error["reason"].strip()
        for said in (self._dump.line(ours), settings_in(ours)):
            if said is not None:
                self.configuration = self.configuration.merged(said)
        reading = None if receiving else parse_status(ours)
        if reading is not None:
            self._take(reading, now)

    def _take(self, reading: Reading, now: float) -> None:
        self._progressed = True
        self.reading = self.reading.merged(reading)
        self._window.newest = self._window.newest.merged(reading)
        if reading.hash_rate_khs is not None:
            self._window.rates.append(reading.hash_rate_khs)
            self._last_rate = now
        if reading.hashing:
            self._last_hashing = now
            if reading.shares and self._pool_error:
                self._pool_error = ""  # it takes its shares again

    def reading_at(self, now: float) -> Reading:
        """What it said last, as far as that still counts."""
        old = now - self._last_rate > RATE_SECONDS
        return replace(self.reading, hash_rate_khs=None) if old else self.reading

    def window(self) -> Window:
        """What was said since this was last asked."""
        window, self._window = self._window, Window()
        return window

    def health(self, now: float) -> Health:
        """How it is."""
        return assess(
            Vitals(
                now=now,
                watched_since=self._since,
                last_line_at=self._last_line,
                last_hashing_at=self._last_hashing,
                reboots=tuple(self._reboots),
                reading=self.reading,
                pool_error=self._pool_error,
                portal=self._portal,
                expected_pool=self.expected_pool,
                expected_wallet=self.expected_wallet,
                pool=self.configuration.pool_url,
                wallet=self.configuration.wallet,
            )
        )
