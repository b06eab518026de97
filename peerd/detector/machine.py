"""The failure detector without wire and clock: events and the time go in, what to send comes out.

A round, every period
    One peer that is taken to be there is pinged, in an order that reaches each within 2N - 1 rounds. No answer in time:
    it is pinged again, and three others are asked to try. Still none when the round ends: it is suspected, and the
    accused, when it hears that, answers with a higher incarnation. A suspicion that nobody answers in time makes it
    offline. One peer that is *not* there is pinged besides, so that it is found when it returns, and two halves of a
    mesh find each other.
Spreading
    News rides on pings and their answers. Two peers whose digests of everything differ compare, and exchange what
    differs.
Local health (Lifeguard)
    Whoever misses answers that healthy relays would have given, is late with its own rounds, or has to answer a
    suspicion, doubts itself: it probes more slowly and waits longer before it accuses anybody.
Trust
    What is believed, and of whom, is decided in :mod:`peerd.detector.knowledge`.

Nothing here blocks, reads a clock or opens a socket; the shell (:mod:`peerd.detector.prober`) and the simulator of the
tests run the very same object.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from peerd.detector.knowledge import Knowledge, Member
from peerd.detector.model import Alive, Entry, State, Timing, Transition, Update, Voice
from peerd.identity.peer_id import PeerId

_URGENT = 4
"""Peers pinged out of turn in one round."""
_ANNOUNCED = 8
"""Peers that hear at once that this one comes or goes."""
_SUSPECT_PINGS = 4
"""A suspect is pinged so often a round by the whole mesh, besides its turns: it must hear what is said of it."""
_MANY = 8
"""So many differences in a comparison mean that halves of the mesh have met: then comparisons follow each other."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a ping; tell :meth:`Detector.answered` or :meth:`Detector.unanswered` how it went."""

    target: PeerId
    number: int
    timeout: float
    known_incarnation: int
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class AskOther:
    """Ask a relay to ping the target; tell :meth:`Detector.relayed`, if it says anything."""

    relay: PeerId
    target: PeerId
    number: int
    timeout: float
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare views with this peer."""

    target: PeerId


Action = Ping | AskOther | Compare


@dataclass(slots=True)
class _Probe:
    target: PeerId
    incarnation: int
    """Only the life that did not answer is accused, not one that began since."""
    asked: int = 0
    """Relays that were asked to try."""
    silent: int = 0
    """Of those, how many have not said anything yet."""
    tried_again: bool = False


class Detector:
    """One peer's part of the protocol."""

    def __init__(
        self, self_id: PeerId, voice: Voice, timing: Timing, rng: random.Random, *, incarnation: int, now: float
    ) -> None:
        self.self_id = self_id
        self.health = 0
        """Lifeguard's S: 0 is well."""
        self._known = Knowledge(
            self_id,
            voice,
            timing,
            incarnation=incarnation,
            now=now,
            presence=self._presence_changed,
            accused=lambda: self._doubt(1),
        )
        self._timing = timing
        self._rng = rng
        self._everyone: list[PeerId] = []
        self._order: list[PeerId] = []
        self._absent: list[PeerId] = []
        self._probes: dict[int, _Probe] = {}
        self._number = 0
        self._next_round = now
        self._urgent: dict[PeerId, None] = {}
        self._urgent_at = math.inf
        self._urgent_was = now
        self._next_compare = now
        self._turbulent_until = now
        self._follow_up_at = math.inf

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """What is held of each other peer."""
        return self._known.members

    @property
    def own(self) -> Alive:
        """Our own newest word."""
        return self._known.own

    @property
    def duplicate_at(self) -> float | None:
        """When another machine last spoke with this peer's key."""
        return self._known.duplicate_at

    def retime(self, timing: Timing) -> None:
        """Go on with another rhythm."""
        self._timing = self._known.timing = timing

    # -- Who takes part

    def set_members(self, others: Iterable[PeerId]) -> None:
        """The peers that are trusted now, without this one."""
        new = self._known.set_members(others)
        self._everyone = list(self.members)
        self._order = [entry for entry in self._order if entry in self.members]
        self._absent = [*(entry for entry in self._absent if entry in self.members), *new]
        self._urgent = {entry: None for entry in self._urgent if entry in self.members}
        # That one which is no member any more does not answer says nothing of us, and nobody asks others to try it.
        self._probes = {number: probe for number, probe in self._probes.items() if probe.target in self.members}

    def state(self, peer_id: PeerId) -> State:
        """What is held of a peer."""
        member = self.members.get(peer_id)
        return member.state if member is not None else State.UNKNOWN

    def known_statement(self, peer_id: str) -> Alive | None:
        """The newest word of a peer itself, ours included."""
        if peer_id == self.self_id:
            return self.own
        member = self.members.get(PeerId(peer_id))
        return member.alive if member is not None else None

    @property
    def view_digest(self) -> int:
        """64 bits over everything that is held."""
        return self._known.view.total

    @property
    def groups(self) -> list[int]:
        """The same by group of peers."""
        return self._known.view.groups

    def take_transitions(self) -> list[Transition]:
        """What changed since this was last asked."""
        return self._known.take_transitions()

    # -- Time

    def next_due(self) -> float:
        """When :meth:`poll` has something to do."""
        soonest = min(self._next_round, self._urgent_at, self._follow_up_at)
        return min(soonest, *self._known.suspects.values()) if self._known.suspects else soonest

    def poll(self, now: float) -> list[Action]:
        """What is due."""
        late = now - self._next_round
        if late > self._timing.period / 2:
            self._was_late(late)
        self._known.expire(now)
        actions: list[Action] = []
        if now >= self._urgent_at:
            actions += self._pings_out_of_turn(now)
        if now >= self._follow_up_at:
            self._follow_up_at = math.inf
            actions += [Compare(entry) for entry in self._some_present(1, but=self.self_id)]
        if now >= self._next_round:
            actions += self._round(now)
        return actions

    def _was_late(self, late: float) -> None:
        """We were stopped or starved: what we did not hear meanwhile accuses nobody but us."""
        self._probes.clear()
        self._doubt(1 + int(late / self._timing.period))
        self._known.wait_longer(late)

    def _round(self, now: float) -> list[Action]:
        self._end_probes(now)
        actions: list[Action] = []
        target = self._next_in_turn()
        if target is not None:
            actions.append(self._ping(target, counts=True))
        elif self.health:
            self.health -= 1
        if self._known.suspects and self._rng.random() < _SUSPECT_PINGS / len(self.members):
            actions.append(self._ping(self._rng.choice([*self._known.suspects]), counts=False))
        if self._absent:
            # Those who said that they go, or are long gone, are asked as well: that is how a return is noticed.
            index = self._rng.randrange(len(self._absent))
            actions.append(self._ping(self._absent[index], counts=False))
        self._next_round = now + self._timing.period * (self.health + 1) * self._rng.uniform(0.95, 1.05)
        return actions

    def _pings_out_of_turn(self, now: float) -> list[Action]:
        chosen = [*self._urgent][:_URGENT]
        for peer_id in chosen:
            del self._urgent[peer_id]
        self._urgent_was = now
        self._urgent_at = now + self._timing.period / 4 if self._urgent else math.inf
        return [self._ping(peer_id, counts=False) for peer_id in chosen]

    def _end_probes(self, now: float) -> None:
        for probe in self._probes.values():
            # Relays that answered show that we can hear; those that are silent may show that we cannot.
            self._doubt(probe.silent if probe.asked else 1)
            self._known.suspect(probe.target, probe.incarnation, now)
        self._probes.clear()

    def _next_in_turn(self) -> PeerId | None:
        while True:
            while self._order:
                peer_id = self._order.pop()
                if self.members[peer_id].state.present:
                    return peer_id
            self._order = [peer_id for peer_id, member in self.members.items() if member.state.present]
            if not self._order:
                return None
            self._rng.shuffle(self._order)

    def _ping(self, target: PeerId, *, counts: bool) -> Ping:
        self._number += 1
        if counts:
            self._probes[self._number] = _Probe(target, self.members[target].incarnation)
        return Ping(
            target=target,
            number=self._number,
            timeout=self._timing.timeout * (self.health + 1),
            known_incarnation=self.members[target].incarnation,
            updates=self._known.accusation_of(target) + self._known.news(but={target}),
        )

    # -- How probes went

    def answered(
        self, number: int, target: PeerId, updates: Sequence[Update], view_digest: int, now: float
    ) -> list[Action]:
        """The target itself has answered a ping."""
        self.take_in(updates, now)
        if self._probes.pop(number, None) is not None and self.health:
            self.health -= 1
            # We were alone, perhaps, and this is the first we hear. Who is suspected may be back, too, and waiting for
            # our rounds, which are slow now, would take longer than the suspicions last.
            for suspect in [*self._known.suspects][:_URGENT]:
                self._hurry(suspect, now)
        return self._compare_with(target, view_digest, now, was_away=self._known.answered(target))

    def unanswered(self, number: int) -> list[Action]:
        """A ping had no answer within its time-out: try once more, and ask others to. Harmless after the round."""
        probe = self._probes.get(number)
        if probe is None or probe.tried_again:
            return []
        probe.tried_again = True
        relays = self._some_present(self._timing.relays, but=probe.target)
        probe.asked = probe.silent = len(relays)
        updates = self._known.about(probe.target)
        timeout = (self._timing.period - self._timing.timeout) * (self.health + 1)
        again = Ping(probe.target, number, timeout, self.members[probe.target].incarnation, updates)
        return [again, *(AskOther(relay, probe.target, number, timeout, updates) for relay in relays)]

    def relayed(self, number: int, *, reached: bool, updates: Sequence[Update], now: float) -> None:
        """A relay said whether it reached the target."""
        self.take_in(updates, now)
        probe = self._probes.get(number)
        if probe is None:
            return
        probe.silent = max(0, probe.silent - 1)
        if reached:
            del self._probes[number]

    def _compare_with(self, peer_id: PeerId, view_digest: int, now: float, *, was_away: bool) -> list[Action]:
        """Whether it is time to find out in what we differ."""
        if view_digest == self.view_digest or (now < self._next_compare and not was_away):
            return []
        periods = 1 if now < self._turbulent_until else self._timing.compare_periods
        self._next_compare = now + periods * self._timing.period * self._rng.uniform(0.8, 1.2)
        return [Compare(peer_id)]

    # -- What others ask

    def pinged(
        self, sender: PeerId, known_incarnation: int, updates: Sequence[Update], now: float
    ) -> tuple[Update, ...]:
        """Somebody pings us: take in what it says, and what to say back."""
        self.take_in(updates, now)
        member = self.members.get(sender)
        if member is not None and (not member.state.present or sender in self._known.suspects):
            # It reaches us; whether we reach it only a ping of our own can tell.
            self._hurry(sender, now)
        accusation = self._known.accusation_of(sender)
        if known_incarnation == self.own.incarnation:
            return accusation + self._known.news(but={sender})
        return (*accusation, Update(self.own), *self._known.news(but={sender, self.self_id}))

    def entries(self, groups: Sequence[int]) -> tuple[list[int], list[Entry]]:
        """The numbers of the groups whose digests differ from these, and what we hold in them."""
        differing = [index for index, digest in enumerate(self._known.view.groups) if digest != groups[index]]
        return differing, self._known.entries(set(differing))

    def compared(
        self, differing: Sequence[int], theirs: Sequence[Entry], now: float
    ) -> tuple[list[Update], list[PeerId]]:
        """After a comparison: what the other lacks, and whose updates we lack."""
        held = {entry.peer_id: entry for entry in self._known.entries(set(differing))}
        give: list[Update] = []
        want: list[PeerId] = []
        for entry in theirs:
            mine = held.pop(entry.peer_id, None)
            if mine is None:
                continue  # not trusted here (yet)
            if entry.incarnation > mine.incarnation:
                want.append(entry.peer_id)
            elif entry.incarnation < mine.incarnation:
                give.extend(self._known.about(entry.peer_id))
            elif entry.present and not mine.present:
                # They have not heard what is said of it: then it can answer. And we can look for ourselves.
                give.extend(self._known.about(entry.peer_id))
                self.hurry(entry.peer_id, now)
            elif mine.present and not entry.present:
                want.append(entry.peer_id)
        differences = len(give) + len(want)
        if differences > _MANY:
            self._turbulent_until = now + self._timing.compare_periods * self._timing.period
            self._next_compare = min(self._next_compare, now + self._timing.period)
        if differences and now < self._turbulent_until:
            # Halves of a mesh have met, or we are new: news of so many would take long on pings.
            self._follow_up_at = now + self._timing.period * self._rng.uniform(0.2, 0.4)
        return give, want

    def known(self, wanted: Iterable[PeerId]) -> list[Update]:
        """What we can say of these."""
        return [update for peer_id in wanted for update in self._known.about(peer_id)]

    def take_in(self, updates: Sequence[Update], now: float) -> None:
        """Verified statements, from whomever they came."""
        self._known.take_in(updates, now)

    # -- Coming and going

    def leave(self) -> list[Ping]:
        """Say that we go: at once to some, who pass it on."""
        self._known.leave()
        told = self._some_present(_ANNOUNCED, but=self.self_id)
        # Whoever has just come knows of nobody yet, while others may know of it.
        unknown = [entry for entry in self._everyone if self.state(entry) is State.UNKNOWN]
        told += self._rng.sample(unknown, min(_ANNOUNCED - len(told), len(unknown)))
        return [self._ping(entry, counts=False) for entry in told]

    def announce(self) -> list[Ping]:
        """Say that we are here: to some of all, for we know of nobody yet."""
        some = self._rng.sample(self._everyone, min(_ANNOUNCED, len(self._everyone)))
        return [self._ping(entry, counts=False) for entry in some]

    def hurry(self, peer_id: PeerId, now: float) -> None:
        """Something else shows that a peer may be back: ping it out of turn."""
        member = self.members.get(peer_id)
        if member is not None and not member.state.present:
            self._hurry(peer_id, now)

    # -- Small parts

    def _presence_changed(self, peer_id: PeerId, present: bool) -> None:
        if not present:
            self._absent.append(peer_id)
            return
        self._absent.remove(peer_id)
        # It joins the round at a random place, so that newcomers are probed as soon as others.
        self._order.insert(self._rng.randrange(len(self._order) + 1), peer_id)

    def _hurry(self, peer_id: PeerId, now: float) -> None:
        if len(self._urgent) < 4 * _URGENT:
            self._urgent[peer_id] = None
            self._urgent_at = min(self._urgent_at, max(now, self._urgent_was + self._timing.period / 4))

    def _doubt(self, by: int) -> None:
        self.health = min(self._timing.max_health, self.health + by)

    def _some_present(self, count: int, *, but: PeerId) -> list[PeerId]:
        """Up to so many random peers that are there; in a large mesh without looking at all of them."""
        everyone = self._everyone
        drawn = everyone if len(everyone) <= 8 * count else self._rng.sample(everyone, 8 * count)
        there = [entry for entry in drawn if entry != but and self.members[entry].state.present]
        return self._rng.sample(there, min(count, len(there)))
