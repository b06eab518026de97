"""The wire side of the mesh: messages to calls and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.envelope import open_envelope
from peerd.identity.peer_id import PeerId, parse_peer_id
from peerd.mesh import repository
from peerd.mesh.gossip import Gossip
from peerd.mesh.invites import Invite
from peerd.mesh.joining import JOIN_TYPE
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import Record, check_grants, check_roles, from_timestamp, to_timestamp
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.uninterrupted import uninterrupted
from peerd.v1 import access_pb2, mesh_pb2, mesh_pb2_grpc
from peerd.v1.signed_pb2 import Envelope

_SKEW_MILLIS = 5 * 60 * 1000
_NONCE_BYTES = 16
_PAGE = 100

M = TypeVar("M", bound=Message)


class _Request(Protocol):
    """A request that may be repeated. Its type is a Message too, which a Protocol cannot say."""

    @property
    def request_id(self) -> str: ...


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    """peerd.v1.MeshService."""

    def __init__(
        self,
        store: Store,
        mesh: Mesh,
        gossip: Gossip,
        clock: Clock,
        *,
        resolve: Callable[[str], PeerId],
        own_addresses: Callable[[], Sequence[str]],
    ) -> None:
        self._store = store
        self._mesh = mesh
        self._gossip = gossip
        self._clock = clock
        self._resolve = resolve
        self._own_addresses = own_addresses

    async def Join(self, request: mesh_pb2.JoinRequest, context: Any) -> mesh_pb2.JoinResponse:
        # No memory of nonces: a repeated statement can only make the joiner it names a member, which it is then.
        invite_key = current_caller().peer_id
        joiner = self._checked_joiner(request.statement, invite_key)
        await self._store.write(lambda tx: self._mesh.use_invite(tx, invite_key=invite_key, joiner=joiner))
        failpoint("mesh.join.after_commit")
        self._gossip.push("member", [joiner])
        if request.HasField("advert"):
            advert = mesh_pb2.DocumentChain(topic="advert", key=joiner, envelopes=[request.advert])
            await self._gossip.take_in([advert], joiner)
            self._gossip.push("advert", [joiner])
        return mesh_pb2.JoinResponse(documents=self._gossip.documents_for_joiner(joiner))

    async def Exchange(self, request: mesh_pb2.ExchangeRequest, context: Any) -> mesh_pb2.ExchangeResponse:
        return await self._gossip.answer(request, current_caller().peer_id)

    async def CreateInvite(self, request: mesh_pb2.CreateInviteRequest, context: Any) -> mesh_pb2.CreateInviteResponse:
        grants, roles = check_grants(request.grants), check_roles(request.roles)
        actor, nonce = current_caller().peer_id, os.urandom(_NONCE_BYTES)

        def effect(tx: Tx) -> mesh_pb2.CreateInviteResponse:
            invite = self._mesh.create_invite(
                tx, actor=actor, grants=grants, roles=roles, ttl_seconds=request.ttl_seconds, nonce=nonce
            )
            # The token itself is a secret and is not kept: a repeated request makes it again from the nonce.
            return mesh_pb2.CreateInviteResponse(invite_id=invite.invite_id, expires_at=to_timestamp(invite.expires_at))

        answer = await self._once(request, mesh_pb2.CreateInviteResponse, effect)
        row = await self._store.one(repository.INVITE, (answer.invite_id,))
        if row is None:
            raise PeerdError(Reason.NOT_FOUND, "that invite was of a mesh this peer has left")
        answer.token = self._mesh.token(repository.invite_of(row), self._own_addresses())
        return answer

    async def ListInvites(self, request: mesh_pb2.ListInvitesRequest, context: Any) -> mesh_pb2.ListInvitesResponse:
        size = page_size(request.page_size, default=_PAGE)
        rows = await self._store.all(repository.INVITES_PAGE, (page_start(request.page_token), size + 1))
        invites = [repository.invite_of(row) for row in rows]
        token = str(invites[size - 1].number) if len(invites) > size else ""
        return mesh_pb2.ListInvitesResponse(invites=map(self._invite, invites[:size]), next_page_token=token)

    async def RevokeInvite(self, request: mesh_pb2.RevokeInviteRequest, context: Any) -> mesh_pb2.RevokeInviteResponse:
        def effect(tx: Tx) -> mesh_pb2.RevokeInviteResponse:
            return mesh_pb2.RevokeInviteResponse(
                invite=self._invite(self._mesh.revoke_invite(tx, invite_id=request.invite_id))
            )

        return await self._once(request, mesh_pb2.RevokeInviteResponse, effect)

    async def AdmitPeer(self, request: mesh_pb2.AdmitPeerRequest, context: Any) -> mesh_pb2.AdmitPeerResponse:
        subject = _subject(request.peer_id, self._resolve)
        grants, roles, actor = check_grants(request.grants), check_roles(request.roles), current_caller().peer_id

        def effect(tx: Tx) -> mesh_pb2.AdmitPeerResponse:
            record = self._mesh.admit(
                tx, actor=actor, subject=subject, grants=grants, roles=roles, addresses=request.addresses
            )
            return mesh_pb2.AdmitPeerResponse(record=_record(record))

        return await self._signed(request, mesh_pb2.AdmitPeerResponse, effect, subject)

    async def RevokePeer(self, request: mesh_pb2.RevokePeerRequest, context: Any) -> mesh_pb2.RevokePeerResponse:
        subject, actor = _subject(request.peer, self._resolve), current_caller().peer_id
        last = request.last_standing_sequence if request.HasField("last_standing_sequence") else None

        def effect(tx: Tx) -> mesh_pb2.RevokePeerResponse:
            record = self._mesh.revoke(tx, actor=actor, subject=subject, reason=request.reason, last_standing=last)
            return mesh_pb2.RevokePeerResponse(record=_record(record))

        return await self._signed(request, mesh_pb2.RevokePeerResponse, effect, subject)

    async def ReplacePeer(self, request: mesh_pb2.ReplacePeerRequest, context: Any) -> mesh_pb2.ReplacePeerResponse:
        old, new = _subject(request.old, self._resolve), _subject(request.new, self._resolve)
        actor = current_caller().peer_id

        def effect(tx: Tx) -> mesh_pb2.ReplacePeerResponse:
            admitted, revoked = self._mesh.replace(tx, actor=actor, old=old, new=new)
            return mesh_pb2.ReplacePeerResponse(admitted=_record(admitted), revoked=_record(revoked))

        return await self._signed(request, mesh_pb2.ReplacePeerResponse, effect, old, new)

    async def GetMember(self, request: mesh_pb2.GetMemberRequest, context: Any) -> mesh_pb2.GetMemberResponse:
        subject = _subject(request.peer, self._resolve)
        self._mesh.get(subject)
        chains = self._mesh.membership.chains(subject)
        return mesh_pb2.GetMemberResponse(
            records=[Envelope.FromString(record.envelope) for chain in chains for record in chain]
        )

    async def _signed(self, request: _Request, answer_type: type[M], effect: Callable[[Tx], M], *subjects: PeerId) -> M:
        """A change of these members, and the word of it to all, whoever waits for the answer.

        A peer that was revoked learns it from that word alone: nobody lets it in to compare.
        """

        async def signed() -> M:
            answer = await self._once(request, answer_type, effect)
            failpoint("mesh.sign.after_commit")
            self._gossip.push("member", subjects)
            return answer

        return await uninterrupted(signed())

    async def _once(self, request: _Request, answer_type: type[M], effect: Callable[[Tx], M]) -> M:
        assert isinstance(request, Message)  # noqa: S101 - see _Request
        message: Message = request
        caller, request_id = current_caller().peer_id, request.request_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request_id,
                request=message,
                answer_type=answer_type,
                effect=lambda: effect(tx),
            )
        )

    def _checked_joiner(self, envelope: Envelope, invite_key: PeerId) -> PeerId:
        """Who wants to join, by its own signature over this very invite. Raises INVALID_SIGNATURE or CLOCK_SKEW."""
        opened = open_envelope(envelope, JOIN_TYPE)
        try:
            statement = mesh_pb2.JoinStatement.FromString(opened.payload)
        except DecodeError as error:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the signed bytes are not a join statement") from error
        if (statement.mesh_id, statement.invite_key) != (self._mesh.mesh_id, invite_key):
            raise PeerdError(Reason.INVALID_SIGNATURE, "the statement is about another mesh or another invite")
        if statement.joiner != opened.signer or len(statement.nonce) != _NONCE_BYTES:
            raise PeerdError(Reason.INVALID_SIGNATURE, "the statement is not signed by the joiner it names")
        skew = abs(from_timestamp(statement.issued_at) - self._clock.now())
        if skew > _SKEW_MILLIS:
            raise PeerdError(Reason.CLOCK_SKEW, f"the clocks of joiner and inviter differ by {skew // 1000} s")
        return opened.signer

    def _invite(self, invite: Invite) -> mesh_pb2.Invite:
        return mesh_pb2.Invite(
            invite_id=invite.invite_id,
            status=invite.status(self._clock.now()).value,
            roles=sorted(invite.roles),
            grants=_grants(invite.grants),
            created_at=to_timestamp(invite.created_at),
            expires_at=to_timestamp(invite.expires_at),
            joiner=invite.joiner or "",
        )


def _record(record: Record) -> mesh_pb2.MemberRecord:
    return mesh_pb2.MemberRecord(
        mesh_id=record.mesh_id,
        subject=record.subject,
        state=record.state.value,
        grants=_grants(record.grants),
        roles=sorted(record.roles),
        version=record.version,
        signer=record.signer,
        signer_sequence=record.signer_sequence,
        previous_digest=record.previous or b"",
        issued_at=to_timestamp(record.issued_at),
        reason=record.reason,
        last_standing_sequence=record.last_standing_sequence,
        standing_digests=sorted(record.standing_digests),
    )


def _grants(grants: frozenset[int]) -> list[access_pb2.Grant.ValueType]:
    return [access_pb2.Grant.ValueType(grant) for grant in sorted(grants)]


def _subject(text: str, resolve: Callable[[str], PeerId]) -> PeerId:
    """A peer id, which need not be known yet, or the name of a peer that is."""
    try:
        return parse_peer_id(text)
    except PeerdError:
        if len(text) >= 50:  # meant as an id
            raise
        return resolve(text)
