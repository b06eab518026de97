"""Rows of the jobs and edges of an execution: those of its definition, and those that come when a list is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from peerd.clock import Millis
from peerd.store import Tx
from peerd.v1 import workflows_pb2
from peerd.workflows.edges import Edge
from peerd.workflows.maps import Values
from peerd.workflows.matrix import instance_name, instance_title
from peerd.workflows.model import EdgeStatus, WorkflowJobStatus
from peerd.workflows.state import ExecutionState


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What of a job is in its row from the beginning."""

    workflow_job_id: int
    node_id: str
    title: str
    service: str
    since: Millis


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Rows that a commit adds; empty in nearly all."""

    execution_id: int
    workflow_id: int
    jobs: Sequence[NewJob] = ()
    edges: Sequence[Edge] = ()

    def write(self, tx: Tx) -> None:
        """Add them."""
        if self.jobs:
            insert_jobs(tx, self.execution_id, self.workflow_id, self.jobs)
        if self.edges:
            insert_edges(tx, self.execution_id, self.edges)


def grown(
    state: ExecutionState,
    workflow_id: int,
    definitions: Mapping[str, workflows_pb2.JobDefinition],
    items: Mapping[str, Sequence[Values]],
) -> Growth:
    """Rows of the instances of maps that have none yet; afterwards none lacks any."""
    jobs: list[NewJob] = []
    edges: list[Edge] = []
    fresh, state.fresh_maps = state.fresh_maps, []
    for node in fresh:
        expanded, definition = state.maps[node], definitions[node]
        for index, values in enumerate(items[node]):
            one = state.jobs[instance_name(node, index)]
            jobs.append(
                NewJob(
                    workflow_job_id=one.spec.workflow_job_id,
                    node_id=one.spec.node_id,
                    title=instance_title(definition, values),
                    service=definition.service,
                    since=one.since,
                )
            )
        first = expanded.first_edge_id
        edges += [state.edges[edge_id].spec for edge_id in range(first, first + expanded.edge_count)]
    return Growth(execution_id=state.spec.execution_id, workflow_id=workflow_id, jobs=jobs, edges=edges)


def insert_jobs(tx: Tx, execution_id: int, workflow_id: int, jobs: Iterable[NewJob]) -> None:
    """Jobs to which nothing has happened."""
    tx.executemany(
        "INSERT INTO workflow_jobs (id, workflow_execution_id, workflow_id, node_id, job_name, service_id, status, "
        "since) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                job.workflow_job_id,
                execution_id,
                workflow_id,
                job.node_id,
                job.title,
                job.service,
                WorkflowJobStatus.PENDING.value,
                job.since,
            )
            for job in jobs
        ),
    )


def insert_edges(tx: Tx, execution_id: int, edges: Iterable[Edge]) -> None:
    """Edges along which nothing has come. That of a list is shown as one into the job whose list it is."""
    tx.executemany(
        "INSERT INTO execution_edges (workflow_execution_id, edge_id, source_node_id, source_kind, source_path, "
        "destination_node_id, destination_kind, destination_path, directory, status, is_list) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                execution_id,
                edge.edge_id,
                edge.source,
                edge.source_kind,
                edge.shown_path,
                edge.list_of or edge.destination,
                edge.destination_kind,
                edge.destination_path,
                edge.directory,
                EdgeStatus.WAITING.value,
                int(bool(edge.list_of)),
            )
            for edge in edges
        ),
    )
