"""Executions whose rows cannot be read: put aside and said; the others go on.

Such an execution is held: it stays as its rows say, nothing is decided for it any more, and it says so. The next start
tries again. Its jobs on other peers end as their partition policy says. An operator can give it up.
"""

from __future__ import annotations

from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.store import Tx
from peerd.store.quarantine import put_aside
from peerd.workflows import events as e


def unreadable(what: str, error: Exception | None = None) -> PeerdError:
    """The refusal for a row that does not hold what was stored."""
    said = f": {type(error).__name__}: {error}" if error is not None else ""
    return PeerdError(Reason.STORE_CORRUPT, f"{what} cannot be read{said}"[:500])


def hold(tx: Tx, execution_id: int, error: PeerdError) -> None:
    """Put aside what of it cannot be read, and say in its row why nothing happens."""
    for table, order in (("execution_events", "seq"), ("execution_inbox", "id")):
        rows = tx.all(
            f"SELECT {order} AS number, kind, at, CAST(body AS BLOB) AS body FROM {table}"  # noqa: S608 - constants
            " WHERE workflow_execution_id = ?",
            (execution_id,),
        )
        for row in rows:
            try:
                e.decode(row["kind"], row["body"].decode(), row["at"])
            except Exception as fault:  # noqa: BLE001 - rubbish fails in every way
                key = {"workflow_execution_id": execution_id, order: row["number"]}
                put_aside(tx, table, key, row["body"], fault)
    version = tx.one(
        "SELECT v.workflow_id, v.version, v.digest, v.definition FROM workflow_executions x JOIN workflow_versions v"
        " ON v.workflow_id = x.workflow_id AND v.version = x.workflow_version WHERE x.id = ?",
        (execution_id,),
    )
    if version is not None and digest(version["definition"]) != version["digest"]:
        key = {"workflow_id": version["workflow_id"], "version": version["version"]}
        put_aside(tx, "workflow_versions", key, version["definition"], error)
    tx.execute(
        "UPDATE workflow_executions SET reason = ?, next_action = ?, version = version + 1 WHERE id = ?",
        (
            f"{error.reason.text}: {error.message}; nothing is decided for it any more",
            f"restore a backup from before ('peerd restore FILE'), or give it up: "
            f"'peerctl executions cancel {execution_id}'",
            execution_id,
        ),
    )


def give_up(tx: Tx, execution_id: int, reason: str) -> None:
    """End it without its log; whoever runs its jobs is not asked, and not heard."""
    tx.execute(
        "UPDATE workflow_executions SET version = version + 1, status = 'cancelled', cancel_reason = ?, error = reason,"
        " reason = '', next_action = '', since = ?, ended_at = ?, settled = 1 WHERE id = ?",
        (reason, tx.now, tx.now, execution_id),
    )
    tx.execute(
        "UPDATE workflow_jobs SET status = 'cancelled', reason = 'store_corrupt', next_action = '', since = ?,"
        " message = 'given up: what happened to it is not known', ended_at = ?,"
        " changed = (SELECT version FROM workflow_executions WHERE id = ?)"
        " WHERE workflow_execution_id = ? AND status NOT IN ('completed', 'failed', 'skipped', 'cancelled')",
        (tx.now, tx.now, execution_id, execution_id),
    )
