"""What a device and a miner are, their states, and which follows which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peerd.clock import Millis
from peerd.devices.health import Health
from peerd.devices.status_lines import Reading
from peerd.errors import PeerdError, Reason


class Stage(Enum):
    """How far a device is, in the words of the source document; its order is that of these lines."""

    BOOTING = "Booting"
    WORKER_STARTED = "WORKER Started"
    MINER_STARTED = "MINER HW Task Started"
    CONNECTED = "CONNECTED IP"
    DNS_RESOLVED = "DNS Resolved"
    SUBSCRIBE = "Mining Subscribe"
    AUTHORIZE = "Mining Authorize"
    MINING = "Mining"

    @property
    def order(self) -> int:
        """Its place."""
        return _ORDER[self]


_ORDER = {stage: number for number, stage in enumerate(Stage)}

NOT_CONNECTED = "Not Connected"
"""The state of what is not plugged in."""


class Status(Enum):
    """Who owns the port of a device: the traffic light of the source document."""

    INACTIVE = "inactive"  # nobody
    INITIALIZING = "initializing"  # discovery
    ACTIVE = "active"  # the monitor


FOLLOWS = {
    Status.INACTIVE: {Status.INACTIVE, Status.INITIALIZING},
    Status.INITIALIZING: {Status.INITIALIZING, Status.ACTIVE, Status.INACTIVE},
    Status.ACTIVE: {Status.ACTIVE, Status.INACTIVE, Status.INITIALIZING},
}
"""Nothing is Active that discovery has not looked at."""


def check_transition(name: str, before: Status, after: Status) -> None:
    """Raises ILLEGAL_TRANSITION."""
    if after not in FOLLOWS[before]:
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"{name} is {before.value} and cannot become {after.value}")


@dataclass(frozen=True, kw_only=True)
class Port:
    """Where a device is plugged in, and what USB says of it."""

    path: str
    """Such as /dev/ttyUSB0: may name another device after the next plug."""
    usb_path: str = ""
    """The physical port, such as 1-1.2."""
    vendor_id: str = ""
    product_id: str = ""
    serial: str = ""
    manufacturer: str = ""
    product: str = ""
    token: str = ""
    """Differs after every plug; empty where nothing says so."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that nobody has onboarded."""

    device_id: int
    port: Port
    plugged: bool
    discovered_at: Millis
    last_seen_at: Millis
    status: Status
    state: str
    pool_url: str
    wallet: str
    firmware: str
    mac: str
    ignored: bool
    outcome: str
    """How its last handshake ended; empty if none has."""
    reason: str
    next_action: str


@dataclass(frozen=True, kw_only=True)
class Miner:
    """A device with a name."""

    miner_id: int
    name: str
    currency: str
    chipset: str
    location_notes: str
    port: Port
    """With empty paths while it is not plugged in."""
    last_usb_path: str
    plugged: bool
    mac: str
    status: Status
    state: str
    pool_url: str
    wallet: str
    firmware: str
    outcome: str
    reason: str
    next_action: str
    handed_to: str
    """The peer it was promised to, until that one says that it has it."""
    onboarded_at: Millis
    last_seen_at: Millis
    since: Millis
    """When its status became what it is."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the monitor knows of a miner now."""

    health: Health
    reading: Reading
    pool: str
    wallet: str
