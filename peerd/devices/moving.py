"""Moves: a miner of another peer is plugged in here, and becomes ours, with its name and history.

Two steps, each of which may be repeated after any kill. The peer that had it writes down to whom it hands the miner
over and tells all it knows; it forgets the miner once the other one says of it, signed, that it has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from peerd.devices import repository
from peerd.devices.cards import Cards, passport_on
from peerd.devices.dump import Configuration
from peerd.devices.lines import printable
from peerd.devices.model import Device, Miner, Port, Status
from peerd.devices.onboarding import check_fields
from peerd.devices.passport import Passport, recognise, without_place
from peerd.devices.plugging import identify, passport_at, passport_of
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.v1 import devices_pb2, devices_pb2_grpc

_log = structlog.get_logger(__name__)

_ASK_SECONDS = 10.0
_MAX_TEXT = 300


@dataclass(frozen=True)
class _Wanted:
    """A miner that may be what is plugged in here, and whom to ask for it."""

    name: str
    peer_id: PeerId
    passport: Passport
    promised: bool = False
    """We had it, and promised it to that peer, which does not say that it has it."""
    plugged: bool = False
    """It was plugged in there when its peer was heard last."""


class Moves:
    """Takes over and hands over."""

    def __init__(
        self,
        store: Store,
        cards: Cards,
        channels: Channels,
        name_of: Callable[[str], str],
        is_present: Callable[[PeerId], bool],
    ) -> None:
        self._store = store
        self._cards = cards
        self._channels = channels
        self._name_of = name_of
        self._is_present = is_present

    async def take_over(self, port: Port, others: Sequence[Port]) -> bool:
        """If what is plugged in there is a miner of another peer, make it ours; whether to try again later."""
        device = await self._store.write(lambda tx: repository.occupant(tx, port.path))
        if not isinstance(device, Device) or device.ignored or device.outcome == "not_a_miner":
            return False
        found = await self._find(device, port, others)
        if found is None:
            return False
        name, where = found.name, self._name_of(found.peer_id)
        try:
            answer = await self._ask(found)
            check_answer(answer, name)
        except PeerdError as error:
            if found.promised and error.reason is Reason.NOT_FOUND:
                _log.info("devices.taken_back", miner=name, promised_to=found.peer_id)
                await self._store.write(lambda tx: _take_back(tx, port, name))
                return False
            if found.plugged and error.reason is Reason.ILLEGAL_TRANSITION:
                return False  # its peer is there after all and holds it: what is here is another one
            message = f"it is {name} of peer {where}, which does not hand it over: {error.message}"
            action = f"nothing to do if {where} comes back; or onboard it under another name"
            await self._store.write(
                lambda tx: repository.update_device(
                    tx, device.device_id, {"reason": message[:300], "next_action": action}
                )
            )
            return error.retryable
        failpoint("devices.take_over.before_commit")
        await self._store.write(lambda tx: _settle_here(tx, port, answer, where))
        failpoint("devices.take_over.after_commit")
        return False

    async def _find(self, device: Device, port: Port, others: Sequence[Port]) -> _Wanted | None:
        said = Configuration(wallet=device.wallet, firmware=device.firmware)
        seen = without_place(passport_at(port, said, device.mac))
        _, miners = await repository.all_of(self._store)
        away = {
            miner.name: _Wanted(miner.name, PeerId(miner.handed_to), without_place(passport_of(miner)), promised=True)
            for miner in miners
            if miner.handed_to and not miner.plugged
        }
        for each in self._cards.others():
            plugged = each.card.status != devices_pb2.DEVICE_STATUS_INACTIVE
            # What a peer that is not there said of its miners last may be over.
            if not plugged or not self._is_present(each.peer_id):
                away[each.card.name] = _Wanted(each.card.name, each.peer_id, passport_on(each.card), plugged=plugged)
        known = [(name, wanted.passport) for name, wanted in away.items()]
        verdict = recognise(seen, known, present=[passport_at(other) for other in others])
        return away.get(verdict.match)

    async def _ask(self, found: _Wanted) -> devices_pb2.HandOverMinerResponse:
        stub: devices_pb2_grpc.DeviceServiceAsyncStub = devices_pb2_grpc.DeviceServiceStub(
            self._channels.channel(found.peer_id)
        )
        with remote_errors(found.peer_id):
            return await stub.HandOverMiner(devices_pb2.HandOverMinerRequest(name=found.name), timeout=_ASK_SECONDS)

    async def forget_handed_over(self) -> None:
        """What we handed over and the other peer says it has."""
        _, miners = await repository.all_of(self._store)
        theirs = {(each.peer_id, each.card.name) for each in self._cards.others()}
        for miner in miners:
            if miner.handed_to and not miner.plugged and (miner.handed_to, miner.name) in theirs:
                _log.info("devices.handed_over", miner=miner.name, to=miner.handed_to)
                await self._store.write(lambda tx, number=miner.miner_id: repository.delete_miner(tx, number))  # type: ignore[misc]


def hand_over(tx: Tx, name: str, to: str) -> Miner:
    """Promise a miner to that peer. Raises NOT_FOUND, ILLEGAL_TRANSITION."""
    miner = repository.find_miner(tx, name)
    if miner is None:
        raise repository.no_such_device(name)
    if miner.plugged:
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"{miner.name} is plugged in here at {miner.port.path}")
    if miner.handed_to not in ("", to):
        raise PeerdError(Reason.ILLEGAL_TRANSITION, f"{miner.name} was promised to another peer already")
    if not miner.handed_to:
        repository.note(tx, miner_id=miner.miner_id, event="handed over", detail=f"to {to}")
    repository.update_miner(tx, miner.miner_id, {"handed_to": to})
    return repository.find_miner(tx, name) or miner


def check_answer(answer: devices_pb2.HandOverMinerResponse, name: str) -> None:
    """Whether another peer's word can be written down as it is. Raises INVALID_ARGUMENT, INVALID_RECORD."""
    said = answer.device
    if said.name != name:
        raise PeerdError(Reason.INVALID_RECORD, f"it was asked for {name} and answers with {said.name[:80]!r}")
    check_fields(name=said.name, currency=said.currency, notes=(said.chipset, said.location_notes))
    texts = (said.mac_address, said.pool_url, said.wallet_address, said.firmware_version)
    if any(len(text) > _MAX_TEXT or not text.isprintable() for text in texts):
        raise PeerdError(Reason.INVALID_RECORD, f"what it says of {name} is too long, or nothing to print")


def _take_back(tx: Tx, port: Port, name: str) -> None:
    """It was promised to a peer that never had it, and is plugged in here again."""
    device, miner = repository.occupant(tx, port.path), repository.find_miner(tx, name)
    if isinstance(device, Device) and miner is not None and miner.handed_to and not miner.plugged:
        identify(tx, device, name)


def _settle_here(tx: Tx, port: Port, answer: devices_pb2.HandOverMinerResponse, where: str) -> None:
    """The device that is plugged in there is that miner from now on."""
    device = repository.occupant(tx, port.path)
    said = answer.device
    if not isinstance(device, Device):
        return
    mine = repository.find_miner(tx, said.name)
    if mine is not None:
        if not mine.handed_to:
            return  # the name was given here meanwhile: it waits for the operator
        repository.delete_miner(tx, mine.miner_id)  # it went there and came back
    repository.delete_device(tx, device.device_id)
    miner_id = repository.add_miner(
        tx,
        {
            "miner_id": said.name,
            "currency": said.currency,
            "chipset": said.chipset,
            "location_notes": said.location_notes,
            "dev_path": port.path,
            "port_path": port.usb_path,
            "last_port_path": port.usb_path,
            "vendor_id": port.vendor_id,
            "product_id": port.product_id,
            "serial_number": port.serial,
            "product": port.product,
            "plug_token": port.token,
            "mac_address": device.mac or said.mac_address,
            "status": Status.INITIALIZING.value,
            "state": device.state,
            "pool_url": said.pool_url,
            "wallet_address": said.wallet_address,
            "firmware_version": device.firmware or said.firmware_version,
            "outcome": device.outcome,
            "onboarded_at": _past(said.discovered_at, tx.now),
            "last_seen_at": tx.now,
            "since": tx.now,
        },
    )
    for event in answer.history[-repository.KEPT_EVENTS :]:
        at = _past(event.at, tx.now)
        repository.note(tx, miner_id=miner_id, event=_clean(event.event), detail=_clean(event.detail), at=at)
    repository.note(tx, miner_id=miner_id, event="moved", detail=f"from peer {where} to {port.path}")


def _past(said: Timestamp, now: int) -> int:
    """A time that another peer says, in milliseconds; no clock of ours has seen a later one."""
    return min(max(0, said.seconds * 1000 + said.nanos // 1_000_000), now)


def _clean(text: str) -> str:
    return printable(text[:_MAX_TEXT].encode())
