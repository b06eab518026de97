"""Following an execution: what is printed, and how it ends."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from peerd.errors import Reason
from peerd.v1 import jobs_pb2, registry_pb2, workflows_pb2
from tests.cli.conftest import Peerctl
from tests.cli.executions import edge, execution, job
from tests.cli.fake_daemon import FakeDaemon, refuse

RUNNING = workflows_pb2.EXECUTION_STATUS_RUNNING
COMPLETED = workflows_pb2.EXECUTION_STATUS_COMPLETED
FAILED = workflows_pb2.EXECUTION_STATUS_FAILED
JOB_WAITING = workflows_pb2.WORKFLOW_JOB_STATUS_WAITING_INPUTS
JOB_RUNNING = workflows_pb2.WORKFLOW_JOB_STATUS_RUNNING
JOB_COMPLETED = workflows_pb2.WORKFLOW_JOB_STATUS_COMPLETED
JOB_FAILED = workflows_pb2.WORKFLOW_JOB_STATUS_FAILED

Update = workflows_pb2.WatchExecutionResponse


def story() -> list[workflows_pb2.Execution]:
    """First everything, then only what changed."""
    last = execution(COMPLETED, job(2, "count", "beta", JOB_COMPLETED, after=4))
    last.edges.append(edge(2, "count", "", moved=1_500))
    return [
        execution(
            RUNNING,
            job(1, "texts", "alpha", JOB_RUNNING, after=1),
            job(2, "count", "beta", JOB_WAITING, after=1, why="waits for texts"),
        ),
        execution(RUNNING, job(1, "texts", "alpha", JOB_COMPLETED, after=2)),
        execution(RUNNING, job(2, "count", "beta", JOB_RUNNING, after=2)),
        execution(RUNNING),
        last,
    ]


def tell(updates: list[workflows_pb2.Execution]) -> Any:
    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Update]:
        for token, update in enumerate(updates, start=1):
            if token > request.resume_token:
                yield Update(execution=update, resume_token=token)

    return handler


def test_without_a_terminal_there_is_one_line_per_change(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.WatchExecution", tell(story()))
    outcome = peerctl("executions", "watch", 7)
    assert outcome.exit_code == 0
    assert outcome.out.splitlines() == [
        "execution 7 of word-count",
        "  1.00s  texts  alpha  running",
        "  1.00s  count  beta  waiting_inputs  waits for texts",
        "  2.00s  texts  alpha  completed  in 2.0 MB, out 1.5 kB",
        "  2.00s  count  beta  running",
        "  4.00s  count  beta  completed  in 2.0 MB, out 1.5 kB",
        "execution 7 completed after 4.00s",
        "delivered to /data/home/input",
    ]


@pytest.mark.parametrize("status", [FAILED, workflows_pb2.EXECUTION_STATUS_CANCELLED])
def test_an_execution_that_ends_badly_is_exit_code_1(
    peerctl: Peerctl, daemon: FakeDaemon, status: workflows_pb2.ExecutionStatus.ValueType
) -> None:
    ended = execution(status, job(1, "count", "beta", JOB_FAILED, after=2, why="exit"))
    ended.error = "1 of 1 jobs failed"
    daemon.on("WorkflowService.WatchExecution", tell([ended]))
    outcome = peerctl("executions", "watch", 7)
    assert outcome.exit_code == 1
    assert "count  beta  failed" in outcome.out
    assert outcome.out.endswith("error: 1 of 1 jobs failed\n")


def test_with_json_each_line_is_the_whole_execution(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.WatchExecution", tell(story()))
    lines = [json.loads(line) for line in peerctl("executions", "watch", 7, "-o", "json").out.splitlines()]
    assert [[entry["status"] for entry in line["jobs"]] for line in lines][-1] == [
        "WORKFLOW_JOB_STATUS_COMPLETED",
        "WORKFLOW_JOB_STATUS_COMPLETED",
    ]
    assert len(lines) == len(story())


def test_a_watch_goes_on_where_it_was_when_the_daemon_restarts(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    def restart_once(request: Any, context: grpc.ServicerContext) -> Iterator[Update]:
        told = story()
        if request.resume_token == 0:
            yield Update(execution=told[0], resume_token=1)
            refuse(context, Reason.SHUTTING_DOWN, "restarting")
        yield from tell(told)(request, context)

    daemon.on("WorkflowService.WatchExecution", restart_once)
    outcome = peerctl("executions", "watch", 7)
    assert outcome.exit_code == 0
    assert [request.resume_token for request in daemon.requests("WorkflowService.WatchExecution")] == [0, 1]
    assert outcome.out.count("texts  alpha  running") == 1


def test_a_watch_that_takes_too_long_is_exit_code_124(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    def never_ends(request: Any, context: grpc.ServicerContext) -> Iterator[Update]:
        yield Update(execution=story()[0], resume_token=1)
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(20)

    daemon.on("WorkflowService.WatchExecution", never_ends)
    assert peerctl("executions", "watch", 7, "--timeout", "0.3s").exit_code == 124


def test_run_and_wait_prints_the_id_and_how_it_ended(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("WorkflowService.RunWorkflow", workflows_pb2.RunWorkflowResponse(workflow_execution_id=7))
    daemon.on("WorkflowService.WatchExecution", tell(story()))
    outcome = peerctl("workflows", "run", "word-count", "--wait")
    assert outcome.out.splitlines()[0] == "7"
    assert "execution 7 completed" in outcome.out
    assert "running" not in outcome.out


def test_show_is_a_tree_with_peers_ids_states_and_durations(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    whole = execution(
        COMPLETED,
        job(1, "texts", "alpha", JOB_COMPLETED, after=2),
        job(2, "count", "beta", JOB_COMPLETED, after=4),
    )
    whole.edges.extend([edge(1, "texts", "count", moved=2_000_000), edge(2, "count", "", moved=1_500)])
    daemon.on("WorkflowService.GetExecution", workflows_pb2.GetExecutionResponse(execution=whole))
    peers = [registry_pb2.Peer(peer_id="a" * 52, name="alpha"), registry_pb2.Peer(peer_id="b" * 52, name="beta")]
    daemon.on("RegistryService.ListPeers", registry_pb2.ListPeersResponse(peers=peers))
    assert peerctl("executions", "show", 7).out.splitlines() == [
        "execution 7  word-count version 1  completed  4.00s",
        "  orchestrator  alpha (aaaaaaaaaaaa)",
        "├─ texts  completed  1.00s  in 2.0 MB, out 2.0 MB",
        "│     on alpha (aaaaaaaaaaaa)",
        "│     workflow job 1, job execution 11",
        "│     output → count.input  delivered  2.0 MB",
        "└─ count  completed  3.00s  in 2.0 MB, out 1.5 kB",
        "      on beta (bbbbbbbbbbbb)",
        "      workflow job 2, job execution 12",
        "      output → Local Peer.input  delivered  1.5 kB",
        "delivered to /data/home/input",
    ]


@pytest.mark.parametrize(
    ("status", "came_home", "said"),
    [
        (RUNNING, (False, False), "to be delivered to /data/home/input"),
        (RUNNING, (True, False), "to be delivered to /data/home/input"),
        (COMPLETED, (True, True), "delivered to /data/home/input"),
        (COMPLETED, (True, False), "delivered to /data/home/input"),
        (FAILED, (True, False), "delivered in part to /data/home/input"),
        (FAILED, (False, False), ""),
    ],
)
def test_show_says_what_came_home_and_what_will(
    peerctl: Peerctl,
    daemon: FakeDaemon,
    status: workflows_pb2.ExecutionStatus.ValueType,
    came_home: tuple[bool, bool],
    said: str,
) -> None:
    shown = execution(status, job(1, "count", "beta", JOB_COMPLETED, after=4))
    for number, delivered in enumerate(came_home, start=1):
        home = edge(number, "count", "", moved=1_500)
        home.status = jobs_pb2.EDGE_STATUS_DELIVERED if delivered else jobs_pb2.EDGE_STATUS_WAITING
        shown.edges.append(home)
    daemon.on("WorkflowService.GetExecution", workflows_pb2.GetExecutionResponse(execution=shown))
    daemon.on("RegistryService.ListPeers", registry_pb2.ListPeersResponse())
    outcome = peerctl("executions", "show", 7)
    assert [line for line in outcome.out.splitlines() if "/data/home" in line] == ([said] if said else [])


def test_show_says_for_what_an_unfinished_execution_waits_and_what_to_do(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    waiting = job(1, "count", "beta", workflows_pb2.WORKFLOW_JOB_STATUS_PENDING, after=0, why="offline")
    waiting.message, waiting.next_action = "beta is offline", "start beta"
    whole = execution(RUNNING, waiting)
    whole.reason, whole.next_action = "beta", "start beta"
    daemon.on("WorkflowService.GetExecution", workflows_pb2.GetExecutionResponse(execution=whole))
    daemon.on("RegistryService.ListPeers", registry_pb2.ListPeersResponse())
    out = peerctl("executions", "show", 7).out
    assert "waits for     beta" in out
    assert "offline: beta is offline (for " in out
    assert "next: start beta" in out


def test_on_a_terminal_the_live_view_shows_each_job_and_how_far_all_is() -> None:
    from rich.console import Console

    from peerd.cli.watching import _live_view

    whole = execution(
        RUNNING, job(1, "texts", "alpha", JOB_COMPLETED, after=2), job(2, "count", "beta", JOB_RUNNING, after=2)
    )
    whole.edges.append(edge(1, "texts", "count", moved=2_000_000))
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(_live_view(whole))
    shown = captured.get()
    assert "JOB" in shown
    assert "completed" in shown
    assert "1 of 2 jobs  2.0 MB moved" in shown
