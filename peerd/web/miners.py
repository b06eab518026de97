"""Miners in the words of the dashboard that peerd takes the place of: ``herd_data`` and ``device_state``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.v1 import devices_pb2

STALE_SECONDS = 300
"""The source document's five minutes."""
_STATUSES = {
    devices_pb2.DEVICE_STATUS_ACTIVE: "Active",
    devices_pb2.DEVICE_STATUS_INITIALIZING: "Initializing",
    devices_pb2.DEVICE_STATUS_INACTIVE: "Inactive",
}


def herd_data(devices: Sequence[devices_pb2.Device]) -> dict[str, Any]:
    """``{herd_stats, btc_price_data, miners_list}``. peerd asks nobody for prices: those are null."""
    flock = [device for device in devices if device.name]
    active = [device for device in flock if device.status == devices_pb2.DEVICE_STATUS_ACTIVE]
    return {
        "herd_stats": {
            "total_miners": len(flock),
            "online_miners": len(active),
            "total_hash_khs": sum(device.reading.hash_rate_khs for device in active),
            "total_shares": sum(device.reading.shares for device in active),
            "total_block_templates": sum(device.reading.block_templates for device in active),
            "best_difficulty": max((device.reading.best_difficulty for device in active), default=0.0),
        },
        "btc_price_data": {"price_usd": None, "change_24h": None},
        "miners_list": [_miner(device) for device in flock],
    }


def device_state(devices: Sequence[devices_pb2.Device], now: int) -> dict[str, Any]:
    """``{devices, total}``, each with a ``display_status``."""
    return {
        "devices": [{**_miner(device), "display_status": display_status(device, now)} for device in devices],
        "total": len(devices),
    }


def display_status(device: devices_pb2.Device, now: int) -> str:
    """One word for people."""
    if not device.name:
        return "Unconfigured (Captured)" if device.pool_url or device.wallet_address else "Unconfigured"
    if device.status == devices_pb2.DEVICE_STATUS_INITIALIZING:
        return "Initializing"
    if device.status == devices_pb2.DEVICE_STATUS_ACTIVE:
        silent = device.health_reason == "silent" and now - device.last_seen_at.ToMilliseconds() > STALE_SECONDS * 1000
        return "Stale" if silent else "Online"
    return "Inactive" if device.dev_path else "Offline"


def _miner(device: devices_pb2.Device) -> dict[str, Any]:
    reading = device.reading
    return {
        "id": device.device_id or None,
        "miner_id": device.name or None,
        "peer_id": device.peer_id,
        "peer_name": device.peer_name,
        "dev_path": device.dev_path or None,
        "port_path": device.port_path or None,
        "vendor_id": device.vendor_id,
        "product_id": device.product_id,
        "serial_number": device.serial_number,
        "mac_address": device.mac_address or None,
        "status": _STATUSES.get(device.status, "Inactive"),
        "state": device.state,
        "status_reason": device.reason or None,
        "next_action": device.next_action or None,
        "health": device.health_reason or None,
        "currency": device.currency or None,
        "pool_url": device.pool_url or None,
        "wallet_address": device.wallet_address or None,
        "nerdminer_vrs": device.firmware_version or None,
        "chipset": device.chipset or None,
        "location_notes": device.location_notes or None,
        "hash_khs": reading.hash_rate_khs if reading.HasField("hash_rate_khs") else None,
        "shares": reading.shares if reading.HasField("shares") else None,
        "best_difficulty": reading.best_difficulty if reading.HasField("best_difficulty") else None,
        "temperature": reading.temperature_celsius if reading.HasField("temperature_celsius") else None,
        "valid_blocks": reading.valid_blocks if reading.HasField("valid_blocks") else None,
        "mining_seconds": reading.mining_seconds if reading.HasField("mining_seconds") else None,
        "last_seen": _moment(device.last_seen_at) if device.HasField("last_seen_at") else None,
    }


def _moment(timestamp: Timestamp) -> str:
    return timestamp.ToJsonString()
