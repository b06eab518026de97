"""Between the engine and the wire: what executors are sent, and what they report. Pure, no rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.clock import Millis
from peerd.transfers.selection import Selection
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.v1.catalog_pb2 import MOUNT_FUNCTION_INPUT, MOUNT_FUNCTION_OUTPUT, InterfaceKind, MountFunction
from peerd.workflows.edges import Edge, edges_of_maps
from peerd.workflows.matrix import places_of
from peerd.workflows.model import (
    EdgeNews,
    EdgeStatus,
    ExecutionSpec,
    JobSpec,
    JobStatus,
    MapSpec,
    Report,
    WorkflowJobStatus,
)
from peerd.workflows.params import substituted
from peerd.workflows.quantities import parse_duration, parse_exit_codes, parse_memory
from peerd.workflows.reuse import Reused, reuse_request
from peerd.workflows.state import ExecutionState, JobState

_DEFAULT_BACKOFF = "1s"
_DEFAULT_MAX_BACKOFF = "5m"
_CONSTRAINTS = {"none": jobs_pb2.EXECUTION_CONSTRAINT_NONE}
_POLICIES = {"stop": jobs_pb2.PARTITION_POLICY_STOP}

JOB_STATUSES: Mapping[int, JobStatus] = {
    jobs_pb2.JOB_STATUS_CREATED: JobStatus.CREATED,
    jobs_pb2.JOB_STATUS_WAITING_INPUTS: JobStatus.WAITING_INPUTS,
    jobs_pb2.JOB_STATUS_READY: JobStatus.READY,
    jobs_pb2.JOB_STATUS_RUNNING: JobStatus.RUNNING,
    jobs_pb2.JOB_STATUS_COMPLETED: JobStatus.COMPLETED,
    jobs_pb2.JOB_STATUS_FAILED: JobStatus.FAILED,
    jobs_pb2.JOB_STATUS_LOST: JobStatus.LOST,
    jobs_pb2.JOB_STATUS_CANCELLED: JobStatus.CANCELLED,
}
EDGE_STATUSES: Mapping[int, EdgeStatus] = {
    jobs_pb2.EDGE_STATUS_WAITING: EdgeStatus.WAITING,
    jobs_pb2.EDGE_STATUS_SENDING: EdgeStatus.SENDING,
    jobs_pb2.EDGE_STATUS_DELIVERED: EdgeStatus.DELIVERED,
    jobs_pb2.EDGE_STATUS_FAILED: EdgeStatus.FAILED,
}


def execution_spec(
    execution_id: int,
    created_at: Millis,
    definition: workflows_pb2.WorkflowDefinition,
    edges: Iterable[Edge],
    first_workflow_job_id: int,
    params: Mapping[str, str] | None = None,
) -> ExecutionSpec:
    """What the engine must know of a valid definition of plain jobs and maps."""
    edges, bounded = tuple(edges), places_of(definition)
    lists = {edge.list_of: edge for edge in edges if edge.list_of}
    mapped = {
        name: MapSpec(list_edge=lists[name].edge_id, list_source=lists[name].source, edges=templates)
        for name, templates in edges_of_maps(definition).items()
    }
    jobs = tuple(
        JobSpec(
            node_id=job.name,
            workflow_job_id=first_workflow_job_id + index,
            pinned=bool(job.on.peer),
            deadline_at=Millis(created_at + parse_duration(job.deadline)) if job.deadline else None,
            attempts=max(1, job.retry.attempts),
            waits_for_inputs=job.execution_constraint != "none",
            retry_lost="lost" in job.retry.on,
            needs=tuple(job.needs),
            when=job.when,
            continue_on_failure=job.continue_on_failure,
            queue_timeout=_limit(job.queue_timeout),
            start_timeout=_limit(job.start_timeout),
            transfer_timeout=_limit(job.transfer_timeout),
            places=bounded.get(job.name, ""),
            max_parallel=job.max_parallel if job.name in bounded or job.HasField("map") else 0,
            mapped=mapped.get(job.name),
        )
        for index, job in enumerate(definition.jobs)
    )
    return ExecutionSpec(
        execution_id=execution_id,
        created_at=created_at,
        jobs=jobs,
        edges=edges,
        params=params or {},
    )


def job_key(state: ExecutionState, job: JobState, placement: int, store_id: str) -> jobs_pb2.JobKey:
    """Names one placement of a job to executors."""
    return jobs_pb2.JobKey(
        store_id=store_id,
        workflow_execution_id=state.spec.execution_id,
        workflow_job_id=job.spec.workflow_job_id,
        placement=placement,
    )


def create_request(
    key: jobs_pb2.JobKey,
    job: workflows_pb2.JobDefinition,
    *,
    workflow_id: int,
    params: Mapping[str, str],
    lease_seconds: float,
    reused: Reused | None = None,
) -> jobs_pb2.CreateJobRequest:
    """Phase one. It carries no request id: the key is one, and lasts longer than an answer is kept."""
    if reused is not None:
        return reuse_request(key, job, reused, workflow_id=workflow_id, lease_seconds=lease_seconds)
    job = substituted(job, params)
    request = jobs_pb2.CreateJobRequest(
        key=key,
        workflow_id=str(workflow_id),
        node_id=job.name,
        job_name=job.description or job.name,
        params=job.params,
        env=job.env,
        secrets=job.secrets,
        secret_files=job.secret_files,
        timeout_seconds=_seconds(job.timeout) if job.timeout else 0.0,
        retry=jobs_pb2.RetryPolicy(
            attempts=max(1, job.retry.attempts),
            backoff_seconds=_seconds(job.retry.backoff or _DEFAULT_BACKOFF),
            max_backoff_seconds=_seconds(job.retry.max_backoff or _DEFAULT_MAX_BACKOFF),
            reasons=job.retry.on,
            jitter=job.retry.jitter,
            exit_codes=[
                jobs_pb2.ExitCodes(first=first, last=last)
                for first, last in (parse_exit_codes(text) for text in job.retry.exit_codes)
            ],
        ),
        execution_constraint=_CONSTRAINTS.get(job.execution_constraint, jobs_pb2.EXECUTION_CONSTRAINT_INPUTS_READY),
        partition_policy=_POLICIES.get(job.partition_policy, jobs_pb2.PARTITION_POLICY_FINISH),
        lease_seconds=lease_seconds,
        resources=jobs_pb2.JobResources(
            cpus=job.resources.cpus,
            memory_bytes=parse_memory(job.resources.memory) if job.resources.memory else 0,
            disk_bytes=parse_memory(job.resources.disk) if job.resources.disk else 0,
            gpus=job.resources.gpus,
        ),
        priority=job.priority,
    )
    if job.HasField("run"):
        request.command.CopyFrom(job.run)
    else:
        request.service = job.service
    return request


def start_request(
    state: ExecutionState, job: JobState, key: jobs_pb2.JobKey, generation: int, own_peer_id: str
) -> jobs_pb2.StartJobRequest:
    """Phase two: every interface with both ids of every peer at its other end."""
    request = jobs_pb2.StartJobRequest(key=key, job_execution_id=job.remote_id, generation=generation, hold=job.hold)
    interfaces: dict[tuple[InterfaceKind.ValueType, str], jobs_pb2.JobInterface] = {}

    def add(
        edge: Edge, kind: InterfaceKind.ValueType, path: str, other: JobState | None, function: MountFunction.ValueType
    ) -> None:
        interface = interfaces.get((kind, path))
        if interface is None:
            interface = interfaces[kind, path] = request.interfaces.add(kind=kind, path=path)
        receiving = function == MOUNT_FUNCTION_OUTPUT
        interface.peers.add(
            edge_id=edge.edge_id,
            peer_id=other.peer if other else own_peer_id,
            peer_workflow_job_id=other.spec.workflow_job_id if other else 0,
            peer_job_execution_id=other.remote_id if other else 0,
            mount_function=function,
            destination=edge.directory if receiving else "",
            position=edge.position if receiving else 0,
        )
        if not receiving:
            _select(interface.peers[-1], edge.selection)

    for edge_id in job.inputs:
        edge = state.edges[edge_id].spec
        other = None if state.edges[edge_id].package else state.jobs[edge.source]
        if other is None or (other.remote_id and not other.gives_nothing):
            add(edge, edge.destination_kind, edge.destination_path, other, MOUNT_FUNCTION_OUTPUT)
    for edge_id in job.outputs:
        edge = state.edges[edge_id].spec
        other = None if state.edges[edge_id].delivery else state.jobs[edge.destination]
        if other is None or receives(other):
            add(edge, edge.source_kind, edge.source_path, other, MOUNT_FUNCTION_INPUT)
    return request


def _select(peer: jobs_pb2.JobInterfacePeer, selection: Selection) -> None:
    peer.source_path, peer.optional = selection.path, selection.optional
    peer.files.extend(selection.files)
    for rule in selection.rename:
        peer.rename.append(jobs_pb2.Rename(**{"from": rule.origin, "to": rule.to}))


def receives(consumer: JobState) -> bool:
    """Whether files may be sent to it: not to one that has ended without them."""
    ended = consumer.final and consumer.status is not WorkflowJobStatus.COMPLETED
    return bool(consumer.remote_id) and not ended


def read_report(report: jobs_pb2.JobReport) -> Report:
    """A report as the engine knows it. KeyError for a status this version does not know."""
    return Report(
        job_execution_id=report.job_execution_id,
        status=JOB_STATUSES[report.status],
        revision=report.revision,
        generation=report.generation,
        reason=report.reason,
        message=report.message,
        attempt=report.attempt,
        exit_code=report.exit_code if report.HasField("exit_code") else None,
        started_at=_millis(report.started_at) if report.HasField("started_at") else None,
        ended_at=_millis(report.ended_at) if report.HasField("ended_at") else None,
        bytes_received=report.bytes_received,
        bytes_sent=report.bytes_sent,
        edges=tuple(
            EdgeNews(
                edge_id=edge.edge_id,
                status=EDGE_STATUSES.get(edge.status, EdgeStatus.WAITING),
                bytes=edge.bytes,
                bytes_total=edge.bytes_total,
                reason=edge.reason,
                message=edge.message,
            )
            for edge in report.edges
        ),
    )


def _limit(duration: str) -> int | None:
    return parse_duration(duration) if duration else None


def _seconds(duration: str) -> float:
    return parse_duration(duration) / 1000


def _millis(timestamp: Timestamp) -> Millis:
    return Millis(timestamp.ToMilliseconds())
