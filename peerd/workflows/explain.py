"""explain(state, job): for whom and what something waits, until when, and what to do. Pure.

Nothing that is not final goes without. The text depends on the state alone, not on the present moment, so it is
written to the job's row when the job changes and needs no refreshing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from peerd.clock import Millis, to_datetime
from peerd.errors import Reason
from peerd.workflows import limits
from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.model import JobStatus, MapSpec, WorkflowJobStatus
from peerd.workflows.state import ExecutionState, JobState

# Enough for a person to know where to look; and finding them must not mean looking at ten thousand neighbours.
_NAMED = 3
_LOOKED_AT = 50

NOTHING_TO_DO = "nothing to do"
_AFTER_FAILURE = {
    "exit": "read its logs: 'peerctl logs {execution} {node}'",
    "timeout": "give it more time, or find out what it waited for: 'peerctl logs {execution} {node}'",
    "limit": "give it more under 'resources', or have it use less: 'peerctl logs {execution} {node}'",
    "lost": "make sure it may run twice, then let it be retried with retry.on: [lost], or run the workflow again",
    "refused": "see what each peer lacks: 'peerctl workflows plan FILE'",
    "transfer": "mend what the message names and run the workflow again",
    "storage_quota": "let it write less, or have [jobs] quota_bytes_per_orchestrator raised on that machine",
    "upstream_failed": "see the job that the message names",
    "map": "mend what makes the list and run the workflow again",
    **{
        reason.text: reason.next_action
        for reason in (Reason.SECRET_NOT_FOUND, Reason.SECRET_NOT_ALLOWED, Reason.SECRET_UNAVAILABLE)
    },
    "upstream_skipped": "see the job that the message names",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """For people."""

    reason: str
    message: str
    next_action: str


NameOf = Callable[[str], str]
"""Peer id -> what people call it."""


def explain(state: ExecutionState, job: JobState, name_of: NameOf) -> Explanation:
    """Why the job is as it is."""
    if job.status is WorkflowJobStatus.COMPLETED and job.spec.reused_from:
        message = f"not run again: it completed in execution {job.spec.reused_from}"
        return Explanation(reason="reused", message=message, next_action="")
    if job.final:
        hint = _AFTER_FAILURE.get(job.reason, "")
        hint = hint.format(execution=state.spec.execution_id, node=job.spec.node_id)
        action = _cure(job.message) or _cure_of_edge(state, job) or hint or _cure(job.reason)
        return Explanation(reason=job.reason, message=job.message, next_action=action)
    if state.cancel:
        return _cancelling(state, job, name_of)
    waiting = _waiting(state, job, name_of)
    if job.status is WorkflowJobStatus.RUNNING and job.peer not in state.away:
        return waiting
    limit = limits.nearest(state, job)
    until = f"until {_moment(state, limit[0])}, its {limit[1]}" if limit is not None else "without a deadline"
    return Explanation(reason=waiting.reason, message=f"{waiting.message}, {until}", next_action=waiting.next_action)


def _cure(message: str) -> str:
    """The next action of the reason that a text begins with, when an executor gave one."""
    word = message.partition(":")[0]
    return Reason.from_text(word).next_action if word.upper() in Reason.__members__ else ""


def _cure_of_edge(state: ExecutionState, job: JobState) -> str:
    """The next action of the reason for which files did not come."""
    if job.reason != "transfer":
        return ""
    reasons = (state.edges[edge_id].reason for edge_id in islice(job.inputs, _LOOKED_AT))
    return next((cure for reason in reasons if (cure := _cure(reason))), "")


def explain_execution(state: ExecutionState, name_of: NameOf) -> Explanation:
    """Why the execution is as it is."""
    if state.status.final:
        number = state.spec.execution_id
        look = f"'peerctl executions show {number}' tells which jobs failed"
        action = f"{look}, 'peerctl executions rerun {number} --failed' runs them again" if state.error else ""
        return Explanation(reason="", message=state.error, next_action=action)
    if state.cancel:
        names = ", ".join(sorted(name_of(peer) for peer in state.stopping)) or "its jobs"
        away = [name_of(peer) for peer in sorted(state.stopping) if peer in state.away]
        action = f"bring {', '.join(away)} back" if away else NOTHING_TO_DO
        return Explanation(reason="cancelling", message=f"cancelling, waiting for {names}", next_action=action)
    if state.turn is not None:
        return Explanation(reason="concurrency", message=state.turn.message, next_action=state.turn.next_action)
    if state.remaining:
        message = f"{state.remaining} of {len(state.jobs)} jobs have not ended"
        return Explanation(reason="jobs", message=message, next_action=_away_action(state, name_of))
    message = f"{state.home_open} deliveries to this peer are on their way"
    return Explanation(reason="deliveries", message=message, next_action=_away_action(state, name_of))


def _away_action(state: ExecutionState, name_of: NameOf) -> str:
    away = [name_of(peer) for peer in sorted(state.away) if state.load.get(peer)]
    return f"bring {', '.join(away)} back, or cancel" if away else NOTHING_TO_DO


def _cancelling(state: ExecutionState, job: JobState, name_of: NameOf) -> Explanation:
    name = name_of(job.peer) if job.peer else "its peer"
    away = state.away.get(job.peer)
    message = f"cancelling, waiting for {name}" + (f", away since {_moment(state, away.since)}" if away else "")
    action = f"bring {name} back: the cancel is repeated until it answers" if away else NOTHING_TO_DO
    return Explanation(reason="cancelling", message=message, next_action=action)


def _waiting(state: ExecutionState, job: JobState, name_of: NameOf) -> Explanation:
    if state.turn is not None:
        message = f"waits until its execution has its turn in group {state.turn.group}"
        return Explanation(reason="concurrency", message=message, next_action=NOTHING_TO_DO)
    if job.held is not None and (not job.peer or job.peer not in state.away):
        held = job.held
        return Explanation(reason=held.reason, message=held.message, next_action=held.next_action or NOTHING_TO_DO)
    if not job.open:
        return _upstream(state, job, name_of)
    if job.spec.mapped is not None:
        return _list(state, job.spec.mapped, name_of)
    if not job.peer:
        return Explanation(reason="placement", message="waits for a peer to be chosen", next_action=NOTHING_TO_DO)
    name = name_of(job.peer)
    if (away := state.away.get(job.peer)) is not None:
        return _away(state, job, name, away.since)
    if not job.remote_id:
        return Explanation(reason="create", message=f"waits for {name} to take it", next_action=NOTHING_TO_DO)
    if job.missing:
        return _neighbours(state, job, name_of)
    report = job.report
    if report is None or report.status is JobStatus.CREATED or job.acknowledged == 0:
        return Explanation(
            reason="start", message=f"waits for {name} to take its interfaces", next_action=NOTHING_TO_DO
        )
    if report.status is JobStatus.RUNNING:
        return Explanation(reason="running", message=f"runs on {name}", next_action=NOTHING_TO_DO)
    if job.hold and report.status is JobStatus.READY:
        said = (
            f"waits for one of the {job.spec.max_parallel} places of {job.spec.places} (max_parallel); it is on {name}"
        )
        return Explanation(reason="held", message=said, next_action=NOTHING_TO_DO)
    message = report.message or f"waits on {name}"
    if report.status is JobStatus.WAITING_INPUTS:
        message = f"{_producers(state, job, name_of)} ({message})"
    action = _cure(report.reason) or NOTHING_TO_DO
    return Explanation(reason=report.reason or report.status.value, message=message, next_action=action)


def _away(state: ExecutionState, job: JobState, name: str, since: Millis) -> Explanation:
    what = "waits for" if not job.may_have_run else "may be running; waits to hear from"
    message = f"{what} {name}, which does not answer since {_moment(state, since)}"
    action = f"bring {name} back, or cancel"
    if not job.spec.pinned and not job.may_have_run:
        action += "; it moves when another peer fits"
    elif not job.spec.pinned and job.spec.retry_lost:
        lease_ends = Millis(since + state.timing.lease + state.timing.max_clock_skew)
        action += f"; it may move after {_moment(state, lease_ends)}, when its lease has run out"
    return Explanation(reason="peer_away", message=message, next_action=action)


def _neighbours(state: ExecutionState, job: JobState, name_of: NameOf) -> Explanation:
    """It has an id; others that it exchanges files with have none."""
    some = [
        f"{name} ({_whereabouts(state, state.jobs[name], name_of)})"
        for name in islice(job.neighbours, _LOOKED_AT)
        if not state.jobs[name].remote_id and not state.jobs[name].final
    ][:_NAMED]
    rest = job.missing - len(some)
    listed = ", ".join(some) + (f" and {rest} more" if some and rest > 0 else "")
    message = f"waits until the jobs it exchanges files with have a place: {listed or f'{job.missing} of them'}"
    away = any(state.jobs[name].peer in state.away for name in islice(job.neighbours, _LOOKED_AT))
    action = "bring the peers that are away back, or cancel" if away else NOTHING_TO_DO
    return Explanation(reason="neighbours", message=message, next_action=action)


def _upstream(state: ExecutionState, job: JobState, name_of: NameOf) -> Explanation:
    """Its gate is judged when the last of these has ended."""
    some = (state.jobs[name] for name in islice(job.upstream, _LOOKED_AT))
    open_ones = [other for other in some if not other.final][:_NAMED]
    listed = ", ".join(f"{other.spec.node_id} ({_whereabouts(state, other, name_of)})" for other in open_ones)
    more = job.upstream_left - len(open_ones)
    listed += (f" and {more} more" if listed else f"{more} jobs") if more > 0 else ""
    message = f"waits for the end of {listed}" if listed else "waits until it is decided whether it runs"
    away = any(other.peer in state.away for other in open_ones)
    action = "bring the peers that are away back, or cancel" if away else NOTHING_TO_DO
    return Explanation(reason="needs", message=message, next_action=action)


def _list(state: ExecutionState, mapped: MapSpec, name_of: NameOf) -> Explanation:
    """It becomes many once its list is read."""
    if state.edges[mapped.list_edge].settled:
        return Explanation(reason="list", message="its list is here and is being read", next_action=NOTHING_TO_DO)
    source = state.jobs[mapped.list_source]
    message = f"waits for its list from {mapped.list_source} ({_whereabouts(state, source, name_of)})"
    action = "bring that peer back, or cancel" if source.peer in state.away else NOTHING_TO_DO
    return Explanation(reason="list", message=message, next_action=action)


def _whereabouts(state: ExecutionState, job: JobState, name_of: NameOf) -> str:
    if not job.peer:
        return "on no peer yet"
    return f"on {name_of(job.peer)}" + (", which is away" if job.peer in state.away else "")


def _producers(state: ExecutionState, job: JobState, name_of: NameOf) -> str:
    some = (state.edges[edge_id].spec.source for edge_id in islice(job.inputs, _LOOKED_AT))
    sources = [source for source in some if source == LOCAL_PEER or not state.jobs[source].gives_nothing]
    names = [
        f"{source} ({_whereabouts(state, state.jobs[source], name_of)})" if source != LOCAL_PEER else "its package"
        for source in dict.fromkeys(sources)
    ]
    more = len(dict.fromkeys(sources)) - _NAMED
    return "waits for files of " + ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _moment(state: ExecutionState, steady: int) -> str:
    """By the clock on the wall, as people read it."""
    return to_datetime(steady - state.ahead).strftime("%Y-%m-%d %H:%M:%SZ")
