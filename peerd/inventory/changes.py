"""What became known, one by one, in the order in which it did: for those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peerd.errors import PeerdError, Reason
from peerd.inventory import reading
from peerd.inventory.diffs import Kind
from peerd.inventory.facts import HostFacts, ServiceFacts
from peerd.inventory.keys import host_of, number_of, transport_of
from peerd.inventory.model import Transport
from peerd.inventory.states import State
from peerd.store.beside import Reads


@dataclass(frozen=True, kw_only=True)
class Change:
    """One port that became otherwise."""

    change_id: int
    kind: Kind
    at: int
    scan_id: int
    host: HostFacts
    transport: Transport
    number: int
    state_before: str
    state_after: str
    service_before: ServiceFacts | None
    service_after: ServiceFacts | None


async def newest(store: Reads) -> int:
    """The number of the last change; those after it are to come."""
    row = await store.one("SELECT seq FROM sqlite_sequence WHERE name = 'inventory_changes'")
    return row["seq"] if row is not None else 0


async def check_token(store: Reads, after: int) -> None:
    """Raises STALE when changes behind it were removed already, INVALID_PAGE_TOKEN for one of no change."""
    last = await newest(store)
    if after > last:
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, f"there was no change {after} yet")
    row = await store.one("SELECT min(id) AS id FROM inventory_changes")
    oldest = row["id"] if row is not None and row["id"] is not None else last + 1
    if after + 1 < oldest:
        raise PeerdError(
            Reason.STALE,
            f"changes from {after + 1} to {oldest - 1} are not kept any more",
            next_action="read the lists anew ('peerctl inventory ports'), then watch without a token",
        )


async def changes_after(store: Reads, after: int, *, limit: int) -> Sequence[Change]:
    """The next ones."""
    rows = await store.all("SELECT * FROM inventory_changes WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    hosts = await reading.hosts_by_id(store, (host_of(row["port_id"]) for row in rows))
    services = await reading.services_by_id(
        store, (row[column] for row in rows for column in ("service_before", "service_after"))
    )
    return [
        Change(
            change_id=row["id"],
            kind=Kind(row["kind"]),
            at=row["at"],
            scan_id=row["scan_id"],
            host=hosts[host_of(row["port_id"])],
            transport=transport_of(row["port_id"]),
            number=number_of(row["port_id"]),
            state_before=_word(row["state_before"]),
            state_after=_word(row["state_after"]),
            service_before=services.get(row["service_before"] or 0),
            service_after=services.get(row["service_after"] or 0),
        )
        for row in rows
    ]


def _word(state: int | None) -> str:
    return "" if state is None else State(state).word
