"""The peers as this one sees them, put together from record, advert and contact; and over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from peerd.clock import FakeClock, Millis
from peerd.detector.contact import Contact
from peerd.detector.model import State, Transition
from peerd.errors import PeerdError, Reason
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.registry.adverts import Adverts
from peerd.registry.model import PeerStatus
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.rpc.status import remote_errors
from peerd.store import Store
from peerd.v1 import detector_pb2, detector_pb2_grpc, mesh_pb2, registry_pb2, registry_pb2_grpc
from peerd.v1.registry_pb2 import Sample
from tests.mesh.nodes import Fleet, Node
from tests.mesh.signing import ADA, BOB, WIM, ZOE
from tests.registry.conftest import Seen
from tests.registry.test_adverts import document, signed


async def test_members_are_known_before_anything_was_heard_of_them(registry: Registry, identity: Identity) -> None:
    views = {view.peer_id: view for view in registry.peers()}
    assert set(views) == {identity.peer_id, ADA.peer_id, BOB.peer_id, ZOE.peer_id}
    ada = views[ADA.peer_id]
    assert (ada.name, ada.status, ada.addresses) == (ADA.peer_id[:8], PeerStatus.OFFLINE, ())
    assert "not heard of" in ada.why
    own = views[identity.peer_id]
    assert (own.status, own.is_self, own.is_founder) == (PeerStatus.ONLINE, True, True)
    assert registry.is_online(identity.peer_id) and not registry.is_online(ADA.peer_id)


async def test_an_advert_fills_the_view(registry: Registry, adverts: Adverts) -> None:
    envelope = signed(
        name="ada", labels=["gpu", "rack=3"], groups=["lab"], addresses=["10.0.0.1:7401"], platform="linux"
    )
    await adverts.apply([document(envelope)], "x")
    view = registry.get("ada")
    assert (view.peer_id, view.groups, view.platform) == (ADA.peer_id, frozenset({"lab"}), "linux")
    assert view.labels == {"gpu", "rack=3"}
    assert view.addresses == registry.addresses(ADA.peer_id) == ("10.0.0.1:7401",)


def contact(state: State, clock: FakeClock, **more: Any) -> Contact:
    return Contact(state=state, since=clock.now(), **more)


@pytest.mark.parametrize(
    ("state", "status", "why"),
    [
        (State.ALIVE, PeerStatus.ONLINE, "answers"),
        (State.SUSPECT, PeerStatus.SUSPECT, "does not answer zed"),
        (State.OFFLINE, PeerStatus.OFFLINE, "does not answer zed, and it did not object"),
        (State.LEFT, PeerStatus.LEFT, "said that it goes"),
        (State.UNKNOWN, PeerStatus.OFFLINE, "was not heard of since this daemon started"),
    ],
)
async def test_what_the_detector_holds_is_shown_with_since_when_and_why(
    registry: Registry, adverts: Adverts, seen: Seen, clock: FakeClock, state: State, status: PeerStatus, why: str
) -> None:
    await adverts.apply([document(signed(ZOE, name="zed"), ZOE.peer_id)], "x")
    clock.advance(5)
    seen.contacts[ADA.peer_id] = contact(state, clock, accusers=(ZOE.peer_id,), sample=Sample(running_jobs=4))
    view = registry.get(ADA.peer_id)
    assert (view.status, view.since, view.why, view.running_jobs) == (status, clock.now(), why, 4)
    assert registry.is_online(ADA.peer_id) == status.present


async def test_who_joined_after_this_daemon_started_is_not_missed_since_before_that(
    registry: Registry, seen: Seen
) -> None:
    joined_at = registry.get(ADA.peer_id).joined_at
    assert joined_at is not None
    seen.contacts[ADA.peer_id] = Contact(state=State.UNKNOWN, since=Millis(joined_at - 60_000))
    view = registry.get(ADA.peer_id)
    assert (view.since, view.why) == (joined_at, "has joined, and was not heard of yet")


async def test_coming_back_is_told_once(registry: Registry) -> None:
    back: list[str] = []
    registry.on_online(back.append)
    registry.changed(Transition(ADA.peer_id, State.OFFLINE, State.ALIVE))
    registry.changed(Transition(ADA.peer_id, State.ALIVE, State.SUSPECT))
    registry.changed(Transition(ADA.peer_id, State.SUSPECT, State.ALIVE))
    registry.changed(Transition(ADA.peer_id, State.SUSPECT, State.OFFLINE))
    assert back == [ADA.peer_id]


async def test_maintenance_is_shown_of_a_peer_that_is_there_and_waits_behind_offline(
    registry: Registry, notes: Notes, store: Store, seen: Seen, clock: FakeClock
) -> None:
    seen.contacts[ADA.peer_id] = contact(State.ALIVE, clock)
    await store.write(lambda tx: notes.drain(tx, ADA.peer_id, "new disk"))
    view = registry.get(ADA.peer_id)
    assert (view.status, view.why) == (PeerStatus.MAINTENANCE, "new disk")
    seen.contacts[ADA.peer_id] = contact(State.OFFLINE, clock)
    assert registry.get(ADA.peer_id).status is PeerStatus.OFFLINE
    seen.contacts[ADA.peer_id] = contact(State.ALIVE, clock)
    assert registry.get(ADA.peer_id).status is PeerStatus.MAINTENANCE, "a heartbeat never ends it"
    await store.write(lambda tx: notes.resume(tx, ADA.peer_id))
    assert registry.get(ADA.peer_id).status is PeerStatus.ONLINE


async def test_a_forgotten_peer_is_left_out_until_it_comes_back(
    registry: Registry, notes: Notes, store: Store, seen: Seen, clock: FakeClock
) -> None:
    await store.write(lambda tx: notes.forget(tx, ADA.peer_id))
    assert registry.get(ADA.peer_id).forgotten
    seen.contacts[ADA.peer_id] = contact(State.ALIVE, clock)
    assert not registry.get(ADA.peer_id).forgotten


async def test_an_admins_name_wins_over_the_peers_own_and_is_found(
    registry: Registry, adverts: Adverts, notes: Notes, store: Store
) -> None:
    await adverts.apply([document(signed(name="ada"))], "x")
    await store.write(lambda tx: notes.rename(tx, ADA.peer_id, "scanner-1"))
    assert registry.get("scanner-1").peer_id == ADA.peer_id
    for name in (BOB.peer_id, "a b", "", "x" * 64):
        with pytest.raises(PeerdError) as caught:
            await store.write(lambda tx, name=name: notes.rename(tx, ADA.peer_id, name))  # type: ignore[misc]
        assert caught.value.reason is Reason.INVALID_NAME


@pytest.mark.parametrize(
    ("more", "warnings"),
    [
        ({}, []),
        ({"clock_offset_ms": 1999.0}, []),
        ({"clock_offset_ms": -2001.0}, ["clock_offset"]),
        ({"clock_offset_ms": 31_536_000_000.0}, ["clock_offset"]),
        ({"duplicate": True}, ["duplicate_identity"]),
        ({"sample": Sample(local_health=1)}, []),
        ({"sample": Sample(local_health=3)}, ["slow"]),
    ],
)
async def test_what_needs_a_look_is_said(
    registry: Registry, seen: Seen, clock: FakeClock, more: dict[str, Any], warnings: list[str]
) -> None:
    seen.contacts[ADA.peer_id] = contact(State.ALIVE, clock, **more)
    assert [warning.reason for warning in registry.get(ADA.peer_id).warnings] == warnings


async def test_two_peers_of_one_name_are_flagged_and_never_merged(registry: Registry, adverts: Adverts) -> None:
    await adverts.apply([document(signed(name="pi")), document(signed(BOB, name="pi"), BOB.peer_id)], "x")
    flagged = {view.peer_id: [warning.reason for warning in view.warnings] for view in registry.peers()}
    assert flagged[ADA.peer_id] == flagged[BOB.peer_id] == ["same_name"]
    assert flagged[ZOE.peer_id] == []


async def test_this_peer_reports_its_own_doubts_and_its_twin(
    registry: Registry, seen: Seen, clock: FakeClock, mesh: Mesh
) -> None:
    seen.local_health = 4
    seen.contacts[mesh.self_id] = contact(State.UNKNOWN, clock, duplicate=True)
    view = registry.get(mesh.self_id)
    assert view.status is PeerStatus.ONLINE
    assert [warning.reason for warning in view.warnings] == ["duplicate_identity", "slow"]


async def test_revoked_wins_over_online(
    registry: Registry, seen: Seen, clock: FakeClock, store: Store, mesh: Mesh
) -> None:
    seen.contacts[ADA.peer_id] = contact(State.ALIVE, clock)
    await store.write(lambda tx: mesh.revoke(tx, actor=mesh.self_id, subject=ADA.peer_id, reason="stolen"))
    view = registry.get(ADA.peer_id)
    assert (view.status, view.why) == (PeerStatus.REVOKED, "stolen")
    assert not registry.is_online(ADA.peer_id)


async def test_a_peer_is_found_by_id_prefix_or_name(registry: Registry, adverts: Adverts) -> None:
    await adverts.apply([document(signed(name="ada"))], "x")
    for text in (ADA.peer_id, ADA.peer_id[:6], ADA.peer_id[:20], "ada"):
        assert registry.resolve(text) == ADA.peer_id
    for text in ("", "nobody", ADA.peer_id[:5], WIM.peer_id, "ad", "ADA"):
        with pytest.raises(PeerdError) as caught:
            registry.resolve(text)
        assert caught.value.reason is Reason.NOT_FOUND


async def test_a_name_that_two_peers_have_is_ambiguous(registry: Registry, adverts: Adverts) -> None:
    await adverts.apply([document(signed(name="twin")), document(signed(BOB, name="twin"), BOB.peer_id)], "x")
    with pytest.raises(PeerdError) as caught:
        registry.resolve("twin")
    assert caught.value.reason is Reason.AMBIGUOUS_NAME
    assert ADA.peer_id in caught.value.message and BOB.peer_id in caught.value.message


async def test_a_peer_does_not_take_anothers_place_by_calling_itself_by_its_prefix(
    registry: Registry, adverts: Adverts
) -> None:
    await adverts.apply([document(signed(name=BOB.peer_id[:8]))], "x")
    with pytest.raises(PeerdError) as caught:
        registry.resolve(BOB.peer_id[:8])
    assert caught.value.reason is Reason.AMBIGUOUS_NAME
    assert registry.resolve(BOB.peer_id) == BOB.peer_id


async def test_an_active_peer_has_its_name_before_a_revoked_one(
    registry: Registry, adverts: Adverts, store: Store, mesh: Mesh
) -> None:
    await adverts.apply([document(signed(name="desk")), document(signed(BOB, name="desk"), BOB.peer_id)], "x")
    await store.write(lambda tx: mesh.revoke(tx, actor=mesh.self_id, subject=ADA.peer_id, reason=""))
    assert registry.resolve("desk") == BOB.peer_id
    await store.write(lambda tx: mesh.revoke(tx, actor=mesh.self_id, subject=BOB.peer_id, reason=""))
    with pytest.raises(PeerdError, match="may be any of"):
        registry.resolve("desk")


async def test_where_a_peer_was_said_to_be_holds_until_it_says_so_itself(
    registry: Registry, adverts: Adverts, store: Store, mesh: Mesh
) -> None:
    await store.write(
        lambda tx: mesh.admit(
            tx, actor=mesh.self_id, subject=WIM.peer_id, grants=frozenset(), roles=frozenset(), addresses=["hint:1"]
        )
    )
    assert registry.addresses(WIM.peer_id) == ("hint:1",)
    await adverts.apply([document(signed(WIM, name="wim", addresses=["own:2"]), WIM.peer_id)], "x")
    assert registry.addresses(WIM.peer_id)[0] == "own:2"


# -- Over the wire


async def online(watcher: Node, peer: Node) -> None:
    await watcher.knows(lambda: watcher.registry.is_online(peer.peer_id))


def peers_of(node: Node) -> registry_pb2_grpc.RegistryServiceAsyncStub:
    return registry_pb2_grpc.RegistryServiceStub(node.channels.channel(node.peer_id))


async def test_probes_see_a_peer_come_go_and_come_back(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    await fleet.stop(founder)
    watcher = await fleet.run(founder.machine, probe_seconds=0.1)
    await online(watcher, worker)
    gone: asyncio.Queue[Transition] = asyncio.Queue()
    watcher.prober.on_change(gone.put_nowait)
    await fleet.stop(worker)
    seen: list[State] = []  # before it is gone, a slow machine may wonder for a moment
    async with asyncio.timeout(30):
        while watcher.registry.get(worker.peer_id).status is not PeerStatus.OFFLINE or not gone.empty():
            seen.append((await gone.get()).after)
    assert seen[-2:] == [State.SUSPECT, State.OFFLINE]
    await fleet.run(worker.machine, port=worker.port)
    await online(watcher, worker)


async def test_a_peer_that_leaves_in_order_is_not_reported_as_failed(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    await online(founder, worker)
    changes: asyncio.Queue[Transition] = asyncio.Queue()
    founder.prober.on_change(changes.put_nowait)
    await worker.prober.leave(30)
    await fleet.stop(worker)
    async with asyncio.timeout(30):
        # A slow machine may wonder for a moment; it must not conclude.
        while (change := await changes.get()).after is not State.LEFT:
            assert change.after in (State.SUSPECT, State.ALIVE)
    assert founder.registry.get(worker.peer_id).status is PeerStatus.LEFT
    again = await fleet.run(worker.machine, port=worker.port)
    await online(founder, again)
    assert changes.get_nowait().after is State.ALIVE, "nothing in between"


async def test_listing_filters_by_role_label_and_status_and_pages(fleet: Fleet) -> None:
    founder = await fleet.found()
    for subject, role in ((ADA, "scanner"), (BOB, "worker"), (ZOE, "worker")):
        await founder.calls().AdmitPeer(mesh_pb2.AdmitPeerRequest(peer_id=subject.peer_id, roles=[role]), timeout=30)
    await founder.revoke(ZOE.peer_id)
    await founder.adverts.apply([document(signed(labels=["gpu"]))], "x")

    async def listed(**query: object) -> set[str]:
        answer = await peers_of(founder).ListPeers(registry_pb2.ListPeersRequest(**query), timeout=30)  # type: ignore[arg-type]
        return {peer.peer_id for peer in answer.peers}

    assert await listed() == {founder.peer_id, ADA.peer_id, BOB.peer_id, ZOE.peer_id}
    assert await listed(role="scanner") == {ADA.peer_id}
    assert await listed(label="gpu") == {ADA.peer_id}
    assert await listed(status=registry_pb2.PEER_STATUS_REVOKED) == {ZOE.peer_id}
    assert await listed(status=registry_pb2.PEER_STATUS_ONLINE) == {founder.peer_id}
    assert await listed(role="worker", status=registry_pb2.PEER_STATUS_OFFLINE) == {BOB.peer_id}
    seen: list[str] = []
    token = ""
    while True:
        request = registry_pb2.ListPeersRequest(page_size=3, page_token=token)
        page = await peers_of(founder).ListPeers(request, timeout=30)
        seen += [peer.peer_id for peer in page.peers]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 4


async def test_a_peer_is_shown_with_all_that_is_known_of_it(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder)
    await founder.knows(lambda: founder.registry.name_of(worker.peer_id) == "worker")
    worker.running_jobs = 2
    measured = asyncio.Event()
    founder.prober.on_measurement(lambda _: measured.set())
    async with asyncio.timeout(30):
        while founder.registry.get("worker").running_jobs != 2:
            await measured.wait()
            measured.clear()
    async with asyncio.timeout(30):
        while True:
            answer = await peers_of(founder).GetPeer(registry_pb2.GetPeerRequest(peer="worker"), timeout=30)
            peer = answer.peer
            if peer.status != registry_pb2.PEER_STATUS_SUSPECT:  # a slow machine may wonder for a moment
                break
            await asyncio.sleep(0.1)
    assert (peer.peer_id, peer.name, list(peer.addresses)) == (worker.peer_id, "worker", [worker.address])
    assert (peer.status, peer.running_jobs, peer.founder) == (registry_pb2.PEER_STATUS_ONLINE, 2, False)
    assert (peer.self, peer.last_seen_at.seconds > 0) == (False, True)
    own = (await peers_of(founder).GetPeer(registry_pb2.GetPeerRequest(peer="founder"), timeout=30)).peer
    assert (own.self, own.founder, own.status) == (True, True, registry_pb2.PEER_STATUS_ONLINE)


async def test_a_member_without_observe_may_answer_probes_but_not_list(fleet: Fleet) -> None:
    founder = await fleet.found()
    worker = await fleet.join("worker", founder, grants="execute")
    stub = registry_pb2_grpc.RegistryServiceStub(worker.channels.channel(founder.peer_id))
    pings = detector_pb2_grpc.DetectorServiceStub(worker.channels.channel(founder.peer_id))
    answer = await pings.Ping(detector_pb2.PingRequest(), timeout=30)
    assert answer.updates[0].alive.signatures[0].peer_id == founder.peer_id
    with pytest.raises(PeerdError) as caught, remote_errors(founder.peer_id):
        await stub.ListPeers(registry_pb2.ListPeersRequest(), timeout=30)
    assert caught.value.reason is Reason.PERMISSION_DENIED
