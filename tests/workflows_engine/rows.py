"""What the simulated executor is sent and what it keeps: rows, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.catalog.model import InterfaceKind
from peerd.clock import Millis
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import Edge, Job, JobKey, JobStatus, RetryPolicy, Work
from peerd.v1 import catalog_pb2, jobs_pb2
from peerd.workflows.model import JobSpec


@dataclass(frozen=True, kw_only=True)
class Create:
    """CreateJob on the wire."""

    key: JobKey
    spec: JobSpec
    stop_policy: bool
    lease_ms: int


@dataclass
class Attempt:
    """A row of attempts."""

    job_id: int
    number: int
    outcome: str | None = None


def to_edges(request: jobs_pb2.StartJobRequest) -> list[Edge]:
    return [
        Edge(
            edge_id=peer.edge_id,
            incoming=peer.mount_function == catalog_pb2.MOUNT_FUNCTION_OUTPUT,
            kind=InterfaceKind.OUTPUT,
            path="",
            peer_id=PeerId(peer.peer_id),
            peer_workflow_job_id=peer.peer_workflow_job_id,
            peer_job_execution_id=peer.peer_job_execution_id,
        )
        for interface in request.interfaces
        for peer in interface.peers
    ]


def new_job(job_id: int, request: Create, now: Millis) -> Job:
    spec = request.spec
    reasons = frozenset({"exit", "lost"} if spec.retry_lost else {"exit"})
    return Job(
        id=job_id,
        key=request.key,
        request_digest=b"",
        workflow_id="1",
        node_id=spec.node_id,
        job_name=spec.node_id,
        service_id=None,
        work=Work(argv=("true",)),
        timeout_seconds=None,
        retry=RetryPolicy(attempts=spec.attempts, reasons=reasons),
        waits_for_inputs=spec.waits_for_inputs,
        stop_without_lease=request.stop_policy,
        lease_seconds=request.lease_ms / 1000,
        status=JobStatus.CREATED,
        reason="",
        message="",
        since=now,
        generation=0,
        attempt=0,
        next_try_at=None,
        stop=None,
        stop_message="",
        exit_code=None,
        isolation=0,
        bytes_received=0,
        bytes_sent=0,
        created_at=now,
        started_at=None,
        ended_at=None,
        contact_at=now,
        revision=1,
        acknowledged_revision=1,
        files="present",
    )
