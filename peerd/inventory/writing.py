"""Storing what a scan says, a chunk of records in one transaction. The same chunk again changes nothing.

Most of what scans say is new, or is known already. Both are written by a few statements for a whole chunk; only where
something turned out otherwise, or a scan came late, all that was ever said of a port is looked at again
(:mod:`peerd.inventory.judging`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peerd.inventory import details, orphans, revising
from peerd.inventory.gathering import Gathered, Said, Seen, gather, merged
from peerd.inventory.keys import PORT_BITS, key_of
from peerd.inventory.model import Record, Source
from peerd.inventory.scans import open_scan
from peerd.inventory.states import THERE, State
from peerd.store import Tx

_KEYS = 500
"""Looked up by one statement."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much an ingest job said: each host and port once, however often it was said."""

    hosts: int
    ports: int


def apply(tx: Tx, source: Source, records: Sequence[Record]) -> None:
    """Store what a chunk of a scan says."""
    scan = open_scan(tx, source)
    gathered = gather(records, source.scanned_at, source.ended_at)
    known = _known_hosts(tx, [key_of(address) for address in gathered])
    hosts = _write_hosts(tx, gathered, known)
    _write_sightings(tx, scan.scan_id, hosts)
    details.write_names(tx, hosts, source)
    _write_ports(tx, scan.scan_id, hosts, set(known.values()))


def counts(tx: Tx, ingest_job_id: int) -> Counts:
    """What was counted so far."""
    row = tx.one("SELECT ports FROM inventory_scans WHERE id = ?", (ingest_job_id,))
    hosts = tx.one(
        "SELECT count(*) AS n FROM inventory_sightings WHERE scan_id = ? AND state <> ?",
        (ingest_job_id, int(State.NOT_SHOWN)),
    )
    return Counts(hosts=hosts["n"] if hosts else 0, ports=row["ports"] if row else 0)


def _known_hosts(tx: Tx, keys: Sequence[bytes]) -> dict[bytes, int]:
    """The ids of those that are stored."""
    found: dict[bytes, int] = {}
    marks = ",".join("?" * _KEYS)
    for start in range(0, len(keys), _KEYS):
        some = list(keys[start : start + _KEYS])
        some += some[-1:] * (_KEYS - len(some))  # one text for all, so that it is prepared once
        for row in tx.execute(f"SELECT key, id FROM inventory_hosts WHERE key IN ({marks})", some):
            found[row[0]] = row[1]
    return found


def _write_hosts(tx: Tx, gathered: Gathered, known: dict[bytes, int]) -> dict[int, Seen]:
    """By id. A host that did not answer is of interest only if it was there before."""
    newest = tx.one("SELECT coalesce(max(id), 0) AS id FROM inventory_hosts")
    next_id = (newest["id"] if newest else 0) + 1
    hosts: dict[int, Seen] = {}
    new, changed = [], []
    for address, seen in gathered.items():
        key = key_of(address)
        host_id = known.get(key)
        if host_id is not None:
            up = int(seen.up)
            changed.append((up, seen.last, seen.last * up, seen.first, host_id))
        elif seen.up:
            host_id = next_id
            next_id += 1
            new.append((host_id, key, address, seen.first, seen.last))
        else:
            continue
        hosts[host_id] = seen
    tx.executemany(
        "INSERT INTO inventory_hosts (id, key, address, up, first_seen, last_seen) VALUES (?, ?, ?, 1, ?, ?)", new
    )
    tx.executemany(
        "UPDATE inventory_hosts SET up = iif(?2 >= last_seen, ?1, up), last_seen = max(last_seen, ?3), "
        "first_seen = min(first_seen, ?4) WHERE id = ?5",
        changed,
    )
    return hosts


def _write_sightings(tx: Tx, scan_id: int, hosts: dict[int, Seen]) -> None:
    """One that was up at any moment of the scan was up."""
    tx.executemany(
        "INSERT INTO inventory_sightings (scan_id, host_id, state, seen_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET state = min(state, excluded.state), seen_at = max(seen_at, excluded.seen_at)",
        [
            (scan_id, host_id, int(State.OPEN if seen.up else State.CLOSED), seen.last)
            for host_id, seen in hosts.items()
        ],
    )


def _write_ports(tx: Tx, scan_id: int, hosts: dict[int, Seen], known_hosts: set[int]) -> None:
    resolve = details.Resolver(tx)
    said: dict[int, Said] = {
        host_id << PORT_BITS | local: resolve.numbers(port)
        if port[2] is not None or port[3] is not None or port[4] is not None
        else (port[0], port[1], None, None, None)
        for host_id, seen in hosts.items()
        for local, port in seen.ports.items()
    }
    if not said:
        return
    old = [port for port in said if port >> PORT_BITS in known_hosts]
    before = {row["id"]: row for row in _by_id(tx, "SELECT * FROM inventory_ports WHERE id IN", old)}
    again = 0
    replaced: list[Said] = []
    for row in _by_id(tx, f"SELECT * FROM inventory_observations WHERE scan_id = {scan_id:d} AND port_id IN", old):
        if row["state"] == State.NOT_SHOWN:
            continue
        port = row["port_id"]
        earlier = (row["seen_at"], row["state"], row["service_id"], row["banner_id"], row["certificate_id"])
        replaced += (earlier, said[port])
        said[port] = merged(earlier, said[port])
        again += 1
    tx.executemany(
        "INSERT OR REPLACE INTO inventory_observations "
        "(port_id, scan_id, state, seen_at, service_id, banner_id, certificate_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (port, scan_id, state, at, service, banner, certificate)
            for port, (at, state, service, banner, certificate) in said.items()
        ],
    )
    if replaced or resolve.used:
        orphans.note(tx, replaced, said.values())
    transports = 0
    new: list[tuple[int | None, ...]] = []
    changes: list[tuple[int | None, ...]] = []
    still: list[tuple[int | None, ...]] = []
    otherwise: list[int] = []
    for port, (at, state, service, banner, certificate) in said.items():
        transports |= 1 << (port >> 16 & 3)
        old_row = before.get(port)
        if old_row is None:
            there = state in THERE
            new.append((port, state, at, at, at if there else None, service, banner, certificate))
            if there:
                changes.append((port, scan_id, at, state, service, certificate))
        elif _as_before(old_row, at, state, service, banner, certificate):
            still.append((at, at if state in THERE else None, port))
        else:
            otherwise.append(port)
    tx.executemany("INSERT INTO inventory_ports VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
    tx.executemany(
        "INSERT INTO inventory_changes (port_id, kind, scan_id, at, state_after, service_after, certificate_after) "
        "VALUES (?, 1, ?, ?, ?, ?, ?)",
        changes,
    )
    tx.executemany("UPDATE inventory_ports SET last_seen = ?, last_open = coalesce(?, last_open) WHERE id = ?", still)
    revising.revise(tx, otherwise, scan_id)
    tx.execute(
        "UPDATE inventory_scans SET ports = ports + ?, transports = transports | ? WHERE id = ?",
        (len(said) - again, transports, scan_id),
    )


def _as_before(
    row: sqlite3.Row, at: int, state: int, service: int | None, banner: int | None, certificate: int | None
) -> bool:
    """Whether a statement, the newest, says nothing new."""
    return (
        at >= row["last_seen"]
        and state == row["state"]
        and (service is None or service == row["service_id"])
        and (banner is None or banner == row["banner_id"])
        and (certificate is None or certificate == row["certificate_id"])
    )


def _by_id(tx: Tx, sql: str, ids: Sequence[int]) -> Iterable[sqlite3.Row]:
    if not ids:
        return ()
    return tx.execute(f"{sql} (SELECT value FROM json_each(?))", (json.dumps(ids),))
