"""What is kept of old observations: the first and the last of each run in which a series says the same.

All answers about states at moments stay the same: what is removed said what the one before it had said, and the one
after it says the same. A series is what :mod:`peerd.inventory.settling` compares.
"""

from __future__ import annotations

from peerd.inventory.keys import PORT_BITS
from peerd.store import Tx

CHANGES_KEPT = 1_000_000
"""For those who watch; older ones are removed first."""
_HOSTS = 200
"""In one transaction."""
_CHANGES = 20_000


def thin(tx: Tx, *, before: int, after_host: int) -> int | None:
    """Thin some hosts out; returns where to go on, None at the end."""
    hosts = [
        row["id"]
        for row in tx.all("SELECT id FROM inventory_hosts WHERE id > ? ORDER BY id LIMIT ?", (after_host, _HOSTS))
    ]
    if not hosts:
        return None
    low, high = hosts[0] << PORT_BITS, (hosts[-1] + 1) << PORT_BITS
    removed = tx.execute(
        "WITH said AS (SELECT o.port_id, o.scan_id, o.seen_at, "
        "o.state || ' ' || coalesce(o.service_id, '') || ' ' || coalesce(o.banner_id, '') || ' ' "
        "|| coalesce(o.certificate_id, '') AS what, s.viewpoint_id, s.tool, s.organization, s.scope, "
        "s.completed_at IS NULL AS part "
        "FROM inventory_observations o JOIN inventory_scans s ON s.id = o.scan_id "
        "WHERE o.port_id >= ?1 AND o.port_id < ?2), "
        "ranked AS (SELECT port_id, scan_id, seen_at, what, lag(what) OVER run AS earlier, "
        "lead(what) OVER run AS later "
        "FROM said WINDOW run AS (PARTITION BY port_id, viewpoint_id, tool, organization, scope, part "
        "ORDER BY seen_at, scan_id)) "
        "DELETE FROM inventory_observations WHERE (port_id, scan_id) IN "
        "(SELECT port_id, scan_id FROM ranked WHERE what = earlier AND what = later AND seen_at < ?3) "
        "RETURNING scan_id",
        (low, high, before),
    ).fetchall()
    removed += tx.execute(
        "WITH ranked AS (SELECT g.host_id, g.scan_id, g.seen_at, g.state, lag(g.state) OVER run AS earlier, "
        "lead(g.state) OVER run AS later FROM inventory_sightings g JOIN inventory_scans s ON s.id = g.scan_id "
        "WHERE g.host_id >= ?1 AND g.host_id <= ?2 "
        "WINDOW run AS (PARTITION BY g.host_id, s.viewpoint_id, s.tool, s.organization, s.scope, "
        "s.completed_at IS NULL ORDER BY s.scanned_at, s.id)) "
        "DELETE FROM inventory_sightings WHERE (scan_id, host_id) IN "
        "(SELECT scan_id, host_id FROM ranked WHERE state = earlier AND state = later AND seen_at < ?3) "
        "RETURNING scan_id",
        (hosts[0], hosts[-1], before),
    ).fetchall()
    tx.executemany("UPDATE inventory_scans SET thinned = 1 WHERE id = ?", {(row["scan_id"],) for row in removed})
    return int(hosts[-1])


def forget_changes(tx: Tx, *, kept: int = CHANGES_KEPT) -> bool:
    """Remove some of what is too much; whether there is more of it."""
    row = tx.one("SELECT max(id) AS last, min(id) AS first FROM inventory_changes")
    if row is None or row["last"] is None:
        return False
    until = min(row["last"] - kept, row["first"] + _CHANGES)
    tx.execute("DELETE FROM inventory_changes WHERE id <= ?", (until,))
    return bool(until < row["last"] - kept)
