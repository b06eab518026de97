"""Signed documents of which the latest word counts, on several peers in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.envelope import seal
from peerd.registry.notes import MAINTENANCE, NOTE_TYPE, key_of
from peerd.v1 import mesh_pb2
from peerd.v1.registry_pb2 import PeerNote
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


async def test_documents_survive_a_restart(pair: tuple[Node, Node]) -> None:
    founder, worker = pair
    await drain(founder, worker, "kept")
    again = type(founder.notes)(founder.machine.store, founder.mesh, founder.machine.identity)
    await again.topic.load()
    found = again.maintenance(worker.peer_id)
    assert found is not None and found.reason == "kept"
