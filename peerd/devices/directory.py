"""Directory: every device as people see it, those of this peer and the miners of all others."""

from __future__ import annotations

from collections.abc import Callable

from peerd.devices.cards import Cards, Elsewhere
from peerd.devices.devices import Devices
from peerd.devices.health import Level
from peerd.devices.model import Device, Miner
from peerd.devices.wire import at, to_message, unwatched_message
from peerd.identity.peer_id import PeerId
from peerd.v1 import devices_pb2

PEER_AWAY = "peer_away"
"""The reason where a miner's peer is not there; its status as the peer said it last would claim too much."""


class Directory:
    """Puts together what the store, the monitors and the other peers say."""

    def __init__(
        self,
        self_id: PeerId,
        devices: Devices,
        cards: Cards,
        name_of: Callable[[str], str],
        is_present: Callable[[PeerId], bool],
    ) -> None:
        self._self_id = self_id
        self._devices = devices
        self._cards = cards
        self._name_of = name_of
        self._is_present = is_present

    async def everything(self) -> list[devices_pb2.Device]:
        """What this peer holds, then what others say of theirs."""
        devices, miners = await self._devices.known()
        unwatched = self._devices.unwatched()
        return [
            *(self.message(miner) for miner in miners if self.ours(miner)),
            *(self.card_message(elsewhere) for elsewhere in self._cards.others()),
            *(self.message(device) for device in devices),
            *(unwatched_message(port, peer_id=self._self_id, peer_name=self._own_name()) for port in unwatched),
        ]

    def ours(self, miner: Miner) -> bool:
        """Not what was handed over, once the other peer says that it has it."""
        return not miner.handed_to or self._cards.find(miner.name) is None

    def _own_name(self) -> str:
        return self._name_of(self._self_id)

    def message(self, what: Device | Miner) -> devices_pb2.Device:
        """One of ours."""
        live = self._devices.live(what) if isinstance(what, Miner) else None
        return to_message(what, live=live, peer_id=self._self_id, peer_name=self._own_name())

    def card_message(self, elsewhere: Elsewhere) -> devices_pb2.Device:
        """What another peer says of its miner."""
        card = elsewhere.card
        message = devices_pb2.Device(
            name=card.name,
            peer_id=elsewhere.peer_id,
            peer_name=self._name_of(elsewhere.peer_id),
            vendor_id=card.vendor_id,
            product_id=card.product_id,
            serial_number=card.serial_number,
            mac_address=card.mac,
            status=card.status,
            state=card.state,
            currency=card.currency,
            firmware_version=card.firmware_version,
            health=card.health,
            health_reason=card.health_reason,
            since=card.since,
            last_seen_at=at(elsewhere.said_at),
            watched=True,
        )
        if not self._is_present(elsewhere.peer_id):
            # What it said last is no news of the miner: nobody watches it now, as far as this peer knows.
            message.status = devices_pb2.DEVICE_STATUS_INACTIVE
            message.health, message.health_reason = Level.UNKNOWN.value, PEER_AWAY
            message.reason = f"peer {message.peer_name}, which had it last, is not there"
            message.next_action = f"see 'peerctl peers show {message.peer_name}'"
        elif card.health:
            message.reading.hash_rate_khs = card.hash_rate_khs
            message.reading.shares = card.shares
            message.reading.best_difficulty = card.best_difficulty
        return message
