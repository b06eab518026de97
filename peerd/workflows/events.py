"""What happened to an execution, in the past tense; the log of them is the execution.

Durable events are appended to ``execution_events`` and replayed after a restart. :class:`Passing` events say what is
true only while this process watches (a peer is away, a call must be repeated later); they are never stored, because
whoever starts anew finds out anew.

An event names the placement it is about, so that whatever comes late from an older one can be told apart.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from peerd.clock import Millis
from peerd.workflows.model import EdgeNews, EdgeStatus, JobStatus, Report

_NEVER = Millis(0)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; ``at`` is the orchestrator's clock."""

    # Where in peerd.failpoints its commit is found.
    area: ClassVar[str] = ""

    at: Millis = _NEVER


@dataclass(frozen=True, kw_only=True)
class ExecutionRequested(Event):
    """Somebody asked for this execution; always the first event."""


@dataclass(frozen=True, kw_only=True)
class JobReused(Event):
    """The job completed in the execution that this one runs again, and nobody takes its files: it is over."""

    node: str


RUN, SKIP, FAIL = "run", "skip", "fail"
"""Verdicts of a gate."""


@dataclass(frozen=True, kw_only=True)
class JobGated(Event):
    """All that the job builds on has ended, and this follows; only gated jobs have it."""

    area = "gate"
    node: str
    verdict: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class MapExpanded(Event):
    """The list of a job with a map was read: so many instances, numbered from ``first_workflow_job_id`` on."""

    area = "map"
    node: str
    count: int
    first_workflow_job_id: int


@dataclass(frozen=True, kw_only=True)
class MapFailed(Event):
    """Its list is none."""

    area = "map"
    node: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobPlaced(Event):
    """A peer was chosen. With a placement above 1, the job has left the peer it was on."""

    area = "place"
    node: str
    placement: int
    peer: str


@dataclass(frozen=True, kw_only=True)
class JobUnplaceable(Event):
    """No peer would take it, also not one that is away."""

    area = "place"
    node: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobCreated(Event):
    """Phase one: the executor has recorded the job and given it an id."""

    area = "create"
    node: str
    placement: int
    job_execution_id: int


PASSING_REFUSALS = frozenset({"maintenance", "shutting_down"})
"""Reasons that keep a job off a peer for now: it goes to another, and may come back later."""


@dataclass(frozen=True, kw_only=True)
class JobRefused(Event):
    """The executor will not take it: never, or not now (:data:`PASSING_REFUSALS`)."""

    area = "create"
    node: str
    placement: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobStartSent(Event):
    """Phase two is about to be sent: from here on the job may be running."""

    area = "start"
    node: str
    placement: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class JobStarted(Event):
    """The executor has recorded the interfaces of that generation."""

    area = "start"
    node: str
    placement: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class JobReported(Event):
    """The executor told how the job is."""

    area = "report"
    node: str
    placement: int
    report: Report


@dataclass(frozen=True, kw_only=True)
class JobStopped(Event):
    """A cancel was answered; the report holds what the executor has committed."""

    area = "cancel"
    node: str
    placement: int
    report: Report


@dataclass(frozen=True, kw_only=True)
class JobLost(Event):
    """Its executor does not know it any more, or will never be asked again."""

    area = "report"
    node: str
    placement: int
    message: str


@dataclass(frozen=True, kw_only=True)
class EdgeDelivered(Event):
    """This peer's own end of an edge is done: a delivery has arrived, or package files have."""

    area = "delivery"
    edge_id: int
    # Of the job at the other end.
    placement: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class EdgeFailed(Event):
    """Package files cannot be delivered."""

    area = "delivery"
    edge_id: int
    placement: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class CancelRequested(Event):
    """Somebody asked to cancel."""

    area = "cancel"
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeadlinePassed(Event):
    """The job had a deadline and has not ended; ``waiting`` says what it waited for."""

    area = "report"
    node: str
    waiting: str = ""


@dataclass(frozen=True, kw_only=True)
class TimedOut(Event):
    """One of the job's time-outs has passed; see :mod:`peerd.workflows.limits`."""

    area = "timeout"
    node: str
    limit: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Passing(Event):
    """True while this process watches; not stored."""


@dataclass(frozen=True, kw_only=True)
class PeerAway(Passing):
    """A peer does not answer. ``since``: the last moment at which it may have renewed a lease of ours."""

    peer: str
    since: Millis
    # Revoked: it will not come back.
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class PeerBack(Passing):
    """It answers again."""

    peer: str


@dataclass(frozen=True, kw_only=True)
class PeerHeard(Passing):
    """It has told how all jobs of this execution are that it holds."""

    peer: str


@dataclass(frozen=True, kw_only=True)
class PeersChanged(Passing):
    """A peer came, went, or offers something else: what could not be placed may be now."""


@dataclass(frozen=True, kw_only=True)
class JobHeldUp(Passing):
    """A step of the job cannot be done now and will be tried again."""

    node: str
    placement: int
    reason: str
    message: str
    next_action: str = ""
    # None: when something changes.
    retry_at: Millis | None = None


KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        ExecutionRequested,
        JobReused,
        JobGated,
        MapExpanded,
        MapFailed,
        JobPlaced,
        JobUnplaceable,
        JobCreated,
        JobRefused,
        JobStartSent,
        JobStarted,
        JobReported,
        JobStopped,
        JobLost,
        EdgeDelivered,
        EdgeFailed,
        CancelRequested,
        DeadlinePassed,
        TimedOut,
    )
}
"""Names in the log -> durable events. A name may never be given to something else."""


def encode(event: Event) -> tuple[str, str]:
    """(kind, body) of a durable event, as stored."""
    kind = type(event).__name__
    if kind not in KINDS:
        raise TypeError(f"{kind} is not durable")
    body = {field.name: getattr(event, field.name) for field in dataclasses.fields(event) if field.name != "at"}
    report = body.get("report")
    if isinstance(report, Report):
        body["report"] = _report_body(report)
    return kind, json.dumps(body, separators=(",", ":"))


def decode(kind: str, body: str, at: int) -> Event:
    """The event that :func:`encode` stored."""
    fields: dict[str, Any] = json.loads(body)
    if "report" in fields:
        fields["report"] = _report_of(fields["report"])
    return KINDS[kind](at=Millis(at), **fields)


def _report_body(report: Report) -> dict[str, Any]:
    """Only what differs from the defaults: most of a report is empty most of the time."""
    body = {f.name: value for f in dataclasses.fields(report) if (value := getattr(report, f.name)) != f.default}
    body["status"] = report.status.value
    if report.edges:
        body["edges"] = [{**dataclasses.asdict(edge), "status": edge.status.value} for edge in report.edges]
    return body


def _report_of(body: dict[str, Any]) -> Report:
    edges = tuple(EdgeNews(**{**edge, "status": EdgeStatus(edge["status"])}) for edge in body.pop("edges", ()))
    return Report(**{**body, "status": JobStatus(body["status"]), "edges": edges})
