"""What is otherwise: between two moments, or between what two scans show.

appeared     it is there now, and was not, or nobody had looked
disappeared  it was there, and is not: somebody says so, or a scan that must have shown it does not
changed      it is there both times, and what both times say of its state, service or certificate differs

Between two moments everything that was ever said until then counts (:mod:`peerd.inventory.judging`). Between two scans
only what these two say, with :mod:`peerd.inventory.settling` for what the later one does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from peerd.errors import PeerdError, Reason
from peerd.inventory import reading
from peerd.inventory.facts import Line, ServiceFacts
from peerd.inventory.fields import Expression
from peerd.inventory.judging import Observation, Standing, standing
from peerd.inventory.keys import PORT_MASK, host_of, number_of, transport_of
from peerd.inventory.lists import HOSTS_LOOKED_AT, Page, read_token, write_token
from peerd.inventory.scans import SELECT, Scan, to_scan
from peerd.inventory.states import BY_WORD, THERE, State
from peerd.store.beside import Reads


class Kind(Enum):
    """What became of a port."""

    APPEARED = 1
    DISAPPEARED = 2
    CHANGED = 3


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One port."""

    kind: Kind
    before: Line | None
    after: Line | None
    why: str
    """Of what disappeared: closed, filtered, or not_shown."""


class Diffs:
    """Compares."""

    def __init__(self, store: Reads) -> None:
        self._store = store

    async def between_moments(
        self, earlier: int, later: int, *, where: Expression | None, size: int, token: str
    ) -> Page[Difference]:
        """A page may be short, or empty, and still have a token. Raises INVALID_ARGUMENT."""
        if earlier > later:
            raise PeerdError(Reason.INVALID_ARGUMENT, "the earlier moment is the later one")
        after, local = read_token(token)
        # A sighting keeps the latest moment of its scan: one not behind the earlier moment changed nothing since.
        hosts = await self._store.all(
            "SELECT id, key FROM inventory_hosts h WHERE key >= ? AND EXISTS (SELECT 1 FROM inventory_sightings g "
            "WHERE g.host_id = h.id AND g.seen_at > ?) ORDER BY key LIMIT ?",
            (after, earlier, HOSTS_LOOKED_AT),
        )
        said = await reading.observations_of_hosts(self._store, [row["id"] for row in hosts])
        moved = {
            port: one
            for port, one in said.items()
            if not _always_same(one, earlier) and _moved(standing(one, earlier), standing(one, later))
        }
        before = await reading.lines_of(self._store, moved, earlier)
        now = await reading.lines_of(self._store, moved, later)
        return _page(before, now, [(row["id"], row["key"]) for row in hosts], after, local, size, where)

    async def between_scans(
        self, earlier_id: int, later_id: int, *, where: Expression | None, size: int, token: str
    ) -> Page[Difference]:
        """Of two ingest jobs. Raises NOT_FOUND, or FAILED_PRECONDITION for one that is not whole any more."""
        await self._scan(earlier_id)
        later = await self._scan(later_id)
        after, local = read_token(token)
        hosts = await self._store.all(
            "SELECT id, key FROM inventory_hosts h WHERE key >= ? AND EXISTS (SELECT 1 FROM inventory_sightings g "
            "WHERE g.scan_id IN (?, ?) AND g.host_id = h.id) ORDER BY key LIMIT ?",
            (after, earlier_id, later_id, HOSTS_LOOKED_AT),
        )
        ids = [row["id"] for row in hosts]
        said = await reading.observations_of_hosts(self._store, ids)
        first = {port: _of(one, earlier_id) for port, one in said.items()}
        second = {port: _of(one, later_id) for port, one in said.items()}
        shown = await self._shown_by(later_id, ids)
        keys = {row["id"]: row["key"] for row in hosts}
        for port, one in first.items():
            host = host_of(port)
            if one and one[0].state in THERE and not second[port] and _covers(later, port, keys[host], host in shown):
                at = max(one[0].seen_at, later.scanned_at) + 1
                second[port] = [one[0], one[0]._replace(scan_id=later_id, state=int(State.NOT_SHOWN), seen_at=at)]
            elif not second[port]:
                first[port] = []  # nobody looked again
        moved = [port for port in said if _moved(standing(first[port]), standing(second[port]))]
        before = await reading.lines_of(self._store, {port: first[port] for port in moved})
        now = await reading.lines_of(self._store, {port: second[port] for port in moved})
        return _page(before, now, [(row["id"], row["key"]) for row in hosts], after, local, size, where)

    async def _scan(self, number: int) -> Scan:
        row = await self._store.one(f"{SELECT} WHERE s.id = ?", (number,))
        if row is None:
            raise PeerdError(Reason.NOT_FOUND, f"nothing is stored of ingest job {number}")
        scan = to_scan(row)
        if scan.thinned:
            raise PeerdError(
                Reason.FILES_REMOVED,
                f"observations of ingest job {number} were removed, as [inventory] observations_days says",
                next_action="compare two moments instead: what changed is kept",
            )
        return scan

    async def _shown_by(self, scan_id: int, hosts: Sequence[int]) -> frozenset[int]:
        rows = await self._store.all(
            "SELECT host_id FROM inventory_sightings WHERE scan_id = ? AND state = ? "
            "AND host_id IN (SELECT value FROM json_each(?))",
            (scan_id, int(State.OPEN), reading.to_json(hosts)),
        )
        return frozenset(row["host_id"] for row in rows)


def _always_same(observations: Sequence[Observation], at: int) -> bool:
    """Whether all said one and the same, since before that moment: so it is with nearly all ports."""
    first = observations[0][3:]
    return all(one[3:] == first for one in observations) and any(one.seen_at <= at for one in observations)


def _moved(before: Standing | None, now: Standing | None) -> bool:
    """Whether there may be a difference; what it is, is looked at then."""
    if before is None or now is None or before.there != now.there:
        return (before is not None and before.there) or (now is not None and now.there)
    return now.there and (before.state, before.service_id, before.certificate_id) != (
        now.state,
        now.service_id,
        now.certificate_id,
    )


def _of(observations: Sequence[Observation], scan_id: int) -> list[Observation]:
    return [one for one in observations if one.scan_id == scan_id and one.state != State.NOT_SHOWN]


def _covers(scan: Scan, port: int, key: bytes, shown: bool) -> bool:
    if scan.completed_at is None:
        return False
    if scan.scope is not None:
        looked_at = shown if scan.scope.networks is None else scan.scope.has_host(key)
        return looked_at and scan.scope.has_port(transport_of(port), number_of(port))
    return shown and bool(scan.transports >> (port >> 16 & 3) & 1)


def _page(
    before: Mapping[int, Line],
    now: Mapping[int, Line],
    hosts: Sequence[tuple[int, bytes]],
    after: bytes,
    local: int,
    size: int,
    where: Expression | None,
) -> Page[Difference]:
    by_host: dict[int, list[int]] = {}
    for port in sorted({*before, *now}):
        by_host.setdefault(host_of(port), []).append(port)
    items: list[Difference] = []
    for host_id, key in hosts:
        for port in by_host.get(host_id, ()):
            if key == after and port & PORT_MASK <= local:
                continue
            one = difference(before.get(port), now.get(port))
            if one is None or not _asked(where, one):
                continue
            items.append(one)
            if len(items) == size:
                return Page(items=items, token=write_token(key, port & PORT_MASK))
    more = len(hosts) == HOSTS_LOOKED_AT
    return Page(items=items, token=write_token(hosts[-1][1], PORT_MASK) if more else "")


def difference(before: Line | None, now: Line | None) -> Difference | None:
    """What became of one port; None if nothing."""
    was, is_there = _there(before), _there(now)
    if was and is_there:
        same = before is None or now is None or _same(before, now)
        return None if same else Difference(kind=Kind.CHANGED, before=before, after=now, why="")
    if is_there:
        return Difference(kind=Kind.APPEARED, before=before, after=now, why="")
    if was:
        why = now.port.state if now is not None and now.port is not None else ""
        return Difference(kind=Kind.DISAPPEARED, before=before, after=now, why=why)
    return None


def _there(line: Line | None) -> bool:
    return line is not None and line.port is not None and BY_WORD[line.port.state] in THERE


def _same(before: Line, now: Line) -> bool:
    """Whether nothing differs of what both say. How sure a tool is does not count."""
    first, second = before.port, now.port
    assert first is not None and second is not None  # noqa: S101 - of lines of ports only
    if first.state != second.state:
        return False
    if first.certificate and second.certificate and first.certificate.sha256 != second.certificate.sha256:
        return False
    return not (first.service and second.service) or _said(first.service) == _said(second.service)


def _said(service: ServiceFacts) -> tuple[object, ...]:
    return (service.name, service.product, service.version, service.extra, service.cpes, service.tls)


def _asked(where: Expression | None, one: Difference) -> bool:
    return where is None or any(line is not None and where.holds(line) for line in (one.before, one.after))
