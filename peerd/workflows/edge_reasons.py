"""For whom and what an edge waits, since when, and what to do. Pure.

It follows from the jobs at the ends, so it is made when somebody looks and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from peerd.errors import Reason
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows.drawing import state_of
from peerd.workflows.explain import NOTHING_TO_DO

_ENDED_BADLY = ("failed", "skipped", "cancelled")


def explain_edges(execution: workflows_pb2.Execution) -> None:
    """Write it into the edges of a whole execution."""
    jobs = {job.node_id: job for job in execution.jobs}
    for edge in execution.edges:
        explain_edge(edge, jobs)


def explain_edge(edge: workflows_pb2.ExecutionEdge, jobs: Mapping[str, workflows_pb2.WorkflowJob]) -> None:
    """Write it into one edge, unless all has arrived."""
    source, destination = jobs.get(edge.source_node_id), jobs.get(edge.destination_node_id)
    if edge.status == jobs_pb2.EDGE_STATUS_FAILED:
        _say(edge, edge.reason, f"its files will not come: {edge.reason}", _cure(edge, source), source or destination)
    elif edge.status != jobs_pb2.EDGE_STATUS_DELIVERED:
        _waiting(edge, source, destination)


def _waiting(
    edge: workflows_pb2.ExecutionEdge,
    source: workflows_pb2.WorkflowJob | None,
    destination: workflows_pb2.WorkflowJob | None,
) -> None:
    if source is not None and state_of(source) != "completed":
        state = state_of(source)
        if state in _ENDED_BADLY:
            _say(edge, "upstream_failed", f"{source.node_id} is {state}: nothing comes", source.next_action, source)
        else:
            action = source.next_action or NOTHING_TO_DO
            _say(edge, "producer", f"waits for {source.node_id} to end; it is {_words(source)}", action, source)
        return
    if destination is not None and state_of(destination) in _ENDED_BADLY:
        message = f"{destination.node_id} is {state_of(destination)}: nothing is sent to it"
        _say(edge, "receiver_ended", message, destination.next_action, destination)
    elif destination is not None and (destination.reason == "peer_away" or not destination.remote_job_execution_id):
        reason = "peer_away" if destination.reason == "peer_away" else "receiver"
        message = f"waits for {destination.node_id}: {destination.message or 'it has no place yet'}"
        _say(edge, reason, message, destination.next_action or NOTHING_TO_DO, destination)
    else:
        where = destination.executor_name if destination is not None else "this peer"
        amount = f"{edge.bytes} of {edge.bytes_total} bytes" if edge.bytes_total else "files"
        message = f"{amount} on the way to {where or 'its peer'}"
        edge.since.CopyFrom(source.ended_at if source is not None else destination.since if destination else edge.since)
        edge.reason, edge.message = edge.reason or "sending", message
        edge.next_action = NOTHING_TO_DO


def _say(
    edge: workflows_pb2.ExecutionEdge,
    reason: str,
    message: str,
    action: str,
    about: workflows_pb2.WorkflowJob | None,
) -> None:
    edge.reason, edge.message, edge.next_action = reason, message, action or NOTHING_TO_DO
    if about is not None:
        edge.since.CopyFrom(about.since)


def _words(job: workflows_pb2.WorkflowJob) -> str:
    return state_of(job).replace("_", " ")


def _cure(edge: workflows_pb2.ExecutionEdge, source: workflows_pb2.WorkflowJob | None) -> str:
    if edge.reason.upper() in Reason.__members__:
        return Reason.from_text(edge.reason).next_action
    return source.next_action if source is not None else ""
