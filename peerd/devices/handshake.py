"""Handshake: what a device that was just plugged in turns out to be, from its console. Pure.

``feed(bytes, now) -> (events, next deadline)``: the same bytes at the same times, in pieces of any size, give the same
events. It ends with one :class:`Finished`. The lines are those of NerdMiner v2 at 115200 baud; its tasks print at once,
so that steps come in any order, torn, or not at all: a stage never goes back, except when the device boots anew.

A miner mines once its pool has *accepted* its authorize: the firmware itself never looks at that answer. A device that
was opened too late for all that shows by its status lines that it mines already.
"""

from __future__ import annotations

import re

from peerd.devices.dump import Configuration, DumpCollector
from peerd.devices.events import Advanced, Described, Event, Finished, Outcome, Rebooted, Recognised, Reported
from peerd.devices.health import REBOOTS
from peerd.devices.lines import LineAssembler
from peerd.devices.model import Stage
from peerd.devices.phrases import (
    AUTHORIZE_ID,
    BANNER,
    BOOT,
    ERROR,
    MAC,
    NMEA,
    OTHER,
    PORTAL,
    SIGNS,
    STAGES,
    UNAUTHORIZED,
    UNREACHABLE,
    first_in,
    may_say_something,
    settings_in,
)
from peerd.devices.status_lines import Reading, parse_status

FIRST_BYTE_SECONDS = 30.0
"""An idle board prints a line each second, one that hashes one in some five seconds."""
RECOGNISE_SECONDS = 20.0
"""From the first byte; the boot text of an ESP32 takes less than three."""
MINING_SECONDS = 180.0
"""From the first sign of a miner to its authorize: the Wi-Fi may take two minutes."""
ANSWER_SECONDS = 30.0
"""For the pool's answer."""
UNKNOWN_BYTES = 16 * 1024
"""Without a sign of a miner, and it is none."""
UNKNOWN_SENTENCES = 3
"""Lines that surely come from another kind of device."""


class Handshake:
    """With one device, from its first byte on. ``now`` is in seconds of a clock that is never set."""

    def __init__(self, now: float) -> None:
        self.stage = Stage.BOOTING
        self._started_at = now
        self._first_byte_at: float | None = None
        self._recognised_at: float | None = None
        self._authorized_at: float | None = None
        self._authorize_id: int | None = None
        self._unreachable = ""
        self._boots = 0
        self._progressed = False
        self._bytes = 0
        self._sentences = 0
        self._configuration = Configuration()
        self._mac = ""
        self._lines = LineAssembler()
        self._dump = DumpCollector()
        self._finished = False
        self._events: list[Event] = []

    @property
    def finished(self) -> bool:
        """Whether it ended."""
        return self._finished

    @property
    def recognised(self) -> bool:
        """Whether it is known to be a miner."""
        return self._recognised_at is not None

    def feed(self, data: bytes, now: float) -> tuple[list[Event], float | None]:
        """Take what came; none for a deadline that has passed. Returns events and when to call again at the latest."""
        self._events = []
        self._judge_time(now)
        if data and not self._finished:
            if self._first_byte_at is None:
                self._first_byte_at = now
            # In slices, so that what is unknown ends at the same byte however much came at once.
            start = 0
            while start < len(data) and not self._finished:
                piece = data[start : start + max(1, UNKNOWN_BYTES - self._bytes % UNKNOWN_BYTES)]
                start += len(piece)
                self._bytes += len(piece)
                self._take(self._lines.feed(piece), now)
                if self._bytes >= UNKNOWN_BYTES and not self.recognised:
                    self._end(Outcome.NOT_A_MINER, "what it prints is not that of a miner")
        return self._events, self._deadline()

    # -- Time

    def _deadline(self) -> float | None:
        if self._finished:
            return None
        if self._first_byte_at is None:
            return self._started_at + FIRST_BYTE_SECONDS
        if self._recognised_at is None:
            return self._first_byte_at + RECOGNISE_SECONDS
        if self._authorized_at is None:
            return self._recognised_at + MINING_SECONDS
        return self._authorized_at + ANSWER_SECONDS

    def _judge_time(self, now: float) -> None:
        deadline = self._deadline()
        if deadline is None or now < deadline:
            return
        if self._first_byte_at is None:
            self._end(
                Outcome.SILENT,
                f"it printed nothing for {FIRST_BYTE_SECONDS:.0f} s",
                "check its cable and power; 'peerctl devices reset' makes boards boot that print only then",
            )
        elif self._recognised_at is None:
            self._end(Outcome.NOT_A_MINER, f"no sign of a miner in {RECOGNISE_SECONDS:.0f} s")
        elif self._authorized_at is None:
            why = f"; it could not connect to {self._unreachable}" if self._unreachable else ""
            why += f"; it booted {self._boots + 1} times" if self._boots else ""
            self._end(
                Outcome.STALLED,
                f"it has not come to its authorize in {MINING_SECONDS:.0f} s: {self.stage.value}{why}",
                _REBOOTING if self._boots >= REBOOTS - 1 else _STALLED[self.stage],
            )
        else:
            self._end(
                Outcome.STALLED,
                f"the pool did not answer its authorize in {ANSWER_SECONDS:.0f} s",
                "check address and port of its pool",
            )

    def _end(self, outcome: Outcome, message: str = "", next_action: str = "") -> None:
        if (rest := self._dump.finish()) is not None:
            self._describe(rest)
        self._finished = True
        self._events.append(Finished(outcome=outcome, message=message, next_action=next_action))

    # -- Lines

    def _take(self, lines: list[str], now: float) -> None:
        for line in lines:
            if not self._finished:
                self._line(line, now)

    def _line(self, line: str, now: float) -> None:
        if NMEA.search(line) or OTHER.search(line):
            self._sentences += 1
            if not self.recognised and self._sentences >= UNKNOWN_SENTENCES:
                self._end(Outcome.NOT_A_MINER, "it is another kind of device: a receiver, a modem, a printer")
            return
        if not self._dump.collecting and not may_say_something(line):
            return
        if BOOT.search(line) or BANNER.search(line):
            self._boot()
        # What the pool says is never taken for what the firmware says.
        ours, receiving, received = line.partition("Receiving:")
        reading = parse_status(ours)
        # One word or two of a sign may be anywhere, a whole status line comes from a miner only.
        if not self.recognised and (SIGNS.search(ours) or reading is not None):
            self._recognised_at = now
            self._events.append(Recognised())
        if not self.recognised:
            self._dumped(ours)
            if self._configuration != Configuration():
                self._recognised_at = now
                self._events.append(Recognised())
            return
        self._dumped(ours)
        self._settings(ours)
        self._stages(ours, now)
        if receiving:
            self._answer(received)
        if not self._finished:
            self._trouble(ours)
        if reading is not None and not self._finished:
            self._reading(reading)

    def _boot(self) -> None:
        """The ROM prints several lines, the firmware one: only what comes after progress is another boot."""
        if not self._progressed:
            return
        self._progressed = False
        self._boots += 1
        self.stage = Stage.BOOTING
        self._authorized_at = self._authorize_id = None
        self._dump.finish()
        self._events.append(Rebooted(count=self._boots))

    def _stages(self, ours: str, now: float) -> None:
        for pattern, stage in STAGES:
            if not pattern.search(ours):
                continue
            self._progressed = True
            if stage is Stage.AUTHORIZE:
                if (number := AUTHORIZE_ID.search(ours)) is not None:
                    self._authorize_id = int(number[1])
                if self._authorized_at is None:
                    self._authorized_at = now
            if stage.order > self.stage.order:
                self.stage = stage
                self._events.append(Advanced(stage=stage))

    def _answer(self, received: str) -> None:
        """What the pool says to the authorize, and to nothing else."""
        if self._authorized_at is None:
            return
        number = AUTHORIZE_ID.search(received)
        if number is None or int(number[1]) != (self._authorize_id or 2):
            return
        if re.search(r'"result"\s*:\s*true', received):
            self._mining()
        elif re.search(r'"result"\s*:\s*(?:false|null)|"error"\s*:\s*[\[{"]', received):
            self._refused(received.strip()[:200])

    def _trouble(self, ours: str) -> None:
        if (error := ERROR.search(ours)) and int(error["code"]) == UNAUTHORIZED and self._authorized_at is not None:
            self._refused(error["reason"].strip())
        if unreachable := UNREACHABLE.search(ours):
            self._unreachable = unreachable["pool"] or "its pool"
        if portal := PORTAL.search(ours):
            where = portal["ssid"] or "NerdMinerAP"
            self._end(
                Outcome.PORTAL,
                f"it waits to be set up, with a Wi-Fi of its own: {where}",
                f"join the Wi-Fi {where} and fill in its page",
            )

    def _reading(self, reading: Reading) -> None:
        self._events.append(Reported(reading=reading))
        # Hashing before any authorize was heard: it booted before we listened. After one, the answer may be lost.
        if reading.hashing and (self._authorized_at is not None or not self._progressed):
            self._mining()

    def _mining(self) -> None:
        self.stage = Stage.MINING
        self._events.append(Advanced(stage=Stage.MINING))
        self._end(Outcome.MINING)

    def _refused(self, said: str) -> None:
        self._end(
            Outcome.REFUSED,
            f"its pool refuses it: {said}",
            "check its wallet and password with the pool; they are set on the device",
        )

    # -- What it says of itself

    def _dumped(self, ours: str) -> None:
        if (found := self._dump.line(ours)) is not None:
            self._describe(found)

    def _settings(self, ours: str) -> None:
        if (said := settings_in(ours)) is not None:
            self._describe(said)
        mac = first_in(MAC, ours)
        if mac and (clean := mac.lower().replace("-", ":")) != self._mac:
            self._mac = clean
            self._events.append(Described(configuration=self._configuration, mac=clean))

    def _describe(self, said: Configuration) -> None:
        merged = self._configuration.merged(said)
        if merged != self._configuration:
            self._configuration = merged
            self._events.append(Described(configuration=merged, mac=self._mac))


_REBOOTING = "give it a better supply or cable"
_STALLED = {
    Stage.BOOTING: "check its Wi-Fi: it has not started to work",
    Stage.WORKER_STARTED: "check its Wi-Fi",
    Stage.MINER_STARTED: "check its Wi-Fi",
    Stage.CONNECTED: "check the name of its pool, and DNS in its network",
    Stage.DNS_RESOLVED: "check address and port of its pool",
    Stage.SUBSCRIBE: "check that its pool speaks Stratum at that port",
    Stage.AUTHORIZE: "check its pool",
    Stage.MINING: "nothing to do",
}
