"""Jobs as others see them: read from the store, written as protos. Nothing is decided here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peerd.catalog.model import InterfaceKind, MountFunction
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.edge_repository import to_edge
from peerd.jobs.model import Attempt, Edge, EdgeStatus, Job, JobKey, JobStatus
from peerd.jobs.places import Places
from peerd.jobs.repository import NEVER_STARTED, to_attempt, to_job
from peerd.jobs.reuse import Reused, missing
from peerd.jobs.sends import Sends
from peerd.moments import moment
from peerd.store import Store
from peerd.v1 import catalog_pb2, jobs_pb2

_EDGE_STATUSES = {
    EdgeStatus.WAITING: jobs_pb2.EDGE_STATUS_WAITING,
    EdgeStatus.SENDING: jobs_pb2.EDGE_STATUS_SENDING,
    EdgeStatus.DELIVERED: jobs_pb2.EDGE_STATUS_DELIVERED,
    EdgeStatus.FAILED: jobs_pb2.EDGE_STATUS_FAILED,
}
"""Of outgoing edges; incoming ones are told by their own senders."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with all that belongs to it."""

    job: Job
    edges: Sequence[Edge]
    attempts: Sequence[Attempt] = ()


class Views:
    """Reads jobs for the wire."""

    def __init__(self, store: Store, places: Places, sends: Sends) -> None:
        self._store = store
        self._places = places
        self._sends = sends

    async def get(self, job_execution_id: int) -> JobView:
        """One job. Raises NOT_FOUND."""
        rows = await self._store.all("SELECT * FROM job_executions WHERE id = ?", (job_execution_id,))
        if not rows:
            raise PeerdError(Reason.NOT_FOUND, f"this peer has no job execution {job_execution_id}")
        return (await self._with_parts(rows))[0]

    async def missing(self, orchestrator: PeerId, wanted: Sequence[Reused]) -> list[int]:
        """Which of these jobs can be used by no other."""
        return await missing(self._store, orchestrator, wanted)

    async def page(self, statuses: Iterable[JobStatus], before: int, size: int) -> list[JobView]:
        """Newest first, ids below ``before``."""
        wanted = [status.value for status in statuses]
        condition = f"AND status IN ({', '.join('?' * len(wanted))})" if wanted else ""
        rows = await self._store.all(
            f"SELECT * FROM job_executions WHERE id < ? {condition} ORDER BY id DESC LIMIT ?",  # noqa: S608
            (before, *wanted, size),
        )
        return await self._with_parts(rows)

    async def orchestrators_to_tell(self) -> list[PeerId]:
        """Whose outbox is not empty."""
        rows = await self._store.all(
            "SELECT DISTINCT orchestrator_peer_id FROM job_executions WHERE revision > acknowledged_revision"
        )
        return [PeerId(row[0]) for row in rows]

    async def unacknowledged(self, orchestrator: PeerId, limit: int) -> list[jobs_pb2.JobReport]:
        """The outbox of one orchestrator."""
        rows = await self._store.all(
            "SELECT * FROM job_executions WHERE orchestrator_peer_id = ? AND revision > acknowledged_revision "
            "ORDER BY id LIMIT ?",
            (orchestrator, limit),
        )
        return [self.report(view) for view in await self._with_parts(rows)]

    async def reports(self, jobs: Sequence[Job]) -> list[jobs_pb2.JobReport]:
        """Reports of jobs just read inside a transaction."""
        edges = await self._edges([job.id for job in jobs])
        return [self.report(JobView(job=job, edges=edges.get(job.id, ()))) for job in jobs]

    def report(self, view: JobView) -> jobs_pb2.JobReport:
        """How a job is, as committed, with the progress of what is being sent."""
        job = view.job
        edges = [self._edge_report(job, edge) for edge in view.edges if not edge.incoming]
        report = jobs_pb2.JobReport(
            key=key_proto(job.key),
            job_execution_id=job.id,
            status=status_proto(job.status),
            reason=job.reason,
            message=job.message,
            attempt=job.attempt,
            exit_code=job.exit_code,
            created_at=moment(job.created_at),
            started_at=moment(job.started_at),
            ended_at=moment(job.ended_at),
            since=moment(job.since),
            generation=job.generation,
            bytes_received=job.bytes_received,
            revision=job.revision,
            edges=edges,
            limit=job.limit_hit,
        )
        report.bytes_sent = max(job.bytes_sent, sum(edge.bytes for edge in edges))
        return report

    def execution(self, view: JobView) -> jobs_pb2.JobExecution:
        """The record for people."""
        job = view.job
        return jobs_pb2.JobExecution(
            job_execution_id=job.id,
            orchestrator_peer_id=job.key.orchestrator,
            executor_peer_id=self._places.executor,
            node_id=job.node_id,
            job_name=job.job_name,
            service=job.work.service,
            report=self.report(view),
            interfaces=interfaces_proto(view.edges),
            directory=str(self._places.of(job).directory),
            attempts=[_attempt_proto(entry) for entry in view.attempts if entry.outcome != NEVER_STARTED],
            isolation=job.isolation,  # type: ignore[arg-type]
            lease_until=moment(job.lease_until),
            limits=_limits_proto(job),
            resources=jobs_pb2.JobResources(
                cpus=job.resources.cpus,
                memory_bytes=job.resources.memory_bytes,
                disk_bytes=job.resources.disk_bytes,
                gpus=job.resources.gpus,
            ),
            priority=job.priority,
            reused_job_execution_id=job.reused_id or 0,
            gpu_indices=job.gpu_indices,
        )

    def _edge_report(self, job: Job, edge: Edge) -> jobs_pb2.EdgeReport:
        sent, total = edge.bytes, edge.bytes
        if edge.status is EdgeStatus.SENDING:
            sent, total = self._sends.progress(self._places.transfer_key(job, edge))
        return jobs_pb2.EdgeReport(
            edge_id=edge.edge_id,
            status=_EDGE_STATUSES[edge.status],
            bytes=sent,
            bytes_total=total,
            reason=edge.reason,
            message=edge.message,
        )

    async def _with_parts(self, rows: Sequence[sqlite3.Row]) -> list[JobView]:
        ids = [row["id"] for row in rows]
        edges = await self._edges(ids)
        attempts: dict[int, list[Attempt]] = {}
        for row in await self._of_jobs("SELECT * FROM job_attempts WHERE job_execution_id IN ({}) ORDER BY id", ids):
            attempts.setdefault(row["job_execution_id"], []).append(to_attempt(row))
        return [
            JobView(job=to_job(row), edges=edges.get(row["id"], ()), attempts=attempts.get(row["id"], ()))
            for row in rows
        ]

    async def _edges(self, ids: Sequence[int]) -> dict[int, list[Edge]]:
        found: dict[int, list[Edge]] = {}
        sql = "SELECT * FROM job_edges WHERE job_execution_id IN ({}) ORDER BY job_execution_id, edge_id"
        for row in await self._of_jobs(sql, ids):
            found.setdefault(row["job_execution_id"], []).append(to_edge(row))
        return found

    async def _of_jobs(self, sql: str, ids: Sequence[int]) -> list[sqlite3.Row]:
        rows: list[sqlite3.Row] = []
        for start in range(0, len(ids), 500):  # well below SQLite's limit of parameters
            part = ids[start : start + 500]
            rows += await self._store.all(sql.format(", ".join("?" * len(part))), part)
        return rows


def status_proto(status: JobStatus) -> jobs_pb2.JobStatus.ValueType:
    """Our status on the wire."""
    return jobs_pb2.JobStatus.Value(f"JOB_STATUS_{status.name}")


def key_proto(key: JobKey) -> jobs_pb2.JobKey:
    """Our key on the wire; the orchestrator is the peer at its other end."""
    return jobs_pb2.JobKey(
        store_id=key.store_id,
        workflow_execution_id=key.workflow_execution_id,
        workflow_job_id=key.workflow_job_id,
        placement=key.placement,
    )


def interfaces_proto(edges: Sequence[Edge]) -> list[jobs_pb2.JobInterface]:
    """Edges grouped into interfaces, as they came."""
    found: dict[tuple[InterfaceKind, str], jobs_pb2.JobInterface] = {}
    for edge in edges:
        interface = found.get((edge.kind, edge.path))
        if interface is None:
            kind = catalog_pb2.InterfaceKind.Value(f"INTERFACE_KIND_{edge.kind.name}")
            interface = found[(edge.kind, edge.path)] = jobs_pb2.JobInterface(kind=kind, path=edge.path)
        function = MountFunction.OUTPUT if edge.incoming else MountFunction.INPUT
        interface.peers.add(
            edge_id=edge.edge_id,
            peer_id=edge.peer_id,
            peer_workflow_job_id=edge.peer_workflow_job_id,
            peer_job_execution_id=edge.peer_job_execution_id,
            mount_function=catalog_pb2.MountFunction.Value(f"MOUNT_FUNCTION_{function.name}"),
            destination=edge.destination,
            position=edge.position,
            source_path=edge.selection.path,
            files=edge.selection.files,
            rename=[jobs_pb2.Rename(**{"from": rule.origin, "to": rule.to}) for rule in edge.selection.rename],
            optional=edge.selection.optional,
        )
    return list(found.values())


def _limits_proto(job: Job) -> jobs_pb2.JobLimits | None:
    if not job.limits:
        return None
    return jobs_pb2.JobLimits(
        level=int(job.limits["level"]),  # type: ignore[arg-type]
        memory_bytes=int(job.limits["memory_bytes"]),
        cpus=job.limits["cpus"],
        pids=int(job.limits["pids"]),
        disk_bytes=int(job.limits["disk_bytes"]),
    )


def _attempt_proto(attempt: Attempt) -> jobs_pb2.JobAttempt:
    return jobs_pb2.JobAttempt(
        attempt=attempt.attempt,
        outcome=attempt.outcome or "running",
        exit_code=attempt.exit_code,
        started_at=moment(attempt.started_at),
        ended_at=moment(attempt.ended_at),
    )
