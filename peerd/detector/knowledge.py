"""What one peer holds of everybody, and what of that is news. No time-outs and no probes here: only what was said.

A peer's state counts by its own word. Others can suspect the incarnation that it last spoke with, and only whoever is
not heard to answer in time becomes offline; so nobody is declared away by somebody else's word alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from peerd.detector.model import Alive, Entry, State, Suspicion, Timing, Transition, Update, Voice
from peerd.detector.spreading import Spreading
from peerd.detector.view import ViewDigest
from peerd.identity.peer_id import PeerId

_MAX_SUSPICIONS = 3
"""Accusers that are kept and passed on for one peer."""
_SEEN_INSTANCES = 8


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


class Knowledge:
    """Everything that was said and holds."""

    def __init__(
        self,
        self_id: PeerId,
        voice: Voice,
        timing: Timing,
        *,
        incarnation: int,
        now: float,
        presence: Callable[[PeerId, bool], None],
        accused: Callable[[], None],
    ) -> None:
        """``presence`` is told who comes and goes, ``accused`` that we were suspected and have answered."""
        self.self_id = self_id
        self.timing = timing
        self.members: dict[PeerId, Member] = {}
        self.suspects: dict[PeerId, float] = {}
        """Until when each may still object."""
        self.view = ViewDigest()
        self.duplicate_at: float | None = None
        """When another machine last spoke with this peer's key."""
        self._voice = voice
        self._presence = presence
        self._accused = accused
        self._news = Spreading()
        self._transitions: list[Transition] = []
        self._contested: dict[int, int] = {}
        self._contests = 0
        self._answer_again_at = now
        self.own = voice.alive(incarnation, left=False)
        self._say_own()

    def set_members(self, others: Iterable[PeerId]) -> list[PeerId]:
        """Hold something of exactly these; returns those that are new."""
        wanted = set(others) - {self.self_id}
        for peer_id in self.members.keys() - wanted:
            del self.members[peer_id]
            self.suspects.pop(peer_id, None)
            self._news.forget(peer_id)
            self.view.drop(peer_id)
        new = sorted(wanted - self.members.keys())
        for peer_id in new:
            self.members[peer_id] = Member(peer_id)
            self.view.put(peer_id, 0, present=False)
        return new

    def take_transitions(self) -> list[Transition]:
        """What changed since this was last asked."""
        taken, self._transitions = self._transitions, []
        return taken

    # -- What is heard

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

    def suspect(self, peer_id: PeerId, incarnation: int, now: float) -> None:
        """It did not answer us in that incarnation; a later one is not accused."""
        member = self.members.get(peer_id)
        if member is not None and member.state.present and member.incarnation == incarnation:
            self._accuse(member, self._voice.suspicion(peer_id, incarnation), now)

    def expire(self, now: float) -> None:
        """Who did not object in time is offline."""
        for peer_id in [entry for entry, deadline in self.suspects.items() if deadline <= now]:
            self._set_state(self.members[peer_id], State.OFFLINE)

    def wait_longer(self, seconds: float) -> None:
        """We could not hear for so long: what would have been said counts as not late."""
        self.suspects = {entry: deadline + seconds for entry, deadline in self.suspects.items()}

    def answered(self, peer_id: PeerId) -> bool:
        """It answered us itself, which is better proof than any hearsay. True if it was held for away."""
        member = self.members.get(peer_id)
        if member is None or member.alive is None:
            return False
        was_away = not member.state.present
        if member.state is not State.ALIVE and not member.alive.left:
            self._set_state(member, State.ALIVE)
        return was_away

    def leave(self) -> None:
        """From now on our own word is that we go."""
        self.own = self._voice.alive(self.own.incarnation + 1, left=True)
        self._say_own()

    # -- What is told

    def news(self, *, but: Collection[PeerId]) -> tuple[Update, ...]:
        """What to pass on with the next message; nothing about these, who are to get it or have said it."""
        limit = self.timing.transmissions(len(self.members) + 1)
        chosen = self._news.take(self.timing.updates_per_message, limit=limit)
        return tuple(update for peer_id in chosen if peer_id not in but for update in self.about(peer_id))

    def about(self, peer_id: PeerId) -> tuple[Update, ...]:
        """What can be said of a peer, with its proofs; nothing of one that has never spoken."""
        if peer_id == self.self_id:
            return (Update(self.own),)
        member = self.members.get(peer_id)
        if member is None or member.alive is None:
            return ()
        return (Update(member.alive, tuple(member.suspicions.values()), not member.state.present),)

    def accusation_of(self, peer_id: PeerId) -> tuple[Update, ...]:
        """For the accused itself: one accuser is enough to be answered."""
        member = self.members.get(peer_id)
        if member is None or member.alive is None or not member.suspicions:
            return ()
        return (Update(member.alive, tuple(member.suspicions.values())[:1]),)

    def entries(self, groups: set[int]) -> list[Entry]:
        """What is held of the peers in these groups, ourselves included."""
        mine = [Entry(self.self_id, self.own.incarnation, not self.own.left)]
        others = (Entry(entry, member.incarnation, member.state.present) for entry, member in self.members.items())
        return [entry for entry in (*mine, *others) if self.view.group(entry.peer_id) in groups]

    # -- Rules

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
        self.view.put(member.peer_id, alive.incarnation, present=member.state.present)
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
        seconds = self.timing.suspicion_seconds(len(self.members) + 1, len(member.suspicions) - 1)
        self.suspects[member.peer_id] = member.suspected_at + seconds
        self._news.add(member.peer_id)

    def _about_us(self, update: Update, now: float) -> None:
        said = update.alive
        if said.instance != self.own.instance and said.incarnation >= self.own.incarnation:
            self._contest(said, now)
        elif any(entry.incarnation == self.own.incarnation for entry in update.suspicions) and not self.own.left:
            self._accused()
            self._speak_up(self.own.incarnation + 1)

    def _contest(self, said: Alive, now: float) -> None:
        """Our key said this, and not in this life. Once is our own past; to be outbid again and again is a twin."""
        if said.incarnation > self._contested.get(said.instance, said.incarnation):
            self._contests += 1
            if self._contests >= 2:
                self.duplicate_at = now
        if now < self._answer_again_at:
            return
        self._answer_again_at = now + 2 * self.timing.period
        self._speak_up(said.incarnation + 1)
        self._contested[said.instance] = self.own.incarnation

    def _speak_up(self, incarnation: int) -> None:
        self.own = self._voice.alive(incarnation, left=self.own.left)
        self._say_own()

    def _say_own(self) -> None:
        self.view.put(self.self_id, self.own.incarnation, present=not self.own.left)
        self._news.add(self.self_id)

    def _set_state(self, member: Member, state: State) -> None:
        before, member.state = member.state, state
        if state is not State.SUSPECT:
            self.suspects.pop(member.peer_id, None)
        if state is State.ALIVE:
            member.suspicions.clear()
        if before is state:
            return
        if before.present != state.present:
            self._presence(member.peer_id, state.present)
        self._transitions.append(Transition(member.peer_id, before, state, tuple(member.suspicions)))
        self.view.put(member.peer_id, member.incarnation, present=state.present)
