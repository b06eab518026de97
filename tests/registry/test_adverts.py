"""What a peer says of itself is kept if it signed it, may say it, and has not said something later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.registry.adverts import ADVERT_TYPE, Adverts, read_advert
from peerd.store import Store
from peerd.v1 import mesh_pb2
from peerd.v1.registry_pb2 import Advert
from peerd.v1.signed_pb2 import Envelope
from tests.mesh.signing import ADA, BOB, WIM


def signed(
    signer: Identity = ADA, *, version: int = 1, name: str = "ada", subject: str = "", **fields: Any
) -> Envelope:
    advert = Advert(peer_id=subject or signer.peer_id, version=version, name=name, **fields)
    return seal(signer, advert.SerializeToString(), ADVERT_TYPE)


def document(envelope: Envelope, key: str = ADA.peer_id) -> mesh_pb2.DocumentChain:
    return mesh_pb2.DocumentChain(topic="advert", key=key, envelopes=[envelope])


async def test_our_own_advert_grows_a_version_only_when_it_says_something_new(
    adverts: Adverts, identity: Identity
) -> None:
    assert await adverts.publish(Advert(name="desk", labels=["gpu"])) is True
    assert await adverts.publish(Advert(name="desk", labels=["gpu"])) is False
    assert await adverts.publish(Advert(name="desk")) is True
    own = adverts.find(identity.peer_id)
    assert own is not None
    assert (own.version, own.name, list(own.labels)) == (2, "desk", [])


async def test_our_own_advert_is_not_repeated_after_a_restart(
    adverts: Adverts, store: Store, mesh: Mesh, identity: Identity
) -> None:
    await adverts.publish(Advert(name="desk"))
    again = Adverts(store, mesh, identity)
    await again.load()
    assert await again.publish(Advert(name="desk")) is False
    assert await again.publish(Advert(name="table")) is True
    own = again.find(identity.peer_id)
    assert own is not None and own.version == 2


async def test_an_advert_of_a_member_is_taken_and_kept(
    adverts: Adverts, store: Store, mesh: Mesh, identity: Identity
) -> None:
    assert await adverts.apply([document(signed())], "x") == {ADA.peer_id}
    again = Adverts(store, mesh, identity)
    await again.load()
    for known in (adverts, again):
        found = known.find(ADA.peer_id)
        assert found is not None and found.name == "ada"


@pytest.mark.parametrize("versions", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 3, 1)])
async def test_the_highest_version_wins_in_whatever_order_they_come(
    adverts: Adverts, store: Store, mesh: Mesh, identity: Identity, versions: tuple[int, ...]
) -> None:
    for version in versions:
        await adverts.apply([document(signed(version=version, name=f"ada{version}"))], "x")
    again = Adverts(store, mesh, identity)
    await again.load()
    for known in (adverts, again):
        found = known.find(ADA.peer_id)
        assert found is not None and found.name == "ada3"


@pytest.mark.parametrize(
    "envelope",
    [
        signed(BOB, subject=ADA.peer_id),
        signed(WIM),
        signed(version=0),
        signed(version=2**63),
        signed(name=""),
        signed(name="a\0b"),
        signed(name="x" * 64),
        signed(name=BOB.peer_id),
        signed(labels=["x" * 1_000_000]),
        signed(labels=["x" * 64]),
        signed(labels=[f"l{number}" for number in range(65)]),
        signed(labels=["two words"]),
        signed(groups=["a/b"]),
        signed(addresses=["no-port"]),
        signed(addresses=["host:0"]),
        signed(addresses=["host:99999"]),
        signed(addresses=["a\nb:1"]),
        signed(addresses=["h" * 300 + ":1"]),
        signed(addresses=[f"10.0.0.{number}:1" for number in range(17)]),
        seal(ADA, b"\xff\xff", ADVERT_TYPE),
        seal(ADA, Advert(peer_id=ADA.peer_id, version=1, name="a").SerializeToString(), "another/type"),
        Envelope(),
    ],
    ids=lambda envelope: envelope.payload[52:80].hex() or "empty",
)
async def test_what_may_not_be_said_changes_nothing(adverts: Adverts, envelope: Envelope) -> None:
    assert await adverts.apply([document(envelope), document(envelope, WIM.peer_id)], "x") == set()
    assert adverts.find(ADA.peer_id) is None
    assert adverts.find(WIM.peer_id) is None
    assert adverts.summary() == []


async def test_a_bad_advert_does_not_keep_a_good_one_from_being_taken(adverts: Adverts) -> None:
    changed = await adverts.apply([document(signed(name="\0")), document(signed(BOB, name="bob"), BOB.peer_id)], "x")
    assert changed == {BOB.peer_id}


async def test_we_cannot_publish_what_others_would_refuse(adverts: Adverts, identity: Identity) -> None:
    with pytest.raises(PeerdError) as caught:
        await adverts.publish(Advert(name="my machine"))
    assert caught.value.reason is Reason.INVALID_NAME
    assert adverts.find(identity.peer_id) is None


async def test_what_we_said_before_our_store_was_lost_is_outranked(adverts: Adverts, identity: Identity) -> None:
    told: list[frozenset[str]] = []
    await adverts.publish(Advert(name="now"))
    adverts.on_change(lambda peers: told.append(frozenset(peers)))
    old = signed(identity, version=7, name="long-ago")
    await adverts.apply([document(old, identity.peer_id)], "x")
    own = adverts.find(identity.peer_id)
    assert own is not None and (own.version, own.name) == (8, "now")
    assert told == [{identity.peer_id}], "so that it is pushed"


async def test_of_two_that_are_published_at_once_the_later_one_counts(adverts: Adverts, identity: Identity) -> None:
    await adverts.publish(Advert(name="desk", labels=["first"]))
    for labels in (["one", "two"], ["other", "two"]):  # and back to what stood before the first of them is durable
        await asyncio.gather(*(adverts.publish(Advert(name="desk", labels=[label])) for label in labels))
        own = adverts.find(identity.peer_id)
        assert own is not None and list(own.labels) == ["two"]
    assert adverts.summary()[0].version == 5


async def test_what_we_say_while_we_outrank_what_we_said_long_ago_is_not_lost(
    adverts: Adverts, identity: Identity
) -> None:
    await adverts.publish(Advert(name="now"))
    old = document(signed(identity, version=7, name="long-ago"), identity.peer_id)
    await asyncio.gather(adverts.publish(Advert(name="now", labels=["new"])), adverts.apply([old], "x"))
    own = adverts.find(identity.peer_id)
    assert own is not None and (own.version, own.name, list(own.labels)) == (8, "now", ["new"])


async def test_an_advert_counts_although_whoever_brought_it_has_gone(adverts: Adverts, store: Store) -> None:
    taking = asyncio.ensure_future(adverts.apply([document(signed())], "x"))
    await asyncio.sleep(0)  # its write is under way
    taking.cancel()
    await store.write(lambda tx: None)  # and durable
    assert taking.cancelled()
    assert adverts.find(ADA.peer_id) is not None


async def test_the_advert_of_a_revoked_peer_is_not_passed_on(adverts: Adverts, store: Store, mesh: Mesh) -> None:
    await adverts.apply([document(signed())], "x")
    assert [entry.key for entry in adverts.summary()] == [ADA.peer_id]
    await store.write(lambda tx: mesh.revoke(tx, actor=mesh.self_id, subject=ADA.peer_id, reason=""))
    assert adverts.summary() == []
    assert adverts.lacking([mesh_pb2.DocumentVersion(key=ADA.peer_id, version=9)]) == []


async def test_only_what_is_later_is_asked_for_and_sent(adverts: Adverts) -> None:
    await adverts.apply([document(signed(version=5))], "x")
    for version, lacks, has in [(4, False, True), (5, False, False), (6, True, False)]:
        theirs = [mesh_pb2.DocumentVersion(key=ADA.peer_id, version=version)]
        assert bool(adverts.lacking(theirs)) is lacks
        assert bool(adverts.newer(theirs)) is has


@settings(max_examples=300, deadline=None)
@given(payload=st.binary(max_size=300))
def test_any_signed_bytes_are_read_or_refused(payload: bytes) -> None:
    try:
        read_advert(seal(ADA, payload, ADVERT_TYPE))
    except PeerdError as error:
        assert error.reason in {
            Reason.INVALID_RECORD,
            Reason.INVALID_SIGNATURE,
            Reason.INVALID_NAME,
            Reason.INVALID_PEER_ID,
        }
