"""Looking again at all that was said of some ports, and noting what came out otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby

from peerd.inventory.judging import Observation, Standing, standing
from peerd.inventory.states import THERE
from peerd.store import Tx

APPEARED, DISAPPEARED, CHANGED = 1, 2, 3

OBSERVATIONS = (
    "SELECT o.port_id, o.seen_at, o.scan_id, s.viewpoint_id, o.state, o.service_id, o.banner_id, o.certificate_id "
    "FROM inventory_observations o JOIN inventory_scans s ON s.id = o.scan_id"
)


def revise(tx: Tx, ports: Sequence[int], scan_id: int) -> None:
    """Bring what is kept of these ports up to date; ``scan_id`` is what made it necessary."""
    if not ports:
        return
    asked = json.dumps(list(ports))
    before = {
        row["id"]: row
        for row in tx.execute("SELECT * FROM inventory_ports WHERE id IN (SELECT value FROM json_each(?))", (asked,))
    }
    rows = tx.all(f"{OBSERVATIONS} WHERE o.port_id IN (SELECT value FROM json_each(?)) ORDER BY o.port_id", (asked,))
    updates, changes = [], []
    for port, found in groupby(rows, key=lambda row: int(row[0])):
        observations = [Observation(*row[1:]) for row in found]
        now = standing(observations)
        old = before[port]
        if now is None:
            continue
        updates.append(
            (
                now.state,
                now.first_seen,
                now.last_seen,
                now.last_open,
                now.service_id,
                now.banner_id,
                now.certificate_id,
                port,
            )
        )
        kind = _kind(old["state"], old["service_id"], old["certificate_id"], now)
        if kind is not None:
            at = max(one.seen_at for one in observations if one.scan_id == scan_id)
            changes.append(
                (
                    port,
                    kind,
                    scan_id,
                    at,
                    old["state"],
                    now.state,
                    old["service_id"],
                    now.service_id,
                    old["certificate_id"],
                    now.certificate_id,
                )
            )
    tx.executemany(
        "UPDATE inventory_ports SET state = ?, first_seen = ?, last_seen = ?, last_open = ?, service_id = ?, "
        "banner_id = ?, certificate_id = ? WHERE id = ?",
        updates,
    )
    tx.executemany(
        "INSERT INTO inventory_changes (port_id, kind, scan_id, at, state_before, state_after, service_before, "
        "service_after, certificate_before, certificate_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        changes,
    )


def _kind(state: int, service_id: int | None, certificate_id: int | None, now: Standing) -> int | None:
    was = state in THERE
    if was != now.there:
        return APPEARED if now.there else DISAPPEARED
    if not now.there:
        return None
    other = (
        state != now.state
        or (service_id is not None and service_id != now.service_id)
        or (certificate_id is not None and certificate_id != now.certificate_id)
    )
    return CHANGED if other else None
