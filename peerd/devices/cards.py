"""Cards: what every peer says of its miners, signed and spread, so that any peer can say where one is.

One document for each peer, with all its miners; rates are rounded and said seldom, so that gossip stays small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError

from peerd.clock import Clock
from peerd.devices.model import Device, Live, Miner, Status
from peerd.devices.passport import Passport
from peerd.devices.plugging import passport_of
from peerd.devices.wire import STATUSES, at
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.loops import run_every
from peerd.mesh.documents import DocumentTopic
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import check_name, from_timestamp
from peerd.store import Store
from peerd.v1.devices_pb2 import MinerCard, MinerCards

CARDS_TYPE = "application/vnd.peerd.miners.v1+protobuf"
MAX_CARDS = 200
"""Of one peer: the document stays below the limit of 64 KiB. Further miners are known to their own peer only."""
_MAX_TEXT = 300
_STATUS_SECONDS = 0.5
_RATES_SECONDS = 60.0


class CardsKind:
    """Cards as documents, keyed by peer. Implements :class:`peerd.mesh.documents.Kind`."""

    name = "miners"
    payload_type = CARDS_TYPE
    history = 1
    dated = True

    def parse(self, payload: bytes) -> tuple[str, int, MinerCards]:
        try:
            cards = MinerCards.FromString(payload)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_RECORD, "the signed bytes are no cards of miners") from error
        parse_peer_id(cards.peer_id)
        for card in cards.miners:
            check_name(card.name, "name")
            for field, text in card.ListFields():
                if isinstance(text, str) and not (text.isprintable() and len(text) <= _MAX_TEXT):
                    raise PeerdError(Reason.INVALID_RECORD, f"{field.name} of miner {card.name} is nothing to print")
        return cards.peer_id, cards.version, cards

    def serialise(self, value: MinerCards, *, version: int, now: int) -> bytes:
        cards = MinerCards()
        cards.CopyFrom(value)
        cards.version = version
        cards.issued_at.CopyFrom(at(now))
        return cards.SerializeToString(deterministic=True)

    def may_sign(self, mesh: Mesh, signer: PeerId, value: MinerCards) -> bool:
        return value.peer_id == signer and mesh.grants(signer) is not None


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A miner of another peer."""

    peer_id: PeerId
    card: MinerCard
    said_at: int


class Ours(Protocol):
    """The devices of this peer; see peerd.devices.devices."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this when something was written."""
        ...

    async def known(self) -> tuple[list[Device], list[Miner]]:
        """Everything here."""
        ...

    def live(self, miner: Miner) -> Live | None:
        """What the monitor knows of a miner now."""
        ...


class Cards:
    """Ours are said, those of others known."""

    def __init__(self, store: Store, mesh: Mesh, identity: Identity, clock: Clock) -> None:
        self.topic: DocumentTopic[MinerCards] = DocumentTopic(CardsKind(), store, mesh, identity)
        self._self_id = identity.peer_id
        self._store = store
        self._clock = clock
        self._wake = asyncio.Event()
        self._rates_at = float("-inf")

    def others(self) -> Iterator[Elsewhere]:
        """Miners of other peers."""
        for document in self.topic.current():
            if document.signer != self._self_id:
                said_at = from_timestamp(document.value.issued_at)
                for card in document.value.miners:
                    yield Elsewhere(peer_id=document.signer, card=card, said_at=said_at)

    def find(self, name: str) -> Elsewhere | None:
        """The miner of that name at another peer."""
        return next((each for each in self.others() if each.card.name.lower() == name.lower()), None)

    async def run(self, devices: Ours) -> None:
        """Say what changes."""
        devices.on_change(self._wake.set)
        await run_every(
            lambda: self._say(devices), seconds=_RATES_SECONDS / 4, clock=self._clock, name="cards", wake=self._wake
        )

    async def _say(self, devices: Ours) -> None:
        _, miners = await devices.known()
        kept = [miner for miner in miners if not miner.handed_to or self.find(miner.name) is None][:MAX_CARDS]
        cards = MinerCards(peer_id=self._self_id, miners=[_card(miner, devices) for miner in kept])
        said = self.topic.find(self._self_id)
        if said is None and not miners:
            return
        soon = self._clock.monotonic() - self._rates_at < _RATES_SECONDS
        same = said is not None and _lasting(said.value) == _lasting(cards)
        if same and said is not None and (soon or _rates(said.value) == _rates(cards)):
            return
        self._rates_at = self._clock.monotonic()
        await self._store.write(lambda tx: self.topic.put(tx, self._self_id, cards))
        await self._clock.sleep(_STATUS_SECONDS)  # what changes many times at once is said once more after that


def passport_on(card: MinerCard) -> Passport:
    """What a card says to recognise a miner by."""
    return Passport(
        vendor_id=card.vendor_id,
        product_id=card.product_id,
        serial=card.serial_number,
        mac=card.mac,
        firmware=card.firmware_version,
        wallet_digest=card.wallet_digest,
        wallet_has_worker=card.wallet_has_worker,
    )


def _card(miner: Miner, devices: Ours) -> MinerCard:
    passport = passport_of(miner)
    live = devices.live(miner)
    card = MinerCard(
        name=miner.name,
        status=STATUSES[miner.status],
        state=miner.state,
        currency=miner.currency,
        since=at(miner.since),
        vendor_id=passport.vendor_id,
        product_id=passport.product_id,
        serial_number=passport.serial,
        mac=passport.mac,
        wallet_digest=passport.wallet_digest,
        wallet_has_worker=passport.wallet_has_worker,
        firmware_version=passport.firmware,
    )
    if live is not None and miner.status is Status.ACTIVE:
        card.health, card.health_reason = live.health.level.value, live.health.reason
        card.hash_rate_khs = round(live.reading.hash_rate_khs or 0.0)
        card.shares = live.reading.shares or 0
        card.best_difficulty = live.reading.best_difficulty or 0.0
    return card


_CHANGING = ("hash_rate_khs", "shares", "best_difficulty")


def _lasting(cards: MinerCards) -> bytes:
    """What is said at once when it changes."""
    kept = MinerCards(miners=cards.miners)
    for card in kept.miners:
        for name in _CHANGING:
            card.ClearField(name)  # type: ignore[arg-type]
    return kept.SerializeToString(deterministic=True)


def _rates(cards: MinerCards) -> bytes:
    return MinerCards(miners=cards.miners).SerializeToString(deterministic=True)
