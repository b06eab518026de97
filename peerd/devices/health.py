"""assess(vitals): how an Active miner is, why, and what to do. Pure.

Active only says that the monitor owns the port; whether the board earns its current is another question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from peerd.devices.status_lines import Reading

SILENT_SECONDS = 60.0
"""A board that hashes prints its line every few seconds."""
NOT_HASHING_SECONDS = 90.0
REBOOTS = 3
REBOOT_SECONDS = 600.0
HOT_CELSIUS = 85.0
"""An ESP32 is specified up to 85 degrees around it; its own sensor shows more for a while."""


class Level(Enum):
    """How urgent."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The verdict; ``reason`` is stable."""

    level: Level
    reason: str
    message: str = ""
    next_action: str = ""


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What the monitor knows of a miner. Times in seconds of a clock that is never set; None for never."""

    now: float
    watched_since: float
    last_line_at: float | None = None
    last_hashing_at: float | None = None
    reboots: tuple[float, ...] = ()
    """When, newest last."""
    reading: Reading = field(default_factory=Reading)
    pool_error: str = ""
    """What its pool said last, if it refused."""
    portal: bool = False
    expected_pool: str = ""
    expected_wallet: str = ""
    pool: str = ""
    wallet: str = ""


def assess(vitals: Vitals) -> Health:
    """The gravest thing that is wrong."""
    watched = vitals.now - vitals.watched_since
    heard = vitals.last_line_at
    if (heard is None and watched > SILENT_SECONDS) or (heard is not None and vitals.now - heard > SILENT_SECONDS):
        silent = watched if heard is None else vitals.now - heard
        return _bad("silent", f"nothing printed for {silent:.0f} s", "check its cable, or 'peerctl devices reset NAME'")
    if vitals.portal:
        return _bad("portal", "it waits to be set up", "join its Wi-Fi (NerdMinerAP) and fill in its page")
    recent = [at for at in vitals.reboots if vitals.now - at <= REBOOT_SECONDS]
    if len(recent) >= REBOOTS:
        return _bad(
            "rebooting", f"{len(recent)} boots in {REBOOT_SECONDS / 60:.0f} min", "give it a better supply or cable"
        )
    if vitals.pool_error:
        return _bad("refused", f"its pool refuses it: {vitals.pool_error}", "check its wallet with the pool")
    wrong = _wrong_pool(vitals)
    if wrong:
        return _bad(
            "wrong_pool",
            wrong,
            "set it back on the device, or take what it says: 'peerctl devices set NAME --accept-pool'",
        )
    hashing = vitals.last_hashing_at
    if hashing is None and watched <= NOT_HASHING_SECONDS:
        return Health(level=Level.UNKNOWN, reason="no_data_yet", message="it has not said yet how it mines")
    if hashing is None or vitals.now - hashing > NOT_HASHING_SECONDS:
        return _not_hashing(vitals)
    celsius = vitals.reading.temperature_celsius
    if celsius is not None and celsius > HOT_CELSIUS:
        return Health(
            level=Level.WARNING, reason="hot", message=f"{celsius:.0f} degrees Celsius", next_action="cool it"
        )
    return Health(level=Level.OK, reason="ok")


def _not_hashing(vitals: Vitals) -> Health:
    reading = vitals.reading
    if reading.wifi is False:
        return _bad("no_wifi", "it is Active and has no Wi-Fi", "look after its access point")
    if reading.connected is False:
        return _bad("no_pool", "it is Active and not connected with its pool", "see whether the pool is up")
    if reading.subscribed is False:
        return _bad("not_subscribed", "it is Active and its pool gives it no work", "see whether the pool is up")
    return _bad("not_hashing", "it is Active and does not hash", "'peerctl devices reset NAME'")


def _wrong_pool(vitals: Vitals) -> str:
    if vitals.pool and vitals.expected_pool and vitals.pool != vitals.expected_pool:
        return f"it mines at {vitals.pool} and not at {vitals.expected_pool}"
    if vitals.wallet and vitals.expected_wallet and vitals.wallet != vitals.expected_wallet:
        return f"it mines for {vitals.wallet} and not for {vitals.expected_wallet}"
    return ""


def _bad(reason: str, message: str, next_action: str) -> Health:
    return Health(level=Level.BAD, reason=reason, message=message, next_action=next_action)
