"""A chunk of records as hosts with their ports, each once. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from peerd.clock import DAY_MS
from peerd.inventory.keys import CODES
from peerd.inventory.model import Certificate, Record, Service
from peerd.inventory.states import OF_PORT

_FIRST_MS = 946_684_800_000
"""2000-01-01: a clock that says less was never set."""

Spoken = tuple[int, int, Service | None, bytes | None, Certificate | None]
"""When a chunk saw a port, its state, and what answers there. A plain tuple: there is one for each record."""


Said = tuple[int, int, int | None, int | None, int | None]
"""The same, with the numbers of what is stored apart."""


class Seen:
    """One host."""

    __slots__ = ("first", "hostnames", "last", "macs", "ports", "systems", "up")

    def __init__(self, at: int, up: bool) -> None:
        self.first = at
        self.last = at
        self.up = up
        self.ports: dict[int, Spoken] = {}
        """By transport << 16 | number."""
        self.hostnames: set[str] = set()
        self.macs: set[str] = set()
        self.systems: set[str] = set()


Gathered = dict[str, Seen]
"""By address."""


def gather(records: Iterable[Record], scanned_at: int, ended_at: int | None = None) -> Gathered:
    """A record that says no time, one a day behind the scan, or one before the year 2000, was made when the scan was.

    ``ended_at``: by when the scan was over, if it is not known better than ``scanned_at``. A tool whose clock is wrong
    would otherwise have the last word for years, or never.
    """
    found: Gathered = {}
    latest = (scanned_at if ended_at is None else ended_at) + DAY_MS
    for record in records:
        at: int = record.seen_at if record.seen_at is not None else scanned_at
        if at > latest or at < _FIRST_MS:
            at = scanned_at
        seen = found.get(record.address)
        if seen is None:
            seen = found[record.address] = Seen(at, record.up)
        else:
            if at > seen.last:
                seen.last = at
            elif at < seen.first:
                seen.first = at
            if record.up:
                seen.up = True
        if record.hostnames:
            seen.hostnames.update(record.hostnames)
        if record.mac:
            seen.macs.add(record.mac)
        if record.os:
            seen.systems.add(record.os)
        port = record.port
        if port is None:
            continue
        local = CODES[port.transport] << 16 | port.number
        spoken = (at, OF_PORT[port.state], port.service, port.banner or None, port.certificate)
        before = seen.ports.get(local)
        seen.ports[local] = spoken if before is None else _joined(before, spoken)
    return found


def merged(before: Said, now: Said) -> Said:
    """Two statements of one scan about one port: the later state counts, and what either adds."""
    later, earlier = (now, before) if now[0] >= before[0] else (before, now)
    return (
        later[0],
        later[1],
        earlier[2] if later[2] is None else later[2],
        earlier[3] if later[3] is None else later[3],
        earlier[4] if later[4] is None else later[4],
    )


def _joined(before: Spoken, now: Spoken) -> Spoken:
    later, earlier = (now, before) if now[0] >= before[0] else (before, now)
    return (later[0], later[1], later[2] or earlier[2], later[3] or earlier[3], later[4] or earlier[4])
