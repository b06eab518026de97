"""The shell: a real store, real gRPC, executors that keep the contract."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Tx
from peerd.transfers.model import OutgoingTransfer, Received, TransferKey
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows import events as e
from peerd.workflows import logs, views
from peerd.workflows.contacts import UNREACHABLE

from .fakes import HOME, INACTIVE, OVERLOADED, Home, home, job, source, workflow

E = workflows_pb2.ExecutionStatus
J = workflows_pb2.WorkflowJobStatus
RECEIVED = Received(manifest_digest=b"d", file_count=1, total_bytes=7, files=("x",))


def delivery_key(made: Home, execution: workflows_pb2.Execution, node: str, edge_id: int) -> TransferKey:
    (entry,) = [entry for entry in execution.jobs if entry.node_id == node]
    return TransferKey(
        orchestrator=HOME,
        store_id=made.store.store_id,
        workflow_execution_id=execution.workflow_execution_id,
        edge_id=edge_id,
        source_peer_id=PeerId(entry.executor_peer_id),
        source_job_execution_id=entry.remote_job_execution_id,
        destination_peer_id=HOME,
        destination_job_execution_id=0,
    )


def by_node(execution: workflows_pb2.Execution) -> dict[str, workflows_pb2.WorkflowJob]:
    return {entry.node_id: entry for entry in execution.jobs}


async def test_a_chain_over_two_peers_runs_and_both_ids_are_known_at_both_ends(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        definition = workflow(job("a", on={"peer": "p"}), job("b", "a", on={"peer": "q"}))
        execution = await made.finished(await made.run(definition))
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        jobs = by_node(execution)
        assert (jobs["a"].remote_job_execution_id, jobs["b"].remote_job_execution_id) == (100, 200)
        assert jobs["a"].executor_name == "PEER-p"
        (start,) = made.fleet.executors["q"].asked(jobs_pb2.StartJobRequest)
        (peer,) = start.interfaces[0].peers
        assert (peer.peer_id, peer.peer_workflow_job_id, peer.peer_job_execution_id) == (
            "p",
            jobs["a"].workflow_job_id,
            100,
        )
        assert [edge.status for edge in execution.edges] == [jobs_pb2.EDGE_STATUS_DELIVERED]


async def test_two_hundred_jobs_over_three_peers_complete_in_few_commits(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q", "r") as made:
        definition = workflow(*(job(f"j{n}") for n in range(200)))
        before = made.store.commits
        execution = await made.finished(await made.run(definition))
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert made.store.commits - before < 200
        assert all(len(executor.jobs) > 50 for executor in made.fleet.executors.values())


async def test_the_delivery_home_ends_the_execution_and_is_expected_from_its_source_only(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        number = await made.run(workflow(job("a"), deliver=["a"]))
        execution = await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        assert execution.status == E.EXECUTION_STATUS_RUNNING
        assert execution.reason and execution.next_action
        key = delivery_key(made, execution, "a", 1)
        for wrong in (
            {"source_peer_id": PeerId("q")},
            {"source_job_execution_id": 101},
            {"edge_id": 2},
            {"store_id": "x"},
        ):
            other = TransferKey(**{**{f: getattr(key, f) for f in key.__dataclass_fields__}, **wrong})
            with pytest.raises(PeerdError) as refused:
                await made.store.write(lambda tx, k=other: made.local_peer.expect(tx, k))  # type: ignore[misc]
            assert refused.value.reason is Reason.UNEXPECTED_TRANSFER
        expectation = await made.store.write(lambda tx: made.local_peer.expect(tx, key))
        assert expectation.directory == tmp_path / f"workflows/{HOME}/{number}/jobs/{HOME}/0/input"
        await made.store.write(lambda tx: made.local_peer.received(tx, key, RECEIVED))
        execution = await made.finished(number)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert execution.edges[0].bytes == 7
        await made.store.write(lambda tx: made.local_peer.expect(tx, key))  # redelivery is harmless
        await made.store.write(lambda tx: made.local_peer.received(tx, key, RECEIVED))
        assert (await made.show(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_an_arrival_recorded_before_a_crash_is_not_forgotten(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        number = await made.run(workflow(job("a"), deliver=["a"]))
        execution = await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        key = delivery_key(made, execution, "a", 1)
        runner = made.orchestrator.find(number)
        assert runner is not None
        runner.tell_posted = lambda posted: None  # type: ignore[method-assign]  # the process dies here
        await made.store.write(lambda tx: made.local_peer.received(tx, key, RECEIVED))
        await made.stop()
        await made.start()
        assert (await made.finished(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_a_restart_goes_on_where_it_was_and_creates_nothing_twice(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p, q = made.fleet.executors.values()
        p.finish_at_start = q.finish_at_start = False
        definition = workflow(job("a", on={"peer": "p"}), job("b", "a", on={"peer": "q"}))
        number = await made.run(definition)
        await made.until(number, lambda x: all(entry.generation for entry in x.jobs))
        await made.stop()
        for executor in (p, q):
            for report in executor.jobs.values():
                executor.end(report)
        await made.start()
        execution = await made.finished(number)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert len(p.asked(jobs_pb2.CreateJobRequest)) == len(q.asked(jobs_pb2.CreateJobRequest)) == 1


async def test_an_execution_that_cannot_be_read_is_held_and_the_others_go_on(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        executor = made.fleet.executors["p"]
        executor.finish_at_start = False
        broken, other = [await made.run(workflow(job("a", on={"peer": "p"}, deadline="1h"))) for _ in range(2)]
        assert broken == 1
        for number in (broken, other):
            await made.until(number, lambda x: all(entry.generation for entry in x.jobs))
        await made.store.write(
            lambda tx: tx.execute("DELETE FROM workflow_jobs WHERE workflow_execution_id = 1").rowcount
        )
        await made.stop()
        for report in executor.jobs.values():
            executor.end(report)
        await made.start()
        assert (await made.finished(other)).status == E.EXECUTION_STATUS_COMPLETED
        (row,) = await made.store.all("SELECT reason, status FROM workflow_executions WHERE id = 1")
        assert row["status"] == "running" and row["reason"].startswith("store_corrupt: ")


async def test_a_job_on_a_peer_that_is_down_waits_says_so_and_runs_when_it_returns(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        made.fleet.offline.add("p")
        await made.fleet.executors["p"].stop()
        definition = workflow(job("late", on={"peer": "p"}), job("free", on={"peer": "q"}))
        number = await made.run(definition)
        execution = await made.until(number, lambda x: by_node(x)["free"].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        late = by_node(execution)["late"]
        assert (late.reason, late.message) == ("peer_away", "waits for p, without a deadline")
        assert late.next_action == "bring p back"
        await made.fleet.executors["p"].serve()
        made.fleet.offline.discard("p")
        assert (await made.finished(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_a_peer_that_was_away_for_less_than_a_look_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks the same before and after, so that only its coming back tells."""
    async with home(tmp_path, "p") as made:
        looked = asyncio.Semaphore(0)

        def fingerprint() -> object:
            looked.release()
            return "as ever"

        made.fleet.offline.add("p")
        number = await made.run(workflow(job("late", on={"peer": "p"})))
        await made.until(number, lambda x: by_node(x)["late"].reason == "peer_away")
        monkeypatch.setattr(made.fleet, "fingerprint", fingerprint)
        for _ in range(2):  # what is seen from now on is no news
            await asyncio.wait_for(looked.acquire(), 30)
        made.fleet.offline.discard("p")
        made.orchestrator.peer_online(PeerId("p"))
        assert (await made.finished(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_a_peer_that_goes_away_after_placement_is_named_and_asked_again_when_back(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        await made.fleet.executors["p"].stop()  # the registry has not noticed
        number = await made.run(workflow(job("a", on={"peer": "p"}), job("b", "a", on={"peer": "q"})))
        execution = await made.until(number, lambda x: "does not answer" in by_node(x)["a"].message)
        assert "waits for PEER-p" in by_node(execution)["a"].message
        execution = await made.until(number, lambda x: by_node(x)["b"].reason == "neighbours")
        assert "a (on PEER-p, which is away)" in by_node(execution)["b"].message
        await made.fleet.executors["p"].serve()
        assert (await made.finished(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_a_deadline_fails_a_job_that_waits_and_what_depends_on_it(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        made.fleet.offline.add("p")
        definition = workflow(job("late", on={"peer": "p"}, deadline="3s"), job("after", "late", on={"peer": "q"}))
        execution = await made.finished(await made.run(definition))
        jobs = by_node(execution)
        assert (jobs["late"].reason, jobs["after"].reason) == ("timeout", "upstream_failed")
        assert "deadline" in jobs["late"].message and "waits for p" in jobs["late"].message
        assert execution.error.startswith("2 of 2 jobs failed")


async def test_a_job_that_is_given_up_fails_and_what_waits_for_its_end_goes_on(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        made.fleet.executors["p"].finish_at_start = False
        definition = workflow(
            job("a", on={"peer": "p"}, continue_on_failure=True),
            job("b", on={"peer": "q"}, needs=["a"], when="always()"),
        )
        number = await made.run(definition)
        await made.until(number, lambda x: by_node(x)["a"].remote_job_execution_id)
        await made.fleet.executors["p"].stop()
        await made.store.write(lambda tx: made.lifecycle.give_up(tx, number, "a", "its peer went away"))
        jobs = by_node(await made.until(number, lambda x: by_node(x)["b"].status == J.WORKFLOW_JOB_STATUS_COMPLETED))
        assert (jobs["a"].reason, jobs["a"].message) == ("timeout", "its deadline passed: its peer went away")
        for of in (number, number + 1):  # over, and not there
            await made.store.write(lambda tx, of=of: made.lifecycle.give_up(tx, of, "a", "again"))  # type: ignore[misc]
        rows = await made.store.all("SELECT 1 FROM execution_inbox WHERE workflow_execution_id = ?", (number + 1,))
        assert rows == []


@pytest.mark.parametrize("set_by", [-86_400, 86_400])
async def test_setting_the_clock_moves_no_deadline(tmp_path: Path, set_by: float) -> None:
    async with home(tmp_path, "p", "q") as made:
        made.fleet.offline.add("p")
        late = job("late", on={"peer": "p"}, deadline="2s")
        number = await made.run(workflow(late, job("much-later", on={"peer": "p"}, deadline="1h")))
        made.clock.wrong_by = set_by
        execution = await made.until(number, lambda x: by_node(x)["late"].status == J.WORKFLOW_JOB_STATUS_FAILED)
        assert by_node(execution)["late"].reason == "timeout"
        assert by_node(execution)["much-later"].status == J.WORKFLOW_JOB_STATUS_PENDING


async def test_a_job_never_started_on_a_peer_that_stays_away_moves(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        await made.fleet.executors["p"].stop()
        execution = await made.finished(await made.run(workflow(job("a"))))
        assert by_node(execution)["a"].executor_peer_id == "q"
        assert by_node(execution)["a"].placement == 2


async def test_a_started_job_moves_when_its_lease_is_over_if_it_may_run_twice(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p = made.fleet.executors["p"]
        p.finish_at_start = False
        number = await made.run(workflow(job("a", retry={"attempts": 2, "on": ["lost"]})))
        await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_RUNNING)
        await p.stop()
        execution = await made.finished(number)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert (execution.jobs[0].executor_peer_id, execution.jobs[0].placement) == ("q", 2)
        await p.serve()  # and the old one is told to stop
        async with asyncio.timeout(30):
            while made.orchestrator.find(number) is not None:
                with made.orchestrator.changes.watching(number) as changed:
                    await changed.wait()
        assert [request.reason for request in p.asked(jobs_pb2.CancelJobRequest)] == ["moved to another peer"]
        assert execution.status == E.EXECUTION_STATUS_COMPLETED


async def test_cancel_reaches_every_peer_and_its_answer_is_durable_at_once(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        for executor in made.fleet.executors.values():
            executor.finish_at_start = False
        number = await made.run(workflow(job("a", on={"peer": "p"}), job("b", on={"peer": "q"})))
        await made.until(number, lambda x: all(entry.status == J.WORKFLOW_JOB_STATUS_RUNNING for entry in x.jobs))
        request = workflows_pb2.CancelExecutionRequest(request_id="r", workflow_execution_id=number, reason="enough")
        answer = await made.workflows.CancelExecution(request, None)
        assert answer.execution.cancel_reason == "enough"
        assert await made.workflows.CancelExecution(request, None) == answer
        execution = await made.finished(number)
        assert execution.status == E.EXECUTION_STATUS_CANCELLED
        assert {entry.status for entry in execution.jobs} == {J.WORKFLOW_JOB_STATUS_CANCELLED}


async def test_a_refusal_names_peer_and_reason_and_an_overloaded_peer_is_asked_again(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p, q = made.fleet.executors["p"], made.fleet.executors["q"]
        p.refuse = INACTIVE
        execution = await made.finished(await made.run(workflow(job("a", on={"peer": "p"}))))
        assert execution.jobs[0].reason == "refused"
        assert "service_inactive: s is inactive" in execution.jobs[0].message
        q.refuse = OVERLOADED
        number = await made.run(workflow(job("a", on={"peer": "q"})))
        await made.until(number, lambda x: x.jobs[0].reason == "overloaded")
        q.refuse = None
        assert (await made.finished(number)).status == E.EXECUTION_STATUS_COMPLETED


async def test_reports_are_stored_then_acknowledged_and_taken_from_the_jobs_own_peer_only(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p, q = made.fleet.executors["p"], made.fleet.executors["q"]
        p.finish_at_start = False
        number = await made.run(workflow(job("a", on={"peer": "p"})))
        execution = await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_RUNNING)
        report = p.job(execution.jobs[0].workflow_job_id)
        p.end(report, jobs_pb2.JOB_STATUS_FAILED, "exit")
        report.exit_code = 3
        with pytest.raises(PeerdError) as refused:
            await made.report(q, report)
        assert refused.value.reason is Reason.PERMISSION_DENIED
        answer = await made.report(p, report)
        assert [(entry.key, entry.revision) for entry in answer.acknowledged] == [(report.key, report.revision)]
        rows = await made.store.all("SELECT * FROM workflow_jobs")
        assert (rows[0]["status"], rows[0]["reason"], rows[0]["exit_code"]) == ("failed", "exit", 3)
        events = "SELECT count(*) AS n FROM execution_events"
        before = (await made.store.all(events))[0]["n"]
        unknown = jobs_pb2.JobReport(
            key=jobs_pb2.JobKey(store_id="other", workflow_job_id=1), status=jobs_pb2.JOB_STATUS_RUNNING
        )
        answer = await made.report(p, report, unknown)
        assert len(answer.acknowledged) == 2
        assert (await made.store.all(events))[0]["n"] == before


async def test_a_job_unknown_to_its_executor_is_lost(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        p = made.fleet.executors["p"]
        p.finish_at_start = False
        number = await made.run(workflow(job("a", on={"peer": "p"})))
        await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_RUNNING)
        p.jobs.clear()
        execution = await made.finished(number)
        assert execution.jobs[0].reason == "lost"


async def test_files_on_their_way_from_an_executor_that_has_lost_their_job_are_not_awaited(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        p, q = made.fleet.executors["p"], made.fleet.executors["q"]
        p.finish_at_start = q.finish_at_start = False
        number = await made.run(workflow(job("a", on={"peer": "p"}), job("b", "a", on={"peer": "q"})))
        await made.until(number, lambda x: by_node(x)["b"].status == J.WORKFLOW_JOB_STATUS_WAITING_INPUTS)
        (report,) = p.jobs.values()
        report.status, report.revision = jobs_pb2.JOB_STATUS_COMPLETED, report.revision + 1
        report.edges.add(edge_id=1, status=jobs_pb2.EDGE_STATUS_SENDING)
        await made.until(number, lambda x: by_node(x)["a"].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        p.jobs.clear()
        execution = await made.finished(number)
        assert by_node(execution)["b"].reason == "transfer"


async def test_package_files_are_written_and_sent_once_the_job_has_its_interfaces(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        p = made.fleet.executors["p"]
        p.finish_at_start = False
        files = [{"path": "d/x.sh", "text": "hello", "executable": True}]
        number = await made.run(workflow(job("a", package=files)))
        await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_WAITING_INPUTS)
        (transfer,) = made.sends.ordered.values()
        file = transfer.source.root / "d" / "x.sh"
        assert file.read_text() == "hello"
        assert file.stat().st_mode & 0o777 == 0o700
        assert (transfer.key.source_job_execution_id, transfer.key.destination_job_execution_id) == (0, 100)
        await made.store.write(lambda tx: made.local_peer.delivered(tx, transfer.key, 5))
        execution = await made.until(number, lambda x: x.edges[0].status == jobs_pb2.EDGE_STATUS_DELIVERED)
        assert execution.edges[0].bytes == 5


async def test_an_undeliverable_package_fails_its_job(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        p = made.fleet.executors["p"]
        p.finish_at_start = False
        number = await made.run(workflow(job("a", package=[{"path": "x", "text": "hello"}])))
        await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_WAITING_INPUTS)
        (key,) = made.sends.ordered
        await made.store.write(lambda tx: made.local_peer.undeliverable(tx, key, "quota_exceeded", "too much"))
        execution = await made.finished(number)
        assert (execution.jobs[0].reason, execution.edges[0].status) == ("transfer", jobs_pb2.EDGE_STATUS_FAILED)
        assert execution.edges[0].reason == "quota_exceeded"


async def test_running_with_the_same_request_id_gives_one_execution(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        first = await made.run(workflow(job("a")), request_id="r")
        assert await made.run(workflow(job("a")), request_id="r") == first
        await made.finished(first)
        listed = await made.workflows.ListExecutions(workflows_pb2.ListExecutionsRequest(), None)
        assert [entry.workflow_execution_id for entry in listed.executions] == [first]


async def test_a_repeated_run_has_its_answer_although_a_newer_version_would_be_refused(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        await made.run(workflow(job("a")))
        await made.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=source(workflow(job("a")))), None)
        first = await made.run({}, workflow="w", request_id="r")
        asking = {**workflow(job("a")), "parameters": {"city": {"type": "text", "required": True}}}
        await made.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=source(asking)), None)
        assert await made.run({}, workflow="w", request_id="r") == first
        with pytest.raises(PeerdError) as refused:
            await made.run({}, workflow="w", request_id="s")
        assert refused.value.reason is Reason.INVALID_ARGUMENT and "city" in str(refused.value.violations)


async def test_the_same_content_is_one_version_and_another_is_the_next(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        first = workflow(job("a"))
        number = await made.run(first)
        put = workflows_pb2.PutWorkflowRequest(source=source(first))
        assert (await made.workflows.PutWorkflow(put, None)).workflow.version == 1
        put = workflows_pb2.PutWorkflowRequest(source=source(workflow(job("a"), job("b"))))
        assert (await made.workflows.PutWorkflow(put, None)).workflow.version == 2
        assert (await made.show(number)).workflow_version == 1
        again = await made.run({}, workflow="w")
        assert len((await made.finished(again)).jobs) == 2
        listed = await made.workflows.ListWorkflows(workflows_pb2.ListWorkflowsRequest(), None)
        assert [(entry.name, entry.version, entry.job_count) for entry in listed.workflows] == [("w", 2, 2)]
        with pytest.raises(PeerdError) as refused:
            await made.run({}, workflow="nothing")
        assert refused.value.reason is Reason.NOT_FOUND


async def test_a_wrong_definition_is_refused_with_its_lines_and_nothing_is_stored(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        text = "name: w\njobs:\n- name: a\n  service: s\n  inputs:\n  - from: b\n"
        wrong = workflows_pb2.DefinitionSource(text=text)
        with pytest.raises(PeerdError) as refused:
            await made.run({}, source=wrong, workflow="")
        assert refused.value.reason is Reason.INVALID_DEFINITION


async def test_executions_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        numbers = [await made.run(workflow(job("a"))) for _ in range(5)]
        request, seen = workflows_pb2.ListExecutionsRequest(page_size=2), list[int]()
        while True:
            page = await made.workflows.ListExecutions(request, None)
            seen += [entry.workflow_execution_id for entry in page.executions]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert seen == numbers[::-1]


async def test_a_watch_gives_everything_then_changes_and_can_be_resumed(tmp_path: Path) -> None:
    async with home(tmp_path, "p", "q") as made:
        q = made.fleet.executors["q"]
        q.finish_at_start = False
        number = await made.run(workflow(job("a", on={"peer": "p"}), job("b", on={"peer": "q"})))
        await made.until(number, lambda x: x.jobs[0].status == J.WORKFLOW_JOB_STATUS_COMPLETED and x.jobs[1].generation)
        request = workflows_pb2.WatchExecutionRequest(workflow_execution_id=number)
        updates = made.workflows.WatchExecution(request, None)
        first = await anext(updates)
        assert [entry.node_id for entry in first.execution.jobs] == ["a", "b"]
        (report,) = q.jobs.values()
        q.end(report)
        rest = [update async for update in updates]
        assert {entry.node_id for update in rest for entry in update.execution.jobs} == {"b"}
        assert rest[-1].execution.status == E.EXECUTION_STATUS_COMPLETED
        request.resume_token = first.resume_token
        resumed = [update async for update in made.workflows.WatchExecution(request, None)]
        assert [entry.node_id for entry in resumed[-1].execution.jobs] == ["b"]


async def test_logs_come_from_wherever_the_job_is_and_follow_waits_for_it(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.offline.add("p")
        number = await made.run(workflow(job("a", on={"peer": "p"})))
        request = workflows_pb2.ReadLogsRequest(workflow_execution_id=number, node_id="a")
        assert [piece async for piece in made.workflows.ReadLogs(request, None)] == []
        request.follow = True
        pieces = made.workflows.ReadLogs(request, None)
        waiting = asyncio.ensure_future(anext(pieces))
        made.fleet.offline.discard("p")
        assert (await asyncio.wait_for(waiting, 30)).data == b"log of 100"
        assert [piece async for piece in pieces] == []
        request.node_id = "nobody"
        with pytest.raises(PeerdError, match="has no job 'nobody'"):
            await anext(made.workflows.ReadLogs(request, None))


async def test_logs_are_followed_behind_what_was_read_of_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_AGAIN_SECONDS", 0.01)
    async with home(tmp_path, "p") as made:
        number = await made.run(workflow(job("a", on={"peer": "p"})))
        await made.finished(number)
        request = workflows_pb2.ReadLogsRequest(workflow_execution_id=number, node_id="a", follow=True)
        executor = made.fleet.executors["p"]
        executor.log_pieces = [3, 0, 4]
        pieces = [piece async for piece in made.workflows.ReadLogs(request, None)]
        assert [piece.data for piece in pieces] == [b"log", b" of ", b"100"]
        request.after.CopyFrom(pieces[1].position)
        assert [piece.data async for piece in made.workflows.ReadLogs(request, None)] == [b"100"]
        request.after.job_execution_id += 1
        assert [piece.data async for piece in made.workflows.ReadLogs(request, None)] == [b"log of 100"]

        request.ClearField("after")
        monkeypatch.setattr(logs, "AWAY_SECONDS", 1.5)
        executor.log_pieces = [3, *[0] * 1000]
        heard: list[bytes] = []
        with pytest.raises(PeerdError) as refused:
            async for piece in made.workflows.ReadLogs(request, None):
                heard.append(piece.data)
        assert (heard, refused.value.reason in UNREACHABLE) == ([b"log"], True)
        assert len(executor.log_pieces) < 999, "it was waited for"
        executor.log_pieces = [3]
        request.follow = False
        with pytest.raises(PeerdError):
            _ = [piece async for piece in made.workflows.ReadLogs(request, None)]


async def test_a_commit_that_fails_is_made_again_from_what_is_durable(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        write, failures = made.store.write, [3]

        async def failing(function: Any) -> Any:
            failures[0] -= 1
            if failures[0] == 0:
                raise PeerdError(Reason.DISK_LOW, "the disk is full: nothing was stored")
            return await write(function)

        made.store.write = failing  # type: ignore[method-assign]
        execution = await made.finished(await made.run(workflow(job("a"))))
        assert failures[0] < 0
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert len(made.fleet.executors["p"].jobs) == 1


async def test_package_files_are_sent_although_the_commit_that_ordered_them_failed(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        enqueue, orders = made.sends.enqueue, []

        def no_room(tx: Tx, transfer: OutgoingTransfer) -> None:
            orders.append(transfer)
            if len(orders) == 1:
                raise PeerdError(Reason.DISK_LOW, "the disk is full: nothing was stored")
            enqueue(tx, transfer)

        made.sends.enqueue = no_room  # type: ignore[method-assign]
        number = await made.run(workflow(job("a", package=[{"path": "x", "text": "hello"}])))
        runner = made.orchestrator.find(number)
        assert runner is not None
        async with asyncio.timeout(30):
            while not orders or runner._in_hand:
                await asyncio.sleep(0.02)
            # The answer to another call comes before the execution is built again: all is as it was in memory.
            runner.tell(e.JobStarted(node="a", placement=1, generation=1, at=made.clock.now()))
            while not made.sends.ordered:
                await asyncio.sleep(0.02)
        (key,) = made.sends.ordered
        await made.store.write(lambda tx: made.local_peer.delivered(tx, key, 5))
        await made.until(number, lambda x: x.edges[0].status == jobs_pb2.EDGE_STATUS_DELIVERED)
        assert [transfer.key for transfer in orders] == [key, key], "and once it is durable not again"


async def test_what_is_too_large_for_a_message_comes_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with home(tmp_path, "p", "q") as made:
        names = [f"j{number}" for number in range(30)]
        execution_id = await made.run(workflow(*(job(name) for name in names), job("all", *names)))
        whole = await made.finished(execution_id)
        monkeypatch.setattr(views, "PIECE_BYTES", 500)
        request = workflows_pb2.GetExecutionRequest(workflow_execution_id=execution_id)
        jobs, edges, pages = [], [], 0
        while True:
            answer = await made.workflows.GetExecution(request, None)
            assert answer.ByteSize() < 1000
            jobs += [entry.node_id for entry in answer.execution.jobs]
            edges += [entry.edge_id for entry in answer.execution.edges]
            pages += 1
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        assert jobs == [entry.node_id for entry in whole.jobs] and edges == [entry.edge_id for entry in whole.edges]
        assert pages > 3
        watch = workflows_pb2.WatchExecutionRequest(workflow_execution_id=execution_id)
        updates = [update async for update in made.workflows.WatchExecution(watch, None)]
        assert [update.more for update in updates] == [True] * (len(updates) - 1) + [False]
        assert [update.resume_token for update in updates[:-1]] == [0] * (len(updates) - 1)
        assert [entry.node_id for update in updates for entry in update.execution.jobs] == jobs
        for token in ("x", "1", "1.", ".2", "1.2.3"):
            request.page_token = token
            with pytest.raises(PeerdError) as raised:
                await made.workflows.GetExecution(request, None)
            assert raised.value.reason is Reason.INVALID_PAGE_TOKEN


class Listed:
    """An execution with a map over that list, whose file has come."""

    def __init__(self, made: Home, items: str) -> None:
        self.made = made
        self.items = items

    async def start(self, **more: Any) -> int:
        made = self.made
        each = {**job("each"), "map": {"from": "make"}, "description": "One", **more}
        execution_id = await made.run(workflow(job("make"), each, job("all", "each")))
        await made.until(execution_id, lambda x: by_node(x)["make"].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        await self.arrives(execution_id)
        return execution_id

    async def arrives(self, execution_id: int) -> None:
        made = self.made
        key = delivery_key(made, await made.show(execution_id), "make", 1)

        def take(tx: Tx) -> None:
            place = made.local_peer.expect(tx, key)
            place.directory.mkdir(parents=True, exist_ok=True)
            (place.directory / "list.txt").write_text(self.items)
            made.local_peer.received(tx, key, RECEIVED)

        await made.store.write(take)


async def test_a_list_that_arrives_becomes_rows_and_jobs_that_another_execution_does_not_number_alike(
    tmp_path: Path,
) -> None:
    async with home(tmp_path, "p", "q") as made:
        listed = Listed(made, "x\ny\n")
        first, second = await listed.start(), await listed.start(max_parallel=1)
        one, two = await made.finished(first), await made.finished(second)
        assert one.status == two.status == E.EXECUTION_STATUS_COMPLETED
        assert [x.node_id for x in one.jobs] == ["make", "each", "all", "each.0", "each.1"]
        assert [x.job_name for x in one.jobs][3:] == ["One (item=x)", "One (item=y)"]
        assert one.job_count == 5
        numbers = [x.workflow_job_id for x in (*one.jobs, *two.jobs)]
        assert len(set(numbers)) == len(numbers)
        ends = {(x.source_node_id, x.destination_node_id) for x in one.edges}
        assert ends == {("make", "each"), ("each.0", "all"), ("each.1", "all")}
        assert await made.store.all("SELECT * FROM execution_inbox") == []


async def test_what_is_too_large_for_a_list_is_refused_before_it_comes(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        execution_id = await made.run(workflow(job("make"), job("each", map={"from": "make"}), deliver=["make"]))
        await made.until(execution_id, lambda x: by_node(x)["make"].status == J.WORKFLOW_JOB_STATUS_COMPLETED)
        execution = await made.show(execution_id)
        edge_of = {edge.destination_node_id: edge.edge_id for edge in execution.edges}
        home_key = delivery_key(made, execution, "make", edge_of[""])
        key = delivery_key(made, execution, "make", edge_of["each"])
        await made.store.write(lambda tx: made.local_peer.accepted(tx, home_key, 10**9))
        await made.store.write(lambda tx: made.local_peer.accepted(tx, key, 4 << 20))
        with pytest.raises(PeerdError) as caught:
            await made.store.write(lambda tx: made.local_peer.accepted(tx, key, (4 << 20) + 1))
        assert caught.value.reason is Reason.TOO_LARGE
        assert not caught.value.retryable, "its sender gives up, so the map fails"


async def test_a_restart_at_any_step_of_a_map_makes_its_jobs_once(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        execution_id = await Listed(made, "x\ny\nz\n").start(max_parallel=2)
        for _ in range(3):
            await made.stop()
            await made.start()
        execution = await made.finished(execution_id)
        assert execution.status == E.EXECUTION_STATUS_COMPLETED
        assert [x.node_id for x in execution.jobs] == ["make", "each", "all", "each.0", "each.1", "each.2"]
        created = made.fleet.executors["p"].asked(jobs_pb2.CreateJobRequest)
        assert {x.node_id for x in created} == {"make", "all", "each.0", "each.1", "each.2"}
        assert len({x.key.SerializeToString() for x in created}) == 5


async def test_an_instance_of_a_list_that_is_just_being_read_is_not_there_yet(tmp_path: Path) -> None:
    async with home(tmp_path, "p") as made:
        made.fleet.executors["p"].finish_at_start = False
        number = await made.run(workflow(job("make"), job("each", map={"from": "make"})))
        statement = "INSERT INTO workflow_maps (workflow_execution_id, node_id, items) VALUES (?, 'each', ?)"
        await made.store.write(lambda tx: tx.execute(statement, (number, '[{"item": "x"}]')))
        for name in ("each.0", "each.1", "each.00", "each." + "9" * 5000):
            with pytest.raises(PeerdError) as caught:
                await made.workflows.ExplainJob(
                    workflows_pb2.ExplainJobRequest(workflow_execution_id=number, node_id=name), None
                )
            assert caught.value.reason is Reason.NOT_FOUND
