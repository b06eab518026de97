"""Removes services, banners and certificates that nothing points at any more: no port, no observation, no change.

They come of scans that say one port several times, each time otherwise: only what was said last is kept. What such a
scan lets go of is noted in its transaction, and what is pointed at again is taken off the list, so that all else can be
looked for at leisure, without an index that each observation would have to pay for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from peerd.inventory.gathering import Said
from peerd.store import Store, Tx

LOOKED_AT = 50_000
"""Of those noted, each time."""
OBSERVATIONS = 20_000
"""Read at once; and so many changes."""
_REMOVED = 1_000
"""In one transaction."""
SERVICE, BANNER, CERTIFICATE = 1, 2, 3
_TABLES = {SERVICE: "inventory_services", BANNER: "inventory_banners", CERTIFICATE: "inventory_certificates"}
_KIND_COLUMNS = ((SERVICE, "service_id"), (BANNER, "banner_id"), (CERTIFICATE, "certificate_id"))
_CHANGE_COLUMNS = (
    (SERVICE, "service_before"),
    (SERVICE, "service_after"),
    (CERTIFICATE, "certificate_before"),
    (CERTIFICATE, "certificate_after"),
)

Detail = tuple[int, int]
"""Kind and number."""


def note(tx: Tx, replaced: Iterable[Said], said: Iterable[Said]) -> None:
    """Statements were replaced by others: what the former point at may be an orphan, what the latter do is none."""
    used = _details(said)
    gone = _details(replaced) - used
    tx.executemany("INSERT OR REPLACE INTO inventory_dropped (kind, id) VALUES (?, ?)", gone)
    if used and tx.one("SELECT 1 FROM inventory_dropped LIMIT 1") is not None:
        tx.executemany("DELETE FROM inventory_dropped WHERE kind = ? AND id = ?", used)


def _details(said: Iterable[Said]) -> set[Detail]:
    found: set[Detail] = set()
    for _, _, service, banner, certificate in said:
        if service is not None:
            found.add((SERVICE, service))
        if banner is not None:
            found.add((BANNER, banner))
        if certificate is not None:
            found.add((CERTIFICATE, certificate))
    return found


async def sweep(store: Store, *, limit: int = LOOKED_AT) -> int:
    """Look at so many of those noted, longest ago first; returns how many were removed."""
    oldest = await store.one("SELECT coalesce(min(id), (1 << 62)) AS id FROM inventory_changes")
    rows = await store.all(
        "SELECT seq, kind, id FROM inventory_dropped WHERE until_change < ? ORDER BY seq LIMIT ?",
        (oldest["id"] if oldest is not None else 0, limit),
    )
    noted: dict[Detail, int] = {(row["kind"], row["id"]): row["seq"] for row in rows}
    if not noted:
        return 0
    pointed_at = await _pointed_at(store, set(noted))
    mentioned = await _mentioned(store, noted.keys() - pointed_at)
    removed = 0
    seqs = sorted(noted.items(), key=lambda entry: entry[1])
    for start in range(0, len(seqs), _REMOVED):
        removed += await store.write(
            partial(_settle, some=seqs[start : start + _REMOVED], pointed_at=pointed_at, mentioned=mentioned)
        )
    return removed


async def _pointed_at(store: Store, noted: set[Detail]) -> set[Detail]:
    """Those that observations or ports point at, read piece by piece."""
    found: set[Detail] = set()
    columns = ", ".join(column for _, column in _KIND_COLUMNS)
    each = " UNION ALL ".join(
        f"SELECT DISTINCT {kind} AS kind, {column} AS a, 0 AS b FROM some WHERE {column} IS NOT NULL"
        for kind, column in _KIND_COLUMNS
    )
    for source, key in (("inventory_observations", "port_id, scan_id"), ("inventory_ports", "id, 0")):
        after: tuple[int, int] | None = (-1, 0)
        order = "port_id, scan_id" if source == "inventory_observations" else "id"
        while after is not None and found != noted:
            rows = await store.all(
                f"WITH some AS MATERIALIZED (SELECT {key.split(', ')[0]} AS p, {key.split(', ')[1]} AS s, {columns} "
                f"FROM {source} WHERE ({key}) > (?, ?) ORDER BY {order} LIMIT ?) "
                f"{each} UNION ALL SELECT * FROM (SELECT 0, p, s FROM some ORDER BY p DESC, s DESC LIMIT 1)",
                (*after, OBSERVATIONS),
            )
            after = next(((row["a"], row["b"]) for row in rows if row["kind"] == 0), None)
            found.update(noted.intersection((row["kind"], row["a"]) for row in rows))
    return found


async def _mentioned(store: Store, orphans: set[Detail]) -> dict[Detail, int]:
    """Those that a change speaks of, with the last that does."""
    found: dict[Detail, int] = {}
    if not any(kind in (SERVICE, CERTIFICATE) for kind, _ in orphans):
        return found
    bounds = await store.one("SELECT min(id) AS low, max(id) AS high FROM inventory_changes")
    if bounds is None or bounds["low"] is None:
        return found
    for low in range(bounds["low"], bounds["high"] + 1, OBSERVATIONS):
        for kind, column in _CHANGE_COLUMNS:
            rows = await store.all(
                f"SELECT {column} AS id, max(id) AS last FROM inventory_changes WHERE id >= ? AND id < ? "
                f"AND {column} IS NOT NULL GROUP BY {column}",
                (low, low + OBSERVATIONS),
            )
            for row in rows:
                if (kind, row["id"]) in orphans:
                    found[kind, row["id"]] = max(row["last"], found.get((kind, row["id"]), 0))
    return found


def _settle(tx: Tx, *, some: list[tuple[Detail, int]], pointed_at: set[Detail], mentioned: dict[Detail, int]) -> int:
    """Remove what nothing points at, unless it was noted anew or taken off the list meanwhile; returns how many."""
    still = {
        row["seq"]
        for row in tx.execute(
            "SELECT seq FROM inventory_dropped WHERE seq IN (SELECT value FROM json_each(?))",
            (json.dumps([seq for _, seq in some]),),
        )
    }
    present = [(detail, seq) for detail, seq in some if seq in still]
    removed = 0
    for kind, table in _TABLES.items():
        gone = [
            detail[1]
            for detail, _ in present
            if detail[0] == kind and detail not in pointed_at and detail not in mentioned
        ]
        ids = (json.dumps(gone),)
        removed += tx.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", ids).rowcount
    kept = [(mentioned[detail], seq) for detail, seq in present if detail in mentioned and detail not in pointed_at]
    done = [(seq,) for detail, seq in present if detail in pointed_at or detail not in mentioned]
    tx.executemany("UPDATE inventory_dropped SET until_change = ? WHERE seq = ?", kept)
    tx.executemany("DELETE FROM inventory_dropped WHERE seq = ?", done)
    return removed
