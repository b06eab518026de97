"""The joiner's side, while its daemon is not running: become a member, and keep what proves it.

The inviter is verified by its anchor before anything is said. What comes back is verified like any gossip: it must
hold a record of this peer that stands in the mesh that the token names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.envelope import seal
from peerd.identity.key import Identity, identity_from_seed
from peerd.identity.peer_id import PeerId
from peerd.mesh import repository
from peerd.mesh.gossip import MemberTopic, member_summary
from peerd.mesh.invites import Token
from peerd.mesh.membership import Membership, merge
from peerd.mesh.model import to_timestamp
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.v1 import mesh_pb2, mesh_pb2_grpc
from peerd.v1.signed_pb2 import Envelope

JOIN_TYPE = "application/vnd.peerd.join.v1+protobuf"
_SECONDS = 15.0


class _Fixed:
    """The one address that is known before joining."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)

    def addresses(self, peer_id: PeerId) -> Sequence[str]:
        return self._addresses


async def join_with_token(
    store: Store, identity: Identity, clock: Clock, token: Token, *, advert: Envelope | None = None
) -> None:
    """Use up an invite. Raises an INVITE_ reason, ALREADY_A_MEMBER, or NOT_TRUSTED_OR_UNREACHABLE."""
    await _check_free(store, identity, token.mesh_id)
    statement = mesh_pb2.JoinStatement(
        mesh_id=token.mesh_id,
        invite_key=identity_from_seed(token.seed).peer_id,
        joiner=identity.peer_id,
        nonce=os.urandom(16),
        issued_at=to_timestamp(clock.now()),
    )
    request = mesh_pb2.JoinRequest(statement=seal(identity, statement.SerializeToString(), JOIN_TYPE), advert=advert)
    channels = Channels(identity_from_seed(token.seed), _Fixed(token.addresses), clock)
    try:
        with remote_errors(token.inviter):
            stub = mesh_pb2_grpc.MeshServiceStub(channels.channel(token.inviter))
            answer = await stub.Join(request, timeout=_SECONDS)
    except PeerdError as error:
        if error.reason is not Reason.NOT_TRUSTED_OR_UNREACHABLE:
            raise
        raise PeerdError(
            Reason.NOT_TRUSTED_OR_UNREACHABLE,
            f"the inviter does not answer at {', '.join(token.addresses)}, or does not know this invite any more",
            next_action="check that it runs and that this machine reaches it; a used or expired invite needs a new one",
        ) from error
    finally:
        await channels.close()
    await adopt(store, identity, token.mesh_id, answer.documents, hints={token.inviter: token.addresses})


async def join_as_admitted(
    store: Store,
    identity: Identity,
    clock: Clock,
    *,
    mesh_id: PeerId,
    member: PeerId,
    address: str,
    replace: bool = False,
) -> None:
    """Fetch the records of a mesh that has admitted this peer by its id; with ``replace`` it leaves another for it.

    Raises NOT_TRUSTED_OR_UNREACHABLE or ALREADY_A_MEMBER.
    """
    if not replace:
        await _check_free(store, identity, mesh_id)
    channels = Channels(identity, _Fixed([address]), clock)
    documents: list[mesh_pb2.DocumentChain] = []
    try:
        while True:  # an answer is one message; what it left out comes when we say what we have
            held = merge(Membership(mesh_id=mesh_id), _member_chains(documents)).membership
            request = mesh_pb2.ExchangeRequest(summaries=[member_summary(held)])
            with remote_errors(member):
                stub = mesh_pb2_grpc.MeshServiceStub(channels.channel(member))
                answer = await stub.Exchange(request, timeout=_SECONDS)
            documents.extend(answer.documents)
            more = merge(held, _member_chains(answer.documents))
            if not more.changed:
                break
    finally:
        await channels.close()
    await adopt(store, identity, mesh_id, documents, hints={member: (address,)}, replace=replace)


async def adopt(
    store: Store,
    identity: Identity,
    mesh_id: PeerId,
    chains: Sequence[mesh_pb2.DocumentChain],
    *,
    hints: dict[PeerId, tuple[str, ...]],
    replace: bool = False,
) -> None:
    """Keep the records of a mesh that holds this peer. Raises NOT_A_MEMBER or ALREADY_A_MEMBER."""
    offered = _member_chains(chains)

    def write(tx: Tx) -> None:
        if not replace:
            _check(tx, identity, mesh_id)
        known = repository.find_mesh_id(tx) == mesh_id
        before = repository.load_membership(tx, mesh_id) if known else Membership(mesh_id=mesh_id)
        merged = merge(before, offered)
        if merged.membership.active(mesh_id) is None or merged.membership.active(identity.peer_id) is None:
            raise PeerdError(
                Reason.NOT_A_MEMBER, f"what was sent does not make {identity.peer_id} a member of mesh {mesh_id}"
            )
        if not known:
            repository.set_mesh_id(tx, mesh_id)  # a lone mesh of our own, with its invites, ends here
        repository.save_membership(tx, before, merged.membership)
        for peer_id, addresses in hints.items():
            repository.set_hints(tx, peer_id, addresses)
        failpoint("mesh.adopt.before_commit")

    await store.write(write)


def _member_chains(chains: Sequence[mesh_pb2.DocumentChain]) -> list[tuple[str, tuple[Envelope, ...]]]:
    return [(chain.key, tuple(chain.envelopes)) for chain in chains if chain.topic == MemberTopic.name]


async def _check_free(store: Store, identity: Identity, mesh_id: PeerId) -> None:
    """Refuse before anything is said to anybody, so that no invite is used up in vain."""
    await store.write(lambda tx: _check(tx, identity, mesh_id))


def _check(tx: Tx, identity: Identity, mesh_id: PeerId) -> None:
    """A peer may leave a mesh of which it is the only member, and no other. Raises ALREADY_A_MEMBER."""
    current = repository.find_mesh_id(tx)
    if current is None or current == mesh_id:
        return
    members = set(repository.load_membership(tx, current).current)
    if members != {identity.peer_id}:
        raise PeerdError(
            Reason.ALREADY_A_MEMBER, f"this peer belongs to the mesh {current}, with {len(members) - 1} others"
        )
