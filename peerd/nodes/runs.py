"""The SQL of discoveries and scans, and of the sweeps they belong to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peerd.clock import DAY_MS
from peerd.nodes.messages import Kind
from peerd.nodes.model import OpenRun, Usage
from peerd.store import Store, Tx

RUNNING, OK, FAILED = "running", "ok", "failed"
KEPT_RUNS = 200
"""Of one node; what they found is kept by :mod:`peerd.nodes.keeping`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One that is under way."""

    run_id: int
    node_id: str
    org_id: str
    kind: Kind
    protocol: str
    level: int
    workflow_execution_id: int
    job: str
    """Which may probe other nodes, too."""
    longest_seconds: int
    """After so long a job that began has ended, or nothing more is to be expected of it."""
    caller: str
    host: str = ""
    target: str = ""
    """Both of its node."""


def add(
    tx: Tx,
    *,
    node_id: str,
    org_id: str,
    kind: Kind,
    protocol: str,
    level: int,
    execution_id: int,
    job: str,
    longest_seconds: int,
    caller: str,
    sweep_id: int = 0,
) -> int:
    """A new one; a node has one at a time."""
    return tx.insert(
        "INSERT INTO node_runs (node_id, org_id, kind, status, protocol, level, workflow_execution_id, job, started_at,"
        " longest_seconds, sweep_id, caller) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (node_id, org_id, kind, RUNNING, protocol, level, execution_id, job, tx.now, longest_seconds, sweep_id, caller),
    )


def end(tx: Tx, run_id: int, status: str, columns: Mapping[str, object]) -> bool:
    """End it; False if it was ended before, and then nothing may follow."""
    changed = {**columns, "status": status, "ended_at": tx.now}
    names = ", ".join(f"{name} = ?" for name in changed)
    ended = tx.execute(
        f"UPDATE node_runs SET {names} WHERE id = ? AND status = '{RUNNING}'",  # noqa: S608 - ours
        (*changed.values(), run_id),
    )
    return ended.rowcount == 1


def remark(tx: Tx, run_id: int, message: str) -> None:
    """Say something of one that has ended."""
    tx.execute("UPDATE node_runs SET message = ? WHERE id = ?", (message, run_id))


def prune(tx: Tx, node_id: str) -> None:
    """Forget old runs of a node; the last day's count in the budget."""
    older = "(SELECT id FROM node_runs WHERE node_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
    tx.execute(
        f"DELETE FROM node_runs WHERE node_id = ? AND id <= {older} AND status != '{RUNNING}'"  # noqa: S608 - ours
        " AND abs(? - started_at) >= ?",
        (node_id, node_id, KEPT_RUNS, tx.now, DAY_MS),
    )


def usage(tx: Tx, org_id: str, node_id: str = "") -> Usage:
    """What the organization uses of its policy now, and what is under way for the node.

    Of a sweep as many count as it probes at once: the others wait for these. What began while the clock was far ahead
    does not count: it would until that time has come.
    """
    under_way = tx.all(
        "SELECT count(*) AS count, s.lanes FROM node_runs r LEFT JOIN node_sweeps s ON s.id = r.sweep_id"
        " WHERE r.org_id = ? AND r.status = 'running' GROUP BY r.sweep_id",
        (org_id,),
    )
    began = tx.one(
        "SELECT count(*) AS count FROM node_runs WHERE org_id = ? AND started_at > ? AND started_at < ?",
        (org_id, tx.now - DAY_MS, tx.now + DAY_MS),
    )
    assert began is not None  # noqa: S101 - counts are always there
    return Usage(
        running=sum(min(row["count"], row["lanes"] or row["count"]) for row in under_way),
        last_day=began["count"],
        of_node=open_run(tx, node_id) if node_id else None,
    )


def open_run(tx: Tx, node_id: str) -> OpenRun | None:
    """What is under way for a node."""
    row = tx.one("SELECT * FROM node_runs WHERE node_id = ? AND status = 'running'", (node_id,))
    if row is None:
        return None
    return OpenRun(run_id=row["id"], kind=row["kind"], workflow_execution_id=row["workflow_execution_id"])


async def all_open(store: Store) -> list[Run]:
    """Everything that is under way, oldest first."""
    return [_to_run(row) for row in await store.all(f"{_OPEN} ORDER BY r.id")]


def open_of_organization(tx: Tx, org_id: str) -> list[Run]:
    """Everything that is under way for it, oldest first."""
    return [_to_run(row) for row in tx.all(f"{_OPEN} AND r.org_id = ? ORDER BY r.id", (org_id,))]


_OPEN = "SELECT r.*, n.host, n.target FROM node_runs r JOIN nodes n ON n.node_id = r.node_id WHERE r.status = 'running'"


async def open_of(store: Store, node_ids: Sequence[str]) -> dict[str, sqlite3.Row]:
    """What is under way for these nodes, by node."""
    rows = await store.all(
        "SELECT * FROM node_runs WHERE status = 'running' AND node_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(node_ids)),),
    )
    return {row["node_id"]: row for row in rows}


def _to_run(row: sqlite3.Row) -> Run:
    return Run(
        run_id=row["id"],
        node_id=row["node_id"],
        org_id=row["org_id"],
        kind=Kind(row["kind"]),
        protocol=row["protocol"],
        level=row["level"],
        workflow_execution_id=row["workflow_execution_id"],
        job=row["job"],
        longest_seconds=row["longest_seconds"],
        caller=row["caller"],
        host=row["host"],
        target=row["target"],
    )


async def of_node(store: Store, node_id: str, *, before: int, limit: int) -> list[sqlite3.Row]:
    """Those of a node with an id below ``before``, newest first."""
    return await store.all(
        "SELECT * FROM node_runs WHERE node_id = ? AND id < ? ORDER BY id DESC LIMIT ?", (node_id, before, limit)
    )


async def with_result(store: Store, node_id: str, run_id: int) -> sqlite3.Row | None:
    """The run of that id, or for 0 the newest scan of the node that went well."""
    if run_id:
        return await store.one("SELECT * FROM node_runs WHERE node_id = ? AND id = ?", (node_id, run_id))
    return await store.one(
        "SELECT * FROM node_runs WHERE node_id = ? AND kind = 'scan' AND status = 'ok' ORDER BY id DESC LIMIT 1",
        (node_id,),
    )


# Sweeps


def add_sweep(tx: Tx, *, org_id: str, execution_id: int, lanes: int, left_out: int, reason: str, caller: str) -> int:
    """A new one."""
    return tx.insert(
        "INSERT INTO node_sweeps (org_id, workflow_execution_id, started_at, lanes, left_out, left_out_reason, caller)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (org_id, execution_id, tx.now, lanes, left_out, reason, caller),
    )


SWEEPS = "SELECT * FROM node_sweeps WHERE id = ?"
SWEEP_COUNTS = (
    "SELECT status, risk, reason, peer_id, count(*) AS count, max(ended_at) AS ended_at FROM node_runs"
    " WHERE sweep_id = ? GROUP BY status, risk, reason, peer_id"
)
