"""Miners of other peers: what is said of them while their peer is away, and what is believed of a hand-over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from peerd.clock import FakeClock
from peerd.config import DevicesConfig
from peerd.devices import onboarding, repository
from peerd.devices.cards import Cards, CardsKind, Elsewhere
from peerd.devices.devices import Devices
from peerd.devices.directory import Directory
from peerd.devices.flock import totals
from peerd.devices.model import Device, Miner, Port, Status
from peerd.devices.moving import Moves, hand_over
from peerd.devices.plugging import plug
from peerd.devices.servicer import DeviceServicer
from peerd.errors import PeerdError, Reason
from peerd.mesh.model import OBSERVE
from peerd.rpc.caller import Caller, current
from peerd.rpc.channels import Channels
from peerd.store import Store, Tx
from peerd.v1 import devices_pb2
from peerd.v1.devices_pb2 import DEVICE_STATUS_ACTIVE, DEVICE_STATUS_INACTIVE, HandOverMinerResponse, MinerCard
from tests.mesh.signing import ADA, BOB

PORT = Port(path="/dev/ttyUSB0", usb_path="1-1", vendor_id="10c4", serial="SN-77", token="t1")
CARD = MinerCard(
    name="M7", status=DEVICE_STATUS_ACTIVE, state="Mining", health="ok", health_reason="ok", hash_rate_khs=50,
    vendor_id="10c4", serial_number="SN-77", currency="BTC",
)  # fmt: skip


class Said:
    """What other peers say."""

    def __init__(self, *cards: MinerCard) -> None:
        self.elsewhere = [Elsewhere(peer_id=ADA.peer_id, card=card, said_at=5) for card in cards]

    def others(self) -> Sequence[Elsewhere]:
        return self.elsewhere

    def find(self, name: str) -> Elsewhere | None:
        return next((each for each in self.elsewhere if each.card.name == name), None)


def of(said: Said) -> Cards:
    return cast(Cards, said)


async def plugged(store: Store, port: Port = PORT) -> None:
    """A device that was heard to mine."""
    await store.write(lambda tx: plug(tx, port, (), trust_ports=False))
    columns: dict[str, object] = {"status": "initializing", "state": "Mining", "outcome": "mining"}
    what = await occupant(store)
    assert isinstance(what, Device)
    await store.write(lambda tx: repository.update_device(tx, what.device_id, columns))


async def occupant(store: Store) -> Device | Miner | None:
    return await store.write(lambda tx: repository.occupant(tx, PORT.path))


def moves(
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    said: Said,
    answer: Callable[[], HandOverMinerResponse],
    *,
    here: bool,
) -> Moves:
    """With another peer that answers so."""

    async def ask(_: Moves, found: Any) -> HandOverMinerResponse:
        assert found.peer_id == ADA.peer_id
        return answer()

    monkeypatch.setattr(Moves, "_ask", ask)
    return Moves(store, of(said), cast(Channels, None), lambda peer_id: peer_id[:4], lambda _: here)


def fails(reason: Reason) -> Callable[[], HandOverMinerResponse]:
    def answer() -> HandOverMinerResponse:
        raise PeerdError(reason, "no")

    return answer


@pytest.mark.parametrize(("present", "active", "rate"), [(True, 1, 50), (False, 0, 0)])
async def test_a_miner_of_a_peer_that_is_away_is_not_counted(
    store: Store, clock: FakeClock, *, present: bool, active: int, rate: float
) -> None:
    devices = Devices(DevicesConfig(), store, clock)
    names = {str(ADA.peer_id): "ada"}
    directory = Directory(
        BOB.peer_id, devices, of(Said(CARD)), lambda peer_id: names.get(peer_id, "me"), lambda _: present
    )

    found = await directory.everything()

    flock = totals(found).totals
    assert (flock.miners, flock.active, flock.healthy, flock.hash_rate_khs) == (1, active, active, rate)
    if not present:
        assert found[0].status == DEVICE_STATUS_INACTIVE
        assert found[0].health_reason == "peer_away"
        assert "ada" in found[0].reason
        assert found[0].next_action == "see 'peerctl peers show ada'"


async def test_a_miner_whose_machine_died_says_whose_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await plugged(store)
    ours = moves(monkeypatch, store, Said(CARD), fails(Reason.CONNECTION_LOST), here=False)

    assert await ours.take_over(PORT, ()), "it is tried again"

    what = await occupant(store)
    assert isinstance(what, Device)
    assert "it is M7 of peer" in what.reason


async def test_a_peer_that_was_not_heard_yet_and_holds_its_miner_is_believed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a start, before anybody was heard: what is plugged in here shares a worker's name with that miner."""
    await plugged(store)
    ours = moves(monkeypatch, store, Said(CARD), fails(Reason.ILLEGAL_TRANSITION), here=False)

    assert not await ours.take_over(PORT, ())

    what = await occupant(store)
    assert isinstance(what, Device)
    assert what.reason == ""


def told(**changes: Any) -> HandOverMinerResponse:
    said: dict[str, Any] = {"name": "M7", "currency": "BTC", **changes}
    answer = HandOverMinerResponse(device=devices_pb2.Device(**said))
    answer.device.discovered_at.FromSeconds(2**37)
    event = answer.history.add(event="onboarded\x1b[2J", detail="x" * 4000)
    event.at.FromSeconds(2**37)
    return answer


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "M8"},
        {"currency": "\x1b[2J"},
        {"pool_url": "a\nb"},
        {"wallet_address": "w" * 5000},
        {"chipset": "\x07"},
    ],
)
async def test_what_another_peer_says_is_checked_before_it_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    await plugged(store)
    card = MinerCard()
    card.CopyFrom(CARD)
    card.status = DEVICE_STATUS_INACTIVE
    await moves(monkeypatch, store, Said(card), lambda: told(**changes), here=True).take_over(PORT, ())
    what = await occupant(store)
    assert isinstance(what, Device)
    assert "does not hand it over" in what.reason

    await moves(monkeypatch, store, Said(card), told, here=True).take_over(PORT, ())
    miner = await occupant(store)
    assert isinstance(miner, Miner)
    events = await repository.events(store, miner, before=2**60, limit=100)
    assert all(row["event"].isprintable() and len(row["detail"]) <= 300 for row in events)
    assert miner.onboarded_at <= miner.last_seen_at, "a time that nobody has seen yet"


async def test_a_miner_that_was_promised_and_never_taken_is_ours_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(tx: Tx) -> None:
        device_id = repository.add_device(tx, PORT)
        request = devices_pb2.OnboardDeviceRequest(device=str(device_id), name="M7", currency="BTC")
        onboarding.onboard(tx, request, taken="")
        repository.unplug(tx, PORT.path)
        hand_over(tx, "M7", ADA.peer_id)

    await store.write(made)
    await plugged(store)
    away = moves(monkeypatch, store, Said(), fails(Reason.CONNECTION_LOST), here=True)
    assert await away.take_over(PORT, ()), "it may have it: nobody can say while it does not answer"
    assert isinstance(await occupant(store), Device)

    await moves(monkeypatch, store, Said(), fails(Reason.NOT_FOUND), here=True).take_over(PORT, ())

    miner = await occupant(store)
    assert isinstance(miner, Miner)
    assert (miner.name, miner.handed_to, miner.outcome, miner.status) == ("M7", "", "mining", Status.INITIALIZING)


@pytest.mark.parametrize("field", ["state", "health_reason", "serial_number", "currency"])
def test_a_card_with_what_a_terminal_would_obey_is_refused(field: str) -> None:
    cards = devices_pb2.MinerCards(peer_id=ADA.peer_id, version=1, miners=[CARD])
    assert CardsKind().parse(cards.SerializeToString())[0] == ADA.peer_id
    setattr(cards.miners[0], field, "a\x1b[2J")
    with pytest.raises(PeerdError, match=field):
        CardsKind().parse(cards.SerializeToString())


async def test_a_console_is_not_asked_for_to_and_fro(store: Store, clock: FakeClock) -> None:
    """Two peers with old cards of each other, each of which takes the other one for the one that has it."""
    devices, said = Devices(DevicesConfig(), store, clock), Said(CARD)
    directory = Directory(BOB.peer_id, devices, of(said), str, lambda _: True)
    asked: list[str] = []

    class Dialing:
        def channel(self, peer_id: str) -> Any:
            asked.append(peer_id)
            raise PeerdError(Reason.CONNECTION_LOST, "it is only asked who would be called")

    servicer = DeviceServicer(store, devices, directory, of(said), cast(Channels, Dialing()), str)
    request = devices_pb2.TailDeviceRequest(device="M7")
    for caller, reason in ((ADA.peer_id, Reason.NOT_FOUND), (BOB.peer_id, Reason.CONNECTION_LOST)):
        token = current.set(Caller(peer_id=caller, grants=frozenset({OBSERVE})))
        try:
            with pytest.raises(PeerdError) as caught:
                await anext(aiter(servicer.TailDevice(request, None)))
        finally:
            current.reset(token)
        assert caught.value.reason is reason
    assert asked == [ADA.peer_id]
