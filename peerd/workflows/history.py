"""What happened to an execution, as people read it: the log with every event in words. Read-only."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from peerd.moments import moment
from peerd.store import Store
from peerd.v1 import workflows_pb2
from peerd.workflows import events as e
from peerd.workflows import views
from peerd.workflows.model import Report
from peerd.workflows.repository import no_such_execution

NameOf = Callable[[str], str]
"""Peer id -> what people call it."""

LAST_EVENTS = 200

_LOG = "SELECT seq, kind, body, at FROM execution_events WHERE workflow_execution_id = ?"
_ABOUT = (
    " AND (json_extract(body, '$.node') = ? OR kind IN ('ExecutionRequested', 'CancelRequested')"
    " OR json_extract(body, '$.edge_id') IN (SELECT edge_id FROM execution_edges"
    " WHERE workflow_execution_id = ? AND ? IN (source_node_id, destination_node_id)))"
)


async def list_events(
    store: Store, name_of: NameOf, request: workflows_pb2.ListExecutionEventsRequest
) -> workflows_pb2.ListExecutionEventsResponse:
    """A page, oldest first. Raises NOT_FOUND."""
    execution_id, node = request.workflow_execution_id, request.node_id
    if await store.one("SELECT 1 FROM workflow_executions WHERE id = ?", (execution_id,)) is None:
        raise no_such_execution(execution_id)
    size, _ = views.page(request.page_size, request.page_token)
    after = int(request.page_token) if request.page_token else 0
    about: Sequence[object] = (node, execution_id, node) if node else ()
    rows = await store.all(
        f"{_LOG}{_ABOUT if node else ''} AND seq > ? ORDER BY seq LIMIT ?", (execution_id, *about, after, size + 1)
    )
    return workflows_pb2.ListExecutionEventsResponse(
        events=_told(rows[:size], name_of),
        next_page_token=str(rows[size - 1]["seq"]) if len(rows) > size else "",
    )


async def last_events(
    store: Store, name_of: NameOf, execution_id: int, node: str
) -> list[workflows_pb2.ExecutionEvent]:
    """The last of what happened to a job, oldest first."""
    rows = await store.all(
        f"{_LOG}{_ABOUT} ORDER BY seq DESC LIMIT ?", (execution_id, node, execution_id, node, LAST_EVENTS)
    )
    return _told(rows[::-1], name_of)


def describe(event: e.Event, name_of: NameOf) -> str:
    """An event in words."""
    match event:
        case e.ExecutionRequested():
            return "the execution was requested"
        case e.JobReused():
            return "it completed in the execution that this one runs again, and nobody takes its files"
        case e.JobPlaced():
            again = f", its placement {event.placement}" if event.placement > 1 else ""
            return f"given to {name_of(event.peer)}{again}"
        case e.JobUnplaceable():
            return f"no peer takes it: {event.message}"
        case e.JobCreated():
            return f"its peer took it as job execution {event.job_execution_id}"
        case e.JobRefused():
            said = event.message.removeprefix(f"{event.reason}: ")  # executors begin with it
            return f"refused: {event.reason}: {said}"
        case e.JobStartSent():
            return f"its interfaces are sent (generation {event.generation})"
        case e.JobStarted():
            return f"its peer has its interfaces (generation {event.generation})"
        case e.JobReported():
            return f"its peer reports {_report(event.report)}"
        case e.JobStopped():
            return f"stopped: {_report(event.report)}"
        case e.JobLost():
            return f"lost: {event.message}"
        case e.EdgeDelivered():
            return f"{event.bytes} bytes of edge {event.edge_id} have arrived"
        case e.EdgeFailed():
            return f"edge {event.edge_id} failed: {event.reason}: {event.message}"
        case e.CancelRequested():
            return "cancel was requested" + (f": {event.reason}" if event.reason else "")
        case e.DeadlinePassed():
            return "its deadline passed" + (f": {event.waiting}" if event.waiting else "")
        case e.JobGated():
            verdict = {e.RUN: "it may run", e.SKIP: "skipped", e.FAIL: "it fails"}.get(event.verdict, event.verdict)
            why = ": ".join(word for word in (event.reason, event.message) if word)
            return f"all it builds on has ended: {verdict}" + (f": {why}" if why else "")
        case e.MapExpanded():
            return f"its list was read: {event.count} items"
        case e.MapFailed():
            return f"its list cannot be used: {event.message}"
        case e.TimedOut():
            return f"its {event.limit} timeout passed: {event.message}"
        case _:
            return _fields(event)


def kind_of(name: str) -> str:
    """``JobPlaced`` -> ``job_placed``."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _report(report: Report) -> str:
    words = report.status.value
    if report.attempt > 1:
        words += f", attempt {report.attempt}"
    if report.exit_code is not None:
        words += f", exit code {report.exit_code}"
    said = ": ".join(word for word in (report.reason, report.message) if word)
    edges = ", ".join(f"edge {edge.edge_id} {edge.status.value}" for edge in report.edges[:5])
    more = f" and {len(report.edges) - 5} more" if len(report.edges) > 5 else ""
    return words + (f" ({said})" if said else "") + (f"; {edges}{more}" if edges else "")


def _fields(event: e.Event) -> str:
    """For kinds that have no words here."""
    skipped = ("at", "node", "edge_id")
    pairs = ((field.name, getattr(event, field.name)) for field in dataclasses.fields(event))
    return ", ".join(f"{name} {value}" for name, value in pairs if name not in skipped and value not in ("", None, ()))


def _told(rows: Iterable[sqlite3.Row], name_of: NameOf) -> list[workflows_pb2.ExecutionEvent]:
    return [_event(row, name_of) for row in rows]


def _event(row: sqlite3.Row, name_of: NameOf) -> workflows_pb2.ExecutionEvent:
    told = workflows_pb2.ExecutionEvent(seq=row["seq"], at=moment(row["at"]), kind=kind_of(row["kind"]))
    try:
        event = e.decode(row["kind"], row["body"], row["at"])
    except (KeyError, ValueError, TypeError) as error:
        told.message = f"this event cannot be read: {type(error).__name__}"
        return told
    told.node_id, told.edge_id = str(getattr(event, "node", "")), int(getattr(event, "edge_id", 0))
    told.message = describe(event, name_of)
    return told
