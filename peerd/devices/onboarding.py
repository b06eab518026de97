"""What operators do with devices: each a function of a Tx, and each can be undone."""

from __future__ import annotations

import re

from peerd.devices import repository
from peerd.devices.model import Device, Miner, Status
from peerd.devices.plugging import identify
from peerd.errors import PeerdError, Reason, Violation
from peerd.failpoints import failpoint
from peerd.mesh.model import check_name
from peerd.store import Tx
from peerd.v1 import devices_pb2

_CURRENCY = re.compile(r"[A-Z0-9]{2,10}")
_MAX_NOTES = 500
MAX_MINERS = 1000


def onboard(tx: Tx, request: devices_pb2.OnboardDeviceRequest, *, taken: str) -> Miner:
    """A device becomes a miner. ``taken``: which other peer has a miner of that name, if one has.

    Raises NOT_FOUND, INVALID_ARGUMENT, ALREADY_EXISTS, ILLEGAL_TRANSITION, QUOTA_EXCEEDED.
    """
    device = _unnamed(tx, request.device)
    if request.known:
        return _known(tx, device, request.known)
    check_fields(name=request.name, currency=request.currency, notes=(request.chipset, request.location_notes))
    check_free(tx, request.name, taken)
    if device.outcome == "not_a_miner":
        raise PeerdError(
            Reason.ILLEGAL_TRANSITION,
            f"device {device.device_id} is no miner: {device.reason}",
            next_action=f"'peerctl devices reset {device.device_id}' looks at it anew",
        )
    if len(repository.miners(tx)) >= MAX_MINERS:
        raise PeerdError(Reason.QUOTA_EXCEEDED, f"there are {MAX_MINERS} miners", next_action="forget some first")
    repository.delete_device(tx, device.device_id)
    miner_id = repository.add_miner(
        tx,
        {
            "miner_id": request.name,
            "currency": request.currency,
            "chipset": request.chipset,
            "location_notes": request.location_notes,
            "dev_path": device.port.path or None,
            "port_path": device.port.usb_path if device.plugged else None,
            "last_port_path": device.port.usb_path,
            "vendor_id": device.port.vendor_id,
            "product_id": device.port.product_id,
            "serial_number": device.port.serial,
            "product": device.port.product,
            "plug_token": device.port.token,
            "mac_address": device.mac,
            "status": device.status.value,
            "state": device.state,
            "pool_url": device.pool_url,
            "wallet_address": device.wallet,
            "firmware_version": device.firmware,
            "outcome": device.outcome,
            "onboarded_at": tx.now,
            "last_seen_at": device.last_seen_at,
            "since": tx.now,
        },
    )
    repository.note(tx, miner_id=miner_id, event="onboarded", detail=f"device {device.device_id} is {request.name}")
    failpoint("devices.onboard.before_commit")
    return _miner(tx, request.name)


def ignore(tx: Tx, text: str, *, ignored: bool) -> Device:
    """Leave a device alone, or no longer. Raises NOT_FOUND, and ILLEGAL_TRANSITION for a miner."""
    device = _unnamed(tx, text)
    said = {"reason": "ignored", "next_action": f"peerctl devices ignore {device.device_id} --undo"} if ignored else {}
    repository.update_device(
        tx, device.device_id, {"ignored": int(ignored), "outcome": "", "reason": "", "next_action": "", **said}
    )
    repository.note(tx, device_id=device.device_id, event="ignored" if ignored else "not ignored", detail="")
    if ignored and device.plugged:
        repository.release(tx, device.port.path)
        repository.set_status(tx, device, Status.INACTIVE, device.state, {})
    return repository.get_device(tx, str(device.device_id))


def forget(tx: Tx, text: str) -> str:
    """Take its name, or forget the device; returns the path it is plugged in at. Raises NOT_FOUND."""
    what = repository.get_any(tx, text)
    if what.plugged:
        repository.unplug(tx, what.port.path)
    if isinstance(what, Miner):
        repository.delete_miner(tx, what.miner_id)
    else:
        repository.delete_device(tx, what.device_id)
    return what.port.path


def update(tx: Tx, request: devices_pb2.UpdateMinerRequest, *, taken: str, said: tuple[str, str]) -> Miner:
    """Change what an operator said. ``said``: pool and wallet that it says it has, if the monitor knows them.

    Raises NOT_FOUND, INVALID_ARGUMENT, ALREADY_EXISTS.
    """
    miner = repository.find_miner(tx, request.device)
    if miner is None:
        raise PeerdError(Reason.NOT_FOUND, f"no miner here is called {request.device[:80]!r}")
    columns: dict[str, object] = {}
    check_fields(
        name=request.name if request.HasField("name") else miner.name,
        currency=request.currency if request.HasField("currency") else miner.currency,
        notes=(request.chipset, request.location_notes),
    )
    if request.HasField("name") and request.name != miner.name:
        if request.name.lower() != miner.name.lower():
            check_free(tx, request.name, taken)
        columns["miner_id"] = request.name
        repository.note(tx, miner_id=miner.miner_id, event="renamed", detail=f"was {miner.name}")
    for field in ("currency", "chipset", "location_notes"):
        if request.HasField(field):
            columns[field] = getattr(request, field)
    if request.accept_pool:
        columns |= {"pool_url": said[0] or miner.pool_url, "wallet_address": said[1] or miner.wallet}
        repository.note(tx, miner_id=miner.miner_id, event="pool accepted", detail=str(columns["pool_url"]))
    if columns:
        repository.update_miner(tx, miner.miner_id, columns)
    return _miner(tx, request.name if request.HasField("name") else miner.name)


def check_free(tx: Tx, name: str, taken: str) -> None:
    """Raises ALREADY_EXISTS when a miner here or elsewhere has that name."""
    where = "here" if repository.find_miner(tx, name) is not None else f"at peer {taken}" if taken else ""
    if where:
        raise PeerdError(
            Reason.ALREADY_EXISTS,
            f"there is a miner {name} already, {where}",
            next_action=f"choose another name, or, if this is it, 'peerctl devices onboard ID --known {name}'",
        )


def check_fields(*, name: str, currency: str, notes: tuple[str, ...]) -> None:
    """Raises INVALID_ARGUMENT with every field that is missing or wrong."""
    wrong = []
    try:
        check_name(name, "name")
        if name.isdigit():
            wrong.append(Violation(field="name", message="only digits: that would be an id"))
    except PeerdError as error:
        wrong.append(Violation(field="name", message=error.message))
    if not _CURRENCY.fullmatch(currency):
        wrong.append(Violation(field="currency", message=f"{currency[:20]!r} is none; such as BTC"))
    if any(len(note) > _MAX_NOTES or not note.isprintable() for note in notes):
        wrong.append(Violation(field="location_notes", message=f"at most {_MAX_NOTES} printable characters"))
    if wrong:
        raise PeerdError(
            Reason.INVALID_ARGUMENT, "; ".join(f"{entry.field}: {entry.message}" for entry in wrong), violations=wrong
        )


def _known(tx: Tx, device: Device, name: str) -> Miner:
    """An operator says that it is a miner which could not be recognised."""
    miner = repository.find_miner(tx, name)
    if miner is None:
        raise PeerdError(Reason.NOT_FOUND, f"no miner here is called {name[:80]!r}")
    if miner.plugged:
        raise PeerdError(
            Reason.ILLEGAL_TRANSITION, f"{miner.name} is plugged in at {miner.port.path}", next_action="unplug that one"
        )
    if not device.plugged:
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"device {device.device_id} is not plugged in")
    identify(tx, device, miner.name)
    failpoint("devices.onboard.before_commit")
    return _miner(tx, name)


def _unnamed(tx: Tx, text: str) -> Device:
    what = repository.get_any(tx, text)
    if isinstance(what, Miner):
        raise PeerdError(
            Reason.ILLEGAL_TRANSITION, f"{text[:80]} is miner {what.name}", next_action="forget it first, or rename it"
        )
    return what


def _miner(tx: Tx, name: str) -> Miner:
    found = repository.find_miner(tx, name)
    if found is None:
        raise PeerdError(Reason.NOT_FOUND, f"no miner here is called {name[:80]!r}")
    return found
