"""Signed documents of which the latest word counts, on several peers in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from peerd.clock import Millis, to_datetime
from peerd.devices.cards import CARDS_TYPE, Cards
from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.registry.notes import MAINTENANCE, NOTE_TYPE, key_of
from peerd.registry.views import peer_message
from peerd.v1 import mesh_pb2
from peerd.v1.devices_pb2 import MinerCard, MinerCards
from peerd.v1.registry_pb2 import PeerNote, Sample
from tests.mesh.nodes import Fleet, Node
from tests.mesh.signing import ADA, WIM


@pytest.fixture
async def pair(tmp_path: Path) -> object:
    fleet = Fleet(tmp_path)
    founder = await fleet.found()
    worker = await fleet.join("worker", founder, grants="observe,execute,operate")
    yield founder, worker
    await fleet.close()


async def drain(node: Node, subject: Node, reason: str) -> None:
    await node.machine.store.write(lambda tx: node.notes.drain(tx, subject.peer_id, reason))


def chain(node: Node, key: str) -> mesh_pb2.DocumentChain:
    (found,) = node.notes.topic.documents([key])
    return found


def signed(signer: object, subject: str, *, version: int, reason: str = "x") -> mesh_pb2.DocumentChain:
    note = PeerNote(peer_id=subject, kind=MAINTENANCE, version=version, on=True, reason=reason)
    envelope = seal(signer, note.SerializeToString(), NOTE_TYPE)  # type: ignore[arg-type]
    return mesh_pb2.DocumentChain(topic="note", key=key_of(subject, MAINTENANCE), envelopes=[envelope])  # type: ignore[arg-type]


async def test_the_later_version_counts_and_an_older_one_changes_nothing(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    key = key_of(worker.peer_id, MAINTENANCE)
    await drain(founder, worker, "one")
    old = chain(founder, key)
    await drain(founder, worker, "two")
    assert await worker.notes.topic.apply([chain(founder, key)], "x") == {key}
    assert await worker.notes.topic.apply([old], "x") == set(), "a replay"
    found = worker.notes.maintenance(worker.peer_id)
    assert found is not None and (found.reason, found.by) == ("two", founder.peer_id)


async def test_who_has_not_heard_the_word_before_or_lost_it_has_the_last_one_all_the_same(
    pair: tuple[Node, Node],
) -> None:
    founder, worker = pair
    key = key_of(worker.peer_id, MAINTENANCE)
    await drain(founder, worker, "one")
    await drain(founder, worker, "two")
    worker.machine.clock.wrong_by = 1
    await worker.machine.store.write(lambda tx: worker.notes.resume(tx, worker.peer_id))
    assert await worker.notes.topic.apply([chain(founder, key)], "x") == set(), "that was said before"
    assert await founder.notes.topic.apply([chain(worker, key)], "x") == {key}
    assert founder.notes.maintenance(worker.peer_id) is None is worker.notes.maintenance(worker.peer_id)
    founder.machine.clock.wrong_by = -86_400
    await drain(founder, worker, "three")
    found = founder.notes.maintenance(worker.peer_id)
    assert found is not None and await worker.notes.topic.apply([chain(founder, key)], "x") == {key}, (
        "whatever its clock"
    )


async def test_of_two_words_said_at_once_the_same_one_counts_everywhere(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    key = key_of(founder.peer_id, MAINTENANCE)
    await drain(founder, founder, "said here")
    await drain(worker, founder, "said there")
    mine, theirs = chain(founder, key), chain(worker, key)
    await founder.notes.topic.apply([theirs], "x")
    await worker.notes.topic.apply([mine], "x")
    here, there = founder.notes.maintenance(founder.peer_id), worker.notes.maintenance(founder.peer_id)
    assert here is not None and there is not None and here.reason == there.reason
    assert founder.notes.topic.summary() == worker.notes.topic.summary()


async def test_who_may_not_sign_is_not_believed_and_may_not_say(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    subject = founder.peer_id
    for signer in (ADA, WIM):  # strangers
        assert await founder.notes.topic.apply([signed(signer, subject, version=9)], "x") == set()
    await founder.admit(worker.peer_id, "observe")
    await worker.knows(lambda: worker.mesh.grants(worker.peer_id) == founder.mesh.grants(worker.peer_id))
    forged = signed(worker.machine.identity, subject, version=9)
    assert await founder.notes.topic.apply([forged], "x") == set(), "it has lost the grant to operate"
    with pytest.raises(PeerdError) as caught:
        await drain(worker, founder, "no")
    assert caught.value.reason is Reason.PERMISSION_DENIED
    await drain(worker, worker, "its own machine, it may")
    assert founder.notes.maintenance(subject) is None


@pytest.mark.parametrize("spoil", ["payload", "signature", "type", "garbage", "version"])
async def test_what_is_not_whole_is_refused_and_changes_nothing(pair: tuple[Node, Node], spoil: str) -> None:
    founder, worker = pair
    await drain(founder, worker, "one")
    message = chain(founder, key_of(worker.peer_id, MAINTENANCE))
    envelope = message.envelopes[0]
    if spoil == "payload":
        envelope.payload = envelope.payload.replace(b"one", b"two")
    elif spoil == "signature":
        envelope.signatures[0].signature = bytes(64)
    elif spoil == "type":
        envelope.payload_type = "application/vnd.peerd.member.v1+protobuf"
    elif spoil == "garbage":
        message.envelopes[0].CopyFrom(seal(founder.machine.identity, b"\xff\xff", NOTE_TYPE))
    else:
        message = signed(founder.machine.identity, worker.peer_id, version=2**60)
    assert await worker.notes.topic.apply([message], "x") == set()
    assert worker.notes.maintenance(worker.peer_id) is None


async def test_what_an_operator_ordered_outlives_the_operators_grant(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    await drain(worker, founder, "ordered by the worker")
    await founder.notes.topic.apply([chain(worker, key_of(founder.peer_id, MAINTENANCE))], "x")
    await founder.admit(worker.peer_id, "observe")
    assert founder.notes.maintenance(founder.peer_id) is None, "its word does not count any more"
    await founder.notes.topic.adopt(worker.peer_id)
    found = founder.notes.maintenance(founder.peer_id)
    assert found is not None and (found.reason, found.by) == ("ordered by the worker", founder.peer_id)


async def test_one_word_that_cannot_be_said_again_keeps_no_other_from_it(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    identity = worker.machine.identity
    last, ordered = signed(identity, ADA.peer_id, version=2**53), signed(identity, founder.peer_id, version=9)
    assert len(await founder.notes.topic.apply([last, ordered], "x")) == 2
    await founder.admit(worker.peer_id, "observe")
    await founder.notes.topic.adopt(worker.peer_id)
    found = founder.notes.maintenance(founder.peer_id)
    assert found is not None and found.by == founder.peer_id


@pytest.mark.parametrize("number", [2**53, 2**53 - 1, 10**13])
async def test_nobody_has_the_last_word_for_ever(pair: tuple[Node, Node], number: int) -> None:
    founder, worker = pair
    key = key_of(founder.peer_id, MAINTENANCE)
    locked = signed(worker.machine.identity, founder.peer_id, version=number)
    assert await founder.notes.topic.apply([locked], "x") == {key}
    with pytest.raises(PeerdError) as caught:
        await founder.machine.store.write(lambda tx: founder.notes.resume(tx, founder.peer_id))
    assert worker.peer_id in caught.value.message and "revoke" in caught.value.next_action
    await founder.admit(worker.peer_id, "observe")
    await founder.notes.topic.adopt(worker.peer_id)
    assert founder.notes.maintenance(founder.peer_id) is None, "that is not said again"
    for reason in ("one", "two"):
        await drain(founder, founder, reason)
        await worker.notes.topic.apply([locked, chain(founder, key)], "x")
    again = type(founder.notes)(founder.machine.store, founder.mesh, founder.machine.identity)
    await again.topic.load()
    for notes in (founder.notes, again):
        found = notes.maintenance(founder.peer_id)
        assert found is not None and (found.reason, found.by) == ("two", founder.peer_id)


async def test_documents_survive_a_restart(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    await drain(founder, worker, "kept")
    again = type(founder.notes)(founder.machine.store, founder.mesh, founder.machine.identity)
    await again.topic.load()
    found = again.maintenance(worker.peer_id)
    assert found is not None and found.reason == "kept"


NEVER = [Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), Timestamp(seconds=253402300799, nanos=999_999_999)]


@pytest.mark.parametrize("at", NEVER)
async def test_what_a_member_says_at_a_time_that_no_clock_shows_keeps_nothing_else_from_being_listed(
    pair: tuple[Node, Node], at: Timestamp
) -> None:
    founder, worker = pair
    identity = worker.machine.identity
    note = PeerNote(peer_id=worker.peer_id, kind=MAINTENANCE, version=7, on=True, reason="x", issued_at=at)
    cards = MinerCards(peer_id=worker.peer_id, version=7, miners=[MinerCard(name="M7")], issued_at=at)
    of_founder = Cards(founder.machine.store, founder.mesh, founder.machine.identity, founder.clock)
    for topic, key, envelope in (
        (founder.notes.topic, key_of(worker.peer_id, MAINTENANCE), seal(identity, note.SerializeToString(), NOTE_TYPE)),
        (of_founder.topic, worker.peer_id, seal(identity, cards.SerializeToString(), CARDS_TYPE)),
    ):
        sent = mesh_pb2.DocumentChain(topic=topic.name, key=key, envelopes=[envelope])
        assert await topic.apply([sent], "x") == {key}
    assert [each.card.name for each in of_founder.others()] == ["M7"]
    listed = founder.registry.peers()
    assert {view.peer_id for view in listed} == {founder.peer_id, worker.peer_id}
    for view in listed:
        to_datetime(view.since)
        peer_message(view).status_since.ToDatetime()


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[tuple[Node, Node, Node]]:
    fleet = Fleet(tmp_path)
    founder = await fleet.found()
    yield founder, await fleet.join("worker", founder), await fleet.join("other", founder)
    await fleet.close()


@pytest.mark.parametrize(
    "sample",
    [Sample(cpu_percent=float("nan")), Sample(disk_total_bytes=1, disk_free_bytes=2**63), Sample(cpu_percent=1e300)],
)
async def test_a_load_that_cannot_be_spoils_nobodys_history(
    three: tuple[Node, Node, Node], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    founder, worker, other = three
    seen: set[str] = set()
    founder.prober.on_measurement(lambda measured: seen.add(measured.peer_id))
    monkeypatch.setattr(worker.prober, "_own_sample", lambda: sample)
    async with asyncio.timeout(10):
        while seen < {worker.peer_id, other.peer_id}:
            await asyncio.sleep(0.01)
    await founder.heartbeats.flush()
    for node in (worker, other):
        assert await founder.heartbeats.page(node.peer_id, since=Millis(0), before=Millis(10**15), count=1)
        found = founder.registry.get(node.peer_id).sample
        assert (found.cpu_percent, found.disk_free_bytes) == (0, 0)
