"""Statements on the wire: what is signed counts, what is not changes nothing; and what messages weigh."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from peerd.detector.machine import Detector
from peerd.detector.model import State, Timing, Update
from peerd.detector.wire import ALIVE_TYPE, SUSPECT_TYPE, SignedVoice, to_messages, to_updates
from peerd.identity.envelope import seal
from peerd.identity.key import Identity
from peerd.v1 import detector_pb2
from peerd.v1.signed_pb2 import Envelope
from tests.detector import simulator

ME, ANN, BEN, EVE = (Identity.generate() for _ in range(4))


@pytest.fixture
def machine() -> Detector:
    made = Detector(ME.peer_id, SignedVoice(ME, 1), Timing(), random.Random(1), incarnation=10**12, now=0.0)
    made.set_members([ANN.peer_id, BEN.peer_id])
    return made


def alive(signer: Identity, incarnation: int = 10**12, *, subject: Identity | None = None) -> detector_pb2.PeerUpdate:
    statement = detector_pb2.AliveStatement(
        peer_id=(subject or signer).peer_id, incarnation=incarnation, instance=2**63 + 5
    )
    return detector_pb2.PeerUpdate(alive=seal(signer, statement.SerializeToString(), ALIVE_TYPE))


def suspect(
    signer: Identity, subject: Identity, incarnation: int = 10**12, *, accuser: Identity | None = None
) -> Envelope:
    statement = detector_pb2.SuspectStatement(
        peer_id=subject.peer_id, incarnation=incarnation, accuser=(accuser or signer).peer_id
    )
    return seal(signer, statement.SerializeToString(), SUSPECT_TYPE)


def read(machine: Detector, *messages: detector_pb2.PeerUpdate) -> list[Update]:
    updates = to_updates(messages, machine, source="test")
    machine.take_in(updates, 1.0)
    return updates


def test_what_one_says_another_reads(machine: Detector) -> None:
    voice = SignedVoice(ANN, 7)
    said = voice.alive(10**12, left=False)
    accused = SignedVoice(BEN, 8).suspicion(ANN.peer_id, 10**12)
    (update,) = read(machine, *to_messages([Update(said, (accused,), absent=True)]))
    assert update == Update(said, (accused,), absent=True)
    assert machine.state(ANN.peer_id) in (State.SUSPECT, State.OFFLINE)


def forged() -> detector_pb2.PeerUpdate:
    return alive(EVE, subject=ANN)


def tampered() -> detector_pb2.PeerUpdate:
    message = alive(ANN)
    message.alive.payload = message.alive.payload.replace(b"\x10", b"\x18", 1) + b"\x20\x01"
    return message


def of_another_type() -> detector_pb2.PeerUpdate:
    message = alive(ANN)
    message.alive.payload_type = SUSPECT_TYPE
    return message


def huge_incarnation() -> detector_pb2.PeerUpdate:
    return alive(ANN, 2**60)


def garbage() -> detector_pb2.PeerUpdate:
    return detector_pb2.PeerUpdate(alive=seal(ANN, b"\xff\xff\xff", ALIVE_TYPE))


def oversized() -> detector_pb2.PeerUpdate:
    return detector_pb2.PeerUpdate(alive=seal(ANN, b"x" * 300, ALIVE_TYPE))


def unsigned() -> detector_pb2.PeerUpdate:
    message = alive(ANN)
    message.alive.ClearField("signatures")
    return message


@pytest.mark.parametrize(
    "make",
    [forged, tampered, of_another_type, huge_incarnation, garbage, oversized, unsigned],
    ids=lambda m: m.__name__,
)
def test_what_is_not_its_own_word_changes_nothing(
    machine: Detector, make: Callable[[], detector_pb2.PeerUpdate]
) -> None:
    before = machine.view_digest
    assert read(machine, make()) == []
    assert (machine.view_digest, machine.state(ANN.peer_id)) == (before, State.UNKNOWN)


def test_a_forged_suspicion_changes_nothing(machine: Detector) -> None:
    read(machine, alive(ANN))
    message = alive(ANN)
    message.suspicions.append(suspect(EVE, ANN, accuser=BEN))
    assert read(machine, message) == []
    message = alive(ANN)
    message.suspicions.append(suspect(EVE, ANN))  # a stranger's own
    read(machine, message)
    assert machine.state(ANN.peer_id) is State.ALIVE
    message = alive(ANN)
    message.suspicions.append(suspect(BEN, ANN))
    read(machine, message)
    assert machine.state(ANN.peer_id) is State.SUSPECT


def test_a_replayed_old_word_changes_nothing(machine: Detector) -> None:
    old = alive(ANN)
    read(machine, old)
    read(machine, alive(ANN, 10**12 + 1))
    before = machine.view_digest
    assert read(machine, old) == []
    assert machine.view_digest == before


def test_the_simulator_weighs_messages_as_they_are() -> None:
    update = alive(ANN)
    entry = detector_pb2.PingRequest(updates=[update]).ByteSize() - detector_pb2.PingRequest().ByteSize()
    assert entry == pytest.approx(simulator.ALIVE, rel=0.1)
    update.suspicions.append(suspect(BEN, ANN))
    assert detector_pb2.PingRequest(updates=[update]).ByteSize() - entry == pytest.approx(simulator.SUSPICION, rel=0.1)
    groups = detector_pb2.CompareViewsRequest(groups=[2**63 - 1] * 64)
    assert groups.ByteSize() == pytest.approx(simulator.GROUPS, rel=0.1)
    view = detector_pb2.ViewEntry(peer_id=ANN.peer_id, incarnation=10**12, present=True)
    assert detector_pb2.CompareViewsResponse(entries=[view]).ByteSize() == pytest.approx(simulator.ENTRY, rel=0.1)
