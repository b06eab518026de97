"""What is written when something is plugged in: which device it is, or that it is a new one. Functions of a Tx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peerd.devices import repository
from peerd.devices.dump import Configuration
from peerd.devices.model import NOT_CONNECTED, Device, Miner, Port, Stage, Status
from peerd.devices.passport import Passport, Verdict, contradicts, make_passport, recognise
from peerd.store import Tx


def passport_of(what: Device | Miner) -> Passport:
    """Of what is stored."""
    usb_path = what.last_usb_path if isinstance(what, Miner) else what.port.usb_path
    return make_passport(
        vendor_id=what.port.vendor_id,
        product_id=what.port.product_id,
        serial=what.port.serial,
        usb_path=usb_path,
        token=what.port.token,
        mac=what.mac,
        firmware=what.firmware,
        wallet=what.wallet,
    )


def passport_at(port: Port, configuration: Configuration | None = None, mac: str = "") -> Passport:
    """Of what is plugged in, and of what it said of itself."""
    said = configuration or Configuration()
    return make_passport(
        vendor_id=port.vendor_id,
        product_id=port.product_id,
        serial=port.serial,
        usb_path=port.usb_path,
        token=port.token,
        mac=mac,
        firmware=said.firmware,
        wallet=said.wallet,
    )


def plug(tx: Tx, port: Port, others: Sequence[Port], *, trust_ports: bool) -> Device | Miner:
    """Something is plugged in there: a miner that is recognised, a device that was there before, or a new one."""
    there = repository.occupant(tx, port.path)
    if there is not None:
        if there.port.token == port.token:
            return there
        repository.unplug(tx, port.path)
    seen = passport_at(port)
    verdict = _verdict(tx, seen, others, trust_ports=trust_ports)
    if verdict.match:
        return seat(tx, port, verdict.match)
    device = _seen_before(tx, port, seen)
    if device is None:
        device_id = repository.add_device(tx, port)
    else:
        device_id = device.device_id
        repository.update_device(
            tx,
            device_id,
            {
                "dev_path": port.path,
                "port_path": port.usb_path,
                "plug_token": port.token,
                "last_seen_at": tx.now,
                "state": Stage.BOOTING.value,
                "outcome": "",
            },
        )
        repository.note(tx, device_id=device_id, event="plugged", detail=port.path)
    found = repository.find_device(tx, device_id)
    assert found is not None  # noqa: S101 - just written
    return found


def learn(
    tx: Tx, port: Port, others: Sequence[Port], configuration: Configuration, mac: str, *, trust_ports: bool
) -> Device | Miner | None:
    """It has said more of itself: perhaps that makes it a miner we know. Returns what is there now."""
    there = repository.occupant(tx, port.path)
    if there is None:
        return None
    if isinstance(there, Miner) and contradicts(passport_at(port, configuration, mac), passport_of(there)):
        there = _unseat(tx, port, there)
    if isinstance(there, Miner):
        columns = _said(configuration, mac, wallet="", pool="")
        # What it should mine for was said by an operator, or by its first dump: a later one is judged, not believed.
        if configuration.wallet and not there.wallet:
            columns["wallet_address"] = configuration.wallet
        if configuration.pool_url and not there.pool_url:
            columns["pool_url"] = configuration.pool_url
        if columns:
            repository.update_miner(tx, there.miner_id, columns)
        return repository.occupant(tx, port.path)
    columns = _said(
        configuration, mac, wallet="dumped_wallet_address", pool="dumped_pool_url", firmware="dumped_firmware_version"
    )
    if columns:
        repository.update_device(tx, there.device_id, columns)
    if there.ignored:
        return repository.occupant(tx, port.path)
    verdict = _verdict(tx, passport_at(port, configuration, mac), others, trust_ports=trust_ports)
    if verdict.match:
        repository.delete_device(tx, there.device_id)
        return seat(tx, port, verdict.match, there.status)
    if verdict.candidates:
        names = ", ".join(verdict.candidates)
        repository.update_device(
            tx,
            there.device_id,
            {
                "reason": f"it could be {names}: nothing that it says of itself decides",
                "next_action": f"'peerctl devices onboard {there.device_id} --known NAME', or --name for a new one",
            },
        )
    return repository.occupant(tx, port.path)


def seat(tx: Tx, port: Port, name: str, status: Status = Status.INACTIVE) -> Miner:
    """That miner is plugged in there."""
    miner = repository.find_miner(tx, name)
    assert miner is not None  # noqa: S101 - it was just chosen among them
    repository.update_miner(
        tx,
        miner.miner_id,
        {
            "dev_path": port.path,
            "port_path": port.usb_path,
            "last_port_path": port.usb_path,
            "serial_number": port.serial,
            "product": port.product,
            "plug_token": port.token,
            "last_seen_at": tx.now,
            "handed_to": "",
            "status": status.value,
            "state": Stage.BOOTING.value,
            "outcome": "",
        },
    )
    moved = f", last at {miner.last_usb_path}" if miner.last_usb_path not in ("", port.usb_path) else ""
    repository.note(tx, miner_id=miner.miner_id, event="plugged", detail=f"{port.path} at {port.usb_path}{moved}")
    found = repository.find_miner(tx, name)
    assert found is not None  # noqa: S101 - just written
    return found


def _unseat(tx: Tx, port: Port, miner: Miner) -> Device:
    """It was taken for a miner, by a serial number that both have, and has another MAC: it is another device."""
    gone: dict[str, object] = {"dev_path": None, "port_path": None, "plug_token": "", "reason": "", "next_action": ""}
    repository.set_status(tx, miner, Status.INACTIVE, NOT_CONNECTED, gone)
    repository.note(tx, miner_id=miner.miner_id, event="unplugged", detail=f"{port.path} has another MAC: it is not it")
    device = repository.find_device(tx, repository.add_device(tx, port))
    assert device is not None  # noqa: S101 - just written
    repository.set_status(tx, device, miner.status, miner.state, {})
    found = repository.find_device(tx, device.device_id)
    return found or device


def identify(tx: Tx, device: Device, name: str) -> Miner:
    """A device that is plugged in turns out to be that miner; how far its handshake is, stays."""
    repository.delete_device(tx, device.device_id)
    seated = seat(tx, device.port, name, device.status)
    if device.outcome:
        repository.update_miner(tx, seated.miner_id, {"outcome": device.outcome, "state": device.state})
    return seated


def _verdict(tx: Tx, seen: Passport, others: Sequence[Port], *, trust_ports: bool) -> Verdict:
    # A miner that is plugged in elsewhere is not this one, nor is one that was handed over.
    absent = [
        (miner.name, passport_of(miner)) for miner in repository.miners(tx) if not (miner.plugged or miner.handed_to)
    ]
    present = [passport_at(port) for port in others]
    return recognise(seen, absent, present=present, trust_ports=trust_ports)


def _seen_before(tx: Tx, port: Port, seen: Passport) -> Device | None:
    """The device that was plugged in there before, by its serial number or, without one, by its place."""
    for device in repository.devices(tx):
        if device.plugged:
            continue
        same = (device.port.vendor_id, device.port.product_id, device.port.serial) == (
            port.vendor_id,
            port.product_id,
            port.serial,
        )
        if same and (seen.serial or device.port.usb_path == port.usb_path):
            return device
    return None


def _said(configuration: Configuration, mac: str, *, wallet: str, pool: str, firmware: str = "") -> dict[str, object]:
    said: Mapping[str, str] = {
        wallet: configuration.wallet,
        pool: configuration.pool_url,
        firmware or "firmware_version": configuration.firmware,
        "mac_address": mac,
    }
    return {column: value for column, value in said.items() if column and value}
