"""recognise(passport, known): which miner a device is, by a score over what is known of both. Pure.

Many clones share one USB serial number or have none, so that no single thing identifies them: evidence is added up, a
contradiction excludes, and what two miners could be, or what one could be only perhaps, is for the operator to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from peerd.digest import digest

_PLACEHOLDERS = re.compile(r"|0*|0*1|1234567890?|123456|N/?A|None|ffff+", re.IGNORECASE)
"""Serial numbers that whole batches share; CP210x boards come with 0001."""
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}")

SAME_PLUG = 100
MAC = 90
SERIAL = 70
SHARED_SERIAL = 5
WALLET_WORKER = 45
"""A wallet with a worker's name: owners give each miner its own."""
WALLET = 25
USB_PATH = 20
FIRMWARE = 5
OTHER_WALLET = -20
ENOUGH = 45
"""A unique serial number, a MAC, a worker's name, or the same wallet in the same port."""
PERHAPS = 25
MARGIN = 25
"""Over the next best."""


@dataclass(frozen=True, kw_only=True)
class Passport:
    """What identifies a device. Empty for what is not known. Never the wallet itself."""

    vendor_id: str = ""
    product_id: str = ""
    serial: str = ""
    usb_path: str = ""
    token: str = ""
    mac: str = ""
    firmware: str = ""
    wallet_digest: str = ""
    wallet_has_worker: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who it is: one of the known, nobody, or undecided between some."""

    match: str = ""
    candidates: tuple[str, ...] = ()
    score: int = 0


def make_passport(
    *,
    vendor_id: str = "",
    product_id: str = "",
    serial: str = "",
    usb_path: str = "",
    token: str = "",
    mac: str = "",
    firmware: str = "",
    wallet: str = "",
) -> Passport:
    """From what is known. A serial number that is a MAC counts as one, too: ESP32 with USB of their own have that."""
    if not mac and _MAC.fullmatch(serial) and len(re.sub(r"[:-]", "", serial)) == 12:
        mac = serial
    return Passport(
        vendor_id=vendor_id.lower(),
        product_id=product_id.lower(),
        serial="" if _PLACEHOLDERS.fullmatch(serial) else serial,
        usb_path=usb_path,
        token=token,
        mac=re.sub(r"[:-]", "", mac).lower(),
        firmware=firmware,
        wallet_digest=digest(wallet.encode()).hex()[:32] if wallet else "",
        wallet_has_worker="." in wallet,
    )


def score(device: Passport, known: Passport, *, serial_shared: bool = False) -> int | None:
    """How much speaks for it; None if it cannot be."""
    for ours, theirs in (
        (device.vendor_id, known.vendor_id),
        (device.product_id, known.product_id),
        (device.mac, known.mac),
    ):
        if ours and theirs and ours != theirs:
            return None
    if device.serial != known.serial:
        return None
    if device.token and device.token == known.token:
        return SAME_PLUG
    total = 0
    if device.mac and device.mac == known.mac:
        total += MAC
    if device.serial and device.serial == known.serial:
        total += SHARED_SERIAL if serial_shared else SERIAL
    if device.usb_path and device.usb_path == known.usb_path:
        total += USB_PATH
    if device.firmware and device.firmware == known.firmware:
        total += FIRMWARE
    if device.wallet_digest and known.wallet_digest:
        same = device.wallet_digest == known.wallet_digest
        total += (WALLET_WORKER if known.wallet_has_worker else WALLET) if same else OTHER_WALLET
    return total


def recognise(
    device: Passport,
    known: Sequence[tuple[str, Passport]],
    *,
    present: Sequence[Passport] = (),
    trust_ports: bool = False,
) -> Verdict:
    """Which of the known it is. ``present`` are other devices plugged in now: what they share identifies nobody.

    With ``trust_ports`` the port decides between those that nothing else tells apart.
    """
    shared = _shared_serials(device, known, present)
    scored = []
    for name, passport in known:
        points = score(device, passport, serial_shared=device.serial in shared and bool(device.serial))
        if points is not None:
            scored.append((points, name, passport))
    scored.sort(key=lambda entry: (-entry[0], entry[1]))
    if not scored or scored[0][0] < PERHAPS:
        return Verdict()
    best, name, _ = scored[0]
    near = tuple(sorted(name for points, name, _ in scored if points > best - MARGIN and points >= 0))
    if best >= ENOUGH and len(near) == 1:
        return Verdict(match=name, candidates=near, score=best)
    if trust_ports:
        here = [name for _, name, passport in scored if device.usb_path and passport.usb_path == device.usb_path]
        if len(here) == 1:
            return Verdict(match=here[0], candidates=near, score=best)
    return Verdict(candidates=near, score=best)


def _shared_serials(
    device: Passport, known: Sequence[tuple[str, Passport]], present: Sequence[Passport]
) -> frozenset[str]:
    held = [passport.serial for _, passport in known if passport.serial]
    shared = {serial for serial in held if held.count(serial) > 1}
    shared |= {other.serial for other in present if other.serial == device.serial}
    return frozenset(shared)


def contradicts(device: Passport, known: Passport) -> bool:
    """Whether what was taken for the same is not, since both have said their MAC."""
    return bool(device.mac and known.mac and device.mac != known.mac)


def without_place(passport: Passport) -> Passport:
    """For comparing with miners of other peers: ports of another machine say nothing."""
    return replace(passport, usb_path="", token="")
