"""The public Python client: deadlines, retries with one request id, pages, errors, the merging watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from peerd.client import Client, merge_execution
from peerd.errors import PeerdError, Reason, Violation
from peerd.v1 import catalog_pb2, daemon_pb2, jobs_pb2, registry_pb2, workflows_pb2
from tests.cli.executions import edge, execution, job
from tests.cli.fake_daemon import FakeDaemon, refusing

RUNNING = workflows_pb2.EXECUTION_STATUS_RUNNING
JOB_PENDING = workflows_pb2.WORKFLOW_JOB_STATUS_PENDING
JOB_RUNNING = workflows_pb2.WORKFLOW_JOB_STATUS_RUNNING
JOB_COMPLETED = workflows_pb2.WORKFLOW_JOB_STATUS_COMPLETED


@pytest.fixture
async def client(daemon: FakeDaemon) -> AsyncIterator[Client]:
    async with Client(socket=daemon.socket) as opened:
        yield opened


async def test_a_change_that_is_tried_again_keeps_its_request_id(client: Client, daemon: FakeDaemon) -> None:
    def lost_once(request: Any, context: grpc.ServicerContext) -> workflows_pb2.RunWorkflowResponse:
        if len(daemon.calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return workflows_pb2.RunWorkflowResponse(workflow_execution_id=7)

    daemon.on("WorkflowService.RunWorkflow", lost_once)
    assert (await client.run(workflow="w")).workflow_execution_id == 7
    await client.run(workflow="w")
    first, again, other = (request.request_id for request in daemon.requests("WorkflowService.RunWorkflow"))
    assert first == again
    assert other not in ("", first)


@pytest.mark.parametrize(
    ("reason", "tries"), [(Reason.SHUTTING_DOWN, 4), (Reason.NOT_TRUSTED_OR_UNREACHABLE, 1), (Reason.OVERLOADED, 1)]
)
async def test_only_a_lost_connection_is_tried_again_and_not_for_ever(
    client: Client, daemon: FakeDaemon, reason: Reason, tries: int
) -> None:
    daemon.on("DaemonService.GetStatus", refusing(reason))
    with pytest.raises(PeerdError) as caught:
        await client.status()
    assert caught.value.reason is reason
    assert len(daemon.calls) == tries


async def test_an_error_is_rebuilt_with_reason_next_action_and_fields(client: Client, daemon: FakeDaemon) -> None:
    daemon.on(
        "CatalogService.AddService",
        refusing(Reason.INVALID_NAME, "bad name", next_action="rename it", fields={"declaration.name": "too long"}),
    )
    with pytest.raises(PeerdError) as caught:
        await client.add_service(catalog_pb2.ServiceDeclaration(name="x" * 99))
    error = caught.value
    assert (error.reason, error.message, error.next_action) == (Reason.INVALID_NAME, "bad name", "rename it")
    assert error.violations == (Violation(field="declaration.name", message="too long"),)


async def test_a_reason_of_a_newer_daemon_keeps_its_kind(client: Client, daemon: FakeDaemon) -> None:
    def newer(request: Any, context: grpc.ServicerContext) -> None:
        from google.protobuf import any_pb2
        from google.rpc import error_details_pb2, status_pb2
        from grpc_status import rpc_status

        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.ErrorInfo(reason="MOON_PHASE", domain="peerd"))
        context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=7, message="m", details=[packed])))

    daemon.on("DaemonService.GetStatus", newer)  # type: ignore[arg-type]
    with pytest.raises(PeerdError) as caught:
        await client.status()
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert caught.value.metadata["reason"] == "MOON_PHASE"


async def test_lists_are_fetched_to_their_end(client: Client, daemon: FakeDaemon) -> None:
    def pages(request: registry_pb2.ListPeersRequest, context: object) -> registry_pb2.ListPeersResponse:
        page = int(request.page_token or 0)
        return registry_pb2.ListPeersResponse(
            peers=[registry_pb2.Peer(name=f"p{page}")], next_page_token=str(page + 1) if page < 2 else ""
        )

    daemon.on("RegistryService.ListPeers", pages)
    assert [peer.name for peer in await client.peers()] == ["p0", "p1", "p2"]


async def test_a_limit_stops_at_the_page_that_fills_it(client: Client, daemon: FakeDaemon) -> None:
    full = jobs_pb2.ListJobsResponse(jobs=[jobs_pb2.JobExecution()] * 5, next_page_token="more")
    daemon.on("JobService.ListJobs", full)
    assert len(await client.jobs(limit=3)) == 3
    assert len(daemon.calls) == 1


async def test_a_watch_yields_the_whole_execution_each_time(client: Client, daemon: FakeDaemon) -> None:
    first = execution(RUNNING, job(1, "a", "alpha", JOB_RUNNING, after=1), job(2, "b", "beta", JOB_PENDING, after=1))
    last = execution(workflows_pb2.EXECUTION_STATUS_COMPLETED, job(2, "b", "beta", JOB_COMPLETED, after=2))
    daemon.on(
        "WorkflowService.WatchExecution",
        lambda request, context: iter(
            [
                workflows_pb2.WatchExecutionResponse(execution=first, resume_token=1),
                workflows_pb2.WatchExecutionResponse(execution=last, resume_token=2),
            ]
        ),
    )
    seen = [update async for update in client.watch(7)]
    assert [[entry.node_id for entry in update.jobs] for update in seen] == [["a", "b"], ["a", "b"]]
    assert seen[0].jobs[1].status == JOB_PENDING  # what was yielded before is not changed later
    assert seen[1].jobs[1].status == JOB_COMPLETED


async def test_waiting_for_an_execution_that_does_not_exist_says_so(client: Client, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.WatchExecution", refusing(Reason.NOT_FOUND, "no execution 9"))
    with pytest.raises(PeerdError) as caught:
        await client.wait(9)
    assert caught.value.reason is Reason.NOT_FOUND
    assert len(daemon.calls) == 1


def test_merging_replaces_what_changed_and_keeps_the_rest() -> None:
    whole = execution(RUNNING, job(1, "a", "alpha", JOB_RUNNING, after=1))
    whole.edges.append(edge(1, "a", "", moved=0))
    whole.reason = "waits"
    update = execution(RUNNING, job(1, "a", "alpha", JOB_COMPLETED, after=2))
    merge_execution(whole, update)
    assert [(entry.workflow_job_id, entry.status) for entry in whole.jobs] == [(1, JOB_COMPLETED)]
    assert len(whole.edges) == 1
    assert whole.reason == ""


async def test_a_file_that_is_no_socket_is_not_reachable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with Client(socket=tmp_path / "file") as client:
        with pytest.raises(PeerdError) as caught:
            await client.status()
    assert caught.value.reason is Reason.DAEMON_NOT_REACHABLE


async def test_status_is_what_the_daemon_says(client: Client, daemon: FakeDaemon) -> None:
    answer = daemon_pb2.GetStatusResponse(peer_id="p", name="alpha")
    daemon.on("DaemonService.GetStatus", answer)
    assert await client.status() == answer
