"""Values -> messages: devices and miners as people see them."""

from __future__ import annotations

import sqlite3

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.devices.model import NOT_CONNECTED, Device, Live, Miner, Port, Status
from peerd.devices.status_lines import Reading
from peerd.v1 import devices_pb2

STATUSES = {
    Status.INACTIVE: devices_pb2.DEVICE_STATUS_INACTIVE,
    Status.INITIALIZING: devices_pb2.DEVICE_STATUS_INITIALIZING,
    Status.ACTIVE: devices_pb2.DEVICE_STATUS_ACTIVE,
}


def to_message(what: Device | Miner, *, live: Live | None, peer_id: str, peer_name: str) -> devices_pb2.Device:
    """A device or miner of this peer."""
    message = devices_pb2.Device(
        peer_id=peer_id,
        peer_name=peer_name,
        dev_path=what.port.path,
        port_path=what.port.usb_path if what.plugged else "",
        vendor_id=what.port.vendor_id,
        product_id=what.port.product_id,
        serial_number=what.port.serial,
        product=what.port.product,
        mac_address=what.mac,
        status=STATUSES[what.status],
        state=what.state,
        pool_url=what.pool_url,
        wallet_address=what.wallet,
        firmware_version=what.firmware,
        outcome=what.outcome,
        reason=what.reason,
        next_action=what.next_action,
        last_seen_at=at(what.last_seen_at),
        watched=True,
    )
    if isinstance(what, Device):
        message.device_id, message.ignored = what.device_id, what.ignored
        message.discovered_at.CopyFrom(at(what.discovered_at))
        return message
    message.name, message.currency, message.chipset = what.name, what.currency, what.chipset
    message.location_notes = what.location_notes
    message.discovered_at.CopyFrom(at(what.onboarded_at))
    message.since.CopyFrom(at(what.since))
    if live is not None and what.status is Status.ACTIVE:
        message.health, message.health_reason = live.health.level.value, live.health.reason
        if live.health.message:
            message.reason, message.next_action = live.health.message, live.health.next_action
        message.reading.CopyFrom(to_reading(live.reading))
    return message


def unwatched_message(port: Port, *, peer_id: str, peer_name: str) -> devices_pb2.Device:
    """A port that is never opened."""
    return devices_pb2.Device(
        peer_id=peer_id,
        peer_name=peer_name,
        dev_path=port.path,
        port_path=port.usb_path,
        vendor_id=port.vendor_id,
        product_id=port.product_id,
        serial_number=port.serial,
        product=port.product,
        status=devices_pb2.DEVICE_STATUS_INACTIVE,
        state=NOT_CONNECTED,
        reason="no rule of the configuration lets it be opened",
        next_action=f'add "{port.vendor_id}:{port.product_id}" to [devices] watch, if it is a miner',
    )


def to_reading(reading: Reading) -> devices_pb2.MinerReading:
    """The newest values."""
    return devices_pb2.MinerReading(
        hash_rate_khs=reading.hash_rate_khs,
        shares=reading.shares,
        valid_blocks=reading.valid_blocks,
        block_templates=reading.block_templates,
        best_difficulty=reading.best_difficulty,
        temperature_celsius=reading.temperature_celsius,
        mining_seconds=reading.mining_seconds,
    )


def row_message(row: sqlite3.Row) -> devices_pb2.MinerReading:
    """A row of telemetry."""
    return devices_pb2.MinerReading(
        at=at(row["at"]),
        resolution_seconds=row["resolution"],
        samples=row["samples"],
        hash_rate_khs=row["hash_rate_khs"],
        hash_rate_min_khs=row["hash_rate_min_khs"],
        hash_rate_max_khs=row["hash_rate_max_khs"],
        shares=row["shares"],
        valid_blocks=row["valid_blocks"],
        best_difficulty=row["best_difficulty"],
        temperature_celsius=row["temperature_celsius"],
        mining_seconds=row["mining_seconds"],
    )


def event_message(row: sqlite3.Row) -> devices_pb2.DeviceEvent:
    """What happened."""
    return devices_pb2.DeviceEvent(event_id=row["id"], at=at(row["at"]), event=row["event"], detail=row["detail"])


def at(millis: int) -> Timestamp:
    """As a timestamp."""
    timestamp = Timestamp()
    timestamp.FromMilliseconds(millis)
    return timestamp
