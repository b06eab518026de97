"""Gated jobs and time-outs, rule by rule."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest

from peerd.clock import Millis, to_datetime
from peerd.workflows import events as e
from peerd.workflows.decide import PlaceJob, StartJob, decide, due
from peerd.workflows.evolve import evolve
from peerd.workflows.explain import explain
from peerd.workflows.model import ExecutionStatus, JobSpec, JobStatus, WorkflowJobStatus
from peerd.workflows.requests import job_key, start_request
from peerd.workflows.state import ExecutionState, initial_state

from .simulation import HOME, START, TIMING, spec_of
from .test_engine import created, drive, placed, reported, started, starts_of


def job(name: str, number: int, **more: object) -> JobSpec:
    return JobSpec(node_id=name, workflow_job_id=number, **more)  # type: ignore[arg-type]


def judge(state: ExecutionState, now: int = START) -> list[e.Event]:
    """What comes to pass, as the runner applies it."""
    found: list[e.Event] = []
    while events := due(state, Millis(now)):
        drive(state, *events)
        found += events
    return found


def run(state: ExecutionState, node: str, number: int, peer: str = "p") -> None:
    drive(state, placed(node, peer), created(node, number), *started(node))


def ends(state: ExecutionState) -> dict[str, tuple[str, str]]:
    return {node: (one.status.value, one.reason) for node, one in state.jobs.items()}


def sends_to(state: ExecutionState, node: str) -> list[int]:
    """Edges in the interfaces that the job would be sent now."""
    one = state.jobs[node]
    request = start_request(state, one, job_key(state, one, one.placement, "s"), one.generation + 1, HOME)
    return [peer.edge_id for interface in request.interfaces for peer in interface.peers]


def fan_in() -> ExecutionState:
    """good and bad -> sum, which runs also without bad."""
    jobs = [job("good", 10), job("bad", 11, continue_on_failure=True), job("sum", 12)]
    return initial_state(spec_of(jobs, [("good", "sum"), ("bad", "sum")], ["sum"]), TIMING)


def test_a_gated_job_has_no_peer_before_its_gate_and_holds_up_nobody() -> None:
    state = fan_in()
    drive(state, placed("good"), created("good", 1), placed("bad"), created("bad", 2))
    assert starts_of(state) == [("good", 1), ("bad", 1)]
    assert not [c for c in decide(state, state.jobs.values(), START) if isinstance(c, PlaceJob)]
    said = explain(state, state.jobs["sum"], str)
    assert (said.reason, said.message) == ("needs", "waits for the end of good (on p), bad (on p), without a deadline")
    assert judge(state) == []


def opened() -> ExecutionState:
    state = fan_in()
    run(state, "good", 1)
    run(state, "bad", 2)
    drive(state, reported("good", JobStatus.COMPLETED), reported("bad", JobStatus.FAILED, reason="exit"))
    assert judge(state) == [e.JobGated(node="sum", verdict=e.RUN, at=START)]
    return state


def test_it_runs_with_the_files_that_exist_and_their_producers_are_told_where() -> None:
    state = opened()
    drive(state, placed("sum", "q"))
    assert starts_of(state) == [], "its producer waits for its id"
    drive(state, created("sum", 3))
    assert starts_of(state) == [("good", 2), ("sum", 1)]
    assert sends_to(state, "good") == [1]
    assert sends_to(state, "sum") == [1, 3], "and not the edge of what failed"


def test_when_it_moves_nothing_is_awaited_from_what_failed() -> None:
    state = opened()
    drive(state, placed("sum", "q"), created("sum", 3), e.JobLost(node="sum", placement=1, message="", at=START))
    assert state.jobs["sum"].status is WorkflowJobStatus.PENDING
    assert [edge.status.value for edge in state.edges.values()] == ["waiting", "failed", "waiting"]


def test_an_allowed_failure_leaves_the_execution_complete() -> None:
    state = opened()
    drive(state, placed("sum", "q"), created("sum", 3), *started("sum"), reported("sum", JobStatus.COMPLETED))
    drive(state, e.EdgeDelivered(edge_id=3, placement=1, bytes=1, at=START))
    assert state.status is ExecutionStatus.COMPLETED and not state.error


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.COMPLETED])
def test_the_last_one_to_end_opens_the_gate_whatever_came_first(status: JobStatus) -> None:
    jobs = [job("a", 10), job("b", 11), job("tidy", 12, needs=("a", "b"), when="always()")]
    state = initial_state(spec_of(jobs, []), TIMING)
    run(state, "a", 1)
    run(state, "b", 2)
    drive(state, reported("b", status, reason="exit"))
    assert judge(state) == []
    drive(state, reported("a", JobStatus.COMPLETED))
    assert [type(event) for event in judge(state)] == [e.JobGated]
    assert state.jobs["tidy"].open


def test_a_job_without_upstream_is_judged_when_the_execution_is_requested() -> None:
    jobs = [job("a", 10, when="params.x == '1'"), job("b", 11, when="params.x == '2'")]
    state = initial_state(spec_of(jobs, [], params={"x": "2"}), TIMING)
    judge(state)
    assert ends(state) == {"a": ("skipped", "when"), "b": ("pending", "")}
    assert [c.node for c in decide(state, state.jobs.values(), START)] == ["b"]


def test_ten_thousand_jobs_are_skipped_one_after_the_other_without_recursion_and_at_once() -> None:
    names = [f"j{n}" for n in range(10_000)]
    jobs = [job(name, 10 + n, when="false" if not n else "") for n, name in enumerate(names)]
    state = initial_state(spec_of(jobs, list(pairwise(names)), [names[-1]]), TIMING)
    begun = time.thread_time()
    judge(state)
    assert state.status is ExecutionStatus.COMPLETED
    assert (state.skipped, state.home_open) == (10_000, 0)
    assert time.thread_time() - begun < 10


def test_an_end_costs_the_same_however_many_others_somebody_waits_for() -> None:
    def seconds(count: int) -> float:
        jobs = [job(f"j{n}", 10 + n) for n in range(count)]
        jobs.append(job("all", 10 + count, needs=tuple(one.node_id for one in jobs), when="always()"))
        state = initial_state(spec_of(jobs, []), TIMING)
        begun = time.thread_time()
        for n in range(500):
            run(state, f"j{n}", n + 1)
            drive(state, reported(f"j{n}", JobStatus.COMPLETED))
            assert due(state, START) == []
            explain(state, state.jobs["all"], str)
        return time.thread_time() - begun

    seconds(501)
    few = min(seconds(501) for _ in range(2))
    assert min(seconds(10_000) for _ in range(2)) < 5 * few


def test_a_completed_producer_whose_peer_was_revoked_fails_who_comes_for_its_files() -> None:
    state = opened()
    drive(state, placed("sum", "q"), created("sum", 3), e.PeerAway(peer="p", since=START, gone=True))
    assert judge(state, START + 1099) == []
    judge(state, START + 1100)
    assert ends(state)["sum"] == ("failed", "transfer")


# Time-outs


def limited(**limits: int) -> ExecutionState:
    jobs = [job("a", 10), job("b", 11, **limits)]
    return initial_state(spec_of(jobs, [("a", "b")]), TIMING)


def messages(events: list[e.Event]) -> list[tuple[str, str]]:
    return [(event.node, event.limit) for event in events if isinstance(event, e.TimedOut)]


def test_a_queue_ends_with_an_id_and_not_with_a_choice() -> None:
    state = limited(queue_timeout=1000)
    drive(state, placed("b"))
    assert "until 1970-01-01 00:16:41Z, its queue_timeout" in explain(state, state.jobs["b"], str).message
    assert judge(state, START + 999) == []
    assert messages(judge(state, START + 1000)) == [("b", "queue_timeout")]
    assert ends(state)["b"] == ("failed", "timeout")
    other = limited(queue_timeout=1000)
    drive(other, placed("b"), created("b", 2))
    assert judge(other, START + 5000) == []


def test_a_gated_job_queues_from_when_its_gate_opens_and_again_after_it_left_a_peer() -> None:
    jobs = [job("a", 10), job("b", 11, needs=("a",), queue_timeout=1000)]
    state = initial_state(spec_of(jobs, []), TIMING)
    run(state, "a", 1)
    assert judge(state, START + 5000) == []
    drive(state, reported("a", JobStatus.COMPLETED))
    assert messages(judge(state, START + 6000)) == []
    drive(state, placed("b"), created("b", 2))
    assert judge(state, START + 7500) == []
    drive(state, e.JobLost(node="b", placement=1, message="", at=Millis(START + 8000)))
    assert judge(state, START + 8999) == []
    assert messages(judge(state, START + 9000)) == [("b", "queue_timeout")]


def ready_b(state: ExecutionState) -> None:
    run(state, "a", 1)
    run(state, "b", 2, "q")
    drive(state, reported("a", JobStatus.COMPLETED), reported("b", JobStatus.READY))


def test_a_start_is_missed_only_when_its_peer_was_asked_or_is_away() -> None:
    state = limited(start_timeout=1000)
    ready_b(state)
    assert judge(state, START + 5000) == []
    drive(state, e.PeerHeard(peer="q"))
    assert messages(judge(state, START + 5500)) == [("b", "start_timeout")]
    away = limited(start_timeout=1000)
    ready_b(away)
    drive(away, e.PeerAway(peer="q", since=START))
    assert messages(judge(away, START + 1000)) == [("b", "start_timeout")]


def test_a_pause_between_tries_is_no_waiting_to_start() -> None:
    state = limited(start_timeout=1000)
    ready_b(state)
    drive(state, e.PeerHeard(peer="q"), reported("b", JobStatus.READY, revision=6, attempt=1))
    assert judge(state, START + 5000) == []
    drive(state, reported("b", JobStatus.RUNNING, revision=7, attempt=2))
    assert judge(state, START + 50_000) == []


def test_an_edge_is_late_from_when_its_files_are_there_and_never_once_they_have_arrived() -> None:
    state = limited(transfer_timeout=1000)
    run(state, "a", 1)
    run(state, "b", 2, "q")
    drive(state, reported("b", JobStatus.WAITING_INPUTS), e.PeerHeard(peer="q"))
    assert judge(state, START + 5000) == []
    done = reported("a", JobStatus.COMPLETED)
    evolve(state, e.JobReported(node="a", placement=1, report=done.report, at=Millis(START + 5000)))  # type: ignore[attr-defined]
    assert judge(state, START + 5999) == []
    assert messages(judge(state, START + 6000)) == [("b", "transfer_timeout")]
    assert state.jobs["b"].message == "transfer_timeout: the files of a (edge 1) did not arrive within 1 s"
    arrived = limited(transfer_timeout=1000)
    ready_b(arrived)
    drive(arrived, e.PeerHeard(peer="q"))
    assert judge(arrived, START + 5000) == []


def test_time_outs_pass_by_the_clock_that_nobody_sets() -> None:
    jobs = [job("a", 10, queue_timeout=1000), job("b", 11, needs=("a",), when="always()", queue_timeout=1000)]
    # The wall clock was set an hour ahead: events are told an hour later than the timers' clock says.
    hour = 3_600_000
    spec = replace(spec_of(jobs, []), created_at=Millis(START + hour))
    state = initial_state(spec, TIMING, ahead=-hour)
    assert judge(state, START + 999) == []
    found = due(state, Millis(START + 1000))
    assert messages(found) == [("a", "queue_timeout")]
    drive(state, *found)
    evolve(state, e.JobGated(node="b", verdict=e.RUN, at=Millis(START + hour + 1000)))
    # And set back: what runs already is not touched by it.
    state.ahead = 0
    assert messages(judge(state, START + 1999)) == []
    assert messages(judge(state, START + 2000)) == [("b", "queue_timeout")]


def test_until_when_and_since_when_are_told_by_the_clock_on_the_wall() -> None:
    hour = 3_600_000
    spec = replace(spec_of([job("a", 10, queue_timeout=60_000)], []), created_at=Millis(START + hour))
    state = initial_state(spec, TIMING, ahead=-hour)
    shown = [to_datetime(START + after).strftime("%H:%M:%S") for after in (hour + 60_000, hour + 5000, 60_000)]
    assert shown[0] in explain(state, state.jobs["a"], str).message
    drive(state, placed("a", "p"), e.PeerAway(peer="p", since=Millis(START + 5000), gone=False))
    assert (
        f"does not answer since {to_datetime(START).date()} {shown[1]}Z" in explain(state, state.jobs["a"], str).message
    )
    state.ahead = 0
    assert shown[2] in explain(state, state.jobs["a"], str).message


def test_after_a_cancel_nothing_is_judged() -> None:
    jobs = [job("a", 10), job("tidy", 11, needs=("a",), when="always()", queue_timeout=1000)]
    state = initial_state(spec_of(jobs, []), TIMING)
    run(state, "a", 1)
    drive(state, e.CancelRequested(reason="", at=START))
    assert ends(state)["tidy"] == ("cancelled", "")
    assert judge(state, START + 5000) == []
    assert not [c for c in decide(state, state.jobs.values(), START) if isinstance(c, StartJob)]
