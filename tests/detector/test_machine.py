"""Single rules of the machine, by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from peerd.detector.machine import AskOther, Compare, Detector, Ping
from peerd.detector.model import Alive, State, Suspicion, Timing, Update
from peerd.detector.spreading import Spreading
from peerd.detector.view import ViewDigest
from peerd.identity.peer_id import PeerId
from tests.detector.simulator import PlainVoice

ME, ANN, BEN, CAT, DAN = (PeerId(name) for name in ("me", "ann", "ben", "cat", "dan"))
TIMING = Timing()


def alive(peer_id: PeerId, incarnation: int = 1, instance: int = 1, *, left: bool = False) -> Update:
    return Update(Alive(peer_id, incarnation, instance, left))


def accused(peer_id: PeerId, accuser: PeerId, incarnation: int = 1) -> Update:
    return Update(Alive(peer_id, incarnation, 1), (Suspicion(peer_id, incarnation, accuser),))


@pytest.fixture
def machine() -> Detector:
    made = Detector(ME, PlainVoice(ME, 77), TIMING, random.Random(1), incarnation=5, now=0.0)
    made.set_members([ANN, BEN, CAT, DAN])
    made.take_in([alive(entry) for entry in (ANN, BEN, CAT, DAN)], 0.0)
    made.take_transitions()
    return made


def ping_of(machine: Detector, now: float) -> Ping:
    return next(action for action in machine.poll(now) if isinstance(action, Ping))


def test_a_round_without_any_answer_makes_a_suspect_and_silence_makes_it_offline(machine: Detector) -> None:
    ping = ping_of(machine, 0.0)
    again, *asked = machine.unanswered(ping.number)
    assert isinstance(again, Ping) and again.target == ping.target
    assert all(isinstance(action, AskOther) and action.target == ping.target for action in asked)
    assert len(asked) == 3
    for action in asked:
        assert isinstance(action, AskOther)
        machine.relayed(ping.number, reached=False, updates=(), now=0.9)
    machine.poll(1.1)
    assert machine.state(ping.target) is State.SUSPECT
    assert machine.health == 0, "healthy relays have answered: the fault is not ours"
    now = 1.1
    while machine.state(ping.target) is State.SUSPECT:
        assert now < 1.2 + TIMING.suspicion_seconds(5, 0)
        now = machine.next_due()
        machine.poll(now)
    assert now == pytest.approx(1.1 + TIMING.suspicion_seconds(5, 0))
    changes = [change.after for change in machine.take_transitions() if change.peer_id == ping.target]
    assert changes == [State.SUSPECT, State.OFFLINE]


def test_relays_that_are_silent_are_our_own_doubt(machine: Detector) -> None:
    machine.unanswered(ping_of(machine, 0.0).number)
    machine.poll(1.1)
    assert machine.health == 3


def test_a_relay_that_reaches_it_is_enough(machine: Detector) -> None:
    ping = ping_of(machine, 0.0)
    machine.unanswered(ping.number)
    machine.relayed(ping.number, reached=True, updates=(), now=0.8)
    machine.poll(1.1)
    assert machine.state(ping.target) is State.ALIVE


def test_one_that_is_no_member_any_more_while_it_is_pinged_is_no_fault_of_ours(machine: Detector) -> None:
    ping = ping_of(machine, 0.0)
    machine.set_members({ANN, BEN, CAT, DAN} - {ping.target})
    assert machine.unanswered(ping.number) == []
    machine.poll(1.1)
    assert machine.health == 0


def test_other_accusers_shorten_a_suspicion() -> None:
    assert TIMING.suspicion_seconds(5, 0) == pytest.approx(18.0)
    assert TIMING.suspicion_seconds(5, 2) == pytest.approx(3.0)
    assert TIMING.suspicion_seconds(5, 0) > TIMING.suspicion_seconds(5, 1) > TIMING.suspicion_seconds(5, 2)
    assert TIMING.suspicion_seconds(3, 0) == pytest.approx(3.0), "of three nobody could confirm but the accused"
    assert TIMING.suspicion_seconds(1000, 2) == pytest.approx(9.0)


def test_the_accused_answers_with_a_higher_incarnation(machine: Detector) -> None:
    machine.take_in([accused(ME, ANN, 5)], 1.0)
    assert machine.own.incarnation == 6
    machine.take_in([accused(ME, ANN, 5)], 1.0)
    assert machine.own.incarnation == 6, "an old accusation needs no answer"
    machine.take_in([accused(BEN, ANN)], 2.0)
    assert machine.state(BEN) is State.SUSPECT
    machine.take_in([alive(BEN, 2)], 3.0)
    assert machine.state(BEN) is State.ALIVE


@pytest.mark.parametrize(
    "update",
    [
        Update(Alive(BEN, 1, 1), (Suspicion(BEN, 2, ANN),)),  # an incarnation that it never spoke with
        Update(Alive(BEN, 1, 1), (Suspicion(BEN, 1, PeerId("stranger")),)),
        Update(Alive(PeerId("stranger"), 9, 9)),
        Update(Alive(BEN, 0, 4)),  # older than what is known
        Update(Alive(BEN, 0, 4, left=True)),
    ],
)
def test_what_must_not_count_changes_nothing(machine: Detector, update: Update) -> None:
    before = machine.view_digest
    machine.take_in([update], 1.0)
    assert machine.view_digest == before
    assert machine.take_transitions() == []


def test_an_accusation_of_an_old_life_does_not_hit_the_new_one(machine: Detector) -> None:
    ping = ping_of(machine, 0.0)
    machine.unanswered(ping.number)
    machine.take_in([alive(ping.target, 2, 2)], 0.5)
    machine.poll(1.1)
    assert machine.state(ping.target) is State.ALIVE


def test_a_twin_is_noticed_by_others_and_by_itself(machine: Detector) -> None:
    machine.take_in([alive(BEN, 2, instance=2)], 1.0)
    assert machine.members[BEN].duplicate_at is None, "that was a restart"
    machine.take_in([alive(BEN, 3, instance=1)], 2.0)
    assert machine.members[BEN].duplicate_at == 2.0
    now = 10.0
    while machine.duplicate_at is None:
        machine.take_in([alive(ME, machine.own.incarnation + 1, instance=99)], now)
        now += 5.0
        assert now < 100
    assert machine.own.incarnation > 5


def test_our_own_past_is_outbid_and_no_twin(machine: Detector) -> None:
    machine.take_in([alive(ME, 40, instance=3)], 1.0)
    assert machine.own.incarnation == 41
    machine.take_in([alive(ME, 40, instance=3)], 20.0)
    assert machine.own.incarnation == 41
    assert machine.duplicate_at is None


def test_one_that_leaves_is_left_and_an_accusation_of_it_does_not_count(machine: Detector) -> None:
    machine.take_in([alive(BEN, 2, left=True)], 1.0)
    machine.take_in([accused(BEN, ANN, 2)], 2.0)
    assert machine.state(BEN) is State.LEFT
    machine.take_in([alive(BEN, 3)], 3.0)
    assert machine.state(BEN) is State.ALIVE


def test_one_who_calls_though_it_was_away_is_pinged_at_once(machine: Detector) -> None:
    machine.take_in([alive(BEN, 2, left=True)], 1.0)
    machine.poll(1.0)
    machine.pinged(BEN, 5, (), 1.1)
    assert machine.next_due() <= 1.4
    assert any(isinstance(action, Ping) and action.target == BEN for action in machine.poll(machine.next_due()))


def test_a_member_that_is_no_more_is_forgotten(machine: Detector) -> None:
    machine.set_members([ANN])
    assert machine.state(BEN) is State.UNKNOWN
    for now in range(40):
        for action in machine.poll(float(now)):
            assert isinstance(action, Compare) or action.target == ANN


def test_views_that_hold_the_same_have_one_digest_whatever_the_order() -> None:
    one, other = ViewDigest(), ViewDigest()
    entries = [(PeerId(f"p{number}"), number) for number in range(50)]
    for peer_id, incarnation in entries:
        one.put(peer_id, 1, present=False)
        one.put(peer_id, incarnation, present=True)
    for peer_id, incarnation in reversed(entries):
        other.put(peer_id, incarnation, present=True)
    assert (one.total, one.groups) == (other.total, other.groups)
    other.put(PeerId("p3"), 3, present=False)
    assert one.total != other.total
    assert sum(mine != theirs for mine, theirs in zip(one.groups, other.groups, strict=True)) == 1
    one.drop(PeerId("p3"))
    other.drop(PeerId("p3"))
    assert one.total == other.total


def test_news_is_passed_on_so_often_and_the_least_told_first() -> None:
    news = Spreading()
    for peer_id in (ANN, BEN, CAT):
        news.add(peer_id)
    taken = [news.take(2, limit=2) for _ in range(4)]
    assert [len(entry) for entry in taken] == [2, 2, 2, 0]
    assert Counter(entry for some in taken for entry in some) == {ANN: 2, BEN: 2, CAT: 2}


def test_one_who_leaves_before_it_has_heard_of_anybody_tells_those_it_may_be_known_to() -> None:
    newcomer = Detector(ME, PlainVoice(ME, 77), TIMING, random.Random(1), incarnation=5, now=0.0)
    newcomer.set_members([ANN, BEN])
    assert {ping.target for ping in newcomer.leave()} == {ANN, BEN}
    newcomer.set_members([ANN, BEN, CAT])
    newcomer.take_in([alive(ANN), alive(BEN, 2, left=True)], 1.0)
    assert {ping.target for ping in newcomer.leave()} == {ANN, CAT}, "whoever is gone needs no word"
