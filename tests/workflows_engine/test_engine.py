"""The engine's rules, one by one, and what an event costs."""

from __future__ import annotations

import time

import pytest

from peerd.clock import Millis
from peerd.workflows import events as e
from peerd.workflows.decide import CancelJob, CreateJob, PlaceJob, StartJob, decide, due
from peerd.workflows.evolve import evolve
from peerd.workflows.explain import explain, explain_execution
from peerd.workflows.model import (
    EXECUTION_MOVES,
    JOB_MOVES,
    EdgeNews,
    EdgeStatus,
    ExecutionStatus,
    JobSpec,
    JobStatus,
    Report,
    WorkflowJobStatus,
)
from peerd.workflows.state import ExecutionState, durable_view, initial_state

from .simulation import START, TIMING, World, replay, spec_of


def drive(state: ExecutionState, *events: e.Event) -> None:
    for event in events:
        evolve(state, event)


def status(state: ExecutionState) -> str:
    return state.status.value


def placed(node: str, peer: str = "p", placement: int = 1) -> e.Event:
    return e.JobPlaced(node=node, placement=placement, peer=peer, at=START)


def created(node: str, number: int, placement: int = 1) -> e.Event:
    return e.JobCreated(node=node, placement=placement, job_execution_id=number, at=START)


def started(node: str, generation: int = 1, placement: int = 1) -> tuple[e.Event, e.Event]:
    return (
        e.JobStartSent(node=node, placement=placement, generation=generation, at=START),
        e.JobStarted(node=node, placement=placement, generation=generation, at=START),
    )


def reported(node: str, status: JobStatus, revision: int = 5, placement: int = 1, **more: object) -> e.Event:
    report = Report(job_execution_id=1, status=status, revision=revision, generation=1, **more)  # type: ignore[arg-type]
    return e.JobReported(node=node, placement=placement, report=report, at=START)


def outstanding(state: ExecutionState, now: int = START) -> list[object]:
    return list(decide(state, state.jobs.values(), Millis(now)))


def starts_of(state: ExecutionState) -> list[tuple[str, int]]:
    return [(c.node, c.generation) for c in outstanding(state) if isinstance(c, StartJob)]


def chain() -> ExecutionState:
    return initial_state(spec_of(["a", "b", "c"], [("a", "b"), ("b", "c")], ["c"]), TIMING)


def running_chain() -> ExecutionState:
    state = chain()
    for number, node in enumerate("abc", start=1):
        drive(state, placed(node), created(node, number))
    for node in "abc":
        drive(state, *started(node))
    return state


def test_every_status_is_in_its_table_and_final_means_no_way_out() -> None:
    assert set(EXECUTION_MOVES) == set(ExecutionStatus)
    assert set(JOB_MOVES) == set(WorkflowJobStatus)
    assert {s for s in ExecutionStatus if s.final} == {
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CANCELLED,
    }
    assert not WorkflowJobStatus.RUNNING.final
    assert WorkflowJobStatus.SKIPPED.final


def test_a_job_is_started_when_it_and_its_neighbours_have_ids_and_not_before() -> None:
    state = chain()
    drive(state, *(placed(node) for node in "abc"))
    assert {type(command) for command in outstanding(state)} == {CreateJob}
    drive(state, created("a", 1))
    assert not [c for c in outstanding(state) if isinstance(c, StartJob)]
    drive(state, created("b", 2))
    assert [c.node for c in outstanding(state) if isinstance(c, StartJob)] == ["a"]
    drive(state, created("c", 3))
    assert [c.node for c in outstanding(state) if isinstance(c, StartJob)] == ["a", "b", "c"]


def test_a_chain_completes_with_its_delivery() -> None:
    state = running_chain()
    for node in "abc":
        drive(state, reported(node, JobStatus.COMPLETED))
    assert status(state) == "running"
    drive(state, e.EdgeDelivered(edge_id=3, placement=1, bytes=7, at=START))
    assert status(state) == "completed"
    assert state.settled


def test_the_senders_word_does_not_complete_a_delivery() -> None:
    state = running_chain()
    news = EdgeNews(edge_id=3, status=EdgeStatus.DELIVERED, bytes=7, bytes_total=7)
    for node in "abc":
        drive(state, reported(node, JobStatus.COMPLETED, edges=(news,)))
    assert status(state) == "running"
    assert state.edges[3].status is EdgeStatus.SENDING


def test_a_failed_producer_fails_its_consumers_and_stops_what_their_peers_hold() -> None:
    state = running_chain()
    drive(state, reported("a", JobStatus.FAILED, reason="exit", message="exit code 3"))
    assert [(j.status.value, j.reason) for j in state.jobs.values()] == [
        ("failed", "exit"),
        ("failed", "upstream_failed"),
        ("failed", "upstream_failed"),
    ]
    assert status(state) == "failed"
    assert state.error == "3 of 3 jobs failed; first a: exit code 3"
    assert state.stopping == {"p": 2}
    assert [c.node for c in outstanding(state) if isinstance(c, CancelJob)] == ["b", "c"]
    gone = Report(job_execution_id=2, status=JobStatus.CANCELLED, revision=9)
    drive(state, *(e.JobStopped(node=n, placement=1, report=gone, at=START) for n in "bc"))
    assert state.settled
    assert state.jobs["b"].reason == "upstream_failed"


def test_independent_branches_and_their_deliveries_go_on_after_a_failure() -> None:
    state = initial_state(spec_of(["bad", "never", "free"], [("bad", "never")], ["free"]), TIMING)
    for number, node in enumerate(state.jobs, start=1):
        drive(state, placed(node), created(node, number), *started(node))
    drive(state, reported("bad", JobStatus.FAILED, reason="exit"), reported("free", JobStatus.COMPLETED))
    assert status(state) == "running"
    drive(state, e.EdgeDelivered(edge_id=2, placement=1, bytes=1, at=START))
    assert status(state) == "failed"
    assert state.error.startswith("2 of 3 jobs failed")


def test_a_consumer_that_runs_is_not_touched_when_its_producer_is_lost() -> None:
    state = running_chain()
    drive(state, reported("b", JobStatus.RUNNING), reported("a", JobStatus.LOST))
    assert state.jobs["a"].reason == "lost"
    assert state.jobs["b"].status is WorkflowJobStatus.RUNNING


def test_a_producer_does_not_wait_for_a_consumer_that_failed_before_it_had_an_id() -> None:
    state = chain()
    drive(state, placed("a"), created("a", 1), placed("b"))
    drive(state, e.JobUnplaceable(node="c", message="nobody", at=START))
    drive(state, e.DeadlinePassed(node="b", at=START))
    assert [c.node for c in outstanding(state) if isinstance(c, StartJob)] == ["a"]


def test_a_refusal_sends_a_job_elsewhere_and_a_pinned_one_to_its_end() -> None:
    jobs = [JobSpec(node_id="free", workflow_job_id=10), JobSpec(node_id="pinned", workflow_job_id=11, pinned=True)]
    state = initial_state(spec_of(jobs, []), TIMING)
    for node in ("free", "pinned"):
        refusal = e.JobRefused(node=node, placement=1, reason="service_inactive", message="p: inactive", at=START)
        drive(state, placed(node), refusal)
    assert outstanding(state) == [PlaceJob(node="free", placement=2, excluded=frozenset({"p"}))]
    assert (state.jobs["pinned"].reason, state.jobs["pinned"].message) == ("refused", "p: inactive")


def moved_producer() -> ExecutionState:
    """b's peer is away for longer than its lease, and b has gone to q."""
    jobs = [JobSpec(node_id=node, workflow_job_id=10 + n, attempts=2, retry_lost=True) for n, node in enumerate("abc")]
    state = initial_state(spec_of(jobs, [("a", "b"), ("b", "c")]), TIMING)
    for number, (node, peer) in enumerate((("a", "p"), ("b", "x"), ("c", "p")), start=1):
        drive(state, placed(node, peer), created(node, number))
    for node in "abc":
        drive(state, *started(node))
    drive(state, reported("a", JobStatus.COMPLETED), e.PeerAway(peer="x", since=START))
    return state


def test_a_started_job_leaves_a_peer_that_is_away_only_after_lease_and_skew() -> None:
    state = moved_producer()
    assert outstanding(state, START + 1099) == []
    assert outstanding(state, START + 1100) == [
        PlaceJob(node="b", placement=2, excluded=frozenset({"x"}), move=True),
    ]


def test_a_job_that_was_never_started_leaves_sooner_and_a_pinned_one_never() -> None:
    jobs = [JobSpec(node_id="free", workflow_job_id=10), JobSpec(node_id="pinned", workflow_job_id=11, pinned=True)]
    state = initial_state(spec_of(jobs, []), TIMING)
    drive(state, placed("free"), placed("pinned"), e.PeerAway(peer="p", since=START))
    assert outstanding(state, START + 299) == []
    assert [c.node for c in outstanding(state, START + 300)] == ["free"]  # type: ignore[attr-defined]


def test_a_move_gives_the_neighbours_a_new_generation_also_a_completed_producer() -> None:
    state = moved_producer()
    drive(state, placed("b", "q", 2), created("b", 9, 2))
    assert starts_of(state) == [("a", 2), ("c", 2)], "c must know where b is before b can send it anything"
    drive(state, *started("c", 2))
    assert starts_of(state) == [("a", 2), ("b", 2)]
    assert state.jobs["b"].stops == {1: "x"}
    drive(state, e.PeerBack(peer="x"))
    assert CancelJob(node="b", placement=1, peer="x", reason="moved to another peer") in outstanding(state)


def test_news_about_an_edge_to_a_former_place_does_not_count() -> None:
    state = moved_producer()
    drive(state, placed("b", "q", 2), created("b", 9, 2), *started("a", 2))
    old = Report(
        job_execution_id=1,
        status=JobStatus.COMPLETED,
        revision=6,
        generation=1,
        edges=(EdgeNews(edge_id=1, status=EdgeStatus.FAILED, reason="unexpected_transfer"),),
    )
    drive(state, e.JobReported(node="a", placement=1, report=old, at=START))
    assert state.jobs["b"].status is WorkflowJobStatus.PLACED
    assert state.edges[1].status is EdgeStatus.WAITING


def test_results_of_an_older_placement_are_not_applied() -> None:
    state = moved_producer()
    drive(state, placed("b", "q", 2), created("b", 9, 2))
    drive(state, reported("b", JobStatus.COMPLETED, revision=99, placement=1))
    assert state.jobs["b"].status is WorkflowJobStatus.PLACED
    assert state.jobs["b"].stops == {}, "but it need not be stopped any more"


@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_after_a_cancel_the_executors_end_wins(end: JobStatus) -> None:
    state = initial_state(spec_of(["a"], []), TIMING)
    drive(state, placed("a"), created("a", 1), *started("a"), reported("a", JobStatus.RUNNING))
    drive(state, e.CancelRequested(reason="enough", at=START))
    assert outstanding(state) == [CancelJob(node="a", placement=1, peer="p", reason="enough")]
    report = Report(job_execution_id=1, status=end, revision=9, generation=1, reason="exit")
    drive(state, e.JobStopped(node="a", placement=1, report=report, at=START))
    assert state.jobs["a"].status.value == end.value
    assert state.status is (ExecutionStatus.COMPLETED if end is JobStatus.COMPLETED else ExecutionStatus.CANCELLED)


def test_a_cancel_waits_for_a_peer_that_is_away_and_says_so() -> None:
    state = initial_state(spec_of(["a", "b"], []), TIMING)
    drive(state, placed("a"), e.PeerAway(peer="p", since=START), e.CancelRequested(reason="", at=START))
    assert status(state) == "running"
    assert state.jobs["b"].status is WorkflowJobStatus.CANCELLED
    assert outstanding(state) == []
    assert "cancelling, waiting for PEER-p" in explain(state, state.jobs["a"], lambda peer: f"PEER-{peer}").message
    assert "waiting for PEER-p" in explain_execution(state, lambda peer: f"PEER-{peer}").message
    drive(state, e.PeerBack(peer="p"))
    assert len(outstanding(state)) == 1


def test_a_created_job_that_expired_before_its_start_is_created_anew() -> None:
    state = chain()
    drive(state, placed("a"), created("a", 1), reported("a", JobStatus.FAILED, reason="expired"))
    assert state.jobs["a"].status is WorkflowJobStatus.PENDING
    assert [c.placement for c in outstanding(state) if isinstance(c, PlaceJob)] == [2, 1, 1]


def every_waiting_state() -> list[tuple[str, ExecutionState]]:
    waiting = chain()
    drive(waiting, placed("a"), created("a", 1), placed("b", "x"), e.PeerAway(peer="x", since=START))
    held = chain()
    drive(held, e.JobHeldUp(node="a", placement=0, reason="peer_away", message="waits for alpha"))
    cancelling = running_chain()
    drive(cancelling, e.CancelRequested(reason="", at=START))
    inputs = running_chain()
    drive(inputs, reported("a", JobStatus.RUNNING), reported("b", JobStatus.WAITING_INPUTS))
    return [
        ("new", chain()),
        ("waiting", waiting),
        ("held", held),
        ("cancelling", cancelling),
        ("inputs", inputs),
        ("moved", moved_producer()),
    ]


@pytest.mark.parametrize(("name", "state"), every_waiting_state())
def test_nothing_that_waits_is_without_reason_message_since_and_next_action(name: str, state: ExecutionState) -> None:
    for job in state.jobs.values():
        if not job.final:
            said = explain(state, job, lambda peer: f"PEER-{peer}")
            assert said.reason and said.message and said.next_action and job.since, (name, job.spec.node_id)
    said = explain_execution(state, lambda peer: f"PEER-{peer}")
    assert said.reason and said.message and said.next_action


def test_a_job_on_a_peer_that_is_away_says_for_whom_and_until_when() -> None:
    jobs = [JobSpec(node_id="a", workflow_job_id=10, deadline_at=Millis(START + 60_000))]
    state = initial_state(spec_of(jobs, []), TIMING)
    drive(state, placed("a"), e.PeerAway(peer="p", since=START))
    said = explain(state, state.jobs["a"], lambda _: "alpha")
    assert "waits for alpha" in said.message
    assert "until 1970-01-01 00:17:40Z, its deadline" in said.message
    assert "bring alpha back" in said.next_action


SAMPLES: list[e.Event] = [
    e.ExecutionRequested(at=START),
    e.JobReused(node="a", at=START),
    placed("a"),
    e.JobUnplaceable(node="a", message="nobody", at=START),
    created("a", 3),
    e.JobRefused(node="a", placement=1, reason="overloaded", message="p: full", at=START),
    *started("a"),
    reported("a", JobStatus.COMPLETED, exit_code=0, edges=(EdgeNews(edge_id=1, status=EdgeStatus.SENDING, bytes=2),)),
    e.JobStopped(node="a", placement=1, report=Report(job_execution_id=0, status=JobStatus.CANCELLED, revision=0)),
    e.JobLost(node="a", placement=1, message="gone", at=START),
    e.EdgeDelivered(edge_id=1, placement=1, bytes=5, at=START),
    e.EdgeFailed(edge_id=1, placement=1, reason="quota_exceeded", message="full", at=START),
    e.CancelRequested(reason="Ünicode \n", at=START),
    e.DeadlinePassed(node="a", waiting="for p", at=START),
    e.JobGated(node="a", verdict=e.SKIP, reason="when", message="does not hold: failure()", at=START),
    e.MapExpanded(node="a", count=3, first_workflow_job_id=17, at=START),
    e.MapFailed(node="a", message="item 1 is an array", at=START),
    e.TimedOut(node="a", limit="queue_timeout", message="no peer had taken it", at=START),
]


def test_every_durable_event_survives_the_log() -> None:
    assert {type(event).__name__ for event in SAMPLES} == set(e.KINDS)
    for event in SAMPLES:
        assert e.decode(*e.encode(event), event.at) == event


def test_passing_events_are_never_stored() -> None:
    with pytest.raises(TypeError):
        e.encode(e.PeerBack(peer="p"))


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_no_event_changes_an_execution_that_has_ended(event: e.Event) -> None:
    state = running_chain()
    for node in "abc":
        drive(state, reported(node, JobStatus.COMPLETED, revision=500))
    drive(state, e.EdgeDelivered(edge_id=3, placement=1, bytes=7, at=START))
    before = durable_view(state)
    drive(state, event)
    assert durable_view(state) == before


def big_world(count: int) -> tuple[World, float]:
    """A fan of chains of ten: everything placed, created, started, run; returns seconds per event."""
    names = [f"j{n}" for n in range(count)]
    edges = [(names[n], names[n + 1]) for n in range(count - 1) if n % 10 != 9]
    world = World(spec_of(names, edges, names[9::10]), ["p", "q", "r"])
    begun = time.process_time()
    while not world.state.settled:
        wire, world.wire = world.wire, []
        for message in wire:
            world.wire.append(message)
            world.deliver(len(world.wire) - 1)
        for executor in world.executors.values():
            for job in executor.jobs.values():
                if job.status is not JobStatus.COMPLETED or len(job.sent) < len(job.destinations):
                    before = job.revision
                    world.work(executor, job, 0)
                    if job.revision != before:
                        world.tell(executor, job)
    return world, (time.process_time() - begun) / world.events_applied


@pytest.mark.timeout(300)
def test_ten_thousand_jobs_cost_no_more_per_event_than_a_few_hundred() -> None:
    small, small_cost = big_world(500)
    large, large_cost = big_world(10_000)
    assert large.state.status is small.state.status is ExecutionStatus.COMPLETED
    assert large_cost < 4 * small_cost, (
        f"{small_cost * 1e6:.0f} us per event at 500 jobs, {large_cost * 1e6:.0f} at 10,000"
    )


def test_replaying_the_log_gives_the_state() -> None:
    world, _ = big_world(200)
    assert durable_view(replay(world.spec, world.log)) == durable_view(world.state)


def test_a_job_on_a_revoked_peer_is_lost_when_its_lease_has_run_out_and_nobody_waits_for_a_stop() -> None:
    state = initial_state(spec_of(["a", "b"], []), TIMING)
    for node in "ab":
        drive(state, placed(node), created(node, 1), *started(node))
    drive(state, e.DeadlinePassed(node="b", at=START))
    drive(state, e.PeerAway(peer="p", since=START, gone=True))
    assert due(state, Millis(START + 1099)) == []
    drive(state, *due(state, Millis(START + 1100)))
    assert [(job.status.value, job.reason) for job in state.jobs.values()] == [
        ("failed", "lost"),
        ("failed", "timeout"),
    ]
    assert state.settled


def test_a_cancel_does_not_wait_for_what_was_held_up() -> None:
    state = initial_state(spec_of(["a"], []), TIMING)
    later = Millis(START + 30_000)
    drive(state, placed("a"), e.JobHeldUp(node="a", placement=1, reason="overloaded", message="full", retry_at=later))
    assert outstanding(state) == []
    drive(state, e.CancelRequested(reason="", at=START))
    assert [type(command) for command in outstanding(state)] == [CancelJob]


def test_a_job_that_its_executor_ended_unasked_is_lost_not_cancelled() -> None:
    state = running_chain()
    drive(state, reported("a", JobStatus.CANCELLED))
    assert (state.jobs["a"].status.value, state.jobs["a"].reason) == ("failed", "lost")


def test_a_started_job_that_may_not_run_twice_waits_for_its_peer_for_ever() -> None:
    jobs = [
        JobSpec(node_id="once", workflow_job_id=10, attempts=3),
        JobSpec(node_id="spent", workflow_job_id=11, attempts=1, retry_lost=True),
    ]
    state = initial_state(spec_of(jobs, []), TIMING)
    for node in ("once", "spent"):
        drive(state, placed(node), created(node, 1), *started(node))
    drive(state, e.PeerAway(peer="p", since=START))
    assert outstanding(state, START + 10**9) == []


def test_a_delivery_from_a_job_that_is_lost_afterwards_is_expected_anew() -> None:
    jobs = [JobSpec(node_id="a", workflow_job_id=10, attempts=2, retry_lost=True)]
    state = initial_state(spec_of(jobs, [], ["a"]), TIMING)
    drive(state, placed("a"), created("a", 1), *started("a"))
    drive(state, e.EdgeDelivered(edge_id=1, placement=1, bytes=7, at=START))
    drive(state, reported("a", JobStatus.LOST), placed("a", "q", 2), created("a", 2, 2), *started("a", 2, 2))
    drive(state, reported("a", JobStatus.COMPLETED, placement=2))
    assert status(state) == "running"
    drive(state, e.EdgeDelivered(edge_id=1, placement=1, bytes=7, at=START))
    assert status(state) == "running", "what the former place sent does not count"
    drive(state, e.EdgeDelivered(edge_id=1, placement=2, bytes=7, at=START))
    assert status(state) == "completed"


def test_a_report_that_overtakes_the_answer_to_create_tells_the_id() -> None:
    state = initial_state(spec_of(["a"], []), TIMING)
    drive(state, placed("a"), reported("a", JobStatus.CREATED))
    assert [type(command) for command in outstanding(state)] == [StartJob]


def producer_that_waits() -> ExecutionState:
    """``a`` has left ``p`` before it was started; ``b`` has its first interfaces, and has not said so yet."""
    state = initial_state(spec_of(["a", "b", "c"], [("a", "b"), ("a", "c")]), TIMING)
    drive(state, placed("a"), placed("a", "q", placement=2), created("a", 1, placement=2))
    drive(state, placed("b"), created("b", 2), placed("c"), created("c", 3))
    drive(state, e.JobStartSent(node="b", placement=1, generation=1, at=START))
    drive(state, *started("c"))
    state.take_dirty(10)
    assert "a" not in dict(starts_of(state))
    return state


def test_a_producer_that_waits_goes_on_when_its_consumer_takes_its_first_interfaces() -> None:
    """Found by the model test: it was looked at again only after a second generation, and waited for ever."""
    state = producer_that_waits()
    drive(state, e.JobStarted(node="b", placement=1, generation=1, at=START))
    assert "a" in [job.spec.node_id for job in state.take_dirty(10)]
    assert "a" in dict(starts_of(state))


def test_a_producer_that_waits_goes_on_when_the_consumer_it_waits_for_ends() -> None:
    state = producer_that_waits()
    drive(state, e.DeadlinePassed(node="b", at=START))
    assert "a" in [job.spec.node_id for job in state.take_dirty(10)]
    assert "a" in dict(starts_of(state))


def test_news_of_a_place_that_the_receiver_has_left_counts_no_more() -> None:
    """Found by the model test: until the new place was known, a refused send failed the receiver."""
    state = initial_state(spec_of(["a", "b"], [("a", "b")]), TIMING)
    drive(state, placed("a"), created("a", 1), placed("b", "q"), created("b", 2), *started("a"))
    drive(state, placed("b", "r", placement=2))
    failed = EdgeNews(edge_id=1, status=EdgeStatus.FAILED, reason="unexpected_transfer")
    drive(state, reported("a", JobStatus.COMPLETED, edges=(failed,)))
    assert state.jobs["b"].status is WorkflowJobStatus.PLACED
    assert state.edges[1].status is EdgeStatus.WAITING


def test_a_start_that_never_came_is_no_failure() -> None:
    """Found by the model test: its executor gave up a job without interfaces; it never ran, so it may elsewhere."""
    state = initial_state(spec_of(["a"], []), TIMING)
    drive(state, placed("a"), created("a", 1), e.JobStartSent(node="a", placement=1, generation=1, at=START))
    report = Report(job_execution_id=1, status=JobStatus.FAILED, revision=3, reason="refused")
    drive(state, e.JobReported(node="a", placement=1, report=report, at=START))
    assert state.jobs["a"].status is WorkflowJobStatus.PENDING


def test_files_that_no_longer_come_do_not_fail_what_is_being_cancelled() -> None:
    state = running_chain()
    drive(state, e.CancelRequested(reason="enough", at=START))
    failed = EdgeNews(edge_id=1, status=EdgeStatus.FAILED, reason="unexpected_transfer")
    drive(state, reported("a", JobStatus.COMPLETED, edges=(failed,)))
    assert state.jobs["b"].status is WorkflowJobStatus.PLACED


def test_nothing_moves_between_two_peers_that_are_both_away() -> None:
    """Found by the model test: it moved to and fro within one step, without end."""
    state = initial_state(spec_of(["a"], []), TIMING)
    drive(state, placed("a"), e.PeerAway(peer="p", since=START), e.PeerAway(peer="q", since=START))
    (move,) = outstanding(state, START + TIMING.replace_after)
    assert isinstance(move, PlaceJob)
    assert move.excluded == {"p", "q"}


def test_files_of_a_completed_job_that_its_executor_has_lost_are_not_awaited() -> None:
    state = running_chain()
    drive(state, reported("a", JobStatus.COMPLETED), e.JobLost(node="a", placement=1, message="unknown", at=START))
    assert (state.jobs["b"].status, state.jobs["b"].reason) == (WorkflowJobStatus.FAILED, "transfer")


def test_a_job_that_may_have_run_is_not_done_elsewhere_because_its_peer_refuses_new_interfaces() -> None:
    state = running_chain()
    drive(state, reported("b", JobStatus.RUNNING))
    drive(state, e.JobRefused(node="b", placement=1, reason="illegal_interface", message="not now", at=START))
    assert (state.jobs["b"].status, state.jobs["b"].reason) == (WorkflowJobStatus.FAILED, "refused")
    assert CancelJob(node="b", placement=1, peer="p", reason="not now") in outstanding(state)
