"""Asking every online peer what it offers, all at once.

One slow or broken peer costs nothing but its own line among the errors. Which peer a service belongs to is decided by
who was asked over an authenticated channel, never by what the answer says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import catalog_pb2, catalog_pb2_grpc

DEADLINE_SECONDS = 5.0
_MAX_PAGES = 20  # 20,000 services; a peer that claims more is not worth waiting for


@dataclass(frozen=True, kw_only=True)
class OnlinePeer:
    """A peer to ask."""

    peer_id: PeerId
    name: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one peer answered: its services, or why it did not."""

    services: Sequence[catalog_pb2.Service] = ()
    error: catalog_pb2.PeerError | None = None


class Search:
    """Asks others; the caller adds its own catalog."""

    def __init__(self, channels: Channels, online: Callable[[], Sequence[OnlinePeer]]) -> None:
        self._channels = channels
        self._online = online

    async def ask_all(self, *, active_only: bool) -> list[Found]:
        """One answer for each online peer, in the order of the registry."""
        return list(await asyncio.gather(*(self._ask(peer, active_only) for peer in self._online())))

    async def _ask(self, peer: OnlinePeer, active_only: bool) -> Found:
        try:
            services = await self._list(peer.peer_id, active_only)
        except PeerdError as error:
            failed = catalog_pb2.PeerError(
                peer_id=peer.peer_id, name=peer.name, reason=error.reason.text, message=error.message
            )
            return Found(error=failed)
        for service in services:
            service.peer_id = peer.peer_id
        return Found(services=services)

    async def _list(self, peer_id: PeerId, active_only: bool) -> list[catalog_pb2.Service]:
        stub: catalog_pb2_grpc.CatalogServiceAsyncStub = catalog_pb2_grpc.CatalogServiceStub(
            self._channels.channel(peer_id)
        )
        services: list[catalog_pb2.Service] = []
        request = catalog_pb2.ListServicesRequest(active_only=active_only)
        for _ in range(_MAX_PAGES):
            with remote_errors(peer_id):
                answer = await stub.ListServices(request, timeout=DEADLINE_SECONDS)
            services.extend(answer.services)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        return services


def matches(service: catalog_pb2.Service, phrases: Sequence[str], kinds: Sequence[int]) -> bool:
    """Any phrase is a substring of name or description, whatever the case; everything when none is given."""
    declared = service.declaration
    if kinds and declared.kind not in kinds:
        return False
    text = f"{declared.name}\n{declared.description}".casefold()
    wanted = [phrase.strip().casefold() for phrase in phrases if phrase.strip()]
    return not wanted or any(phrase in text for phrase in wanted)
