"""Concurrency groups: at most so many at once, first come first served, over restarts."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.store import Tx, open_store
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows import groups
from peerd.workflows.groups import Gate, Group, enter

from .fakes import Home, home, job, workflow

E = workflows_pb2.ExecutionStatus
PENDING, RUNNING = E.EXECUTION_STATUS_PENDING, E.EXECUTION_STATUS_RUNNING


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may begin is woken at once, not at the next look."""
    monkeypatch.setattr(groups, "_LOOK_SECONDS", 3600.0)


def grouped(name: str = "w", *jobs: dict[str, Any], group: str = "deploy", **more: Any) -> dict[str, Any]:
    made = workflow(*(jobs or (job("a"),)))
    return {**made, "name": name, "concurrency": {"group": group, **more}, "params": {"target": "test"}}


async def end(made: Home, execution_id: int, status: Any = jobs_pb2.JOB_STATUS_COMPLETED) -> None:
    """Its jobs, which run, end and say so."""
    executor = made.fleet.executors["p"]
    execution = await made.until(execution_id, lambda x: all(entry.generation for entry in x.jobs))
    for entry in execution.jobs:
        report = await executor.started_job(entry)
        executor.end(report, status)
        await made.report(executor, report)


def created(made: Home) -> set[int]:
    """Executions of which a job was ordered."""
    asked = made.fleet.executors["p"].asked(jobs_pb2.CreateJobRequest)
    return {request.key.workflow_execution_id for request in asked}


async def begun(made: Home, execution_id: int) -> None:
    await made.until(execution_id, lambda x: x.status == RUNNING and all(entry.generation for entry in x.jobs))


async def test_executions_of_a_group_run_one_after_the_other_whatever_their_workflow(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first = await made.run(grouped("one"))
        second, third = await made.run(grouped("two")), await made.run(grouped("one"))
        other = await made.run(grouped("one", group="another"))
        await begun(made, first)
        await begun(made, other)
        waiting = await made.until(second, lambda x: x.jobs[0].message)
        assert waiting.status == PENDING and waiting.waits_for_turn and waiting.concurrency_group == "deploy"
        assert waiting.reason == f"waits for execution {first} of group deploy"
        assert waiting.next_action.endswith(f"'peerctl executions cancel {first}'") and waiting.since.seconds
        assert waiting.jobs[0].message.startswith("waits until its execution has its turn in group deploy")
        assert (await made.show(third)).reason == f"waits for executions {first}, {second} of group deploy"
        assert created(made) == {first, other}
        await end(made, first)
        await begun(made, second)
        await made.until(third, lambda x: x.reason == f"waits for execution {second} of group deploy")
        assert created(made) == {first, second, other}
        await end(made, second, jobs_pb2.JOB_STATUS_FAILED)  # however it ends
        await begun(made, third)
        assert not (await made.show(third)).waits_for_turn
        await end(made, third)
        assert (await made.finished(third)).status == E.EXECUTION_STATUS_COMPLETED


async def test_as_many_as_the_limit_run_at_once(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        numbers = [await made.run(grouped(limit=2)) for _ in range(4)]
        await begun(made, numbers[0])
        await begun(made, numbers[1])
        assert (await made.show(numbers[3])).reason == (
            f"waits for executions {numbers[0]}, {numbers[1]}, {numbers[2]} of group deploy, which runs 2 at once"
        )
        await end(made, numbers[1])
        await begun(made, numbers[2])
        assert created(made) == set(numbers[:3])


async def test_who_waits_goes_on_waiting_after_a_crash_and_begins_once(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first, second, third = [await made.run(grouped()) for _ in range(3)]
        await begun(made, first)
        await made.stop()
        await made.start()
        waiting = await made.until(second, lambda x: x.reason)
        assert waiting.reason == f"waits for execution {first} of group deploy"
        await end(made, first)
        await made.finished(first)
        await made.stop()  # it may have its turn by now, or not
        await made.start()
        await begun(made, second)
        assert created(made) == {first, second}
        await end(made, second)
        await begun(made, third)


async def test_one_that_waits_takes_no_steps(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first, second = await made.run(grouped()), await made.run(grouped())
        await begun(made, first)
        await made.until(second, lambda x: x.jobs[0].message)
        runner = made.orchestrator.find(second)
        assert runner is not None
        steps, advance = 0, runner._advance

        def counted(inputs: Any) -> Any:
            nonlocal steps
            steps += 1
            return advance(inputs)

        runner._advance = counted  # type: ignore[method-assign]
        for _ in range(500):
            await asyncio.sleep(0)
        assert steps < 5


async def test_one_that_waits_can_be_cancelled_and_runs_into_its_deadline(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first = await made.run(grouped())
        second, third = await made.run(grouped()), await made.run(grouped("w", job("a", deadline="300ms")))
        await begun(made, first)
        await made.workflows.CancelExecution(workflows_pb2.CancelExecutionRequest(workflow_execution_id=second), None)
        assert (await made.finished(second)).status == E.EXECUTION_STATUS_CANCELLED
        late = await made.finished(third)
        assert late.status == E.EXECUTION_STATUS_FAILED and "deadline" in late.jobs[0].message
        assert created(made) == {first}


async def test_one_that_is_not_to_wait_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first = await made.run(grouped(on_conflict="skip"))
        with pytest.raises(PeerdError) as refused:
            await made.run(grouped(on_conflict="skip"))
        assert refused.value.reason is Reason.GROUP_BUSY and f"execution {first}" in refused.value.message
        assert len(await made.store.all("SELECT id FROM workflow_executions")) == 1
        await end(made, first)
        await made.finished(first)
        await made.run(grouped(on_conflict="skip"))


async def test_the_newest_takes_the_place_of_those_that_run_and_wait(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first, second = await made.run(grouped()), await made.run(grouped())
        await begun(made, first)
        newest = await made.run(grouped(on_conflict="cancel_running"))
        for old in (first, second):
            ended = await made.finished(old)
            assert ended.status == E.EXECUTION_STATUS_CANCELLED
            assert ended.cancel_reason == f"execution {newest} takes its place in group deploy"
        await begun(made, newest)
        assert created(made) == {first, newest}


async def test_a_group_may_be_named_by_parameters(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        definition = grouped(group="deploy-${params.target}")
        first = await made.run(definition)
        second = await made.run(definition, params={"target": "live"})
        third = await made.run(definition, params={"target": "live"})
        await begun(made, first)
        await begun(made, second)
        assert (await made.show(third)).reason == f"waits for execution {second} of group deploy-live"
        for bad in ("\n", "x" * 300):
            with pytest.raises(PeerdError, match=r"concurrency\.group"):
                await made.run(definition, params={"target": bad})


async def test_whatever_happens_no_more_than_the_limit_begin_and_nobody_is_overtaken(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "peerd.db", FakeClock())
    rng = random.Random(7)
    try:
        gate = Gate(store, FakeClock(), changed=lambda _: None)
        await store.write(lambda tx: tx.insert("INSERT INTO workflows (name, created_at) VALUES ('w', 0)"))

        def make(tx: Tx) -> None:
            number = tx.insert(
                "INSERT INTO workflow_executions (workflow_id, workflow_version, params, job_count, status, since,"
                " created_at) VALUES (1, 1, '{}', 1, 'pending', 0, 0)"
            )
            group = Group(name=rng.choice("ab"), limit=rng.randint(1, 3), on_conflict="queue")
            turn = enter(tx, number, group, cancel=lambda *_: None)
            if turn is not None:
                tx.on_commit(lambda: gate.add(number, turn))

        before: set[int] = set()
        most = 0
        for _ in range(600):
            if rng.random() < 0.5:
                await store.write(make)
            else:
                await store.write(
                    lambda tx: tx.execute(
                        "UPDATE workflow_executions SET status = 'failed' WHERE id = (SELECT id FROM "
                        "workflow_executions WHERE status = 'pending' ORDER BY (id * ?) % 97 LIMIT 1)",
                        (rng.randint(1, 96),),
                    )
                )
            if rng.random() < 0.7:
                await gate.look()
            rows = await store.all("SELECT * FROM workflow_executions WHERE status = 'pending' ORDER BY id")
            has_begun = {row["id"] for row in rows if row["turn_at"] is not None}
            for row in rows:
                if row["id"] not in has_begun - before:
                    continue
                same = [other for other in rows if other["group_name"] == row["group_name"]]
                together = [other["group_limit"] for other in same if other["id"] in has_begun]
                assert len(together) <= min(together)
                assert all(other["id"] in has_begun for other in same if other["id"] < row["id"])
            assert {row["id"] for row in rows if row["id"] not in has_begun} <= gate._turns.keys()
            most, before = max(most, len(has_begun)), has_begun
        assert most >= 4
    finally:
        await store.close()


# With other things that a job may wait for


async def test_a_job_whose_queue_timeout_passes_before_its_execution_has_its_turn_fails(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        first = await made.run(grouped("one"))
        await begun(made, first)
        second = await made.run(grouped("two", job("a", queue_timeout="3s"), job("b", "a")))
        waiting = await made.show(second)
        assert (waiting.status, waiting.waits_for_turn) == (PENDING, True)
        execution = await made.finished(second)
        entry, behind = execution.jobs
        assert (entry.reason, behind.reason) == ("timeout", "upstream_failed")
        assert "queue_timeout" in entry.message
        assert not entry.executor_peer_id
        assert created(made) == {first}
        third = await made.run(grouped("one"))
        await end(made, first)
        await begun(made, third)  # the one that timed out holds no place


async def test_the_queue_timeout_of_a_gated_job_begins_with_its_gate_not_with_the_wait_for_a_turn(
    tmp_path: Path,
) -> None:
    async with home(tmp_path, "p") as made:
        executor = made.fleet.executors["p"]
        executor.finish_at_start = False
        first = await made.run(grouped("one"))
        await begun(made, first)
        late = job("late", needs=["a"], when='params.target == "test"', queue_timeout="4s")
        never = job("never", when='params.target == "live"', queue_timeout="1ms")
        second = await made.run(grouped("two", job("a"), late, never))
        await made.clock.sleep(4.2)  # longer than the queue timeout
        execution = await made.show(second)
        by_node = {entry.node_id: entry for entry in execution.jobs}
        pending = workflows_pb2.WORKFLOW_JOB_STATUS_PENDING
        assert by_node["late"].status == by_node["a"].status == pending
        assert "turn in group deploy" in by_node["late"].message
        assert by_node["never"].status == workflows_pb2.WORKFLOW_JOB_STATUS_SKIPPED, "that needs no peer and no turn"
        executor.finish_at_start = True
        await end(made, first)
        execution = await made.finished(second)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
