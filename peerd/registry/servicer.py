"""The wire side of the registry: messages to calls and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.mesh.model import from_timestamp
from peerd.registry.heartbeats import Heartbeat, Heartbeats
from peerd.registry.model import PeerStatus, PeerView
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.registry.selection import Selector, mismatch, selector
from peerd.registry.views import heartbeat_message, peer_message
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import registry_pb2, registry_pb2_grpc

_PAGE = 200
_END_OF_TIME = 2**62
_MAX_SELECTOR = 200

M = TypeVar("M", bound=Message)


class _Request(Protocol):
    @property
    def request_id(self) -> str: ...


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """peerd.v1.RegistryService."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        notes: Notes,
        heartbeats: Heartbeats,
        *,
        forget_external: Callable[[Tx, PeerView], None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._notes = notes
        self._heartbeats = heartbeats
        self._forget_external = forget_external

    async def ListPeers(self, request: registry_pb2.ListPeersRequest, context: Any) -> registry_pb2.ListPeersResponse:
        size, start = page_size(request.page_size, default=_PAGE), page_start(request.page_token)
        wanted = _selector(request)
        found = [
            view
            for view in self._registry.peers()
            if mismatch(wanted, view) is None and (request.include_forgotten or not view.forgotten)
        ]
        token = str(start + size) if len(found) > start + size else ""
        return registry_pb2.ListPeersResponse(
            peers=[peer_message(view) for view in found[start : start + size]], next_page_token=token
        )

    async def GetPeer(self, request: registry_pb2.GetPeerRequest, context: Any) -> registry_pb2.GetPeerResponse:
        return registry_pb2.GetPeerResponse(peer=peer_message(self._registry.get(request.peer)))

    async def ListHeartbeats(
        self, request: registry_pb2.ListHeartbeatsRequest, context: Any
    ) -> registry_pb2.ListHeartbeatsResponse:
        peer_id, size = self._registry.get(request.peer).peer_id, page_size(request.page_size, default=_PAGE)
        before = Millis(page_start(request.page_token) or _END_OF_TIME)
        await self._heartbeats.flush()
        found: list[Heartbeat] = await self._heartbeats.page(
            peer_id, since=from_timestamp(request.since), before=before, count=size + 1
        )
        token = str(found[size - 1].at) if len(found) > size else ""
        return registry_pb2.ListHeartbeatsResponse(
            heartbeats=[heartbeat_message(entry) for entry in found[:size]], next_page_token=token
        )

    async def DrainPeer(self, request: registry_pb2.DrainPeerRequest, context: Any) -> registry_pb2.DrainPeerResponse:
        subject = self._registry.resolve(request.peer)
        await self._once(
            request,
            registry_pb2.DrainPeerResponse,
            lambda tx: self._notes.drain(tx, subject, request.reason),
        )
        return registry_pb2.DrainPeerResponse(peer=self._peer(subject))

    async def ResumePeer(
        self, request: registry_pb2.ResumePeerRequest, context: Any
    ) -> registry_pb2.ResumePeerResponse:
        subject = self._registry.resolve(request.peer)
        await self._once(request, registry_pb2.ResumePeerResponse, lambda tx: self._notes.resume(tx, subject))
        return registry_pb2.ResumePeerResponse(peer=self._peer(subject))

    async def RenamePeer(
        self, request: registry_pb2.RenamePeerRequest, context: Any
    ) -> registry_pb2.RenamePeerResponse:
        subject = self._registry.resolve(request.peer)
        taken = [view.peer_id for view in self._registry.peers() if view.name == request.name]
        if any(peer_id != subject and not self._is_revoked(peer_id) for peer_id in taken):
            raise PeerdError(Reason.ALREADY_EXISTS, f"another peer is called {request.name[:80]!r}")
        await self._once(
            request, registry_pb2.RenamePeerResponse, lambda tx: self._notes.rename(tx, subject, request.name)
        )
        return registry_pb2.RenamePeerResponse(peer=self._peer(subject))

    async def ForgetPeer(
        self, request: registry_pb2.ForgetPeerRequest, context: Any
    ) -> registry_pb2.ForgetPeerResponse:
        view = self._registry.get(request.peer)
        if not view.external and view.status.present:
            raise PeerdError(
                Reason.ILLEGAL_TRANSITION,
                f"{view.name} is {view.status.name.lower()}; only a peer that is gone can be forgotten",
                next_action="revoke it, or stop its daemon, first",
            )

        def effect(tx: Tx) -> None:
            if view.external:
                self._forget_external(tx, view)
            else:
                self._notes.forget(tx, view.peer_id)

        await self._once(request, registry_pb2.ForgetPeerResponse, effect)
        return registry_pb2.ForgetPeerResponse(peer=peer_message(view))

    async def _once(self, request: _Request, answer_type: type[M], effect: Callable[[Tx], None]) -> None:
        """The effect, once; what is answered is the state afterwards, and not kept."""
        assert isinstance(request, Message)  # noqa: S101 - see _Request
        message: Message = request
        caller, request_id = current_caller().peer_id, request.request_id

        def write(tx: Tx) -> M:
            def act() -> M:
                effect(tx)
                return answer_type()

            return once(tx, caller=caller, request_id=request_id, request=message, answer_type=answer_type, effect=act)

        await self._store.write(write)

    def _peer(self, peer_id: PeerId) -> registry_pb2.Peer:
        return peer_message(self._registry.get(peer_id))

    def _is_revoked(self, peer_id: PeerId) -> bool:
        return self._registry.get(peer_id).status is PeerStatus.REVOKED


def _selector(request: registry_pb2.ListPeersRequest) -> Selector:
    """Raises INVALID_EXPRESSION or INVALID_ARGUMENT."""
    texts = (request.role, request.label, request.group, request.region, request.text)
    if any(len(text) > _MAX_SELECTOR or not text.isprintable() for text in texts):
        raise PeerdError(
            Reason.INVALID_ARGUMENT, f"what is asked for has at most {_MAX_SELECTOR} characters and no control ones"
        )
    wanted = selector(
        role=request.role,
        label=request.label,
        group=request.group,
        region=request.region,
        where=request.where,
        text=request.text,
    )
    if not request.status:
        return wanted
    try:
        return replace(wanted, status=PeerStatus(request.status))
    except ValueError as error:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"there is no status {request.status}") from error
