"""The SQL of devices, miners, and of who may have which port open."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from peerd.devices.model import NOT_CONNECTED, Device, Miner, Port, Stage, Status, check_transition
from peerd.devices.rows import to_device, to_miner
from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx

KEPT_DEVICES = 500
"""Without a name."""
KEPT_EVENTS = 500
"""Of one miner, and of all devices together."""


def no_such_device(name: str) -> PeerdError:
    """The refusal for what is neither an id, nor a path, nor a name here."""
    return PeerdError(Reason.NOT_FOUND, f"there is no device {name[:80]!r}", next_action="see 'peerctl devices list'")


# -- Devices that nobody has onboarded


def add_device(tx: Tx, port: Port) -> int:
    """A new one, plugged in."""
    device_id = tx.insert(
        "INSERT INTO unconfigured_devices (dev_path, port_path, vendor_id, product_id, serial_number, product,"
        " plug_token, discovered_at, last_seen_at, status, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            port.path,
            port.usb_path,
            port.vendor_id,
            port.product_id,
            port.serial,
            port.product,
            port.token,
            tx.now,
            tx.now,
            Status.INACTIVE.value,
            Stage.BOOTING.value,
        ),
    )
    note(tx, device_id=device_id, event="discovered", detail=f"{port.path} {port.vendor_id}:{port.product_id}")
    return device_id


def update_device(tx: Tx, device_id: int, columns: Mapping[str, object]) -> None:
    """Change these columns."""
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE unconfigured_devices SET {names} WHERE id = ?", (*columns.values(), device_id))  # noqa: S608


def delete_device(tx: Tx, device_id: int) -> None:
    """Forget it."""
    tx.execute("DELETE FROM unconfigured_devices WHERE id = ?", (device_id,))


def forget_unseen(tx: Tx, *, before: int) -> None:
    """Devices without a name that are not plugged in: those not seen since then, and those beyond the newest so many.

    What an operator said to ignore stays.
    """
    tx.execute(
        "DELETE FROM unconfigured_devices WHERE dev_path IS NULL AND NOT ignored AND (last_seen_at < ? OR id NOT IN"
        " (SELECT id FROM unconfigured_devices ORDER BY dev_path IS NULL, last_seen_at DESC LIMIT ?))",
        (before, KEPT_DEVICES),
    )


def devices(tx: Tx) -> list[Device]:
    """All of them."""
    return [to_device(row) for row in tx.all("SELECT * FROM unconfigured_devices ORDER BY id")]


def find_device(tx: Tx, device_id: int) -> Device | None:
    """The one of that id."""
    row = tx.one("SELECT * FROM unconfigured_devices WHERE id = ?", (device_id,))
    return None if row is None else to_device(row)


def get_device(tx: Tx, text: str) -> Device:
    """By id or path. Raises NOT_FOUND."""
    row = tx.one("SELECT * FROM unconfigured_devices WHERE id = ? OR dev_path = ?", (_number(text), text))
    if row is None:
        raise no_such_device(text)
    return to_device(row)


# -- Miners


def add_miner(tx: Tx, columns: Mapping[str, object]) -> int:
    """A new one."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    return tx.insert(f"INSERT INTO miners ({names}) VALUES ({marks})", list(columns.values()))  # noqa: S608 - ours


def update_miner(tx: Tx, miner_id: int, columns: Mapping[str, object]) -> None:
    """Change these columns."""
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE miners SET {names} WHERE id = ?", (*columns.values(), miner_id))  # noqa: S608 - ours


def delete_miner(tx: Tx, miner_id: int) -> None:
    """It, and what is remembered of it."""
    tx.execute("DELETE FROM miner_readings WHERE miner_id = ?", (miner_id,))
    tx.execute("DELETE FROM device_history WHERE miner_id = ?", (miner_id,))
    tx.execute("DELETE FROM miners WHERE id = ?", (miner_id,))


def miners(tx: Tx) -> list[Miner]:
    """All of them."""
    return [to_miner(row) for row in tx.all("SELECT * FROM miners ORDER BY miner_id")]


def find_miner(tx: Tx, text: str) -> Miner | None:
    """By name or path."""
    row = tx.one("SELECT * FROM miners WHERE miner_id = ? OR dev_path = ?", (text, text))
    return None if row is None else to_miner(row)


def occupant(tx: Tx, path: str) -> Device | Miner | None:
    """What is plugged in there."""
    row = tx.one("SELECT * FROM miners WHERE dev_path = ?", (path,))
    if row is not None:
        return to_miner(row)
    row = tx.one("SELECT * FROM unconfigured_devices WHERE dev_path = ?", (path,))
    return None if row is None else to_device(row)


def get_any(tx: Tx, text: str) -> Device | Miner:
    """A miner by name or path, or a device by id or path. Raises NOT_FOUND."""
    return find_miner(tx, text) or get_device(tx, text)


def set_status(tx: Tx, what: Device | Miner, status: Status, state: str, columns: Mapping[str, object]) -> None:
    """Move it on. Raises ILLEGAL_TRANSITION."""
    name = what.name if isinstance(what, Miner) else f"device {what.device_id}"
    check_transition(name, what.status, status)
    changed: dict[str, object] = {"status": status.value, "state": state, "last_seen_at": tx.now, **columns}
    if isinstance(what, Device):
        if status is Status.ACTIVE:
            raise PeerdError(Reason.ILLEGAL_TRANSITION, f"{name} has no name and cannot become active")
        update_device(tx, what.device_id, changed)
        return
    if status is not what.status:
        changed["since"] = tx.now
        note(tx, miner_id=what.miner_id, event=status.value, detail=str(columns.get("reason") or state))
    update_miner(tx, what.miner_id, changed)


def unplug(tx: Tx, path: str) -> None:
    """Nothing is plugged in there any more; nobody owns that port."""
    release(tx, path)
    what = occupant(tx, path)
    if what is None:
        return
    gone: dict[str, object] = {"dev_path": None}
    if not (isinstance(what, Device) and what.ignored):
        gone |= {"reason": "", "next_action": ""}
    if isinstance(what, Miner):
        gone["port_path"] = None
    set_status(tx, what, Status.INACTIVE, NOT_CONNECTED, gone)
    if isinstance(what, Device):
        note(tx, device_id=what.device_id, event="unplugged", detail=path)


def unplug_all(tx: Tx) -> None:
    """A daemon begins: what is plugged in is looked at anew, and nobody has a port open."""
    for row in tx.all(
        "SELECT dev_path FROM miners WHERE dev_path IS NOT NULL"
        " UNION SELECT dev_path FROM unconfigured_devices WHERE dev_path IS NOT NULL"
    ):
        unplug(tx, row["dev_path"])
    tx.execute("DELETE FROM device_leases")


# -- Leases


def lease(tx: Tx, path: str, owner: str) -> None:
    """Take a port. Raises ILLEGAL_TRANSITION if the other owner has it."""
    row = tx.one("SELECT owner FROM device_leases WHERE dev_path = ?", (path,))
    if row is not None and row["owner"] != owner:
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"{path} belongs to {row['owner']} now")
    tx.execute(
        "INSERT INTO device_leases (dev_path, owner, taken_at) VALUES (?, ?, ?) ON CONFLICT (dev_path) DO NOTHING",
        (path, owner, tx.now),
    )


def release(tx: Tx, path: str) -> None:
    """Nobody has it."""
    tx.execute("DELETE FROM device_leases WHERE dev_path = ?", (path,))


# -- History


def note(
    tx: Tx,
    *,
    event: str,
    detail: str,
    miner_id: int | None = None,
    device_id: int | None = None,
    at: int | None = None,
) -> None:
    """Something happened; now, or at that time."""
    tx.insert(
        "INSERT INTO device_history (miner_id, device_id, at, event, detail) VALUES (?, ?, ?, ?, ?)",
        (miner_id, device_id, tx.now if at is None else at, event, detail[:300]),
    )


def forget_events(tx: Tx) -> None:
    """The oldest of each miner, and of all devices, beyond so many."""
    tx.execute(
        "DELETE FROM device_history WHERE id IN (SELECT id FROM (SELECT id, row_number()"
        " OVER (PARTITION BY miner_id ORDER BY id DESC) AS place FROM device_history) WHERE place > ?)",
        (KEPT_EVENTS,),
    )


async def events(store: Store, what: Device | Miner, *, before: int, limit: int) -> list[sqlite3.Row]:
    """What happened to it, newest first."""
    column, number = ("miner_id", what.miner_id) if isinstance(what, Miner) else ("device_id", what.device_id)
    return await store.all(
        f"SELECT * FROM device_history WHERE {column} = ? AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - ours
        (number, before, limit),
    )


# -- Reads outside of a transaction


async def all_of(store: Store) -> tuple[list[Device], list[Miner]]:
    """Everything here."""
    found = await store.all("SELECT * FROM unconfigured_devices ORDER BY id")
    named = await store.all("SELECT * FROM miners ORDER BY miner_id")
    return [to_device(row) for row in found], [to_miner(row) for row in named]


async def read(store: Store, text: str) -> Device | Miner | None:
    """By name, path or id."""
    row = await store.one("SELECT * FROM miners WHERE miner_id = ? OR dev_path = ?", (text, text))
    if row is not None:
        return to_miner(row)
    row = await store.one("SELECT * FROM unconfigured_devices WHERE id = ? OR dev_path = ?", (_number(text), text))
    return None if row is None else to_device(row)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else -1
