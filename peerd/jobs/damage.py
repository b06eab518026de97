"""Jobs whose rows cannot be read: put aside, ended, and reported to whoever ordered them; the others go on."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

from peerd.errors import PeerdError, Reason
from peerd.jobs.edge_repository import to_edge
from peerd.jobs.model import JobStatus, RetryPolicy, Work
from peerd.jobs.repository import to_job
from peerd.store import Tx
from peerd.store.failures import is_corrupt
from peerd.store.quarantine import move_aside, put_aside

_MESSAGE = "what was ordered can no longer be read: its row in the store was damaged"


def put_aside_damaged(tx: Tx) -> None:
    """Call at start, before anything is taken up. A process that runs is stopped, as when its lease has passed.

    Raises STORE_CORRUPT when it is not a row that is damaged.
    """
    for row in _legible(tx):
        try:
            to_job(row)
        except IndexError as error:  # no row is to blame: the name of a column is not what it was
            raise PeerdError(Reason.STORE_CORRUPT, "the schema of the table of jobs is damaged") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            content = json.dumps([row["work"], row["retry"], row["status"], row["stop"]]).encode()
            put_aside(tx, "job_executions", {"id": row["id"]}, content, error)
            _mend(tx, row)
    for edge in tx.all("SELECT * FROM job_edges"):
        try:
            to_edge(edge)
        except (ValueError, KeyError, TypeError) as error:
            key = {"job_execution_id": edge["job_execution_id"], "edge_id": edge["edge_id"]}
            content = json.dumps([edge["kind"], edge["status"], edge["selection"]]).encode()
            move_aside(tx, "job_edges", key, content, error)
            owner = tx.one("SELECT * FROM job_executions WHERE id = ?", (edge["job_execution_id"],))
            if owner is not None:
                _mend(tx, owner)


def _legible(tx: Tx) -> list[sqlite3.Row]:
    """All rows; of one with a text that is none, what cannot be read is put aside and replaced first."""
    try:
        return tx.all("SELECT * FROM job_executions")
    except sqlite3.OperationalError as error:
        if not is_corrupt(error):
            raise
        columns = [row["name"] for row in tx.all("PRAGMA table_info(job_executions)") if row["type"] == "TEXT"]
        for column in columns:
            blob = f"SELECT id, CAST({column} AS BLOB) AS content FROM job_executions WHERE {column} IS NOT NULL"  # noqa: S608
            for row in tx.all(blob):
                text = row["content"].decode(errors="replace")
                if text.encode() != row["content"]:
                    put_aside(tx, "job_executions", {"id": row["id"], "column": column}, row["content"], error)
                    tx.execute(f"UPDATE job_executions SET {column} = ? WHERE id = ?", (text, row["id"]))  # noqa: S608
        return tx.all("SELECT * FROM job_executions")


def _mend(tx: Tx, row: sqlite3.Row) -> None:
    known = {status.value: status for status in JobStatus}
    before = known.get(row["status"])
    runs = before is JobStatus.RUNNING
    if runs or (before is not None and before.final):
        status, reason, message = row["status"], row["reason"], row["message"]
    else:
        status, reason, message = JobStatus.FAILED.value, "store_corrupt", _MESSAGE
    retry = RetryPolicy()
    tx.execute(
        "UPDATE job_executions SET work = ?, retry = ?, status = ?, reason = ?, message = ?, stop = ?,"
        " stop_message = ?, ended_at = ?, next_try_at = NULL, limits = '', gpu_indices = '',"
        " revision = revision + 1 WHERE id = ?",
        (
            json.dumps(asdict(Work())),
            json.dumps({**asdict(retry), "reasons": sorted(retry.reasons)}),
            status,
            reason,
            message,
            "lease" if runs else None,
            _MESSAGE if runs else "",
            None if runs else row["ended_at"] or tx.now,
            row["id"],
        ),
    )
