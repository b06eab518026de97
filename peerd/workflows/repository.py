"""The SQL of stored workflows and of the event log of executions. What people read of executions is in views.py.

An execution's log has one writer, its runner, which knows the order of events. Other transactions (a cancel request,
a transfer that has arrived) leave their event in the inbox, together with whatever else they store; the runner moves
it into the log. So nothing is lost between, and replay sees events in the very order in which they were applied.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.digest import digest
from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx
from peerd.v1 import workflows_pb2
from peerd.workflows import events as e
from peerd.workflows.damage import unreadable
from peerd.workflows.definition import Reading, decode_stored
from peerd.workflows.edges import edges_of
from peerd.workflows.growth import NewJob, insert_edges, insert_jobs
from peerd.workflows.matrix import expanded
from peerd.workflows.model import ExecutionSpec, ExecutionStatus
from peerd.workflows.requests import execution_spec
from peerd.workflows.reuse import Rerun, Reused, sent_again, with_reused, without_reused
from peerd.workflows.reused_rows import insert_reused, read_reused


@dataclass(frozen=True, kw_only=True)
class WorkflowVersion:
    """A stored definition."""

    workflow_id: int
    name: str
    version: int
    digest: bytes
    definition: workflows_pb2.WorkflowDefinition
    job_count: int
    created_at: Millis


@dataclass(frozen=True, kw_only=True)
class ExecutionRecord:
    """What is fixed about an execution, with all that its jobs' executors are to be told."""

    spec: ExecutionSpec
    workflow_id: int
    definition: workflows_pb2.WorkflowDefinition
    """Of plain jobs, a matrix being written out, and of those with a map, which become more later."""
    params: Mapping[str, str]
    reused: Mapping[str, Reused] = field(default_factory=dict)
    """Jobs that are not run, because they completed in the execution that this one runs again."""


@dataclass(frozen=True, kw_only=True)
class Posted:
    """An event in the inbox."""

    inbox_id: int
    event: e.Event


# Stored definitions


def put_workflow(tx: Tx, reading: Reading, *, stored: bool) -> WorkflowVersion:
    """Store a valid definition under its name, or find the version that has the same content.

    ``stored`` keeps it for ever; one that only comes along with a run goes with the last execution that has it.
    """
    definition = reading.definition
    assert definition is not None  # noqa: S101 - accept_definition() saw to it
    row = tx.one("SELECT id FROM workflows WHERE name = ?", (definition.name,))
    workflow_id = (
        row["id"]
        if row is not None
        else tx.insert("INSERT INTO workflows (name, created_at) VALUES (?, ?)", (definition.name, tx.now))
    )
    found = tx.one(f"{_VERSIONS} WHERE v.workflow_id = ? AND v.digest = ?", (workflow_id, reading.digest))
    if found is None:
        tx.execute(
            "INSERT INTO workflow_versions (workflow_id, version, digest, definition, job_count, stored, created_at) "
            "SELECT ?, 1 + coalesce(max(version), 0), ?, ?, ?, ?, ? FROM workflow_versions WHERE workflow_id = ?",
            (workflow_id, reading.digest, reading.encoded, len(definition.jobs), int(stored), tx.now, workflow_id),
        )
        found = tx.one(f"{_VERSIONS} WHERE v.workflow_id = ? AND v.digest = ?", (workflow_id, reading.digest))
    assert found is not None  # noqa: S101 - just stored
    if stored:
        tx.execute(
            "UPDATE workflow_versions SET stored = 1 WHERE workflow_id = ? AND version = ? AND stored = 0",
            (workflow_id, found["version"]),
        )
    if found["definition"] != reading.encoded:  # damaged since: here it is again
        tx.execute(
            "UPDATE workflow_versions SET definition = ? WHERE workflow_id = ? AND version = ?",
            (reading.encoded, workflow_id, found["version"]),
        )
        found = tx.one(f"{_VERSIONS} WHERE v.workflow_id = ? AND v.digest = ?", (workflow_id, reading.digest))
        assert found is not None  # noqa: S101 - just stored
    return to_version(found)


def get_workflow(tx: Tx, name_or_id: str, version: int = 0) -> WorkflowVersion:
    """A stored definition, the newest version for 0. Raises NOT_FOUND."""
    return to_version(_known(tx.one(*workflow_query(name_or_id, version)), name_or_id, version))


async def read_workflow(store: Store, name_or_id: str, version: int = 0) -> WorkflowVersion:
    """The same, outside of a transaction."""
    return to_version(_known(await store.one(*workflow_query(name_or_id, version)), name_or_id, version))


def workflow_query(name_or_id: str, version: int) -> tuple[str, Sequence[object]]:
    """A name is looked for first: names may consist of digits."""
    number = int(name_or_id) if name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) < 19 else -1
    return (
        f"{_VERSIONS} WHERE (w.name = ? OR w.id = ?) AND (v.version = ? OR ? = 0) "
        "ORDER BY w.name = ? DESC, v.version DESC LIMIT 1",
        (name_or_id, number, version, version, name_or_id),
    )


async def read_pinned(store: Store, execution_id: int) -> WorkflowVersion:
    """The definition that an execution ran. Raises NOT_FOUND, STORE_CORRUPT."""
    row = await store.one(
        f"{_VERSIONS} JOIN workflow_executions x ON x.workflow_id = v.workflow_id AND x.workflow_version = v.version "
        "WHERE x.id = ?",
        (execution_id,),
    )
    if row is None:
        raise no_such_execution(execution_id)
    return to_version(row)


def stored_version(tx: Tx, workflow_id: int, version: int, *, name: str) -> WorkflowVersion:
    """A version that somebody stored, the newest of these for 0: not what only came along with a run.

    Raises NOT_FOUND, STORE_CORRUPT.
    """
    row = tx.one(
        f"{_VERSIONS} WHERE v.workflow_id = ? AND (v.version = ? OR ? = 0) AND v.stored = 1 "
        "ORDER BY v.version DESC LIMIT 1",
        (workflow_id, version, version),
    )
    return to_version(_known(row, name, version))


async def list_workflows(store: Store, *, before: int, limit: int) -> list[WorkflowVersion]:
    """The newest version of each workflow with an id below ``before``, newest workflow first."""
    newest = "v.version = (SELECT max(n.version) FROM workflow_versions n WHERE n.workflow_id = v.workflow_id)"
    rows = await store.all(f"{_VERSIONS} WHERE w.id < ? AND {newest} ORDER BY w.id DESC LIMIT ?", (before, limit))
    return [to_version(row, with_definition=False) for row in rows]


def to_version(row: sqlite3.Row, *, with_definition: bool = True) -> WorkflowVersion:
    """The row of a query on workflows and their versions. Raises STORE_CORRUPT."""
    return WorkflowVersion(
        workflow_id=row["workflow_id"],
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        definition=_definition(row) if with_definition else workflows_pb2.WorkflowDefinition(name=row["name"]),
        job_count=row["job_count"],
        created_at=row["created_at"],
    )


def _definition(row: sqlite3.Row) -> workflows_pb2.WorkflowDefinition:
    if digest(row["definition"]) != row["digest"]:
        raise PeerdError(
            Reason.STORE_CORRUPT,
            f"a stored definition of workflow {row['workflow_id']} is damaged",
            next_action="store the same file again ('peerctl workflows put FILE'), or restore a backup",
        )
    return decode_stored(row["definition"])


def _known(row: sqlite3.Row | None, name_or_id: str, version: int) -> sqlite3.Row:
    if row is None:
        which = f"version {version} of workflow" if version else "workflow"
        raise PeerdError(
            Reason.NOT_FOUND, f"no {which} {name_or_id!r} is stored here", next_action="see 'peerctl workflows list'"
        )
    return row


_VERSIONS = (
    "SELECT v.workflow_id, w.name, v.version, v.digest, v.definition, v.job_count, v.created_at "
    "FROM workflow_versions v JOIN workflows w ON w.id = v.workflow_id"
)


# Executions


def create_execution(
    tx: Tx,
    workflow: WorkflowVersion,
    params: Mapping[str, str],
    *,
    keep: bool = False,
    started_by: str = "",
    rerun: Rerun | None = None,
) -> ExecutionRecord:
    """All rows of a new execution, and the first events of its log."""
    definition = expanded(workflow.definition)
    reused = rerun.reused if rerun is not None else {}
    needless = reused.keys() - sent_again(definition, reused.keys())
    definition = without_reused(definition, reused)
    edges = edges_of(definition)
    execution_id = tx.insert(
        "INSERT INTO workflow_executions (workflow_id, workflow_version, params, job_count, kept, started_by, "
        "rerun_of, status, since, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workflow.workflow_id,
            workflow.version,
            json.dumps(dict(params), sort_keys=True),
            len(definition.jobs),
            int(keep),
            started_by,
            rerun.of if rerun is not None else None,
            ExecutionStatus.PENDING.value,
            tx.now,
            tx.now,
        ),
    )
    last = tx.one("SELECT seq FROM sqlite_sequence WHERE name = 'workflow_jobs'")
    first_id = 1 + (last["seq"] if last is not None else 0)
    insert_jobs(
        tx,
        execution_id,
        workflow.workflow_id,
        (
            NewJob(
                workflow_job_id=first_id + index,
                node_id=job.name,
                title=job.description or job.name,
                service=job.service,
                since=tx.now,
            )
            for index, job in enumerate(definition.jobs)
        ),
    )
    insert_edges(tx, execution_id, edges)
    insert_reused(tx, execution_id, reused)
    over = [e.JobReused(node=job.name, at=tx.now) for job in definition.jobs if job.name in needless]
    append_events(tx, execution_id, 1, [e.ExecutionRequested(at=tx.now), *over])
    spec = with_reused(execution_spec(execution_id, tx.now, definition, edges, first_id, params), reused)
    return ExecutionRecord(
        spec=spec, workflow_id=workflow.workflow_id, definition=definition, params=dict(params), reused=reused
    )


def open_among(tx: Tx, execution_ids: Sequence[int]) -> list[int]:
    """Those of these executions that are not final."""
    rows = tx.all(
        "SELECT id FROM workflow_executions WHERE status IN ('pending', 'running') AND id IN "
        "(SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(list(execution_ids)),),
    )
    return [row["id"] for row in rows]


async def open_executions(store: Store) -> list[int]:
    """Executions that are not settled, oldest first: what a restart takes up again."""
    return [row["id"] for row in await store.all("SELECT id FROM workflow_executions WHERE settled = 0 ORDER BY id")]


async def load_execution(store: Store, execution_id: int) -> ExecutionRecord:
    """What was fixed when it was requested. Raises NOT_FOUND, or STORE_CORRUPT when it cannot be read any more."""
    row = await store.one(
        "SELECT x.*, v.digest, v.definition, "
        "(SELECT min(j.id) FROM workflow_jobs j WHERE j.workflow_execution_id = x.id) AS first "
        "FROM workflow_executions x JOIN workflow_versions v "
        "ON v.workflow_id = x.workflow_id AND v.version = x.workflow_version WHERE x.id = ?",
        (execution_id,),
    )
    if row is None:
        raise no_such_execution(execution_id)
    reused = await read_reused(store, execution_id) if row["rerun_of"] is not None else {}
    try:
        params = json.loads(row["params"])
    except ValueError as error:
        raise unreadable("what the execution was given as parameters", error) from error
    try:
        definition = without_reused(expanded(_definition(row)), reused)
        edges = edges_of(definition)
        spec = execution_spec(execution_id, row["created_at"], definition, edges, row["first"], params)
        spec = with_reused(spec, reused)
    except PeerdError:
        raise
    except Exception as error:  # rubbish fails in every way
        raise unreadable("what the execution was to do", error) from error
    return ExecutionRecord(
        spec=spec, workflow_id=row["workflow_id"], definition=definition, params=params, reused=reused
    )


def no_such_execution(execution_id: int) -> PeerdError:
    """The refusal for an id that nobody gave."""
    return PeerdError(
        Reason.NOT_FOUND, f"there is no execution {execution_id} here", next_action="see 'peerctl executions list'"
    )


# The log and the inbox


def append_events(tx: Tx, execution_id: int, first_seq: int, events: Sequence[e.Event]) -> None:
    """Add to the log; two with the same number are an error, not a tie."""
    tx.executemany(
        "INSERT INTO execution_events (workflow_execution_id, seq, at, kind, body) VALUES (?, ?, ?, ?, ?)",
        ((execution_id, first_seq + index, event.at, *e.encode(event)) for index, event in enumerate(events)),
    )


async def read_events(store: Store, execution_id: int) -> list[e.Event]:
    """The whole log, in order. Raises STORE_CORRUPT."""
    rows = await store.all(
        "SELECT seq, kind, body, at FROM execution_events WHERE workflow_execution_id = ? ORDER BY seq", (execution_id,)
    )
    if any(row["seq"] != number for number, row in enumerate(rows, 1)):
        raise unreadable("the log, in which an event is missing,")
    return [_event(row, f"event {row['seq']} of the log") for row in rows]


def _event(row: sqlite3.Row, name: str) -> e.Event:
    try:
        return e.decode(row["kind"], row["body"], row["at"])
    except Exception as error:  # rubbish fails in every way
        raise unreadable(name, error) from error


async def read_placements(store: Store, execution_id: int, node_id: str) -> list[e.JobPlaced | e.JobRefused]:
    """Where a job was put and who refused it, in order; nothing once its log is gone."""
    rows = await store.all(
        "SELECT kind, body, at FROM execution_events WHERE workflow_execution_id = ? AND kind IN (?, ?)"
        " AND json_extract(body, '$.node') = ? ORDER BY seq",
        (execution_id, e.JobPlaced.__name__, e.JobRefused.__name__, node_id),
    )
    found = [e.decode(row["kind"], row["body"], row["at"]) for row in rows]
    return [event for event in found if isinstance(event, e.JobPlaced | e.JobRefused)]


def post_event(tx: Tx, execution_id: int, event: e.Event) -> Posted:
    """Leave an event for the execution's runner."""
    kind, body = e.encode(event)
    inbox_id = tx.insert(
        "INSERT INTO execution_inbox (workflow_execution_id, at, kind, body) VALUES (?, ?, ?, ?)",
        (execution_id, event.at, kind, body),
    )
    return Posted(inbox_id=inbox_id, event=event)


async def read_inbox(store: Store, execution_id: int) -> list[Posted]:
    """What was left before this process started. Raises STORE_CORRUPT."""
    rows = await store.all(
        "SELECT id, kind, body, at FROM execution_inbox WHERE workflow_execution_id = ? ORDER BY id", (execution_id,)
    )
    return [Posted(inbox_id=row["id"], event=_event(row, "an event that waits for it")) for row in rows]


def clear_inbox(tx: Tx, inbox_ids: Iterable[int]) -> None:
    """These are in the log now."""
    tx.executemany("DELETE FROM execution_inbox WHERE id = ?", ((inbox_id,) for inbox_id in inbox_ids))
