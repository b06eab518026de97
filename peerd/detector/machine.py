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
    A peer's state counts by its own signed word; others can only suspect the incarnation that it last signed itself.

Nothing here blocks, reads a clock or opens a socket; the shell (:mod:`peerd.detector.prober`) and the simulator of the
tests run the very same object.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from peerd.detector.model import Alive, State, Suspicion, Timing, Transition, Update, Voice
from peerd.detector.spreading import Spreading
from peerd.detector.view import ViewDigest
from peerd.identity.peer_id import PeerId

_URGENT = 4
"""Peers pinged out of turn in one round."""
_MAX_SUSPICIONS = 3
"""Accusers that are kept and passed on for one peer."""
_ANNOUNCED = 8
"""Peers that hear at once that this one comes or goes."""
_SUSPECT_PINGS = 4
"""A suspect is pinged so often a round by the whole mesh, besides its turns: it must hear what is said of it."""
_MANY = 8
"""So many differences in a comparison mean that halves of the mesh have met: then comparisons follow each other."""
_SEEN_INSTANCES = 8


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


@dataclass(frozen=True, slots=True)
class Entry:
    """What one holds of a peer, as views are compared."""

    peer_id: PeerId
    incarnation: int
    present: bool


@dataclass(slots=True)
class Member:
    """What is held of one other peer."""

    peer_id: PeerId
    state: State = State.UNKNOWN
    alive: Alive | None = None
    suspicions: dict[PeerId, Suspicion] = field(default_factory=dict)
    suspected_at: float = 0.0
    past_instances: list[int] = field(default_factory=list)
    duplicate_at: float | None = None
    """When an instance that had been followed by another spoke again: two machines run with this identity."""

    @property
    def incarnation(self) -> int:
        """0 until it has spoken."""
        return self.alive.incarnation if self.alive is not None else 0


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
        self.members: dict[PeerId, Member] = {}
        self.health = 0
        """Lifeguard's S: 0 is well."""
        self.duplicate_at: float | None = None
        """When another machine last spoke with this peer's key."""
        self._voice = voice
        self._timing = timing
        self._rng = rng
        self._news = Spreading()
        self._view = ViewDigest()
        self._order: list[PeerId] = []
        self._absent: list[PeerId] = []
        self._urgent: dict[PeerId, None] = {}
        self._suspects: dict[PeerId, float] = {}
        self._probes: dict[int, _Probe] = {}
        self._spare: set[int] = set()
        self._everyone: list[PeerId] = []
        self._number = 0
        self._next_round = now
        self._urgent_at = math.inf
        self._urgent_was = now
        self._next_compare = now
        self._turbulent_until = now
        self._follow_up_at = math.inf
        self._transitions: list[Transition] = []
        self._contested: dict[int, int] = {}
        self._contests = 0
        self._answer_again_at = now
        self.own = voice.alive(incarnation, left=False)
        self._say_own()

    def retime(self, timing: Timing) -> None:
        """Go on with another rhythm."""
        self._timing = timing

    # -- Who takes part

    def set_members(self, others: Iterable[PeerId]) -> None:
        """The peers that are trusted now, without this one."""
        wanted = set(others) - {self.self_id}
        for peer_id in self.members.keys() - wanted:
            del self.members[peer_id]
            self._suspects.pop(peer_id, None)
            self._news.forget(peer_id)
            self._view.drop(peer_id)
        self._order = [entry for entry in self._order if entry in wanted]
        self._absent = [entry for entry in self._absent if entry in wanted]
        self._urgent = {entry: None for entry in self._urgent if entry in wanted}
        for peer_id in sorted(wanted - self.members.keys()):
            self.members[peer_id] = Member(peer_id)
            self._absent.append(peer_id)
            self._view.put(peer_id, 0, present=False)
        self._everyone = list(self.members)

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
        return self._view.total

    @property
    def groups(self) -> list[int]:
        """The same by group of peers."""
        return self._view.groups

    def take_transitions(self) -> list[Transition]:
        """What changed since this was last asked."""
        taken, self._transitions = self._transitions, []
        return taken

    # -- Time

    def next_due(self) -> float:
        """When :meth:`poll` has something to do."""
        soonest = min(self._next_round, self._urgent_at, self._follow_up_at)
        return min(soonest, min(self._suspects.values())) if self._suspects else soonest

    def poll(self, now: float) -> list[Action]:
        """What is due."""
        late = now - self._next_round
        if late > self._timing.period / 2:
            self._was_late(now, late)
        for peer_id in [entry for entry, deadline in self._suspects.items() if deadline <= now]:
            self._set_state(self.members[peer_id], State.OFFLINE)
        actions: list[Action] = []
        if now >= self._urgent_at:
            actions += self._pings_out_of_turn(now)
        if now >= self._follow_up_at:
            self._follow_up_at = math.inf
            actions += [Compare(entry) for entry in self._some_present(1, but=self.self_id)]
        if now >= self._next_round:
            actions += self._round(now)
        return actions

    def _was_late(self, now: float, late: float) -> None:
        """We were stopped or starved: what we did not hear meanwhile accuses nobody but us."""
        self._probes.clear()
        self._doubt(1 + int(late / self._timing.period))
        self._suspects = {entry: deadline + late for entry, deadline in self._suspects.items()}

    def _round(self, now: float) -> list[Action]:
        self._end_probes(now)
        actions: list[Action] = []
        target = self._next_in_turn()
        if target is not None:
            actions.append(self._ping(target, counts=True))
        elif self.health:
            self.health -= 1
        if self._suspects and self._rng.random() < _SUSPECT_PINGS / len(self.members):
            actions.append(self._ping(self._rng.choice([*self._suspects]), counts=False))
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
            member = self.members.get(probe.target)
            if member is not None and member.state.present and member.incarnation == probe.incarnation:
                self._accuse(member, self._voice.suspicion(member.peer_id, member.incarnation), now)
        self._probes.clear()
        self._spare.clear()

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
        else:
            self._spare.add(self._number)
        return Ping(
            target=target,
            number=self._number,
            timeout=self._timing.timeout * (self.health + 1),
            known_incarnation=self.members[target].incarnation,
            updates=self._updates_for(target),
        )

    # -- How probes went

    def answered(
        self, number: int, target: PeerId, updates: Sequence[Update], view_digest: int, now: float
    ) -> list[Action]:
        """The target itself has answered a ping."""
        self.take_in(updates, now)
        if self._probes.pop(number, None) is not None and self.health:
            self.health -= 1
        self._spare.discard(number)
        return self._heard(target, view_digest, now)

    def unanswered(self, number: int) -> list[Action]:
        """A ping had no answer within its time-out: try once more, and ask others to. Harmless after the round."""
        probe = self._probes.get(number)
        if probe is None or probe.tried_again:
            return []
        probe.tried_again = True
        relays = self._some_present(self._timing.relays, but=probe.target)
        probe.asked = probe.silent = len(relays)
        updates = self._updates_about(probe.target)
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

    def _heard(self, peer_id: PeerId, view_digest: int, now: float) -> list[Action]:
        """A peer answered us directly, which is better proof than any hearsay."""
        member = self.members.get(peer_id)
        if member is None or member.alive is None:
            return []
        was_away = not member.state.present
        if member.state is not State.ALIVE and not member.alive.left:
            self._set_state(member, State.ALIVE)
        if view_digest == self._view.total or (now < self._next_compare and not was_away):
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
        if member is not None and not member.state.present:
            # It reaches us; whether we reach it only a ping of our own can tell.
            self._hurry(sender, now)
        accusation = self._accusation_of(member) if member is not None else ()
        if known_incarnation == self.own.incarnation:
            return accusation + self._take_news(but={sender})
        return (*accusation, Update(self.own), *self._take_news(but={sender, self.self_id}))

    def entries(self, groups: Sequence[int]) -> tuple[list[int], list[Entry]]:
        """The numbers of the groups whose digests differ from these, and what we hold in them."""
        differing = [index for index, digest in enumerate(self._view.groups) if digest != groups[index]]
        return differing, self._entries(set(differing))

    def compared(
        self, differing: Sequence[int], theirs: Sequence[Entry], now: float
    ) -> tuple[list[Update], list[PeerId]]:
        """After a comparison: what the other lacks, and whose updates we lack."""
        held = {entry.peer_id: entry for entry in self._entries(set(differing))}
        give: list[Update] = []
        want: list[PeerId] = []
        for entry in theirs:
            mine = held.pop(entry.peer_id, None)
            if mine is None:
                continue  # not trusted here (yet)
            if entry.incarnation > mine.incarnation:
                want.append(entry.peer_id)
            elif entry.incarnation < mine.incarnation:
                give.extend(self._updates_about(entry.peer_id))
            elif entry.present and not mine.present:
                # They have not heard what is said of it: then it can answer. And we can look for ourselves.
                give.extend(self._updates_about(entry.peer_id))
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
        return [update for peer_id in wanted for update in self._updates_about(peer_id)]

    # -- What is heard of peers

    def take_in(self, updates: Sequence[Update], now: float) -> None:
        """Verified statements, from whomever they came."""
        for update in updates:
            peer_id = update.alive.peer_id
            if peer_id == self.self_id:
                self._about_us(update, now)
                continue
            member = self.members.get(peer_id)
            if member is None:
                continue
            if update.alive.outranks(member.alive):
                self._believe(member, update, now)
            for suspicion in update.suspicions:
                if suspicion.accuser == self.self_id or suspicion.accuser in self.members:
                    self._accuse(member, suspicion, now)

    def leave(self) -> list[Ping]:
        """Say that we go: at once to some, who pass it on."""
        self.own = self._voice.alive(self.own.incarnation + 1, left=True)
        self._say_own()
        return [self._ping(entry, counts=False) for entry in self._some_present(_ANNOUNCED, but=self.self_id)]

    def announce(self) -> list[Ping]:
        """Say that we are here: to some of all, for we know of nobody yet."""
        some = self._rng.sample(self._everyone, min(_ANNOUNCED, len(self._everyone)))
        return [self._ping(entry, counts=False) for entry in some]

    def hurry(self, peer_id: PeerId, now: float) -> None:
        """Something else shows that a peer may be back: ping it out of turn."""
        member = self.members.get(peer_id)
        if member is not None and not member.state.present:
            self._hurry(peer_id, now)

    def _believe(self, member: Member, update: Update, now: float) -> None:
        alive = update.alive
        if member.alive is not None and alive.instance != member.alive.instance:
            if alive.instance in member.past_instances:
                member.duplicate_at = now
            member.past_instances = [*member.past_instances, member.alive.instance][-_SEEN_INSTANCES:]
        member.alive = alive
        member.suspicions.clear()
        if alive.left:
            self._set_state(member, State.LEFT)
        else:
            # Whoever is told of a peer for the first time, by one that holds it for away, need not hope first.
            hearsay = update.absent and not member.state.present
            self._set_state(member, State.OFFLINE if hearsay else State.ALIVE)
        self._view.put(member.peer_id, alive.incarnation, present=member.state.present)
        self._news.add(member.peer_id)

    def _accuse(self, member: Member, suspicion: Suspicion, now: float) -> None:
        """One more accuser of the incarnation that counts."""
        if suspicion.incarnation != member.incarnation or not member.state.present:
            return
        if suspicion.accuser in member.suspicions or len(member.suspicions) >= _MAX_SUSPICIONS:
            return
        member.suspicions[suspicion.accuser] = suspicion
        if member.state is State.ALIVE:
            member.suspected_at = now
            self._set_state(member, State.SUSPECT)
        seconds = self._timing.suspicion_seconds(len(self.members) + 1, len(member.suspicions) - 1)
        self._suspects[member.peer_id] = member.suspected_at + seconds
        self._news.add(member.peer_id)

    def _about_us(self, update: Update, now: float) -> None:
        said = update.alive
        if said.instance != self.own.instance and said.incarnation >= self.own.incarnation:
            self._contest(said, now)
        elif any(entry.incarnation == self.own.incarnation for entry in update.suspicions) and not self.own.left:
            self._doubt(1)
            self._speak_up(self.own.incarnation + 1)

    def _contest(self, said: Alive, now: float) -> None:
        """Our key said this, and not in this life. Once is our own past; to be outbid again and again is a twin."""
        if said.incarnation > self._contested.get(said.instance, said.incarnation):
            self._contests += 1
            if self._contests >= 2:
                self.duplicate_at = now
        if now < self._answer_again_at:
            return
        self._answer_again_at = now + 2 * self._timing.period
        self._speak_up(said.incarnation + 1)
        self._contested[said.instance] = self.own.incarnation

    def _speak_up(self, incarnation: int) -> None:
        self.own = self._voice.alive(incarnation, left=self.own.left)
        self._say_own()

    def _say_own(self) -> None:
        self._view.put(self.self_id, self.own.incarnation, present=not self.own.left)
        self._news.add(self.self_id)

    # -- Small parts

    def _set_state(self, member: Member, state: State) -> None:
        before, member.state = member.state, state
        if state is not State.SUSPECT:
            self._suspects.pop(member.peer_id, None)
        if state is State.ALIVE:
            member.suspicions.clear()
        if before is state:
            return
        if before.present and not state.present:
            self._absent.append(member.peer_id)
        elif state.present and not before.present:
            self._absent.remove(member.peer_id)
            # It joins the present round at a random place, so that newcomers are probed as soon as others.
            self._order.insert(self._rng.randrange(len(self._order) + 1), member.peer_id)
        self._transitions.append(Transition(member.peer_id, before, state, tuple(member.suspicions)))
        self._view.put(member.peer_id, member.incarnation, present=state.present)

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

    def _entries(self, groups: set[int]) -> list[Entry]:
        mine = [Entry(self.self_id, self.own.incarnation, not self.own.left)]
        others = (Entry(entry, member.incarnation, member.state.present) for entry, member in self.members.items())
        return [entry for entry in (*mine, *others) if self._view.group(entry.peer_id) in groups]

    def _updates_about(self, peer_id: PeerId) -> tuple[Update, ...]:
        if peer_id == self.self_id:
            return (Update(self.own),)
        member = self.members.get(peer_id)
        if member is None or member.alive is None:
            return ()
        return (Update(member.alive, tuple(member.suspicions.values()), not member.state.present),)

    def _updates_for(self, target: PeerId) -> tuple[Update, ...]:
        """What a ping carries: first an accusation of its target, which it may then answer at once."""
        return self._accusation_of(self.members[target]) + self._take_news(but={target})

    def _accusation_of(self, member: Member) -> tuple[Update, ...]:
        """For the accused itself: one accuser is enough to be answered."""
        if member.alive is None or not member.suspicions:
            return ()
        return (Update(member.alive, tuple(member.suspicions.values())[:1]),)

    def _take_news(self, *, but: Collection[PeerId]) -> tuple[Update, ...]:
        limit = self._timing.transmissions(len(self.members) + 1)
        chosen = self._news.take(self._timing.updates_per_message, limit=limit)
        return tuple(update for peer_id in chosen if peer_id not in but for update in self._updates_about(peer_id))
