"""What people are told of edges and events, in every state."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows import events as e
from peerd.workflows.edge_reasons import explain_edge
from peerd.workflows.history import describe, kind_of
from peerd.workflows.model import EdgeNews, EdgeStatus, JobStatus, Report

J = workflows_pb2


def job(name: str, status: str, **more: Any) -> workflows_pb2.WorkflowJob:
    made = workflows_pb2.WorkflowJob(
        node_id=name, status=J.WorkflowJobStatus.Value(f"WORKFLOW_JOB_STATUS_{status}"), executor_name="beta", **more
    )
    made.since.seconds, made.ended_at.seconds = 100, 200 if status == "COMPLETED" else 0
    return made


@pytest.mark.parametrize("status", ["WAITING", "SENDING"])
@pytest.mark.parametrize(
    ("source", "destination", "reason", "words", "since"),
    [
        (job("a", "PENDING", next_action="bring x back"), job("b", "PLACED"), "producer", "it is pending", 100),
        (job("a", "RUNNING"), None, "producer", "it is running", 100),
        (job("a", "CANCELLED"), job("b", "PENDING"), "upstream_failed", "a is cancelled", 100),
        (job("a", "COMPLETED"), job("b", "FAILED"), "receiver_ended", "b is failed", 100),
        (job("a", "COMPLETED"), job("b", "PENDING", message="no peer"), "receiver", "waits for b: no peer", 100),
        (
            job("a", "COMPLETED"),
            job("b", "WAITING_INPUTS", reason="peer_away", message="waits for x", remote_job_execution_id=1),
            "peer_away", "waits for b: waits for x", 100,
        ),
        (job("a", "COMPLETED"), job("b", "WAITING_INPUTS", remote_job_execution_id=1), "sending", "to beta", 200),
        (job("a", "COMPLETED"), None, "sending", "to this peer", 200),
        (None, job("b", "PLACED"), "receiver", "no place yet", 100),
    ],
)  # fmt: skip
def test_an_open_edge_says_why_since_when_and_what_to_do(
    status: str, source: Any, destination: Any, reason: str, words: str, since: int
) -> None:
    edge = workflows_pb2.ExecutionEdge(
        status=jobs_pb2.EdgeStatus.Value(f"EDGE_STATUS_{status}"),
        source_node_id=source.node_id if source else "",
        destination_node_id=destination.node_id if destination else "",
    )
    explain_edge(edge, {end.node_id: end for end in (source, destination) if end is not None})
    assert edge.reason == reason
    assert words in edge.message
    assert edge.since.seconds == since
    assert edge.next_action
    if source is not None and source.next_action:
        assert edge.next_action == source.next_action


def test_a_failed_edge_names_the_cure_of_its_reason_and_a_delivered_one_says_nothing() -> None:
    edge = workflows_pb2.ExecutionEdge(status=jobs_pb2.EDGE_STATUS_FAILED, reason="no_files_match")
    explain_edge(edge, {})
    assert "optional: true" in edge.next_action
    done = workflows_pb2.ExecutionEdge(status=jobs_pb2.EDGE_STATUS_DELIVERED)
    explain_edge(done, {})
    assert not done.message and not done.reason


REPORT = Report(
    job_execution_id=3,
    status=JobStatus.FAILED,
    revision=2,
    reason="exit",
    message="exited with code 2",
    attempt=2,
    exit_code=2,
    edges=(EdgeNews(edge_id=4, status=EdgeStatus.SENDING),),
)
VALUES: dict[str, Any] = {
    "node": "n", "placement": 2, "peer": "PEER", "message": "MESSAGE", "job_execution_id": 3, "reason": "REASON",
    "generation": 5, "report": REPORT, "edge_id": 4, "bytes": 77, "waiting": "WAITING",
    "verdict": "skip", "limit": "start_timeout", "count": 41, "first_workflow_job_id": 9,
}  # fmt: skip


@pytest.mark.parametrize("kind", e.KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_event_has_words_with_all_that_it_says(kind: type[e.Event]) -> None:
    names = [field.name for field in dataclasses.fields(kind) if field.name != "at"]
    known = {name: VALUES[name] for name in names}
    said = describe(kind(**known), lambda peer: f"<{peer}>")
    assert said
    for name, shown in {
        "count": "41",
        "peer": "<PEER>",
        "message": "MESSAGE",
        "reason": "REASON",
        "waiting": "WAITING",
    }.items():
        if name in known:
            assert shown in said
    if "report" in known:
        assert "failed, attempt 2, exit code 2 (exit: exited with code 2); edge 4 sending" in said


def test_kinds_are_stable_words() -> None:
    assert kind_of("JobPlaced") == "job_placed"
    assert len({kind_of(name) for name in e.KINDS}) == len(e.KINDS)


def test_an_event_without_words_of_its_own_names_its_fields() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Unknown(e.Event):
        node: str = "n"
        why: str = "because"
        empty: str = ""

    assert describe(Unknown(), str) == "why because"
