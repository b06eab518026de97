"""Reading the audit log: pages of it, and whether its chain holds. :mod:`peerd.store.audit` writes it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from peerd.store import Store
from peerd.store.audit import entry_of, link

_CHUNK = 5000
_PAGE = (
    "SELECT * FROM audit_log WHERE id < :before AND at >= :since"
    " AND (:caller = '' OR caller = :caller) AND (:method = '' OR method = :method)"
    " ORDER BY id DESC LIMIT :count"
)
_NEWEST = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'), 0)"
# The anchor comes with the rows, in one statement: pruning between two would look like a broken chain.
_ANCHOR = "SELECT id AS anchor_id, digest AS anchor_digest FROM audit_anchor"
_FROM = (
    "SELECT *, (SELECT id FROM audit_anchor) AS anchor_id, (SELECT digest FROM audit_anchor) AS anchor_digest"
    " FROM audit_log WHERE id > ? ORDER BY id LIMIT ?"
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a walk along the chain found."""

    entries: int
    """Good ones, up to the first broken one."""
    broken_id: int = 0
    """0 when the chain holds."""
    fault: str = ""
    head: bytes = b""
    """Digest of the newest entry."""


async def read_page(
    store: Store, *, before: int, since: int, caller: str, method: str, count: int
) -> list[sqlite3.Row]:
    """Entries with smaller ids, newest first; empty texts leave caller and method open."""
    return await store.all(
        _PAGE, {"before": before, "since": since, "caller": caller, "method": method, "count": count}
    )


async def verify(store: Store) -> Verdict:
    """Compute every digest again, from what the oldest entry must follow to the newest one there ever was."""
    newest = await store.one(_NEWEST)
    assert newest is not None  # noqa: S101 - coalesce() gives a row
    entries, last, head = 0, -1, b""
    while True:
        rows = await store.all(_FROM, (last, _CHUNK))
        for anchor in rows[:1] or await store.all(_ANCHOR):
            if anchor["anchor_id"] > last:  # at first, and when rows were pruned while we walked
                last, head = anchor["anchor_id"], anchor["anchor_digest"]
        for row in rows:
            fault = _fault(row, last, head)
            if fault:
                return Verdict(entries=entries, broken_id=row["id"], fault=f"entry {row['id']} {fault}", head=head)
            entries, last, head = entries + 1, row["id"], row["digest"]
        if len(rows) < _CHUNK:
            break
    if last < newest[0]:
        fault = f"entries {last + 1} to {newest[0]}, the newest ones, were removed"
        return Verdict(entries=entries, broken_id=last + 1, fault=fault, head=head)
    return Verdict(entries=entries, head=head)


def _fault(row: sqlite3.Row, last: int, head: bytes) -> str:
    if row["previous"] != head:
        return "does not follow the entry before it: one was removed, added or changed"
    if row["digest"] != link(head, entry_of(row)):
        return "was changed"
    if row["id"] != last + 1:
        return "has another number than it was given"
    return ""
