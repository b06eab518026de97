"""Who answers, who does not, and since when no lease can have been renewed."""

from __future__ import annotations

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.workflows import events as e
from peerd.workflows.contacts import LONGEST_PAUSE_SECONDS, Contacts

P = PeerId("p")


class World:
    """One peer, its presence, and what was announced."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.online = True
        self.revoked = False
        self.answers = False
        self.asked = 0
        self.announced: list[e.Event] = []
        self.contacts = Contacts(self, clock, self.announced.append, PeerId("self"))

    def is_online(self, peer_id: PeerId) -> bool:
        return self.online

    def is_revoked(self, peer_id: PeerId) -> bool:
        return self.revoked

    async def ask(self, peer: PeerId) -> None:
        self.asked += 1
        if not self.answers:
            raise PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "nobody there")

    async def probe(self) -> None:
        await self.contacts.probe(self.ask)


@pytest.fixture
def world(clock: FakeClock) -> World:
    return World(clock)


async def test_a_missed_peer_is_announced_and_probed_with_growing_pauses(world: World, clock: FakeClock) -> None:
    world.contacts.missed(P)
    assert world.announced == [e.PeerAway(peer=P, since=clock.now())]
    assert world.contacts.absences() == world.announced
    await world.probe()
    assert world.asked == 0
    for _ in range(100):
        clock.advance(1)
        await world.probe()
    assert 100 / LONGEST_PAUSE_SECONDS <= world.asked <= 30


async def test_a_call_that_was_under_way_moves_the_moment_from_which_its_lease_counts(
    world: World, clock: FakeClock
) -> None:
    world.contacts.missed(P)
    clock.advance(9)
    world.contacts.missed(P)
    assert world.announced[-1] == e.PeerAway(peer=P, since=clock.now())
    assert world.contacts.absences() == world.announced[-1:]


async def test_setting_the_clock_makes_no_absence_longer(world: World, clock: FakeClock) -> None:
    since = clock.steady()
    clock.set(86_400)
    world.contacts.missed(P)
    assert world.announced == [e.PeerAway(peer=P, since=since)]


async def test_an_answer_brings_it_back(world: World, clock: FakeClock) -> None:
    world.contacts.missed(P)
    world.answers = True
    clock.advance(1)
    await world.probe()
    assert world.announced[-1] == e.PeerBack(peer=P)
    assert not world.contacts.is_away(P)
    world.contacts.reached(P)
    assert len(world.announced) == 2


async def test_it_is_asked_at_once_when_the_registry_sees_it_come_back(world: World, clock: FakeClock) -> None:
    world.online = False
    world.contacts.missed(P)
    for _ in range(20):
        clock.advance(20)
        await world.probe()
    asked, world.online, world.answers = world.asked, True, True
    await world.probe()
    assert world.asked == asked + 1
    assert not world.contacts.is_away(P)


async def test_a_call_from_it_moves_the_moment_of_its_last_lease(world: World, clock: FakeClock) -> None:
    world.contacts.heard(P)
    assert world.announced == []
    world.contacts.missed(P)
    clock.advance(5)
    world.contacts.heard(P)
    assert world.announced[-1] == e.PeerAway(peer=P, since=clock.now())


async def test_a_revoked_peer_is_gone_and_not_asked(world: World, clock: FakeClock) -> None:
    world.contacts.missed(P)
    world.revoked = True
    clock.advance(60)
    await world.probe()
    assert world.asked == 0
    assert world.announced[-1] == e.PeerAway(peer=P, since=world.announced[0].since, gone=True)  # type: ignore[attr-defined]


async def test_a_refusal_is_an_answer(world: World, clock: FakeClock) -> None:
    world.contacts.missed(P)
    clock.advance(1)

    async def refuse(peer: PeerId) -> None:
        raise PeerdError(Reason.PERMISSION_DENIED, "no grant")

    await world.contacts.probe(refuse)
    assert not world.contacts.is_away(P)
