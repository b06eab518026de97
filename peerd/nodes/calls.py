"""What the servicers of organizations and nodes have in common: who asks, and answers that are given once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from peerd.identity.peer_id import PeerId
from peerd.nodes.organizations import Actor
from peerd.rpc.caller import current_caller
from peerd.store import Store, Tx
from peerd.store.requests import once

PAGE = 100

M = TypeVar("M", bound=Message)


class Surroundings(Protocol):
    """What of the mesh is needed here."""

    def name_of(self, peer_id: str) -> str:
        """As people know it."""
        ...

    def roles(self, peer_id: PeerId) -> frozenset[str]:
        """Of a member."""
        ...


class Calls:
    """What a servicer builds on."""

    def __init__(self, store: Store, around: Surroundings, own_peer_id: PeerId) -> None:
        self._store = store
        self._around = around
        self._own_peer_id = own_peer_id

    def _actor(self) -> Actor:
        caller = current_caller()
        return Actor(
            peer_id=caller.peer_id,
            name=self._around.name_of(caller.peer_id),
            roles=self._around.roles(caller.peer_id),
            own=caller.local or caller.peer_id == self._own_peer_id,
        )

    async def _once(self, request: Any, answer_type: type[M], effect: Callable[[Tx], M]) -> M:
        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=answer_type,
                effect=lambda: effect(tx),
            )
        )
