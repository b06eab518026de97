"""Which executors answer, and since when not. Kept in memory: a restart finds out anew.

An executor renews the lease of a job whenever it hears of it from its orchestrator. So a peer counts as away since the
last moment at which anything of ours may have reached it - also a call that failed, since it may have failed on the way
back - and from then on nothing that renews is sent to it: whether it is there again is asked with an empty SyncJobs.
After a restart every peer counts as reached just now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.loops import Backoff
from peerd.workflows import events as e

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
LOOK_SECONDS = 0.2

UNREACHABLE = frozenset(
    {
        Reason.NOT_TRUSTED_OR_UNREACHABLE,
        Reason.CONNECTION_LOST,
        Reason.DEADLINE_EXCEEDED,
        Reason.SHUTTING_DOWN,
        Reason.DAEMON_NOT_REACHABLE,
        Reason.CANCELLED,
    }
)
"""What a call raises when nobody is there to answer."""


class Presence(Protocol):
    """What the registry knows."""

    def is_online(self, peer_id: PeerId) -> bool:
        """Whether it answered probes lately."""
        ...

    def is_revoked(self, peer_id: PeerId) -> bool:
        """Whether it is out for good."""
        ...


@dataclass(slots=True)
class _Away:
    since: Millis
    gone: bool
    backoff: Backoff
    next_try: float
    was_online: bool


class Contacts:
    """Tells all executions when a peer goes and when it is back."""

    def __init__(
        self, presence: Presence, clock: Clock, announce: Callable[[e.Event], None], own_peer_id: PeerId
    ) -> None:
        self._presence = presence
        self._clock = clock
        self._announce = announce
        self._own_peer_id = own_peer_id
        self._away: dict[PeerId, _Away] = {}

    def is_away(self, peer: str) -> bool:
        """Whether nothing but probes should be sent to it."""
        return peer in self._away

    def absences(self) -> list[e.PeerAway]:
        """All peers that are away, as an execution must know them."""
        return [e.PeerAway(peer=peer, since=away.since, gone=away.gone) for peer, away in self._away.items()]

    def reached(self, peer: PeerId) -> None:
        """It has answered a call of ours."""
        if self._away.pop(peer, None) is not None:
            self._announce(e.PeerBack(peer=peer))

    def heard(self, peer: PeerId) -> None:
        """It has called us, and our answer renews its leases; whether we can call it is not known."""
        away = self._away.get(peer)
        if away is not None:
            away.since, away.next_try = self._clock.steady(), self._clock.monotonic()
            self._announce(e.PeerAway(peer=peer, since=away.since, gone=away.gone))

    def missed(self, peer: PeerId) -> None:
        """A call to it has just failed for want of an answer."""
        if (away := self._away.get(peer)) is not None:
            # One that was under way when it was first missed: it may have arrived, and renewed leases there.
            away.since = self._clock.steady()
            self._announce(e.PeerAway(peer=peer, since=away.since, gone=away.gone))
            return
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._away[peer] = away = _Away(
            since=self._clock.steady(),
            gone=self._presence.is_revoked(peer),
            backoff=backoff,
            next_try=self._clock.monotonic() + backoff.next(),
            was_online=self._presence.is_online(peer),
        )
        self._announce(e.PeerAway(peer=peer, since=away.since, gone=away.gone))

    async def probe(self, ask: Callable[[PeerId], Awaitable[None]]) -> None:
        """Ask those whose turn it is; at once when the registry sees one come back."""
        due = [peer for peer in self._away if self._is_due(peer)]
        await asyncio.gather(*(self._probe(peer, ask) for peer in due))

    def _is_due(self, peer: PeerId) -> bool:
        away = self._away[peer]
        online = peer == self._own_peer_id or self._presence.is_online(peer)
        came_back = online and not away.was_online
        away.was_online = online
        if not away.gone and self._presence.is_revoked(peer):
            away.gone = True
            self._announce(e.PeerAway(peer=peer, since=away.since, gone=True))
        return not away.gone and (came_back or self._clock.monotonic() >= away.next_try)

    async def _probe(self, peer: PeerId, ask: Callable[[PeerId], Awaitable[None]]) -> None:
        try:
            await ask(peer)
        except PeerdError as error:
            away = self._away.get(peer)
            if error.reason in UNREACHABLE and away is not None:
                away.next_try = self._clock.monotonic() + away.backoff.next()
                return
        self.reached(peer)
