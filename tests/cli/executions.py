"""One execution in several stages, as a daemon would tell it."""

from __future__ import annotations

from peerd.v1 import catalog_pb2, jobs_pb2, workflows_pb2

CREATED = 1_700_000_000


def execution(
    status: workflows_pb2.ExecutionStatus.ValueType, *jobs: workflows_pb2.WorkflowJob
) -> workflows_pb2.Execution:
    """Execution 7 of word-count with these jobs."""
    built = workflows_pb2.Execution(
        workflow_execution_id=7,
        orchestrator_peer_id="a" * 52,
        workflow_name="word-count",
        workflow_version=1,
        status=status,
        jobs=jobs,
        delivery_directory="/data/home/input",
        job_count=len(jobs),
    )
    built.created_at.seconds = CREATED
    built.started_at.seconds = CREATED
    if status in (workflows_pb2.EXECUTION_STATUS_COMPLETED, workflows_pb2.EXECUTION_STATUS_FAILED):
        built.ended_at.seconds = CREATED + 4
    return built


def job(
    number: int,
    node_id: str,
    peer: str,
    status: workflows_pb2.WorkflowJobStatus.ValueType,
    *,
    after: int,
    why: str = "",
) -> workflows_pb2.WorkflowJob:
    """A job as it is some seconds after the execution was created."""
    built = workflows_pb2.WorkflowJob(
        workflow_job_id=number,
        node_id=node_id,
        executor_peer_id=peer[0] * 52,
        executor_name=peer,
        remote_job_execution_id=number + 10,
        placement=1,
        status=status,
        reason=why,
        attempt=1,
    )
    built.since.seconds = CREATED + after
    if status >= workflows_pb2.WORKFLOW_JOB_STATUS_RUNNING:
        built.started_at.seconds = CREATED + 1
    if status >= workflows_pb2.WORKFLOW_JOB_STATUS_COMPLETED:
        built.ended_at.seconds = CREATED + after
        built.bytes_received = 2_000_000
        built.bytes_sent = 1_500
    return built


def edge(number: int, source: str, destination: str, *, moved: int) -> workflows_pb2.ExecutionEdge:
    """A delivered edge from one job's output to another's input, or home."""
    return workflows_pb2.ExecutionEdge(
        edge_id=number,
        source_node_id=source,
        source_kind=catalog_pb2.INTERFACE_KIND_OUTPUT,
        destination_node_id=destination,
        destination_kind=catalog_pb2.INTERFACE_KIND_INPUT,
        status=jobs_pb2.EDGE_STATUS_DELIVERED,
        bytes=moved,
        bytes_total=moved,
    )
