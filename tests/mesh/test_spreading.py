"""What one peer signs reaches the others: at once by push, and by comparison if the push was missed."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.mesh.gossip import MESSAGE_BYTES, MemberTopic, in_messages
from peerd.mesh.model import ADMIN
from peerd.mesh.records import MEMBER_TYPE
from peerd.rpc.status import from_rpc_error, remote_errors
from peerd.v1 import mesh_pb2
from peerd.v1.signed_pb2 import Envelope
from tests.mesh.nodes import Fleet, Node
from tests.timing import quickest


def chain_of(node: Node, subject: str) -> mesh_pb2.DocumentChain:
    """The chain that a node holds now, as an old friend would keep it."""
    return next(MemberTopic(node.mesh).documents([subject]))


async def push(sender: Node, receiver: Node, *chains: mesh_pb2.DocumentChain) -> None:
    with remote_errors(receiver.peer_id):
        await sender.calls(receiver.peer_id).Exchange(mesh_pb2.ExchangeRequest(documents=chains, push=True), timeout=30)


async def test_two_that_joined_through_a_third_learn_of_each_other_and_where_they_are(fleet: Fleet) -> None:
    founder = await fleet.found()
    one = await fleet.join("one", founder)
    two = await fleet.join("two", founder)
    await one.knows(lambda: one.registry.addresses(two.peer_id) == (two.address,))
    await two.knows(lambda: two.registry.addresses(one.peer_id) == (one.address,))
    assert one.registry.name_of(two.peer_id) == "two"
    await one.gossip.exchange_with(two.peer_id)


async def test_a_revocation_is_known_to_a_third_peer_within_a_second_by_push_alone(fleet: Fleet) -> None:
    founder = await fleet.found()
    one = await fleet.join("one", founder)
    numbers = itertools.count(2)

    async def attempt() -> float:
        two = await fleet.join(f"peer-{next(numbers)}", founder)
        await one.knows(lambda: two.peer_id in one.mesh.members())
        started = time.monotonic()
        await founder.revoke(two.peer_id)
        await one.knows(lambda: one.mesh.is_revoked(two.peer_id))
        await two.knows(lambda: two.mesh.is_revoked(two.peer_id))
        return time.monotonic() - started

    await quickest(1, attempt)


async def test_an_open_call_of_a_revoked_peer_ends_within_a_second_with_the_reason(fleet: Fleet) -> None:
    founder = await fleet.found()
    one = await fleet.join("one", founder)
    numbers = itertools.count(2)

    async def attempt() -> float:
        two = await fleet.join(f"peer-{next(numbers)}", founder)
        await one.knows(lambda: bool(one.registry.addresses(two.peer_id)))
        await two.knows(lambda: bool(two.registry.addresses(one.peer_id)))
        channel: Any = two.channels.channel(one.peer_id)
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        watch = stub.ServerReflectionInfo()
        await watch.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await watch.read()).list_services_response.service
        started = time.monotonic()
        await founder.revoke(two.peer_id)
        with pytest.raises(aio.AioRpcError) as caught:
            async with asyncio.timeout(30):
                await watch.read()
        took = time.monotonic() - started
        assert from_rpc_error(caught.value, one.peer_id).reason is Reason.REVOKED
        with pytest.raises(PeerdError) as refused:
            await push(two, one)
        assert refused.value.reason in (Reason.REVOKED, Reason.NOT_TRUSTED_OR_UNREACHABLE)
        return took

    await quickest(1, attempt)


async def test_a_friend_with_old_records_does_not_bring_a_revoked_peer_back_but_learns(fleet: Fleet) -> None:
    founder = await fleet.found()
    friend = await fleet.join("friend", founder)
    outcast = await fleet.join("outcast", founder)
    await friend.knows(lambda: outcast.peer_id in friend.mesh.members())
    old = chain_of(friend, outcast.peer_id)
    await fleet.stop(friend)
    await founder.revoke(outcast.peer_id)
    back = await fleet.run(friend.machine)
    await push(back, founder, old)
    assert founder.mesh.is_revoked(outcast.peer_id)
    await back.knows(lambda: back.mesh.is_revoked(outcast.peer_id))
    assert outcast.peer_id not in back.mesh.anchors()


async def test_a_peer_that_missed_every_push_catches_up_by_comparing(fleet: Fleet) -> None:
    founder = await fleet.found()
    sleeper = await fleet.join("sleeper", founder)
    await fleet.stop(sleeper)
    one = await fleet.join("one", founder)
    back = await fleet.run(sleeper.machine, exchange_seconds=0.05)
    await back.knows(lambda: back.registry.addresses(one.peer_id) == (one.address,))


async def test_an_admins_record_spreads_from_the_admin_also_to_who_cannot_be_pushed(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await fleet.join("admin", founder)
    third = await fleet.join("third", founder)
    await founder.admit(admin.peer_id, "observe,execute,admin")
    await admin.knows(lambda: ADMIN in (admin.mesh.grants(admin.peer_id) or ()))
    await fleet.stop(third)
    newcomer = await fleet.join("newcomer", admin)
    assert founder.mesh.grants(newcomer.peer_id) is not None
    back = await fleet.run(third.machine)
    await back.knows(lambda: back.mesh.grants(newcomer.peer_id) is not None)


async def test_a_revoked_peer_is_told_although_whoever_revoked_it_has_gone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    store, durable, answered = founder.machine.store, asyncio.Event(), asyncio.Event()
    write = store.write

    async def slowly_answered(effect: Any) -> Any:
        answer = await write(effect)
        durable.set()
        await answered.wait()
        return answer

    monkeypatch.setattr(store, "write", slowly_answered)
    call = founder.calls().RevokePeer(mesh_pb2.RevokePeerRequest(peer=worker.peer_id), timeout=30)
    waiting = asyncio.ensure_future(_answer_of(call))
    await durable.wait()
    call.cancel()
    await asyncio.wait([waiting])
    assert call.cancelled()
    for _ in range(3):  # behind that on the same connection: the daemon knows that nobody waits
        await founder.calls().GetMember(mesh_pb2.GetMemberRequest(peer=founder.peer_id), timeout=30)
    answered.set()
    await worker.knows(lambda: worker.mesh.is_revoked(worker.peer_id))


async def _answer_of(call: Any) -> Any:
    return await call


async def test_what_a_push_told_is_passed_on_to_peers_the_sender_does_not_reach(fleet: Fleet) -> None:
    founder = await fleet.found()
    one = await fleet.join("one", founder)
    two = await fleet.join("two", founder)
    await one.knows(lambda: bool(one.registry.addresses(two.peer_id)))
    reach = founder.registry.addresses
    founder.registry.addresses = (  # type: ignore[method-assign]
        lambda peer_id: ("127.0.0.1:1",) if peer_id == two.peer_id else reach(peer_id)
    )
    newcomer = (await fleet.machine("newcomer")).peer_id
    await founder.admit(newcomer)
    await two.knows(lambda: two.mesh.grants(newcomer) is not None)


async def test_a_member_that_passes_on_forgeries_changes_nothing(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    before = founder.mesh.membership
    stranger = (await fleet.machine("stranger")).peer_id
    record = mesh_pb2.MemberRecord(
        mesh_id=founder.peer_id,
        subject=stranger,
        state=mesh_pb2.MEMBER_STATE_ACTIVE,
        version=1,
        signer=worker.peer_id,
        signer_sequence=1,
    )
    own = seal(worker.machine.identity, record.SerializeToString(), MEMBER_TYPE)
    record.signer = founder.peer_id
    forged = seal(worker.machine.identity, record.SerializeToString(), MEMBER_TYPE)
    await push(
        worker,
        founder,
        mesh_pb2.DocumentChain(topic="member", key=stranger, envelopes=[own]),
        mesh_pb2.DocumentChain(topic="member", key=stranger, envelopes=[forged]),
        mesh_pb2.DocumentChain(topic="member", key=stranger, envelopes=[Envelope()]),
        mesh_pb2.DocumentChain(topic="member", key="\0", envelopes=[]),
        mesh_pb2.DocumentChain(topic="no such topic", key=stranger, envelopes=[own]),
    )
    assert founder.mesh.membership == before


async def test_a_message_over_the_limit_is_refused_by_the_transport(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    huge = mesh_pb2.DocumentChain(topic="member", key=worker.peer_id, envelopes=[Envelope(payload=bytes(5_000_000))])
    with pytest.raises(aio.AioRpcError) as caught:
        await worker.calls(founder.peer_id).Exchange(mesh_pb2.ExchangeRequest(documents=[huge], push=True), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert founder.mesh.grants(worker.peer_id) is not None


@pytest.mark.parametrize("size", [1, 100_000, 400_000, MESSAGE_BYTES, MESSAGE_BYTES * 2])
def test_many_documents_come_in_messages_of_bounded_size_in_their_order(size: int) -> None:
    chains = [
        mesh_pb2.DocumentChain(topic="member", key=str(number), envelopes=[Envelope(payload=bytes(size))])
        for number in range(12)
    ]
    messages = list(in_messages(chains))
    assert [chain for message in messages for chain in message] == chains
    for message in messages:
        assert len(message) == 1 or sum(chain.ByteSize() for chain in message) <= MESSAGE_BYTES
    assert (len(messages) == 1) == (size == 1)
