"""What a whole scan does not show, and must have shown, was not there.

Many tools list open ports only. Two scans look at the same things when the same scanner made both from the same place
with the same tool, for the same organization, and says the same scope of both: a *series*. A port that the last scan of
a series before this one saw open, and this one does not show, is gone when this one covers it:

- Its scope is said: the scope holds the address and the port.
- Its scope is not said: it shows the host, as up, and some port of that transport, be it of another host. A host that
  it does not show at all is not judged: nobody knows whether it was looked at. Where nmap says which ports it tried,
  these count instead of the transport.

All of this is said of one host at a time, so it is done for some hosts in each transaction: others get their turn, and
what is killed in between is done again. A scan that completes meanwhile finds what was done, and is itself among those
that the rest is done for.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from peerd.inventory.keys import PORT_BITS, number_of, transport_of
from peerd.inventory.revising import revise
from peerd.inventory.scans import SELECT, Scan, get_scan, to_scan
from peerd.inventory.states import THERE, State
from peerd.store import Tx

_HOSTS = 500
_OBSERVATIONS = 4000
"""In one transaction: it ends with the host that makes it so many, on each scan that is looked at."""

_OF_SERIES = "s.viewpoint_id = ? AND s.tool = ? AND s.organization = ? AND s.scope = ? AND s.completed_at IS NOT NULL"


def complete(tx: Tx, ingest_job_id: int, after: int = 0) -> int | None:
    """All of a scan is stored: settle some hosts behind that one. Returns where to go on; None at the end.

    May be done again; a scan of which nothing was stored has nothing to settle.
    """
    if tx.one("SELECT 1 FROM inventory_scans WHERE id = ?", (ingest_job_id,)) is None:
        return None
    tx.execute(
        "UPDATE inventory_scans SET completed_at = coalesce(completed_at, ?) WHERE id = ?", (tx.now, ingest_job_id)
    )
    scan = get_scan(tx, ingest_job_id)
    before = _before(tx, scan)
    pairs: list[tuple[Scan, Scan]] = []
    for one in _since(tx, scan):  # those behind it as well, when it came late
        if before is not None:
            pairs.append((before, one))
        before = one
    hosts = _next_hosts(tx, pairs, after)
    if not hosts:
        return None
    for earlier, later in pairs:
        _settle(tx, later, earlier, after, hosts[-1])
    return hosts[-1]


def _before(tx: Tx, scan: Scan) -> Scan | None:
    """The whole scan of the same things that was made last before it."""
    row = tx.one(
        f"{SELECT} WHERE {_OF_SERIES} AND (s.scanned_at, s.id) < (?, ?) ORDER BY s.scanned_at DESC, s.id DESC LIMIT 1",
        (*_series(scan), scan.scanned_at, scan.scan_id),
    )
    return None if row is None else to_scan(row)


def _since(tx: Tx, scan: Scan) -> list[Scan]:
    """It, and all whole scans of the same things that were made later, in their order."""
    rows = tx.all(
        f"{SELECT} WHERE {_OF_SERIES} AND (s.scanned_at, s.id) >= (?, ?) ORDER BY s.scanned_at, s.id",
        (*_series(scan), scan.scanned_at, scan.scan_id),
    )
    return [to_scan(row) for row in rows]


def _series(scan: Scan) -> tuple[object, ...]:
    return (scan.viewpoint, scan.tool, scan.organization, scan.scope_text)


def _next_hosts(tx: Tx, pairs: Sequence[tuple[Scan, Scan]], after: int) -> list[int]:
    """Hosts to be judged, as many as one transaction has time for; at least one, if there is any."""
    found: set[int] = set()
    for scan_id in {one.scan_id for pair in pairs for one in pair}:
        rows = tx.execute(
            "SELECT host_id FROM inventory_sightings WHERE scan_id = ? AND host_id > ? ORDER BY host_id LIMIT ?",
            (scan_id, after, _HOSTS),
        )
        found.update(row["host_id"] for row in rows)
    work, hosts = 0, list[int]()
    rows = tx.execute(
        "SELECT value AS id, (SELECT count(*) FROM inventory_observations o WHERE "
        f"o.port_id >= value << {PORT_BITS} AND o.port_id < (value + 1) << {PORT_BITS}) AS n FROM json_each(?)",
        (json.dumps(sorted(found)[:_HOSTS]),),
    )
    for row in rows:
        hosts.append(row["id"])
        work += (row["n"] + 1) * len(pairs)
        if work >= _OBSERVATIONS:
            break
    return hosts


def _settle(tx: Tx, scan: Scan, before: Scan, after: int, until: int) -> None:
    """Of the hosts behind the one and up to the other."""
    if scan.scope is not None and scan.scope.networks is not None:
        _miss_hosts(tx, scan, before, after, until)
    missing = []
    for row in _unshown(tx, scan, after, until):
        transport, number = transport_of(row["port_id"]), number_of(row["port_id"])
        if scan.scope is not None:
            covered = scan.scope.has_port(transport, number)
        else:
            covered = bool(scan.transports >> (row["port_id"] >> 16 & 3) & 1)
        if covered and row["state"] in THERE:
            missing.append((row["port_id"], row["seen_at"]))
    tx.executemany(
        "INSERT OR IGNORE INTO inventory_observations (port_id, scan_id, state, seen_at) VALUES (?, ?, ?, ?)",
        [(port, scan.scan_id, int(State.NOT_SHOWN), at) for port, at in missing],
    )
    revise(tx, [port for port, _ in missing], scan.scan_id)


def _miss_hosts(tx: Tx, scan: Scan, before: Scan, after: int, until: int) -> None:
    """Hosts within the scope that it does not show, and the one before it showed, or missed in its turn."""
    assert scan.scope is not None  # noqa: S101 - the caller looked
    rows = tx.all(
        "SELECT h.id, h.key FROM inventory_sightings e JOIN inventory_hosts h ON h.id = e.host_id "
        "WHERE e.scan_id = ? AND e.host_id > ? AND e.host_id <= ? AND NOT EXISTS "
        "(SELECT 1 FROM inventory_sightings t WHERE t.scan_id = ? AND t.host_id = e.host_id)",
        (before.scan_id, after, until, scan.scan_id),
    )
    missed = [row["id"] for row in rows if scan.scope.has_host(row["key"])]
    tx.executemany(
        "INSERT OR IGNORE INTO inventory_sightings (scan_id, host_id, state, seen_at) VALUES (?, ?, ?, ?)",
        [(scan.scan_id, host_id, int(State.NOT_SHOWN), scan.scanned_at) for host_id in missed],
    )
    tx.executemany(
        "UPDATE inventory_hosts SET up = 0 WHERE id = ? AND last_seen < ?",
        [(host_id, scan.scanned_at) for host_id in missed],
    )


def _unshown(tx: Tx, scan: Scan, after: int, until: int) -> list[sqlite3.Row]:
    """Ports of the hosts that it judges and says nothing of, as the series saw each of them last."""
    by_network = scan.scope is not None and scan.scope.networks is not None
    judged = (State.OPEN, State.CLOSED, State.NOT_SHOWN) if by_network else (State.OPEN,)
    # SQLite takes the other columns from the row that has the maximum.
    return tx.all(
        "SELECT o.port_id, o.state, t.seen_at, max(o.seen_at) FROM inventory_sightings t CROSS JOIN "
        f"inventory_observations o ON o.port_id >= t.host_id << {PORT_BITS} "
        f"AND o.port_id < (t.host_id + 1) << {PORT_BITS} "
        "WHERE t.scan_id = ? AND t.host_id > ? AND t.host_id <= ? "
        f"AND t.state IN ({', '.join(str(int(state)) for state in judged)}) "
        f"AND o.scan_id IN (SELECT s.id FROM inventory_scans s WHERE {_OF_SERIES} "
        "AND (s.scanned_at, s.id) < (?, ?)) "
        "AND o.seen_at <= t.seen_at AND NOT EXISTS (SELECT 1 FROM inventory_observations n "
        "WHERE n.port_id = o.port_id AND n.scan_id = ?) GROUP BY o.port_id",
        (scan.scan_id, after, until, *_series(scan), scan.scanned_at, scan.scan_id, scan.scan_id),
    )
