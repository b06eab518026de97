"""Executions that are run again: which jobs run, which are reused, and what is refused; on executors that keep the
contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.v1 import jobs_pb2, workflows_pb2

from .fakes import HOME, Home, home, job, workflow

E = workflows_pb2.ExecutionStatus
J = workflows_pb2.WorkflowJobStatus
COMPLETED, FAILED = J.WORKFLOW_JOB_STATUS_COMPLETED, J.WORKFLOW_JOB_STATUS_FAILED

CHAIN = workflow(
    job("a", on={"peer": "p"}, params={"x": "${params.one}"}),
    job("b", "a", on={"peer": "q"}, params={"x": "${params.two}"}),
    job("c", "b", on={"peer": "p"}),
    job("aside", on={"peer": "q"}),
) | {"params": {"one": "1", "two": "2"}}


def by_node(execution: workflows_pb2.Execution) -> dict[str, workflows_pb2.WorkflowJob]:
    return {entry.node_id: entry for entry in execution.jobs}


async def rerun(made: Home, number: int, *, caller: str = HOME, **fields: Any) -> int:
    current.set(Caller(peer_id=PeerId(caller), grants=ALL_GRANTS, local=caller == HOME))
    request = workflows_pb2.RerunExecutionRequest(workflow_execution_id=number, **fields)
    return (await made.workflows.RerunExecution(request, None)).workflow_execution_id


async def refused(made: Home, number: int, **fields: Any) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        await rerun(made, number, **fields)
    assert caught.value.next_action
    return caught.value


def created(made: Home) -> dict[str, list[jobs_pb2.CreateJobRequest]]:
    """By execution and job, what was ordered anywhere."""
    found: dict[str, list[jobs_pb2.CreateJobRequest]] = {}
    for executor in made.fleet.executors.values():
        for request in executor.asked(jobs_pb2.CreateJobRequest):
            found.setdefault(f"{request.key.workflow_execution_id}/{request.node_id}", []).append(request)
    return found


async def test_from_a_job_on_its_producer_sends_again_and_what_nobody_needs_is_over_at_once(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        before = by_node(await made.finished(first))
        second = await rerun(made, first, from_jobs=["c"])
        execution = await made.finished(second)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert execution.rerun_of == first
        assert (await made.show(first)).rerun_of == 0
        orders = created(made)
        assert [name for name in orders if name.startswith(f"{second}/")] == [f"{second}/c", f"{second}/b"]
        (resent,), (again,) = orders[f"{second}/b"], orders[f"{second}/c"]
        assert resent.reused.job_execution_id == before["b"].remote_job_execution_id
        assert resent.reused.workflow_execution_id == first
        assert again.service == "s"
        jobs = by_node(execution)
        assert {job.status for job in jobs.values()} == {COMPLETED}
        assert jobs["a"].reused_execution_id == jobs["aside"].reused_execution_id == first
        assert (jobs["a"].remote_job_execution_id, jobs["a"].executor_name) == (0, "PEER-p")
        assert jobs["a"].reason == "reused"
        assert f"execution {first}" in jobs["a"].message
        assert not jobs["c"].reused_execution_id
        (start,) = [
            request
            for request in made.fleet.executors["q"].asked(jobs_pb2.StartJobRequest)
            if request.key.workflow_execution_id == second
        ]
        (peer,) = start.interfaces[0].peers
        assert peer.peer_job_execution_id == jobs["c"].remote_job_execution_id
        assert [edge.source_node_id for edge in execution.edges] == ["b"]


async def test_as_a_whole_everything_runs_with_the_parameters_it_had_but_those_that_are_given(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN, params={"two": "b"})
        await made.finished(first)
        second = await rerun(made, first, params={"one": "a"})
        execution = await made.finished(second)
        orders = created(made)
        assert len([name for name in orders if name.startswith(f"{second}/")]) == 4
        assert orders[f"{second}/a"][0].params["x"] == "a"
        assert orders[f"{second}/b"][0].params["x"] == "b"
        assert not any(job.reused_execution_id for job in execution.jobs)


async def test_what_failed_and_what_waited_for_it_run_again_and_nothing_else(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p, q = made.fleet.executors.values()
        p.finish_at_start = q.finish_at_start = False
        first = await made.run(CHAIN)
        execution = await made.until(first, lambda x: all(e.generation for e in x.jobs))
        for at, name, status in (
            (p, "a", jobs_pb2.JOB_STATUS_COMPLETED),
            (q, "b", jobs_pb2.JOB_STATUS_FAILED),
            (q, "aside", jobs_pb2.JOB_STATUS_COMPLETED),
        ):
            at.end(await at.started_job(by_node(execution)[name]), status, "exit")
        execution = await made.finished(first)
        assert by_node(execution)["c"].status == FAILED
        p.finish_at_start = q.finish_at_start = True
        second = await rerun(made, first, failed=True)
        execution = await made.finished(second)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        orders = created(made)
        assert sorted(name for name in orders if name.startswith(f"{second}/")) == [
            f"{second}/a",
            f"{second}/b",
            f"{second}/c",
        ]
        assert orders[f"{second}/a"][0].HasField("reused")
        assert by_node(execution)["aside"].reused_execution_id == first


async def test_a_rerun_of_a_rerun_finds_the_files_where_they_are(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        before = by_node(await made.finished(first))
        second = await rerun(made, first, from_jobs=["c"])
        middle = by_node(await made.finished(second))
        third = await rerun(made, second, from_jobs=["c"])
        await made.finished(third)
        assert created(made)[f"{third}/b"][0].reused.job_execution_id == middle["b"].remote_job_execution_id
        fourth = await rerun(made, third, from_jobs=["b"])
        await made.finished(fourth)
        (order,) = created(made)[f"{fourth}/a"]
        assert order.reused.job_execution_id == before["a"].remote_job_execution_id
        assert order.reused.workflow_execution_id == first


async def test_a_restart_in_the_middle_reuses_what_was_reused(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        await made.finished(first)
        for executor in made.fleet.executors.values():
            executor.finish_at_start = False
        second = await rerun(made, first, from_jobs=["c"])
        await made.until(second, lambda x: by_node(x)["b"].generation)
        await made.stop()
        for executor in made.fleet.executors.values():
            for report in executor.jobs.values():
                executor.end(report)
        await made.start()
        execution = await made.finished(second)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert len(created(made)[f"{second}/b"]) == len(created(made)[f"{second}/c"]) == 1
        assert by_node(execution)["a"].reason == "reused"


async def test_the_same_request_starts_nothing_twice_also_when_the_files_have_gone_since(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        before = by_node(await made.finished(first))
        second = await rerun(made, first, from_jobs=["c"], request_id="once")
        made.fleet.executors["q"].removed.add(before["b"].remote_job_execution_id)
        assert await rerun(made, first, from_jobs=["c"], request_id="once") == second
        error = await refused(made, first, from_jobs=["b"], request_id="once")
        assert error.reason is Reason.REQUEST_ID_REUSED


async def test_files_that_are_gone_are_refused_with_what_to_do(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        before = by_node(await made.finished(first))
        made.fleet.executors["q"].removed.add(before["b"].remote_job_execution_id)
        error = await refused(made, first, from_jobs=["c"])
        assert error.reason is Reason.FILES_REMOVED
        assert error.next_action.endswith("--from b")
        second = await rerun(made, first, from_jobs=["c", "b"])
        assert (await made.finished(second)).status == E.EXECUTION_STATUS_COMPLETED


async def test_files_that_go_after_the_look_fail_the_job_with_that_reason(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        await made.finished(first)
        made.fleet.executors["q"].refuse = PeerdError(Reason.FILES_REMOVED, "the files of job execution 200 are gone")
        second = await rerun(made, first, from_jobs=["c"])
        execution = await made.finished(second)
        entry = by_node(execution)["b"]
        assert (entry.status, entry.reason) == (FAILED, "refused")
        assert entry.message.startswith("files_removed")
        assert "run it again" in entry.next_action


async def test_a_revoked_peer_is_not_waited_for(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        await made.finished(first)
        made.fleet.revoked.add("q")
        made.fleet.offline.add("q")
        await made.fleet.executors["q"].stop()
        second = await rerun(made, first, from_jobs=["c"])
        entry = by_node(await made.finished(second))["b"]
        assert entry.status == FAILED
        assert "revoked" in entry.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"from_jobs": ["nothing"]}, "from_jobs"),
        ({"failed": True}, "failed"),
        ({"params": {"typo": "1"}}, "params.typo"),
        ({"from_jobs": ["b"], "params": {"one": "new"}}, "params"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_starts_nothing(
    tmp_path: Path, fields: dict[str, Any], field: str
) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        await made.finished(first)
        current.set(Caller(peer_id=HOME, grants=ALL_GRANTS, local=True))
        with pytest.raises(PeerdError) as caught:
            await rerun(made, first, **fields)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        assert [violation.field for violation in caught.value.violations] == [field]
        rows = await made.store.all("SELECT id FROM workflow_executions")
        assert [row["id"] for row in rows] == [first]


async def test_a_changed_parameter_is_taken_when_only_jobs_that_run_again_use_it(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        first = await made.run(CHAIN)
        await made.finished(first)
        second = await rerun(made, first, from_jobs=["b"], params={"two": "new", "one": "1"})
        await made.finished(second)
        assert created(made)[f"{second}/b"][0].params["x"] == "new"


async def test_one_that_has_not_ended_is_refused_and_so_is_one_that_is_not_there(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        made.fleet.executors["q"].finish_at_start = False
        first = await made.run(CHAIN)
        assert (await refused(made, first)).reason is Reason.ILLEGAL_TRANSITION
        assert (await refused(made, first + 1)).reason is Reason.NOT_FOUND


async def test_secrets_are_for_the_operator_of_this_machine_also_the_second_time(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        first = await made.run(workflow(job("a", secrets={"TOKEN": "x"})))
        await made.finished(first)
        assert (await refused(made, first, caller="q")).reason is Reason.SECRET_NOT_ALLOWED
        await made.finished(await rerun(made, first))


async def test_a_matrix_is_named_by_its_job_or_by_an_instance(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        matrix = job("work", matrix=[{"name": "n", "values": ["1", "2"]}], params={"n": "${each.n}"})
        first = await made.run(workflow(matrix, job("sum", "work")))
        await made.finished(first)
        for names, ran in (
            (["work"], {"work.0", "work.1", "sum"}),
            (["work.1"], {"work.1", "sum"}),
        ):
            number = await rerun(made, first, from_jobs=names)
            execution = await made.finished(number)
            assert {entry.node_id for entry in execution.jobs if not entry.reused_execution_id} == ran


async def test_conditions_are_judged_anew_and_see_reused_jobs_as_completed(tmp_path: Path) -> None:
    definition = workflow(
        job("a"),
        job("b", needs=["a"], when='params.go == "yes" && jobs.a.status == "completed"'),
        job("c", needs=["b"], when="always()"),
    ) | {"params": {"go": "no"}}
    async with home(tmp_path, "p") as made:
        first = await made.run(definition)
        assert by_node(await made.finished(first))["b"].status == J.WORKFLOW_JOB_STATUS_SKIPPED
        second = await rerun(made, first, failed=True, params={"go": "yes"})
        execution = await made.finished(second)
        jobs = by_node(execution)
        assert {entry.status for entry in jobs.values()} == {COMPLETED}
        assert [name for name, entry in jobs.items() if entry.reused_execution_id] == ["a"]
        error = await refused(made, second, from_jobs=["c"], params={"go": "no"})
        assert error.next_action.endswith("--from b"), "its condition would be another"


async def test_when_much_is_gone_all_that_helps_is_said_and_what_was_not_asked_for_is_passed_over(
    tmp_path: Path,
) -> None:
    async with home(tmp_path, "p") as made:
        p = made.fleet.executors["p"]
        makers = [f"a{number:02}" for number in range(21)]
        first = await made.run(workflow(*map(job, makers), job("few", *makers[:5]), job("all", *makers)))
        await made.finished(first)
        p.removed.update(report.job_execution_id for report in p.jobs.values())
        few = await refused(made, first, from_jobs=["few"])
        assert few.next_action.endswith("--from a00 --from a01 --from a02 --from a03 --from a04")
        every = await refused(made, first, from_jobs=["all"])
        assert "and 18 more" in every.message
        assert every.next_action == "run all of it again: without --from and --failed"
        p.removed.clear()
        p.also_missing = [987_654]
        assert (await made.finished(await rerun(made, first, from_jobs=["few"]))).rerun_of == first
