"""The words of the failure detector: states, statements, and the numbers that drive it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from peerd.identity.peer_id import PeerId


class State(Enum):
    """What this peer holds of another."""

    UNKNOWN = "unknown"  # not heard of since this daemon started
    ALIVE = "alive"  # answers
    SUSPECT = "suspect"  # somebody got no answer; it may still say that it is there
    OFFLINE = "offline"  # a suspicion that nobody answered in time
    LEFT = "left"  # said that it goes

    @property
    def present(self) -> bool:
        """Whether it is taken to be there."""
        return self in (State.ALIVE, State.SUSPECT)


@dataclass(frozen=True, slots=True)
class Alive:
    """A peer's own word: I am here, or I have gone."""

    peer_id: PeerId
    incarnation: int
    instance: int
    """Random for each start of a daemon."""
    left: bool = False
    proof: object = field(default=None, compare=False, repr=False)
    """The signed envelope; the machine passes it on and never looks inside."""

    def outranks(self, other: Alive | None) -> bool:
        """Whether this is the later word."""
        if other is None:
            return True
        return (self.incarnation, self.left) > (other.incarnation, other.left)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Another's word: in this incarnation it does not answer me."""

    peer_id: PeerId
    incarnation: int
    accuser: PeerId
    proof: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Update:
    """What is known of one peer, with its proofs."""

    alive: Alive
    suspicions: tuple[Suspicion, ...] = ()
    absent: bool = False
    """Whoever passes this on holds the peer for away: not proved, and so only a hint to those who know nothing."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A peer changed its state in our eyes."""

    peer_id: PeerId
    before: State
    after: State
    accusers: tuple[PeerId, ...] = ()
    """Who got no answer, for SUSPECT and OFFLINE."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one holds of a peer, as views are compared."""

    peer_id: PeerId
    incarnation: int
    present: bool


class Voice(Protocol):
    """Makes the statements of this peer; signs them where there is a wire."""

    def alive(self, incarnation: int, *, left: bool) -> Alive:
        """This peer's own word."""
        ...

    def suspicion(self, peer_id: PeerId, incarnation: int) -> Suspicion:
        """This peer's accusation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds and counts. The defaults are memberlist's for a LAN, with faster suspicion for small meshes.

    Sources: Das, Gupta, Motivala, "SWIM" (2002); Dadgar, Phillips, Currey, "Lifeguard" (2018).
    """

    period: float = 1.0
    """Between two probes."""
    timeout: float = 0.5
    """Until a probe without an answer is handed to relays."""
    relays: int = 3
    """Peers that are asked to try in our place."""
    suspicion_periods: float = 3.0
    """Shortest suspicion, in periods, of a mesh of ten; grows with the logarithm of its size."""
    suspicion_stretch: float = 6.0
    """A suspicion that nobody else shares lasts so many times the shortest."""
    confirmations: int = 2
    """Other accusers that shrink a suspicion to its shortest."""
    retransmit: int = 4
    """An update is sent so many times the logarithm of the size of the mesh."""
    updates_per_message: int = 6
    max_health: int = 8
    """Lifeguard's S: periods and time-outs are stretched by at most one more than this."""
    compare_periods: int = 10
    """At most once in so many periods are whole views compared, unless much has been found to differ."""

    def shortest_suspicion(self, members: int) -> float:
        """Seconds, in a mesh of so many."""
        return self.suspicion_periods * max(1.0, math.log10(max(members, 1))) * self.period

    def suspicion_seconds(self, members: int, confirmations: int) -> float:
        """How long a suspicion with so many accusers besides the first lasts; Lifeguard's logarithmic decay."""
        shortest = self.shortest_suspicion(members)
        # In a mesh of three nobody could confirm but the accused.
        expected = self.confirmations if members - 2 >= self.confirmations else 0
        if confirmations >= expected:
            return shortest
        longest = shortest * self.suspicion_stretch
        share = math.log(confirmations + 1) / math.log(expected + 1)
        return max(shortest, longest - share * (longest - shortest))

    def transmissions(self, members: int) -> int:
        """How often an update is sent."""
        return self.retransmit * math.ceil(math.log10(members + 1))
