"""How jobs leave a peer and how jobs and executions end: what several events of evolve have in common.

Part of :mod:`peerd.workflows.evolve`, and bound by its rules: no clock, no I/O, no looking through all jobs.
"""

from __future__ import annotations

from collections.abc import Iterator

from peerd.clock import Millis
from peerd.workflows import limits, parallel
from peerd.workflows.model import EXECUTION_MOVES, JOB_MOVES, EdgeStatus, ExecutionStatus, WorkflowJobStatus
from peerd.workflows.state import EdgeState, ExecutionState, JobState

NOT_STARTED = (WorkflowJobStatus.PENDING, WorkflowJobStatus.PLACED, WorkflowJobStatus.WAITING_INPUTS)
"""A consumer in one of these still depends on its producers."""


def set_status(state: ExecutionState, job: JobState, status: WorkflowJobStatus, at: Millis) -> None:
    """The one place where a job's status changes; guarded by the table."""
    state.touch(job)
    if status is job.status:
        return
    if status not in JOB_MOVES[job.status]:
        raise AssertionError(f"{job.spec.node_id}: no way from {job.status} to {status}")
    job.status, job.since = status, at


def may_run_again(job: JobState) -> bool:
    """Whether a job that may have run may be started once more."""
    return job.spec.retry_lost and job.moves + 1 < job.spec.attempts


def release(state: ExecutionState, job: JobState, *, keep_off: bool, at: Millis) -> None:
    """Take the job off its peer, which is told to stop it if ``keep_off``.

    Its neighbours wait for its next id; files go along its edges anew.
    """
    if keep_off:
        stop(state, job)
    if job.remote_id:
        for name in job.neighbours:
            neighbour = state.jobs[name]
            neighbour.missing += 1
            state.touch(neighbour)
    for edge_id in (*job.inputs, *job.outputs):
        edge = state.edges[edge_id]
        if edge_id in job.outputs:
            other = state.jobs.get(edge.spec.destination)
            nothing_moves = other is not None and other.final
        else:
            other = state.jobs.get(edge.spec.source)
            nothing_moves = other is not None and other.gives_nothing
        if nothing_moves:
            continue
        if edge.brought_home and edge.settled:
            state.home_open += 1
            state.home_failed -= edge.status is EdgeStatus.FAILED
        edge.status, edge.bytes, edge.bytes_total, edge.reason = EdgeStatus.WAITING, 0, 0, ""
        edge.transfer_ends = None
        state.changed_edges[edge_id] = None
    for edge_id in job.inputs:
        if (source := state.jobs.get(state.edges[edge_id].spec.source)) is not None:
            # What its sender still tells is about the place that it leaves.
            state.edges[edge_id].since_generation = source.generation + 1
    state.load[job.peer] -= 1
    job.peer, job.remote_id, job.report, job.held, job.started_at = "", 0, None, None, None
    job.acknowledged, job.start_sent, job.stale = job.generation, False, False
    parallel.leaves(state, job)
    state.unplaced.add(job.spec.node_id)
    job.start_ends = None
    limits.queues(state, job, at)
    set_status(state, job, WorkflowJobStatus.PENDING, at)


def open_gate(state: ExecutionState, job: JobState, at: Millis) -> None:
    """A gated job may have a peer from now on: who completed and has files for it waits for its id."""
    job.open, job.since = True, at
    state.touch(job)
    if job.spec.mapped is not None:  # it gets no peer; its instances do
        return
    state.unplaced.add(job.spec.node_id)
    limits.queues(state, job, at)
    for name in job.neighbours:
        state.jobs[name].missing += 1


def end(state: ExecutionState, job: JobState, status: WorkflowJobStatus, at: Millis) -> None:
    """The job is final; the execution too, if that was the last it waited for."""
    set_status(state, job, status, at)
    job.ended_at, job.held = at, None
    state.unplaced.discard(job.spec.node_id)
    state.remaining -= 1
    state.completed += status is WorkflowJobStatus.COMPLETED
    state.skipped += status is WorkflowJobStatus.SKIPPED
    if job.peer:
        state.load[job.peer] -= 1
    if status is not WorkflowJobStatus.COMPLETED:
        job.stale, job.acknowledged = False, job.generation
    else:
        _files_are_there(state, job, at)
    state.gates.pop(job.spec.node_id, None)
    for name in job.awaited_by:
        waiting = state.jobs[name]
        waiting.upstream_left -= 1
        state.changed_jobs[name] = None
        if not waiting.upstream_left and not waiting.final:
            state.gates[name] = None
    wake_producers(state, job)
    parallel.leaves(state, job)
    end_if_done(state, at)


def _files_are_there(state: ExecutionState, job: JobState, at: Millis) -> None:
    for edge_id in job.outputs:
        edge = state.edges[edge_id]
        if not edge.delivery and state.jobs[edge.spec.destination].remote_id:
            limits.sends(state, edge, at)


def skip(state: ExecutionState, job: JobState, reason: str, message: str, at: Millis) -> None:
    """The job does not run, and that is well; those who build on it see to themselves."""
    job.reason, job.message = reason, message
    _give_up_inputs(state, job, "upstream_skipped")
    for _ in _give_up_outputs(state, job, "upstream_skipped"):
        raise AssertionError(f"{job.spec.node_id} is skipped, and somebody waits for it without a gate")
    end(state, job, WorkflowJobStatus.SKIPPED, at)


def wake_producers(state: ExecutionState, job: JobState) -> None:
    """Look again at producers that moved and wait until this job knows where they are; see decide."""
    for edge_id in job.inputs:
        source = state.jobs.get(state.edges[edge_id].spec.source)
        if source is not None and source.placement > 1 and not source.start_sent:
            state.touch(source)


def fail(
    state: ExecutionState, job: JobState, reason: str, message: str, at: Millis, *, known_ended: bool = False
) -> None:
    """Fail the job and all consumers that wait for it. Iterative: a chain may be ten thousand long."""
    if not job.spec.continue_on_failure:
        state.first_failure = state.first_failure or f"{job.spec.node_id}: {message or reason}"
    waiting = [(job, reason, message)]
    while waiting:
        failing, why, text = waiting.pop()
        if failing.final:
            continue
        failing.reason, failing.message = why, text
        state.failed += 1
        state.tolerated += failing.spec.continue_on_failure
        ended = failing.report is not None and failing.report.status.final
        if failing.peer and not ended and not (known_ended and failing is job):
            stop(state, failing)
        _give_up_inputs(state, failing, "upstream_failed")
        waiting += [(consumer, "upstream_failed", f"{failing.spec.node_id} failed: {why}")
                    for consumer in _give_up_outputs(state, failing, "upstream_failed")]  # fmt: skip
        end(state, failing, WorkflowJobStatus.FAILED, at)


def _give_up_inputs(state: ExecutionState, job: JobState, reason: str) -> None:
    for edge_id in job.inputs:
        _give_up_edge(state, state.edges[edge_id], reason)
    if job.remote_id or not job.open:
        return
    for name in job.neighbours:  # nobody waits for its id any more
        neighbour = state.jobs[name]
        neighbour.missing -= 1
        state.touch(neighbour)


def _give_up_outputs(state: ExecutionState, job: JobState, reason: str) -> Iterator[JobState]:
    """Yields the consumers that wait in vain; a gated one decides when all that it builds on has ended."""
    for edge_id in job.outputs:
        edge = state.edges[edge_id]
        if edge.brought_home and not edge.settled:
            state.home_open -= 1
        _give_up_edge(state, edge, reason)
        if not edge.delivery:
            consumer = state.jobs[edge.spec.destination]
            if consumer.status in NOT_STARTED and not consumer.gated:
                yield consumer


def _give_up_edge(state: ExecutionState, edge: EdgeState, reason: str) -> None:
    if not edge.settled:
        edge.status, edge.reason = EdgeStatus.FAILED, reason
        state.changed_edges[edge.spec.edge_id] = None


def stop(state: ExecutionState, job: JobState) -> None:
    """Its executor must be told to stop the present placement, until it answers."""
    if job.placement not in job.stops:
        job.stops[job.placement] = job.peer
        state.stopping[job.peer] = state.stopping.get(job.peer, 0) + 1
        state.touch(job)


def stop_answered(state: ExecutionState, job: JobState, placement: int) -> None:
    """Nothing of that placement lives any more."""
    peer = job.stops.pop(placement, None)
    if peer is None:
        return
    state.stopping[peer] -= 1
    if not state.stopping[peer]:
        del state.stopping[peer]
    state.touch(job)


def end_if_done(state: ExecutionState, at: Millis) -> None:
    """End the execution if nothing is left to wait for."""
    if state.remaining or state.status.final:
        return
    total = len(state.jobs)
    delivered = state.home_open == 0 and state.home_failed == 0
    if state.completed + state.skipped + state.tolerated == total and delivered:
        status = ExecutionStatus.COMPLETED
    elif state.cancel:
        status = ExecutionStatus.CANCELLED
    elif state.home_open:
        return
    else:
        status = ExecutionStatus.FAILED
        failed = state.failed - state.tolerated
        what = f"{failed} of {total} jobs failed" if failed else f"{state.home_failed} deliveries failed"
        state.error = f"{what}; first {state.first_failure}"
    if status not in EXECUTION_MOVES[state.status]:
        raise AssertionError(f"no way from {state.status} to {status}")
    state.status, state.ended_at = status, at
