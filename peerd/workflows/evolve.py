"""evolve(state, event): what an event means for an execution. No clock, no I/O, the same result every time.

An event that does not fit changes nothing: it is about an older placement, about a job that has ended, or repeated.
So whoever brings events need not know what the execution has become meanwhile.

The rules that are easy to get wrong:

- A job and its neighbours need ids before the job gets interfaces. A neighbour that gets another id makes them
  *stale*: they are sent again under the next generation, also to a producer that has completed, which then sends its
  files to the new place. What such a producer said about its edges under older generations no longer counts.
- A consumer that runs already has what it needs, so neither a producer's end nor a failed edge touches it.
- A job that fails takes its waiting consumers with it (``upstream_failed``); what their executors hold is stopped.
  A producer is not stopped because a consumer failed, but no longer waits for that consumer's id.
- A gated job counts for its neighbours only once its gate is open. Then all that it builds on has ended, and those of
  its producers that completed are told of it like of a consumer that has moved.
- The terminal state an executor has committed wins over the wish to cancel, not over a deadline that has passed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peerd.clock import Millis
from peerd.workflows import events as e
from peerd.workflows import limits, parallel
from peerd.workflows.endings import (
    NOT_STARTED,
    end,
    end_if_done,
    fail,
    may_run_again,
    open_gate,
    release,
    set_status,
    skip,
    stop,
    stop_answered,
    wake_producers,
)
from peerd.workflows.expanding import expand
from peerd.workflows.model import EdgeNews, EdgeStatus, ExecutionStatus, JobStatus, Report, WorkflowJobStatus
from peerd.workflows.state import Away, CancelIntent, EdgeState, ExecutionState, JobState

_STATUS_OF_REPORT = {
    JobStatus.CREATED: WorkflowJobStatus.PLACED,
    JobStatus.WAITING_INPUTS: WorkflowJobStatus.WAITING_INPUTS,
    JobStatus.READY: WorkflowJobStatus.WAITING_INPUTS,
    JobStatus.RUNNING: WorkflowJobStatus.RUNNING,
}


def evolve(state: ExecutionState, event: e.Event) -> None:
    """Apply one event."""
    handler = _HANDLERS.get(type(event))
    if handler is not None:
        handler(state, event)


# A job gets a peer and an id there


def _job_gated(state: ExecutionState, event: e.JobGated) -> None:
    job = state.jobs[event.node]
    if job.final or job.open or state.cancel:
        return
    state.gates.pop(event.node, None)
    match event.verdict:
        case e.SKIP:
            skip(state, job, event.reason, event.message, event.at)
        case e.FAIL:
            fail(state, job, event.reason, event.message, event.at)
        case _:
            open_gate(state, job, event.at)


def _job_reused(state: ExecutionState, event: e.JobReused) -> None:
    job = state.jobs[event.node]
    if not job.final:
        end(state, job, WorkflowJobStatus.COMPLETED, event.at)


def _map_expanded(state: ExecutionState, event: e.MapExpanded) -> None:
    job = state.jobs[event.node]
    if not (job.final or state.cancel or event.node in state.maps):
        expand(state, job, event.count, event.first_workflow_job_id, event.at)


def _map_failed(state: ExecutionState, event: e.MapFailed) -> None:
    job = state.jobs[event.node]
    if not (job.final or state.cancel):
        fail(state, job, "map", event.message, event.at)


def _job_placed(state: ExecutionState, event: e.JobPlaced) -> None:
    job = state.jobs[event.node]
    if job.final or not job.open or state.cancel or event.placement != job.placement + 1:
        return
    if job.peer:
        if job.may_have_run:
            job.moves += 1
        release(state, job, keep_off=True, at=event.at)
    job.placement = event.placement
    job.peer = job.peers[event.placement] = event.peer
    state.unplaced.discard(event.node)
    state.by_peer.setdefault(event.peer, set()).add(event.node)
    state.load[event.peer] = state.load.get(event.peer, 0) + 1
    set_status(state, job, WorkflowJobStatus.PLACED, event.at)
    if state.status is ExecutionStatus.PENDING:
        state.status, state.started_at = ExecutionStatus.RUNNING, event.at


def _job_unplaceable(state: ExecutionState, event: e.JobUnplaceable) -> None:
    job = state.jobs[event.node]
    if not job.final and not job.peer and not state.cancel:
        fail(state, job, "refused", event.message, event.at)


def _job_created(state: ExecutionState, event: e.JobCreated) -> None:
    job = state.jobs[event.node]
    if event.placement == job.placement and job.peer and not job.remote_id:
        _learn_id(state, job, event.job_execution_id, event.at)


def _learn_id(state: ExecutionState, job: JobState, job_execution_id: int, at: Millis) -> None:
    """The job can be named on its peer; so its neighbours can be told of it."""
    job.remote_id = job_execution_id
    job.held = None
    state.touch(job)
    if job.final:  # its neighbours do not count on it any more
        return
    job.stale = True
    for edge_id in job.inputs:
        edge = state.edges[edge_id]
        if not edge.package:
            edge.since_generation = state.jobs[edge.spec.source].generation + 1
        if edge.package or state.jobs[edge.spec.source].status is WorkflowJobStatus.COMPLETED:
            limits.sends(state, edge, at)
    producers = {state.edges[edge_id].spec.source for edge_id in job.inputs}
    for name in job.neighbours:
        neighbour = state.jobs[name]
        neighbour.missing -= 1
        sends_again = neighbour.status is WorkflowJobStatus.COMPLETED and name in producers
        if neighbour.start_sent and (not neighbour.final or sends_again):
            neighbour.stale = True
        state.touch(neighbour)


def _job_refused(state: ExecutionState, event: e.JobRefused) -> None:
    job = state.jobs[event.node]
    if event.placement != job.placement or not job.peer or state.status.final:
        return
    if job.final:
        _sends_no_more(state, job, event.message, event.at)
        return
    if event.reason not in e.PASSING_REFUSALS:
        job.refused_by[job.peer] = event.message
    created = bool(job.remote_id)
    if state.cancel:
        if not created:  # and will not be: the cancel that is on its way has nothing to stop
            stop_answered(state, job, event.placement)
            end(state, job, WorkflowJobStatus.CANCELLED, event.at)
        return
    if (
        job.report is not None and job.report.generation and not job.hold
    ):  # it has taken interfaces before, so it may have run
        if not may_run_again(job):
            fail(state, job, "refused", event.message, event.at)
            return
        job.moves += 1
    release(state, job, keep_off=created, at=event.at)
    if job.spec.pinned:
        fail(state, job, "refused", event.message, event.at)


def _sends_no_more(state: ExecutionState, job: JobState, message: str, at: Millis) -> None:
    """A completed producer whose executor will not take new interfaces, or has lost it: its receivers wait in vain."""
    job.stale, job.acknowledged = False, job.generation
    for edge_id in job.outputs:
        if not state.edges[edge_id].settled:
            _edge_failed(state, state.edges[edge_id], "transfer", message, at)


def _job_start_sent(state: ExecutionState, event: e.JobStartSent) -> None:
    job = state.jobs[event.node]
    if event.placement == job.placement and job.peer and event.generation > job.generation:
        job.generation = event.generation
        job.start_sent, job.stale = True, False
        state.changed_jobs[event.node] = None  # whoever decided this has the command already


def _job_started(state: ExecutionState, event: e.JobStarted) -> None:
    job = state.jobs[event.node]
    if event.placement == job.placement and job.acknowledged < event.generation <= job.generation:
        job.acknowledged = event.generation
        job.held = None
        state.touch(job)
        wake_producers(state, job)


# What executors tell


def _job_reported(state: ExecutionState, event: e.JobReported) -> None:
    job = state.jobs[event.node]
    if event.report.status.final:
        stop_answered(state, job, event.placement)
    if event.placement == job.placement and job.peer:
        _apply(state, job, event.report, event.at)


def _job_stopped(state: ExecutionState, event: e.JobStopped) -> None:
    job = state.jobs[event.node]
    stop_answered(state, job, event.placement)
    if event.placement == job.placement and job.peer and not job.final:
        job.report = event.report
        _apply_status(state, job, event.report, event.at)


def _apply(state: ExecutionState, job: JobState, report: Report, at: Millis) -> None:
    if job.report is not None and report.revision <= job.report.revision:
        return
    if job.final and job.status is not WorkflowJobStatus.COMPLETED:
        return
    if not job.remote_id and report.job_execution_id:
        _learn_id(state, job, report.job_execution_id, at)  # the report has overtaken the answer to CreateJob
    job.report = report
    state.changed_jobs[job.spec.node_id] = None
    if not job.final:
        _apply_status(state, job, report, at)
    if report.status in (JobStatus.RUNNING, JobStatus.COMPLETED) and job.spec.waits_for_inputs:
        _inputs_have_arrived(state, job)
    if job.report is report:  # it may have left that peer
        for news in report.edges:
            _apply_news(state, job, news, report.generation, at)


def _apply_status(state: ExecutionState, job: JobState, report: Report, at: Millis) -> None:
    job.held = None
    if report.started_at is not None:
        job.started_at = report.started_at
    if report.status is JobStatus.FAILED and (report.generation == 0 or not (job.start_sent or state.cancel)):
        # It waited in vain for its interfaces, and a start that was sent never came: it has not run.
        if state.cancel:
            end(state, job, WorkflowJobStatus.CANCELLED, report.ended_at or at)
        else:
            release(state, job, keep_off=False, at=at)
        return
    match report.status:
        case JobStatus.COMPLETED:
            end(state, job, WorkflowJobStatus.COMPLETED, report.ended_at or at)
        case JobStatus.FAILED if report.reason != "lost":
            fail(state, job, report.reason or "exit", report.message, report.ended_at or at)
        case JobStatus.CANCELLED if state.cancel:
            end(state, job, WorkflowJobStatus.CANCELLED, report.ended_at or at)
        case JobStatus.FAILED | JobStatus.LOST | JobStatus.CANCELLED:
            # Also a cancel that nobody here asked for: its executor ended it when the lease ran out.
            _lost(state, job, report.message or f"its executor reports {report.status.value}", at)
        case status:
            if status is JobStatus.READY and job.hold:
                parallel.is_ready(state, job)
            elif status is JobStatus.READY and not report.attempt:
                limits.ready(state, job, at)
            elif status is JobStatus.WAITING_INPUTS:
                job.start_ends = None
            set_status(state, job, _STATUS_OF_REPORT[status], at)


def _inputs_have_arrived(state: ExecutionState, job: JobState) -> None:
    """It could not have started without them; their senders may tell later, or never."""
    for edge_id in job.inputs:
        edge = state.edges[edge_id]
        if not edge.settled:
            edge.status, edge.reason = EdgeStatus.DELIVERED, ""
            state.changed_edges[edge_id] = None


def _apply_news(state: ExecutionState, job: JobState, news: EdgeNews, generation: int, at: Millis) -> None:
    edge = state.edges.get(news.edge_id)
    if edge is None or edge.spec.source != job.spec.node_id:
        return
    known = edge.status is EdgeStatus.DELIVERED and news.bytes_total <= edge.bytes_total
    if edge.status is EdgeStatus.FAILED or known or generation < edge.since_generation:
        return
    if edge.status is EdgeStatus.DELIVERED:  # how much it was is still news
        edge.bytes, edge.bytes_total = news.bytes, news.bytes_total
        state.changed_edges[news.edge_id] = None
        return
    if news.status is EdgeStatus.FAILED:
        _edge_failed(state, edge, news.reason, news.message, at)
        return
    # Of a delivery the sender's word is not proof: this peer's own record of its arrival is (EdgeDelivered).
    edge.status = EdgeStatus.SENDING if edge.delivery and news.status is EdgeStatus.DELIVERED else news.status
    edge.bytes, edge.bytes_total, edge.reason = news.bytes, news.bytes_total, news.reason
    state.changed_edges[news.edge_id] = None


def _job_lost(state: ExecutionState, event: e.JobLost) -> None:
    job = state.jobs[event.node]
    stop_answered(state, job, event.placement)
    if event.placement != job.placement or not job.peer or state.status.final:
        return
    if not job.final:
        _lost(state, job, event.message, event.at)
    elif job.status is WorkflowJobStatus.COMPLETED:
        _sends_no_more(state, job, event.message, event.at)


def _lost(state: ExecutionState, job: JobState, message: str, at: Millis) -> None:
    """Nothing is known of it any more on the peer it was on."""
    if not job.may_have_run and not state.cancel:
        release(state, job, keep_off=False, at=at)  # it never ran: elsewhere, or there again, as if nothing had been
    elif may_run_again(job) and not state.cancel:
        job.moves += 1
        release(state, job, keep_off=False, at=at)
    else:
        fail(state, job, "lost", message, at, known_ended=True)


# Edges that begin or end at this peer


def _edge_delivered(state: ExecutionState, event: e.EdgeDelivered) -> None:
    edge = state.edges[event.edge_id]
    if edge.settled or not _about_present_job(state, edge, event.placement):
        return
    edge.status, edge.reason = EdgeStatus.DELIVERED, ""
    edge.bytes = edge.bytes_total = event.bytes
    state.changed_edges[event.edge_id] = None
    if edge.brought_home:
        state.home_open -= 1
        end_if_done(state, event.at)
    elif edge.spec.list_of:
        state.touch(state.jobs[edge.spec.list_of])


def _edge_failed_here(state: ExecutionState, event: e.EdgeFailed) -> None:
    edge = state.edges[event.edge_id]
    if not edge.settled and _about_present_job(state, edge, event.placement):
        _edge_failed(state, edge, event.reason, event.message, event.at)


def _about_present_job(state: ExecutionState, edge: EdgeState, placement: int) -> bool:
    job = state.jobs[edge.spec.destination if edge.package else edge.spec.source]
    return job.placement == placement and bool(job.peer)


def _edge_failed(state: ExecutionState, edge: EdgeState, reason: str, message: str, at: Millis) -> None:
    edge.status, edge.reason = EdgeStatus.FAILED, reason or "transfer"
    state.changed_edges[edge.spec.edge_id] = None
    if edge.brought_home:
        state.home_open -= 1
        state.home_failed += 1
        state.first_failure = state.first_failure or f"delivery of {edge.spec.source}: {message or reason}"
        end_if_done(state, at)
        return
    consumer = state.jobs[edge.spec.list_of or edge.spec.destination]
    if consumer.status in NOT_STARTED and not state.cancel:  # what is being cancelled ends by that
        fail(state, consumer, "transfer", f"files of {edge.spec.source or 'the package'}: {message or reason}", at)


# Wishes and time


def _cancel_requested(state: ExecutionState, event: e.CancelRequested) -> None:
    if state.status.final or state.cancel:
        return
    state.cancel = CancelIntent(reason=event.reason, at=event.at)
    for job in list(state.jobs.values()):
        if job.final:
            continue
        state.touch(job)
        job.held = None  # a cancel does not wait for what was held up
        if job.peer:
            stop(state, job)
        else:
            end(state, job, WorkflowJobStatus.CANCELLED, event.at)
    end_if_done(state, event.at)


def _deadline_passed(state: ExecutionState, event: e.DeadlinePassed) -> None:
    job = state.jobs[event.node]
    if job.final or state.cancel:
        return
    fail(state, job, "timeout", f"its deadline passed: {event.waiting}", event.at)


def _timed_out(state: ExecutionState, event: e.TimedOut) -> None:
    job = state.jobs[event.node]
    if not job.final and not state.cancel:
        fail(state, job, "timeout", f"{event.limit}: {event.message}", event.at)


def _peer_heard(state: ExecutionState, event: e.PeerHeard) -> None:
    state.heard.add(event.peer)


def _peer_away(state: ExecutionState, event: e.PeerAway) -> None:
    state.heard.discard(event.peer)
    state.away[event.peer] = Away(since=event.since, gone=event.gone)
    timing = state.timing
    state.set_timer(Millis(event.since + timing.replace_after), peer=event.peer)
    state.set_timer(Millis(event.since + timing.lease + timing.max_clock_skew), peer=event.peer)
    _touch_peer(state, event.peer)


def _peer_back(state: ExecutionState, event: e.PeerBack) -> None:
    if state.away.pop(event.peer, None) is not None:
        _touch_peer(state, event.peer)


def _peers_changed(state: ExecutionState, _: e.PeersChanged) -> None:
    state.touch_all(state.unplaced)
    for peer in state.away:  # what is there may move to whoever came
        _touch_peer(state, peer)


def _touch_peer(state: ExecutionState, peer: str) -> None:
    """Look at all jobs that still have business with that peer."""
    for node in state.by_peer.get(peer, ()):
        job = state.jobs[node]
        if not job.final or job.stops or job.needs_start:
            state.touch(job)


def _job_held_up(state: ExecutionState, event: e.JobHeldUp) -> None:
    job = state.jobs[event.node]
    if event.placement != job.placement and event.placement not in job.stops:
        return
    if event.placement == job.placement and not job.final:
        if job.held is None or (job.held.reason, job.held.message) != (event.reason, event.message):
            state.changed_jobs[event.node] = None
        job.held = event
    if event.retry_at is not None:
        state.set_timer(event.retry_at, node=event.node)


_HANDLERS: dict[type[e.Event], Callable[[ExecutionState, Any], None]] = {
    e.JobReused: _job_reused,
    e.JobGated: _job_gated,
    e.MapExpanded: _map_expanded,
    e.MapFailed: _map_failed,
    e.JobPlaced: _job_placed,
    e.JobUnplaceable: _job_unplaceable,
    e.JobCreated: _job_created,
    e.JobRefused: _job_refused,
    e.JobStartSent: _job_start_sent,
    e.JobStarted: _job_started,
    e.JobReported: _job_reported,
    e.JobStopped: _job_stopped,
    e.JobLost: _job_lost,
    e.EdgeDelivered: _edge_delivered,
    e.EdgeFailed: _edge_failed_here,
    e.CancelRequested: _cancel_requested,
    e.DeadlinePassed: _deadline_passed,
    e.TimedOut: _timed_out,
    e.PeerHeard: _peer_heard,
    e.PeerAway: _peer_away,
    e.PeerBack: _peer_back,
    e.PeersChanged: _peers_changed,
    e.JobHeldUp: _job_held_up,
}
