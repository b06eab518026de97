"""What admins may ask of whom, over the service: admit, change, revoke, invite. And what is stored of it."""

from __future__ import annotations

import base64
from collections.abc import Awaitable

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity, identity_from_seed
from peerd.identity.peer_id import PeerId
from peerd.mesh.invites import parse_token
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import ADMIN, ALL_GRANTS, EXECUTE, OBSERVE, parse_grants
from peerd.mesh.records import read_record
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.v1 import mesh_pb2
from tests.mesh.nodes import Fleet, Node, grant_list
from tests.mesh.signing import WIM, ZOE


async def admin_of(fleet: Fleet, founder: Node, name: str = "admin") -> Node:
    """A peer that the founder made an admin."""
    node = await fleet.join(name, founder)
    await founder.admit(node.peer_id, "observe,execute,admin")
    await node.knows(lambda: ADMIN in (node.mesh.grants(node.peer_id) or ()))
    return node


async def refusal(action: Awaitable[object]) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        await action
    return caught.value


async def test_the_founder_grants_changes_and_takes_away(fleet: Fleet) -> None:
    founder = await fleet.found()
    for grants in ("observe", "observe,execute", "observe"):
        record = await founder.admit(WIM.peer_id, grants)
        assert founder.mesh.grants(WIM.peer_id) == parse_grants(grants) == frozenset(record.grants)
    assert record.version == 3


async def test_admitting_what_is_so_already_signs_nothing(fleet: Fleet) -> None:
    founder = await fleet.found()
    first = await founder.admit(WIM.peer_id)
    assert await founder.admit(WIM.peer_id) == first


async def test_an_admin_admits_and_revokes_members(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    await admin.admit(WIM.peer_id)
    await founder.knows(lambda: founder.mesh.grants(WIM.peer_id) is not None)
    await admin.revoke(WIM.peer_id)
    await founder.knows(lambda: founder.mesh.is_revoked(WIM.peer_id))


async def test_an_admin_neither_touches_admins_nor_makes_them(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin, other = await admin_of(fleet, founder), await admin_of(fleet, founder, "other")
    await admin.knows(lambda: ADMIN in (admin.mesh.grants(other.peer_id) or ()))
    for action in (
        admin.revoke(other.peer_id),
        admin.admit(other.peer_id, "observe"),
        admin.admit(WIM.peer_id, "observe,admin"),
        admin.revoke(admin.peer_id),
    ):
        error = await refusal(action)
        assert error.reason is Reason.PERMISSION_DENIED
        assert "founder" in error.next_action
    assert admin.mesh.grants(other.peer_id) == frozenset({OBSERVE, EXECUTE, ADMIN})
    assert admin.mesh.grants(WIM.peer_id) is None


async def test_an_admin_does_not_get_the_founders_daemon_to_do_what_only_the_founder_may(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin, other = await admin_of(fleet, founder), await admin_of(fleet, founder, "other")
    before = founder.mesh.membership
    for action in (
        admin.revoke(other.peer_id, of=founder.peer_id),
        admin.admit(other.peer_id, "observe", of=founder.peer_id),
        admin.admit(WIM.peer_id, "observe,admin", of=founder.peer_id),
        admin.admit(WIM.peer_id, "observe,operate", of=founder.peer_id),
    ):
        assert (await refusal(action)).reason is Reason.PERMISSION_DENIED
    assert founder.mesh.membership == before
    await admin.admit(WIM.peer_id, "observe", of=founder.peer_id)
    assert founder.mesh.get(WIM.peer_id).signer == founder.peer_id


async def test_nobody_revokes_the_founder(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    for action in (founder.revoke(founder.peer_id), admin.revoke(founder.peer_id), founder.admit(founder.peer_id)):
        assert (await refusal(action)).reason is Reason.PERMISSION_DENIED
    assert founder.mesh.grants(founder.peer_id) == ALL_GRANTS


async def test_a_member_without_admin_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    before = founder.mesh.membership
    for action in (
        worker.admit(WIM.peer_id, of=founder.peer_id),
        worker.revoke(worker.peer_id, of=founder.peer_id),
        worker.admit(WIM.peer_id),
        worker.invite(),
    ):
        assert (await refusal(action)).reason is Reason.PERMISSION_DENIED
    assert founder.mesh.membership == before
    assert worker.mesh.grants(WIM.peer_id) is None


async def test_what_a_revoked_admin_signed_before_stands(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    await admin.admit(WIM.peer_id)
    await founder.knows(lambda: founder.mesh.grants(WIM.peer_id) is not None)
    record = await founder.revoke("admin")
    assert record.last_standing_sequence == founder.mesh.get(WIM.peer_id).signer_sequence
    assert founder.mesh.grants(WIM.peer_id) is not None
    assert founder.mesh.is_revoked(admin.peer_id)


async def test_the_founder_may_name_how_far_a_compromised_admin_is_believed(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    for subject in (WIM, ZOE):
        await admin.admit(subject.peer_id)
    await founder.knows(lambda: founder.mesh.grants(ZOE.peer_id) is not None)
    last = founder.mesh.get(WIM.peer_id).signer_sequence
    request = mesh_pb2.RevokePeerRequest(peer=admin.peer_id, last_standing_sequence=last)
    await founder.calls().RevokePeer(request, timeout=30)
    assert founder.mesh.grants(WIM.peer_id) is not None
    assert founder.mesh.grants(ZOE.peer_id) is None


async def test_a_revoked_peer_is_not_admitted_again(fleet: Fleet) -> None:
    founder = await fleet.found()
    await founder.admit(WIM.peer_id)
    await founder.revoke(WIM.peer_id)
    error = await refusal(founder.admit(WIM.peer_id))
    assert error.reason is Reason.REVOKED
    assert "revoked by" in error.message
    again = await founder.revoke(WIM.peer_id)
    assert again.version == 2, "revoking twice signs nothing new"


async def test_a_name_may_stand_for_a_peer_and_a_wrong_id_is_called_that(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    await founder.knows(lambda: founder.registry.name_of(worker.peer_id) == "worker")
    assert (await founder.revoke("worker")).subject == worker.peer_id
    assert (await refusal(founder.revoke("nobody"))).reason is Reason.NOT_FOUND
    assert (await refusal(founder.admit(PeerId("a" * 51 + "b")))).reason is Reason.INVALID_PEER_ID
    assert (await refusal(founder.revoke(ZOE.peer_id))).reason is Reason.NOT_FOUND


@pytest.mark.parametrize("role", ["", "a b", "../x", "x" * 64, "-x", "a\0b", "e\u0301"])
async def test_a_role_that_is_no_name_is_refused(fleet: Fleet, role: str) -> None:
    founder = await fleet.found()
    request = mesh_pb2.AdmitPeerRequest(peer_id=WIM.peer_id, roles=[role])
    with pytest.raises(PeerdError) as caught, remote_errors("founder"):
        await founder.calls().AdmitPeer(request, timeout=30)
    assert caught.value.reason is Reason.INVALID_NAME
    assert caught.value.violations[0].field == "roles"


async def test_the_chain_of_a_member_can_be_read_and_verified(fleet: Fleet) -> None:
    founder = await fleet.found()
    await founder.admit(WIM.peer_id, "observe")
    await founder.admit(WIM.peer_id, "observe,execute")
    answer = await founder.calls().GetMember(mesh_pb2.GetMemberRequest(peer=WIM.peer_id), timeout=30)
    records = [read_record(envelope) for envelope in answer.records]
    assert [record.version for record in records] == [1, 2]
    assert records[1].previous == records[0].digest


# -- Invites


async def test_a_repeated_request_for_an_invite_gets_the_same_token(fleet: Fleet) -> None:
    founder = await fleet.found()
    request = mesh_pb2.CreateInviteRequest(request_id="r1", grants=grant_list("observe"))
    first = await founder.calls().CreateInvite(request, timeout=30)
    assert await founder.calls().CreateInvite(request, timeout=30) == first
    request.request_id = "r2"
    assert (await founder.calls().CreateInvite(request, timeout=30)).token != first.token


async def test_neither_token_nor_seed_is_stored(fleet: Fleet) -> None:
    founder = await fleet.found()
    request = mesh_pb2.CreateInviteRequest(request_id="r1", grants=grant_list("observe"))
    answer = await founder.calls().CreateInvite(request, timeout=30)
    seed = parse_token(answer.token).seed
    assert identity_from_seed(seed).peer_id == answer.invite_id
    stored = b"".join(path.read_bytes() for path in founder.machine.folder.glob("peerd.db*"))
    assert answer.invite_id.encode() in stored
    for secret in (seed, seed.hex().encode(), base64.b64encode(seed)[:40], answer.token.encode()[80:140]):
        assert secret not in stored


async def test_an_invite_never_carries_admin_nor_more_than_the_inviter_holds(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    assert (await refusal(founder.invite("observe,admin"))).reason is Reason.PERMISSION_DENIED
    assert "operate" in (await refusal(admin.invite("observe,operate"))).message
    request = mesh_pb2.CreateInviteRequest(grants=grant_list("operate"))
    with pytest.raises(PeerdError, match="operate"), remote_errors("founder"):
        await admin.calls(founder.peer_id).CreateInvite(request, timeout=30)


async def test_an_invite_of_an_admin_that_lost_the_grant_admits_nobody(fleet: Fleet) -> None:
    founder = await fleet.found()
    admin = await admin_of(fleet, founder)
    token = await admin.invite("observe")
    await founder.admit(admin.peer_id, "observe")
    await admin.knows(lambda: admin.mesh.grants(admin.peer_id) == frozenset({OBSERVE}))
    machine = await fleet.machine("late")
    assert (await refusal(machine.join(token))).reason is Reason.PERMISSION_DENIED
    assert admin.mesh.grants(machine.peer_id) is None


async def test_an_invite_that_lives_too_long_is_refused(fleet: Fleet) -> None:
    founder = await fleet.found()
    error = await refusal(founder.invite("observe", ttl_seconds=7 * 86_400 + 1))
    assert (error.reason, error.violations[0].field) == (Reason.INVALID_ARGUMENT, "ttl_seconds")


async def test_invites_are_listed_page_by_page(fleet: Fleet) -> None:
    founder = await fleet.found()
    made = [parse_token(await founder.invite("observe")) for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await founder.calls().ListInvites(mesh_pb2.ListInvitesRequest(page_size=2, page_token=token), timeout=30)
        assert len(page.invites) <= 2
        seen += [invite.invite_id for invite in page.invites]
        token = page.next_page_token
        if not token:
            break
    assert seen == [identity_from_seed(entry.seed).peer_id for entry in made]
    with pytest.raises(PeerdError) as caught, remote_errors("founder"):
        await founder.calls().ListInvites(mesh_pb2.ListInvitesRequest(page_token="x"), timeout=30)
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


# -- The snapshot and the store


async def test_all_is_as_it_was_after_a_restart(store: Store, identity: Identity, clock: FakeClock) -> None:
    mesh = await Mesh.found(store, identity, clock, roles=frozenset({"desk"}))
    await store.write(
        lambda tx: mesh.admit(
            tx,
            actor=mesh.self_id,
            subject=WIM.peer_id,
            grants=frozenset({OBSERVE}),
            roles=frozenset({"scanner"}),
            addresses=["10.0.0.1:7401"],
        )
    )
    invite = await store.write(
        lambda tx: mesh.create_invite(
            tx, actor=mesh.self_id, grants=frozenset(), roles=frozenset(), ttl_seconds=60, nonce=b"n" * 16
        )
    )
    again = await Mesh.load(store, identity, clock)
    assert again.membership == mesh.membership
    assert again.anchors() == mesh.anchors() == {identity.peer_id, WIM.peer_id, invite.invite_id}
    assert again.hints(WIM.peer_id) == ("10.0.0.1:7401",)
    assert again.roles(identity.peer_id) == {"desk"}


async def test_a_dead_invites_key_leaves_the_anchors_a_day_after_its_end(
    store: Store, identity: Identity, clock: FakeClock
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    invite = await store.write(
        lambda tx: mesh.create_invite(
            tx, actor=mesh.self_id, grants=frozenset(), roles=frozenset(), ttl_seconds=60, nonce=b"n" * 16
        )
    )
    clock.advance(60 + 86_400 - 1)
    assert invite.invite_id in mesh.anchors() and mesh.is_invite(invite.invite_id)
    clock.advance(1)
    assert invite.invite_id not in mesh.anchors() and not mesh.is_invite(invite.invite_id)
    assert mesh.anchors() == {identity.peer_id}


async def test_losing_a_grant_or_the_membership_is_told_once_it_is_durable(
    store: Store, identity: Identity, clock: FakeClock
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    lost: list[PeerId] = []
    mesh.on_loss(lost.append)

    async def admit(grants: frozenset[int]) -> None:
        await store.write(
            lambda tx: mesh.admit(tx, actor=mesh.self_id, subject=WIM.peer_id, grants=grants, roles=frozenset())
        )

    await admit(frozenset({OBSERVE}))
    await admit(frozenset({OBSERVE, EXECUTE}))
    assert lost == []
    await admit(frozenset({EXECUTE}))
    assert lost == [WIM.peer_id]
    await store.write(lambda tx: mesh.revoke(tx, actor=mesh.self_id, subject=WIM.peer_id, reason=""))
    assert lost == [WIM.peer_id] * 2


async def test_a_transaction_that_fails_leaves_the_snapshot_alone(
    store: Store, identity: Identity, clock: FakeClock
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    before = mesh.membership

    def fail(tx: Tx) -> None:
        mesh.admit(tx, actor=mesh.self_id, subject=WIM.peer_id, grants=frozenset(), roles=frozenset())
        raise PeerdError(Reason.DISK_LOW, "on purpose")

    with pytest.raises(PeerdError, match="on purpose"):
        await store.write(fail)
    assert mesh.membership == before
    assert (await Mesh.load(store, identity, clock)).membership == before
