"""What rows and histories say of a job: where it is, and why it is not where it was."""

from __future__ import annotations

from peerd.workflows import events as e
from peerd.workflows.evolve import evolve
from peerd.workflows.history import describe
from peerd.workflows.model import ExecutionStatus, WorkflowJobStatus
from peerd.workflows.projection import project
from peerd.workflows.state import ExecutionState, initial_state

from .simulation import START, TIMING, spec_of


def executor_of(state: ExecutionState) -> object:
    """The peer that the row of the only job names."""
    state.touch_all(state.jobs)
    (row,) = project(state, str).jobs
    return row[0]


def refusal(placement: int) -> e.JobRefused:
    return e.JobRefused(node="a", placement=placement, reason="overloaded", message="overloaded: p is full", at=START)


def test_a_job_that_was_refused_is_on_no_peer_until_it_is_final_and_then_where_it_was_last() -> None:
    state = initial_state(spec_of(["a"], []), TIMING)
    assert executor_of(state) is None
    evolve(state, e.JobPlaced(node="a", placement=1, peer="p", at=START))
    assert executor_of(state) == "p"
    evolve(state, refusal(1))
    assert state.jobs["a"].status is WorkflowJobStatus.PENDING
    assert executor_of(state) is None
    evolve(state, e.JobPlaced(node="a", placement=2, peer="q", at=START))
    evolve(state, refusal(2))
    evolve(state, e.JobUnplaceable(node="a", message="nobody takes it", at=START))
    assert state.status is ExecutionStatus.FAILED
    assert executor_of(state) == "q"


def test_a_refusal_names_its_reason_once_whether_or_not_its_message_does() -> None:
    assert describe(refusal(1), str) == "refused: overloaded: p is full"
    plain = e.JobRefused(node="a", placement=1, reason="overloaded", message="p is full", at=START)
    assert describe(plain, str) == "refused: overloaded: p is full"
    other = e.JobRefused(node="a", placement=1, reason="overloaded", message="p: overloaded: full", at=START)
    assert describe(other, str) == "refused: overloaded: p: overloaded: full"
