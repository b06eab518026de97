"""What a handshake finds out, step by step, and how it ends. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peerd.devices.dump import Configuration
from peerd.devices.model import Stage
from peerd.devices.status_lines import Reading


class Outcome(Enum):
    """How a handshake ended."""

    MINING = "mining"
    NOT_A_MINER = "not_a_miner"
    SILENT = "silent"
    STALLED = "stalled"
    REFUSED = "refused"  # by the pool
    PORTAL = "portal"  # it waits for somebody to set up its Wi-Fi


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """It is a miner: what it printed says so."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """It reached a later stage."""

    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Rebooted:
    """It began anew in the middle."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Described:
    """It said something of its settings, its firmware, or its address; empty where it did not."""

    configuration: Configuration
    mac: str = ""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """It said how it mines."""

    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Finished:
    """There is nothing more to wait for."""

    outcome: Outcome
    message: str = ""
    next_action: str = ""


Event = Recognised | Advanced | Rebooted | Described | Reported | Finished
