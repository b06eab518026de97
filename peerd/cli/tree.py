"""One execution as a tree: its jobs with peers, ids, states and durations, and where the files went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from peerd.cli.output import duration, enum_word, now_seconds, seconds_of, short, size, styled

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from peerd.v1 import catalog_pb2, workflows_pb2

LOCAL_PEER = "Local Peer"


def edge_end(node_id: str, kind: catalog_pb2.InterfaceKind.ValueType, path: str) -> str:
    """``split.mounts/left``, ``merge.input``, ``Local Peer.input``."""
    from peerd.v1 import catalog_pb2

    word = enum_word(catalog_pb2.InterfaceKind, kind)
    if kind == catalog_pb2.INTERFACE_KIND_MOUNT:
        word = "mounts"
    place = f"{word}/{path}" if path else word
    return f"{node_id or LOCAL_PEER}.{place}"


def lasted(started_at: Timestamp, ended_at: Timestamp) -> str:
    """How long something took, or has taken so far; empty if it never started."""
    if not started_at.seconds:
        return ""
    end = seconds_of(ended_at) if ended_at.seconds else now_seconds()
    return duration(end - seconds_of(started_at))


def whole_time(execution: workflows_pb2.Execution) -> str:
    """How long an execution took, from its start, or from its submission while it has not started."""
    begun = execution.started_at if execution.started_at.seconds else execution.created_at
    return lasted(begun, execution.ended_at)


def why(job: workflows_pb2.WorkflowJob) -> str:
    """Reason and message, and how the last attempt left."""
    words = ": ".join(word for word in (job.reason, job.message) if word)
    if job.HasField("exit_code") and job.exit_code != 0 and "exit" not in job.message:
        words += f" (exit code {job.exit_code})"
    return words.strip()


def moved(job: workflows_pb2.WorkflowJob, edges: Mapping[int, workflows_pb2.ExecutionEdge]) -> tuple[int, int]:
    """Bytes that came in and went out: the job's own count, or its edges' where those already know more."""
    came = sum(edge.bytes for edge in edges.values() if edge.destination_node_id == job.node_id)
    went = sum(edge.bytes for edge in edges.values() if edge.source_node_id == job.node_id)
    return max(job.bytes_received, came), max(job.bytes_sent, went)


def tree(execution: workflows_pb2.Execution, names: Mapping[str, str]) -> Iterator[str]:
    """The lines of ``executions show``. ``names`` are peer id -> name."""
    from peerd.v1 import workflows_pb2

    status = enum_word(workflows_pb2.ExecutionStatus, execution.status)
    version = f" version {execution.workflow_version}" if execution.workflow_version else ""
    took = whole_time(execution)
    yield f"execution {execution.workflow_execution_id}  {execution.workflow_name}{version}  {styled(status)}  {took}"
    orchestrator = execution.orchestrator_peer_id
    yield f"  orchestrator  {_named(orchestrator, names.get(orchestrator, ''))}"
    if execution.rerun_of:
        yield f"  rerun of      execution {execution.rerun_of}"
    if execution.started_by:
        yield f"  started by    {execution.started_by}"
    if execution.concurrency_group:
        yield f"  group         {execution.concurrency_group}"
    if execution.error:
        yield f"  error         {execution.error}"
    if execution.cancel_reason:
        yield f"  cancel        {execution.cancel_reason}"
    if execution.reason:
        since = f" (for {lasted(execution.since, execution.ended_at)})" if execution.since.seconds else ""
        yield f"  waits for     {execution.reason.removeprefix('waits for ')}{since}"
    if execution.next_action:
        yield f"  next          {execution.next_action}"
    edges = {edge.edge_id: edge for edge in execution.edges}
    for position, job in enumerate(execution.jobs, start=1):
        yield from _job_lines(job, edges, last=position == len(execution.jobs))
    yield from _delivery(execution)
    if execution.kept:
        yield "kept: retention takes none of its files"


def _delivery(execution: workflows_pb2.Execution) -> Iterator[str]:
    """Where the files for Local Peer are, or will be."""
    from peerd.v1 import jobs_pb2, workflows_pb2

    home = [edge.status == jobs_pb2.EDGE_STATUS_DELIVERED for edge in execution.edges if not edge.destination_node_id]
    if not home or not execution.delivery_directory:
        return
    gone = ", and removed by retention since" if execution.files_removed else ""
    if execution.status == workflows_pb2.EXECUTION_STATUS_COMPLETED or all(home):
        yield f"delivered to {execution.delivery_directory}{gone}"
    elif not execution.ended_at.seconds:
        yield f"to be delivered to {execution.delivery_directory}"
    elif any(home):
        yield f"delivered in part to {execution.delivery_directory}{gone}"


def _job_lines(
    job: workflows_pb2.WorkflowJob, edges: Mapping[int, workflows_pb2.ExecutionEdge], *, last: bool
) -> Iterator[str]:
    from peerd.v1 import workflows_pb2

    status = enum_word(workflows_pb2.WorkflowJobStatus, job.status)
    came, went = moved(job, edges)
    took = lasted(job.started_at, job.ended_at)
    tries = f"  attempt {job.attempt}" if job.attempt > 1 else ""
    places = f"  placement {job.placement}" if job.placement > 1 else ""
    remote = str(job.remote_job_execution_id) if job.remote_job_execution_id else "none yet"
    if job.reused_job_execution_id:
        earlier = f"{job.reused_job_execution_id} of execution {job.reused_execution_id}"
        remote = f"{remote}, which sends what {earlier} made" if job.remote_job_execution_id else earlier
    yield (
        f"{'└' if last else '├'}─ {job.node_id}  {styled(status)}  {took}".rstrip()
        + f"  in {size(came)}, out {size(went)}{tries}{places}"
    )
    bar = "   " if last else "│  "
    yield f"{bar}   on {_named(job.executor_peer_id, job.executor_name)}"
    yield f"{bar}   workflow job {job.workflow_job_id}, job execution {remote}"
    if words := why(job):
        since = f" (for {lasted(job.since, job.ended_at)})" if job.since.seconds and not job.ended_at.seconds else ""
        yield f"{bar}   {words}{since}"
    if job.next_action:
        yield f"{bar}   next: {job.next_action}"
    for edge in edges.values():
        comes_along = not edge.source_node_id and edge.destination_node_id == job.node_id
        if edge.source_node_id == job.node_id or comes_along:
            for line in edge_lines(edge, of=job.node_id if not comes_along else ""):
                yield f"{bar}   {line}"


def edge_lines(edge: workflows_pb2.ExecutionEdge, *, of: str = "") -> Iterator[str]:
    """Where its files come from and go, how far they are, and for anything not delivered why and what to do.

    Below the job that it is ``of``, its name is not said again.
    """
    from peerd.v1 import jobs_pb2

    yield _edge_line(edge).removeprefix(f"{of}.")
    if edge.status == jobs_pb2.EDGE_STATUS_DELIVERED or not edge.message:
        return
    open_since = edge.since.seconds and edge.status != jobs_pb2.EDGE_STATUS_FAILED
    yield f"  {edge.message}" + (f" (for {duration(now_seconds() - seconds_of(edge.since))})" if open_since else "")
    if edge.next_action:
        yield f"  next: {edge.next_action}"


def _edge_line(edge: workflows_pb2.ExecutionEdge) -> str:
    from peerd.v1 import jobs_pb2

    status = enum_word(jobs_pb2.EdgeStatus, edge.status)
    source = edge_end(edge.source_node_id, edge.source_kind, edge.source_path)
    destination = edge_end(edge.destination_node_id, edge.destination_kind, edge.destination_path)
    amount = size(edge.bytes) if edge.bytes == edge.bytes_total else f"{size(edge.bytes)} of {size(edge.bytes_total)}"
    reason = f"  {edge.reason}" if edge.reason and not edge.message else ""
    return f"{source} → {destination}  {styled(status)}  {amount}{reason}"


def _named(peer_id: str, name: str) -> str:
    if not peer_id:
        return "no peer yet"
    return f"{name} ({short(peer_id)})" if name else peer_id
