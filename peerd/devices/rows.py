"""Rows of the store as devices and miners."""

from __future__ import annotations

import sqlite3

from peerd.clock import Millis
from peerd.devices.model import Device, Miner, Port, Status


def to_device(row: sqlite3.Row) -> Device:
    """A row as a value."""
    return Device(
        device_id=row["id"],
        port=_port(row, row["port_path"]),
        plugged=row["dev_path"] is not None,
        discovered_at=Millis(row["discovered_at"]),
        last_seen_at=Millis(row["last_seen_at"]),
        status=Status(row["status"]),
        state=row["state"],
        pool_url=row["dumped_pool_url"],
        wallet=row["dumped_wallet_address"],
        firmware=row["dumped_firmware_version"],
        mac=row["mac_address"],
        ignored=bool(row["ignored"]),
        outcome=row["outcome"],
        reason=row["reason"],
        next_action=row["next_action"],
    )


def to_miner(row: sqlite3.Row) -> Miner:
    """A row as a value."""
    return Miner(
        miner_id=row["id"],
        name=row["miner_id"],
        currency=row["currency"],
        chipset=row["chipset"],
        location_notes=row["location_notes"],
        port=_port(row, row["port_path"] or ""),
        last_usb_path=row["last_port_path"],
        plugged=row["dev_path"] is not None,
        mac=row["mac_address"],
        status=Status(row["status"]),
        state=row["state"],
        pool_url=row["pool_url"],
        wallet=row["wallet_address"],
        firmware=row["firmware_version"],
        outcome=row["outcome"],
        reason=row["reason"],
        next_action=row["next_action"],
        handed_to=row["handed_to"],
        onboarded_at=Millis(row["onboarded_at"]),
        last_seen_at=Millis(row["last_seen_at"]),
        since=Millis(row["since"]),
    )


def _port(row: sqlite3.Row, usb_path: str) -> Port:
    return Port(
        path=row["dev_path"] or "",
        usb_path=usb_path,
        vendor_id=row["vendor_id"],
        product_id=row["product_id"],
        serial=row["serial_number"],
        product=row["product"],
        token=row["plug_token"],
    )
