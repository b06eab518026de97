"""The SQL of organizations and their nodes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

from peerd.clock import Millis
from peerd.nodes.model import Node, NodeEvent, NodeStatus, Organization, after
from peerd.nodes.policy import to_policy
from peerd.nodes.targets import ParsedTarget
from peerd.store import Store, Tx
from peerd.v1 import nodes_pb2

KEPT_TRANSITIONS = 1000
"""Of one node; the oldest go."""

# Organizations


def insert_organization(tx: Tx, columns: Mapping[str, object]) -> None:
    """A new one."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    tx.execute(f"INSERT INTO organizations ({names}) VALUES ({marks})", list(columns.values()))  # noqa: S608 - ours


def update_organization(tx: Tx, org_id: str, columns: Mapping[str, object]) -> None:
    """Change these columns."""
    names = ", ".join(f"{name} = ?" for name in (*columns, "updated_at"))
    values = (*columns.values(), tx.now, org_id)
    tx.execute(f"UPDATE organizations SET {names} WHERE org_id = ?", values)  # noqa: S608 - ours


def find_organization(tx: Tx, org_id_or_slug: str) -> sqlite3.Row | None:
    """By UUID or slug; a slug is never a UUID."""
    return tx.one(*organization_query(org_id_or_slug))


def organization_query(org_id_or_slug: str, columns: str = "o.*") -> tuple[str, Sequence[object]]:
    """The same as a query."""
    wanted = org_id_or_slug.lower()
    return f"SELECT {columns} FROM organizations o WHERE o.org_id = ? OR o.slug = ?", (wanted, wanted)  # noqa: S608 - ours


COUNTED = "o.*, (SELECT count(*) FROM nodes n WHERE n.org_id = o.org_id) AS node_count"
"""Columns for those who see it: its nodes are counted for nobody else."""


def to_organization(row: sqlite3.Row) -> Organization:
    """What decisions need of it."""
    policy = stored_policy(row)
    return Organization(
        org_id=row["org_id"],
        slug=row["slug"],
        active=bool(row["active"]),
        policy=to_policy(policy),
        members=frozenset(policy.members),
    )


def stored_policy(row: sqlite3.Row) -> nodes_pb2.OrganizationPolicy:
    """As it is stored, with its defaults."""
    return nodes_pb2.OrganizationPolicy.FromString(row["policy"])


# Nodes


def create_node(tx: Tx, *, node_id: str, org_id: str, target: ParsedTarget, caller: str) -> Node:
    """A new node, with the first entry of its history."""
    status = after(None, NodeEvent.CREATED)
    tx.execute(
        "INSERT INTO nodes (node_id, org_id, target, host, is_ip, port, status, since, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            node_id,
            org_id,
            target.text,
            target.host,
            int(target.address is not None),
            target.port,
            status,
            tx.now,
            tx.now,
            tx.now,
        ),
    )
    _note(tx, node_id, None, status, NodeEvent.CREATED, detail=target.text, caller=caller, run_id=0)
    return to_node(_row(tx, node_id))


def change_node(
    tx: Tx,
    node_id: str,
    event: NodeEvent,
    *,
    caller: str,
    run_id: int = 0,
    detail: str = "",
    columns: Mapping[str, object] | None = None,
) -> Node:
    """Let an event happen to a node, with its history. Raises ILLEGAL_TRANSITION."""
    before = NodeStatus(_row(tx, node_id)["status"])
    status = after(before, event)
    changed = {"reason": "", "message": "", **(columns or {}), "status": status, "updated_at": tx.now}
    if status is not before:
        changed["since"] = tx.now
    names = ", ".join(f"{name} = ?" for name in changed)
    tx.execute(f"UPDATE nodes SET {names} WHERE node_id = ?", (*changed.values(), node_id))  # noqa: S608 - ours
    _note(tx, node_id, before, status, event, detail=detail, caller=caller, run_id=run_id)
    return to_node(_row(tx, node_id))


def _note(
    tx: Tx,
    node_id: str,
    before: NodeStatus | None,
    status: NodeStatus,
    event: NodeEvent,
    *,
    detail: str,
    caller: str,
    run_id: int,
) -> None:
    tx.execute(
        "INSERT INTO node_transitions (node_id, at, from_status, to_status, event, detail, caller, run_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (node_id, tx.now, before or "", status, event, detail[:500], caller, run_id),
    )
    tx.execute(
        "DELETE FROM node_transitions WHERE node_id = ? AND id <= (SELECT id FROM node_transitions WHERE node_id = ?"
        " ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (node_id, node_id, KEPT_TRANSITIONS),
    )


def _row(tx: Tx, node_id: str) -> sqlite3.Row:
    row = tx.one("SELECT * FROM nodes WHERE node_id = ?", (node_id,))
    assert row is not None  # noqa: S101 - nodes are never removed
    return row


def count_nodes(tx: Tx, org_id: str) -> int:
    """How many an organization has."""
    row = tx.one("SELECT count(*) AS count FROM nodes WHERE org_id = ?", (org_id,))
    return int(row["count"]) if row is not None else 0


def find_by_target(tx: Tx, org_id: str, target: str) -> Node | None:
    """The node of that organization with that normalised target."""
    row = tx.one("SELECT * FROM nodes WHERE org_id = ? AND target = ?", (org_id, target))
    return None if row is None else to_node(row)


def find_by_id(tx: Tx, node_id: str) -> Node | None:
    """The node of that UUID, whosever it is."""
    row = tx.one("SELECT * FROM nodes WHERE node_id = ?", (node_id.lower(),))
    return None if row is None else to_node(row)


def due_nodes(tx: Tx, org_id: str, *, protocol: str, now: int, cool_down_ms: int) -> Iterator[Node]:
    """Those that nothing is under way for and that do not cool down: first those never tried, then those tried
    longest ago, well or not, so that nodes which fail each time keep no others from their turn."""
    found = tx.all(
        f"SELECT n.id FROM nodes n WHERE {_DUE}"  # noqa: S608 - ours
        " ORDER BY (SELECT max(r.id) FROM node_runs r WHERE r.node_id = n.node_id), n.id",
        (org_id, protocol, protocol, now, cool_down_ms),
    )
    for row in found:
        whole = tx.one("SELECT * FROM nodes WHERE id = ?", (row["id"],))
        assert whole is not None  # noqa: S101 - found in this very transaction
        yield to_node(whole)


def count_due(tx: Tx, org_id: str, *, protocol: str, now: int, cool_down_ms: int) -> int:
    """How many there are of these."""
    counted = f"SELECT count(*) AS count FROM nodes n WHERE {_DUE}"  # noqa: S608 - ours
    row = tx.one(counted, (org_id, protocol, protocol, now, cool_down_ms))
    return int(row["count"]) if row is not None else 0


# Before now or after it: what was scanned while the clock was far ahead does not cool down until that time has come.
_DUE = (
    "n.org_id = ? AND (? = '' OR n.protocol = ?) AND (n.scanned_at IS NULL OR abs(? - n.scanned_at) >= ?) "
    "AND NOT EXISTS (SELECT 1 FROM node_runs r WHERE r.node_id = n.node_id AND r.status = 'running')"
)


def to_node(row: sqlite3.Row) -> Node:
    """What decisions need of it."""
    return Node(
        node_id=row["node_id"],
        org_id=row["org_id"],
        target=row["target"],
        host=row["host"],
        port=row["port"],
        status=NodeStatus(row["status"]),
        protocol=row["protocol"],
        scanned_at=None if row["scanned_at"] is None else Millis(row["scanned_at"]),
    )


NODES = "SELECT n.*, o.slug FROM nodes n JOIN organizations o ON o.org_id = n.org_id"


async def page_of_nodes(
    store: Store, org_ids: Sequence[str], *, statuses: Sequence[str], protocol: str, after_id: int, limit: int
) -> list[sqlite3.Row]:
    """Nodes of these organizations, in the order in which they were made."""
    conditions = ["n.org_id IN (SELECT value FROM json_each(?))", "n.id > ?"]
    values: list[object] = [json.dumps(list(org_ids)), after_id]
    if statuses:
        conditions.append(f"n.status IN ({', '.join('?' * len(statuses))})")
        values += statuses
    if protocol:
        conditions.append("n.protocol = ?")
        values.append(protocol)
    return await store.all(f"{NODES} WHERE {' AND '.join(conditions)} ORDER BY n.id LIMIT ?", (*values, limit))


async def history(store: Store, node_id: str, limit: int) -> list[sqlite3.Row]:
    """The newest changes of a status, oldest first."""
    rows = await store.all(
        "SELECT * FROM node_transitions WHERE node_id = ? ORDER BY id DESC LIMIT ?", (node_id, limit)
    )
    return rows[::-1]
