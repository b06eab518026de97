"""Becoming a member, over real TLS: with an invite, or admitted by id. And every way in which it is refused."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.identity.key import Identity, identity_from_seed
from peerd.mesh.invites import Token, format_token, parse_token
from peerd.mesh.joining import JOIN_TYPE, join_as_admitted
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import EXECUTE, OBSERVE, to_timestamp
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.v1 import mesh_pb2, mesh_pb2_grpc
from tests.mesh.nodes import Fleet, Machine, Node

PENDING = mesh_pb2.INVITE_STATUS_PENDING
DAY = 86_400


async def refused(machine: Machine, token: str) -> PeerdError:
    """Why it may not join; asserts that it then belongs to nothing."""
    with pytest.raises(PeerdError) as caught:
        await machine.join(token)
    with pytest.raises(PeerdError, match="no mesh yet"):
        await machine.mesh()
    return caught.value


async def invites(node: Node) -> list[mesh_pb2.Invite]:
    return list((await node.calls().ListInvites(mesh_pb2.ListInvitesRequest(), timeout=30)).invites)


async def test_a_machine_joins_with_an_invite_and_both_sides_know_it(fleet: Fleet) -> None:
    founder = await fleet.found()
    machine = await fleet.machine("worker")
    await machine.join(await founder.invite("observe,execute", roles=["scanner"]))
    theirs = await machine.mesh()
    assert theirs.mesh_id == founder.peer_id
    assert set(theirs.members()) == {founder.peer_id, machine.peer_id}
    for mesh in (theirs, founder.mesh):
        assert mesh.grants(machine.peer_id) == frozenset({OBSERVE, EXECUTE})
        assert mesh.roles(machine.peer_id) == {"scanner"}
    assert theirs.hints(founder.peer_id) == (founder.address,)
    (invite,) = await invites(founder)
    assert (invite.status, invite.joiner) == (mesh_pb2.INVITE_STATUS_USED, machine.peer_id)


async def test_the_same_machine_may_repeat_its_join_and_gets_the_same_record(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = await founder.invite()
    await machine.join(token)
    first = founder.mesh.get(machine.peer_id)
    await machine.join(token)
    assert founder.mesh.get(machine.peer_id) == first
    assert (await machine.mesh()).get(machine.peer_id) == first


async def test_a_copied_invite_admits_no_second_machine(fleet: Fleet) -> None:
    founder, machine, thief = await fleet.found(), await fleet.machine("worker"), await fleet.machine("thief")
    token = await founder.invite()
    await machine.join(token)
    error = await refused(thief, token)
    assert error.reason is Reason.INVITE_USED
    assert "new invite" in error.next_action
    assert founder.mesh.grants(thief.peer_id) is None


async def test_an_expired_invite_says_so_and_after_a_day_nothing(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = await founder.invite(ttl_seconds=60)
    founder.clock.wrong_by = machine.clock.wrong_by = 61
    assert (await refused(machine, token)).reason is Reason.INVITE_EXPIRED
    founder.clock.wrong_by = machine.clock.wrong_by = 61 + DAY
    assert (await refused(machine, token)).reason is Reason.NOT_TRUSTED_OR_UNREACHABLE


async def test_a_used_invite_is_over_for_its_own_joiner_too_when_it_expires(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = await founder.invite(ttl_seconds=60)
    await machine.join(token)
    founder.clock.wrong_by = machine.clock.wrong_by = 61
    with pytest.raises(PeerdError) as caught:
        await machine.join(token)
    assert caught.value.reason is Reason.INVITE_EXPIRED
    assert founder.mesh.grants(machine.peer_id) is not None, "its membership stays"


async def test_a_withdrawn_invite_says_so(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = await founder.invite()
    (invite,) = await invites(founder)
    answer = await founder.calls().RevokeInvite(mesh_pb2.RevokeInviteRequest(invite_id=invite.invite_id), timeout=30)
    assert answer.invite.status == mesh_pb2.INVITE_STATUS_REVOKED
    assert (await refused(machine, token)).reason is Reason.INVITE_REVOKED


async def test_an_impostor_at_the_inviters_address_learns_nothing(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = parse_token(await founder.invite())
    other = Identity.generate().peer_id
    assert (await refused(machine, format_token(replace(token, inviter=other)))).reason is (
        Reason.NOT_TRUSTED_OR_UNREACHABLE
    )
    assert [invite.status for invite in await invites(founder)] == [PENDING]


async def test_a_made_up_invite_is_a_stranger(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    made_up = Token(mesh_id=founder.peer_id, inviter=founder.peer_id, addresses=(founder.address,), seed=os.urandom(32))
    error = await refused(machine, format_token(made_up))
    assert error.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
    assert "invite" in error.next_action


async def test_a_joiner_whose_clock_is_wrong_is_told_so_and_keeps_its_invite(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    token = await founder.invite()
    machine.clock.wrong_by = 301
    assert (await refused(machine, token)).reason is Reason.CLOCK_SKEW
    assert [invite.status for invite in await invites(founder)] == [PENDING]
    machine.clock.wrong_by = 290
    await machine.join(token)


async def test_a_founder_that_is_alone_may_join_another_mesh_and_its_own_ends(fleet: Fleet) -> None:
    founder, alone = await fleet.found(), await fleet.found("alone")
    own_invite = await alone.invite()
    await fleet.stop(alone)
    await alone.machine.join(await founder.invite())
    mesh = await alone.machine.mesh()
    assert mesh.mesh_id == founder.peer_id
    assert set(mesh.members()) == {founder.peer_id, alone.peer_id}
    assert not mesh.is_invite(identity_from_seed(parse_token(own_invite).seed).peer_id)


async def test_a_member_of_a_mesh_with_others_joins_no_other_and_uses_no_invite_up(fleet: Fleet) -> None:
    founder, other = await fleet.found(), await fleet.found("other")
    worker = await fleet.join("worker", founder)
    for node in (worker, founder):
        await fleet.stop(node)
        with pytest.raises(PeerdError) as caught:
            await node.machine.join(await other.invite())
        assert caught.value.reason is Reason.ALREADY_A_MEMBER
        assert (await node.machine.mesh()).mesh_id == founder.peer_id
    assert [invite.status for invite in await invites(other)] == [PENDING, PENDING]


async def test_a_revoked_machine_is_not_let_in_again_with_a_new_invite(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    await fleet.stop(worker)
    await founder.revoke(worker.peer_id)
    with pytest.raises(PeerdError) as caught:
        await worker.machine.join(await founder.invite())
    assert caught.value.reason is Reason.REVOKED


async def test_a_machine_that_was_admitted_by_its_id_joins_without_a_token(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    await founder.admit(machine.peer_id, address="127.0.0.1:9")
    assert founder.registry.addresses(machine.peer_id) == ("127.0.0.1:9",)
    await join_as_admitted(
        machine.store,
        machine.identity,
        machine.clock,
        mesh_id=founder.peer_id,
        member=founder.peer_id,
        address=founder.address,
    )
    mesh = await machine.mesh()
    assert set(mesh.members()) == {founder.peer_id, machine.peer_id}
    assert mesh.hints(founder.peer_id) == (founder.address,)


async def test_a_machine_that_nobody_admitted_is_refused_and_told_what_it_may_be(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    with pytest.raises(PeerdError) as caught:
        await join_as_admitted(
            machine.store,
            machine.identity,
            machine.clock,
            mesh_id=founder.peer_id,
            member=founder.peer_id,
            address=founder.address,
        )
    assert caught.value.reason is Reason.NOT_TRUSTED_OR_UNREACHABLE
    assert "members of one mesh" in caught.value.next_action


async def test_a_mesh_id_that_is_not_the_members_own_mesh_is_refused(fleet: Fleet) -> None:
    founder, machine = await fleet.found(), await fleet.machine("worker")
    await founder.admit(machine.peer_id)
    with pytest.raises(PeerdError) as caught:
        await join_as_admitted(
            machine.store,
            machine.identity,
            machine.clock,
            mesh_id=Identity.generate().peer_id,
            member=founder.peer_id,
            address=founder.address,
        )
    assert caught.value.reason is Reason.NOT_A_MEMBER
    with pytest.raises(PeerdError, match="no mesh yet"):
        await machine.mesh()


# -- The call itself


class Asker:
    """Calls as the invite's key, with statements of any kind."""

    def __init__(self, node: Node, token: str) -> None:
        self.token = parse_token(token)
        self.key = identity_from_seed(self.token.seed)
        self.node = node
        self.channels = Channels(self.key, node.registry, node.clock)
        node.registry.addresses = lambda peer_id: (node.address,)  # type: ignore[method-assign]

    @property
    def stub(self) -> mesh_pb2_grpc.MeshServiceAsyncStub:
        return mesh_pb2_grpc.MeshServiceStub(self.channels.channel(self.node.peer_id))

    def statement(self, joiner: Identity) -> mesh_pb2.JoinStatement:
        return mesh_pb2.JoinStatement(
            mesh_id=self.token.mesh_id,
            invite_key=self.key.peer_id,
            joiner=joiner.peer_id,
            nonce=os.urandom(16),
            issued_at=to_timestamp(self.node.clock.now()),
        )

    async def join(self, signer: Identity, statement: mesh_pb2.JoinStatement) -> mesh_pb2.JoinResponse:
        request = mesh_pb2.JoinRequest(statement=seal(signer, statement.SerializeToString(), JOIN_TYPE))
        with remote_errors(self.node.peer_id):
            return await self.stub.Join(request, timeout=30)


@pytest.mark.parametrize("field", ["mesh_id", "invite_key", "joiner", "nonce"])
async def test_a_statement_that_is_not_about_this_join_is_refused(fleet: Fleet, field: str) -> None:
    founder = await fleet.found()
    asker, joiner = Asker(founder, await founder.invite()), Identity.generate()
    statement = asker.statement(joiner)
    setattr(statement, field, b"short" if field == "nonce" else Identity.generate().peer_id)
    with pytest.raises(PeerdError) as caught:
        await asker.join(joiner, statement)
    assert caught.value.reason is Reason.INVALID_SIGNATURE
    assert founder.mesh.members() == (founder.peer_id,)
    assert [invite.status for invite in await invites(founder)] == [PENDING]
    await asker.channels.close()


async def test_a_replayed_statement_makes_nobody_else_a_member(fleet: Fleet) -> None:
    founder = await fleet.found()
    asker, joiner = Asker(founder, await founder.invite()), Identity.generate()
    statement = asker.statement(joiner)
    await asker.join(joiner, statement)
    before = founder.mesh.membership
    await asker.join(joiner, statement)
    assert founder.mesh.membership == before
    await asker.channels.close()


async def test_an_invite_opens_join_and_nothing_else(fleet: Fleet) -> None:
    founder = await fleet.found()
    asker = Asker(founder, await founder.invite())
    with pytest.raises(PeerdError) as caught, remote_errors(founder.peer_id):
        await asker.stub.Exchange(mesh_pb2.ExchangeRequest(), timeout=30)
    assert caught.value.reason is Reason.NOT_A_MEMBER
    await asker.channels.close()


async def test_a_member_cannot_call_join(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    with pytest.raises(PeerdError) as caught, remote_errors(founder.peer_id):
        await worker.calls(founder.peer_id).Join(mesh_pb2.JoinRequest(), timeout=30)
    assert caught.value.reason is Reason.NOT_A_MEMBER


async def test_a_mesh_is_founded_once(fleet: Fleet) -> None:
    machine = await fleet.machine("one")
    await Mesh.found(machine.store, machine.identity, machine.clock)
    with pytest.raises(PeerdError) as caught:
        await Mesh.found(machine.store, machine.identity, machine.clock)
    assert caught.value.reason is Reason.ALREADY_INITIALIZED
