"""Maps and places in the engine, rule by rule."""

from __future__ import annotations

import time

import pytest

from peerd.workflows import events as e
from peerd.workflows.decide import Command, ExpandMap, PlaceJob, StartJob, decide
from peerd.workflows.evolve import evolve
from peerd.workflows.explain import explain
from peerd.workflows.lists import check_size
from peerd.workflows.maps import ListError
from peerd.workflows.model import ExecutionStatus, JobStatus, WorkflowJobStatus
from peerd.workflows.state import ExecutionState, durable_view, initial_state

from .simulation import START, TIMING, spec_of, with_map
from .test_engine import created, drive, placed, reported, started
from .test_gates import ends, job, judge, run, sends_to

LIST_EDGE = 2


def mapped(**more: object) -> ExecutionState:
    """list makes the list of each; each takes the files of ref, all takes those of each and of ref."""
    jobs = [job("list", 10), job("ref", 11), job("each", 12, **more), job("all", 13)]
    edges = [("ref", "each"), ("each", "all"), ("ref", "all")]
    return initial_state(with_map(spec_of(jobs, edges, ["each"]), "each", "list"), TIMING)


def listed(state: ExecutionState) -> None:
    """The list has been made, and has arrived."""
    run(state, "list", 1)
    run(state, "ref", 2)
    drive(state, reported("ref", JobStatus.COMPLETED), reported("list", JobStatus.COMPLETED))
    judge(state)
    drive(state, e.EdgeDelivered(edge_id=LIST_EDGE, placement=1, bytes=9, at=START))


def outstanding(state: ExecutionState) -> list[Command]:
    return decide(state, list(state.jobs.values()), START)


def expanded(count: int, **more: object) -> ExecutionState:
    state = mapped(**more)
    listed(state)
    drive(state, e.MapExpanded(node="each", count=count, first_workflow_job_id=50, at=START))
    return state


def test_it_waits_for_all_it_builds_on_then_for_its_list_and_is_never_placed() -> None:
    state = mapped()
    run(state, "list", 1)
    drive(state, reported("list", JobStatus.COMPLETED))
    drive(state, e.EdgeDelivered(edge_id=LIST_EDGE, placement=1, bytes=9, at=START))
    assert judge(state) == []
    assert explain(state, state.jobs["each"], str).message.startswith("waits for the end of ref")
    assert not [c for c in outstanding(state) if isinstance(c, ExpandMap) or c.node == "each"]
    run(state, "ref", 2)
    drive(state, reported("ref", JobStatus.COMPLETED))
    assert [event.verdict for event in judge(state) if isinstance(event, e.JobGated)] == [e.RUN]
    assert [c for c in outstanding(state) if c.node == "each"] == [ExpandMap(node="each", placement=0)]


def test_while_its_list_is_on_its_way_it_says_from_whom() -> None:
    state = mapped()
    run(state, "list", 1)
    run(state, "ref", 2)
    drive(state, reported("ref", JobStatus.COMPLETED), reported("list", JobStatus.COMPLETED))
    judge(state)
    said = explain(state, state.jobs["each"], str)
    assert (said.reason, said.message) == ("list", "waits for its list from list (on p), without a deadline")


def test_its_instances_are_jobs_and_who_builds_on_it_waits_for_each() -> None:
    state = expanded(2)
    assert list(state.jobs) == ["list", "ref", "each", "all", "each.0", "each.1"]
    assert state.jobs["each"].status is WorkflowJobStatus.COMPLETED
    found = state.job_of_number(51)
    assert found is state.jobs["each.1"] and state.job_of_number(52) is None
    assert {c.node for c in outstanding(state) if isinstance(c, PlaceJob)} == {"each.0", "each.1"}
    drive(state, placed("each.0", "q"), created("each.0", 3))
    assert not [c for c in outstanding(state) if isinstance(c, StartJob) and c.node == "ref"], "each.1 has no id"
    drive(state, placed("each.1", "q"), created("each.1", 4))
    assert len(sends_to(state, "ref")) == 2, "ref is told of both"
    drive(state, *started("each.0"), *started("each.1"), reported("each.0", JobStatus.COMPLETED))
    assert judge(state) == [] and not state.jobs["all"].open
    drive(state, reported("each.1", JobStatus.COMPLETED))
    assert judge(state) == [e.JobGated(node="all", verdict=e.RUN, at=START)]
    drive(state, placed("all", "p"), created("all", 5))
    assert state.jobs["all"].missing == 0
    sources = [state.edges[edge].spec.source for edge in state.jobs["all"].inputs]
    assert sources == ["ref", "each.0", "each.1"]


def test_an_empty_list_is_no_failure() -> None:
    state = expanded(0)
    assert ends(state)["each"] == ("completed", "")
    assert judge(state) == [e.JobGated(node="all", verdict=e.RUN, at=START)]
    run(state, "all", 5)
    drive(state, reported("all", JobStatus.COMPLETED))
    assert state.status is ExecutionStatus.COMPLETED


def test_a_bad_list_fails_it_and_those_who_build_on_it() -> None:
    state = mapped()
    listed(state)
    drive(state, e.MapFailed(node="each", message="item 1 is an array", at=START))
    judge(state)
    assert ends(state)["each"] == ("failed", "map") and ends(state)["all"] == ("failed", "upstream_failed")
    assert state.status is ExecutionStatus.FAILED and "item 1 is an array" in state.error


def test_a_list_that_cannot_come_fails_it() -> None:
    state = mapped()
    run(state, "list", 1)
    drive(state, e.EdgeFailed(edge_id=LIST_EDGE, placement=1, reason="no_files_match", message="nothing", at=START))
    assert ends(state)["each"] == ("failed", "transfer")
    assert state.home_failed == 0


def test_a_maker_that_may_fail_leaves_no_list() -> None:
    jobs = [job("list", 10, continue_on_failure=True), job("each", 11)]
    state = initial_state(with_map(spec_of(jobs, []), "each", "list"), TIMING)
    run(state, "list", 1)
    drive(state, reported("list", JobStatus.FAILED, reason="exit"))
    judge(state)
    assert ends(state)["each"] == ("failed", "map")
    assert state.jobs["each"].message == "list made no list: it is failed"


def test_a_list_that_is_read_after_the_cancel_changes_nothing() -> None:
    state = mapped()
    listed(state)
    drive(state, e.CancelRequested(reason="enough", at=START))
    drive(state, e.MapExpanded(node="each", count=2, first_workflow_job_id=50, at=START))
    assert len(state.jobs) == 4 and state.status is ExecutionStatus.CANCELLED


def test_a_list_is_taken_once() -> None:
    state = expanded(2)
    before = durable_view(state)
    drive(state, e.MapExpanded(node="each", count=2, first_workflow_job_id=50, at=START))
    drive(state, e.MapFailed(node="each", message="no", at=START))
    assert durable_view(state) == before


# Places


def ready(state: ExecutionState, node: str, number: int) -> None:
    """On its peer, with all it needs, and held back there."""
    drive(state, placed(node, "q"), created(node, number), *started(node), reported(node, JobStatus.READY, revision=2))


def test_places_go_to_who_is_ready_first_of_them_the_first_of_the_list() -> None:
    state = expanded(3, max_parallel=1)
    assert all(state.jobs[f"each.{n}"].hold for n in range(3))
    ready(state, "each.2", 7)
    assert not state.jobs["each.2"].hold, "nobody else was ready"
    assert StartJob(node="each.2", placement=1, peer="q", generation=2, new=True) in outstanding(state)
    ready(state, "each.1", 6)
    ready(state, "each.0", 5)
    assert state.jobs["each.0"].hold and state.jobs["each.1"].hold
    said = explain(state, state.jobs["each.0"], str)
    assert said.reason == "held" and "one of the 1 places of each (max_parallel)" in said.message
    drive(state, reported("each.2", JobStatus.COMPLETED, revision=3))
    assert (state.jobs["each.0"].hold, state.jobs["each.1"].hold) == (False, True)


def test_a_job_that_is_held_back_has_not_run_and_may_leave_its_peer() -> None:
    state = expanded(3, max_parallel=1)
    ready(state, "each.0", 5)
    ready(state, "each.1", 6)
    drive(state, e.JobLost(node="each.1", placement=1, message="unknown", at=START))
    assert state.jobs["each.1"].status is WorkflowJobStatus.PENDING
    drive(state, e.JobLost(node="each.0", placement=1, message="unknown", at=START))
    assert ends(state)["each.0"] == ("failed", "lost"), "it had a place, so it may have run"
    assert state.places["each"].taken == 0


def test_who_leaves_its_peer_leaves_its_place() -> None:
    state = expanded(3, max_parallel=1, retry_lost=True, attempts=2)
    ready(state, "each.0", 5)
    ready(state, "each.1", 6)
    drive(state, e.JobLost(node="each.0", placement=1, message="unknown", at=START))
    assert state.jobs["each.0"].hold and not state.jobs["each.1"].hold


def test_ten_thousand_instances_cost_no_more_each_than_a_thousand() -> None:
    def seconds(count: int) -> float:
        state = expanded(count, max_parallel=50)
        begun = time.process_time()
        for number in range(count):
            ready(state, f"each.{number}", 100 + number)
            decide(state, state.take_dirty(100), START)
        for number in range(count):
            evolve(state, reported(f"each.{number}", JobStatus.COMPLETED, revision=3))
        assert state.jobs["all"].upstream_left == 0
        return time.process_time() - begun

    small = min(seconds(1000) for _ in range(2))
    assert seconds(10_000) < 30 * small


def test_a_list_whose_instances_are_too_much_together_is_refused() -> None:
    jobs = [job("list", 10), job("each", 11), *(job(f"n{number}", 12 + number, needs=("each",)) for number in range(2))]
    state = initial_state(with_map(spec_of(jobs, []), "each", "list"), TIMING)
    check_size(state, "each", 500_000)
    with pytest.raises(ListError, match="waited for 1000002 times"):
        check_size(state, "each", 500_001)
    with pytest.raises(ListError, match="225000 edges"):
        check_size(mapped(), "each", 75_000)
