"""The status that people see, from three axes: membership, liveness, maintenance. Pure, and computed when read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peerd.clock import Millis
from peerd.detector.contact import Contact
from peerd.detector.model import State
from peerd.identity.peer_id import PeerId
from peerd.mesh.model import Record
from peerd.registry.model import Maintenance, PeerStatus, PeerWarning

MAX_CLOCK_OFFSET_MS = 2_000
"""Signed requests are bounded by clocks, and so are leases."""
SLOW_HEALTH = 2
"""From this local health on a machine is called slow: a single late round is not worth a word."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A status, since when, and why."""

    status: PeerStatus
    since: Millis
    why: str


def status_of(
    record: Record,
    contact: Contact,
    maintenance: Maintenance | None,
    *,
    is_self: bool,
    name_of: Callable[[str], str],
    joined_at: Millis | None = None,
) -> Shown:
    """Revoked before left before offline before suspect before maintenance before online."""
    if record.revoked:
        return Shown(status=PeerStatus.REVOKED, since=record.issued_at, why=record.reason or "was revoked")
    if not is_self:
        if contact.state is State.LEFT:
            return Shown(status=PeerStatus.LEFT, since=contact.since, why="said that it goes")
        if contact.state is State.OFFLINE:
            why = f"{_accusation(contact.accusers, name_of)}, and it did not object"
            return Shown(status=PeerStatus.OFFLINE, since=contact.since, why=why)
        if contact.state is State.UNKNOWN:
            if joined_at is not None and joined_at > contact.since:
                return Shown(status=PeerStatus.OFFLINE, since=joined_at, why="has joined, and was not heard of yet")
            why = "was not heard of since this daemon started"
            return Shown(status=PeerStatus.OFFLINE, since=contact.since, why=why)
        if contact.state is State.SUSPECT:
            why = _accusation(contact.accusers, name_of)
            return Shown(status=PeerStatus.SUSPECT, since=contact.since, why=why)
    if maintenance is not None:
        why = maintenance.reason or f"taken out on {name_of(maintenance.by)}"
        return Shown(status=PeerStatus.MAINTENANCE, since=maintenance.since, why=why)
    return Shown(status=PeerStatus.ONLINE, since=contact.since, why="is this peer" if is_self else "answers")


def warnings_of(
    name: str, contact: Contact, *, local_health: int, namesakes: Sequence[PeerId]
) -> tuple[PeerWarning, ...]:
    """What an operator should look at."""
    found = []
    offset = contact.clock_offset_ms
    if offset is not None and abs(offset) > MAX_CLOCK_OFFSET_MS:
        found.append(
            PeerWarning(
                reason="clock_offset",
                message=f"its clock is {abs(offset) / 1000:.1f} s {'ahead of' if offset > 0 else 'behind'} ours",
                next_action="set the clock of the machine that is wrong, and let it follow a time server",
            )
        )
    if contact.duplicate:
        found.append(
            PeerWarning(
                reason="duplicate_identity",
                message="two machines run with this identity",
                next_action="stop the copy, remove its data directory, and give it an identity of its own",
            )
        )
    if namesakes:
        found.append(
            PeerWarning(
                reason="same_name",
                message=f"{name} is also the name of {', '.join(peer_id[:12] for peer_id in namesakes)}",
                next_action="if one was reinstalled: 'peerctl peers replace OLD NEW'; else 'peerctl peers rename'",
            )
        )
    if local_health >= SLOW_HEALTH:
        found.append(
            PeerWarning(
                reason="slow",
                message=f"it doubts itself (local health {local_health}): it is late, or misses answers",
                next_action="look at the load of that machine and at its network",
            )
        )
    return tuple(found)


def _accusation(accusers: Sequence[PeerId], name_of: Callable[[str], str]) -> str:
    names = [name_of(peer_id) for peer_id in accusers]
    return f"does not answer {' and '.join(names)}" if names else "does not answer"
