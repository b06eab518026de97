"""Which jobs of an execution are run again, and what becomes of the others. Pure.

A rerun is a new execution of the same definition. Run again are the jobs that were named, those that did not complete,
and everything that builds on either. The others are *reused*: where one that is run again (or Local Peer) takes files
of a reused job, the executor that made them sends them again as a job of the new execution that runs nothing; any other
reused job is complete from the beginning and has no peer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows.conditions import parse_condition
from peerd.workflows.edges import LOCAL_PEER, Edge, edges_of, edges_of_maps
from peerd.workflows.matrix import instance_count, instance_name
from peerd.workflows.model import ExecutionSpec
from peerd.workflows.params import substituted

_OF_A_RUN: tuple[Any, ...] = (
    *("inputs", "needs", "when", "package", "retry", "on", "continue_on_failure", "execution_constraint"),
    *("deadline", "queue_timeout", "start_timeout", "transfer_timeout", "map", "max_parallel"),
)
"""Fields of a job that mean nothing for one that is not run."""


@dataclass(frozen=True, kw_only=True)
class Reused:
    """A job that is not run again: where, and as a job of which execution, it completed."""

    execution_id: int
    peer_id: str
    job_execution_id: int


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What makes an execution a rerun of another."""

    of: int
    reused: Mapping[str, Reused]


def run_again(definition: workflows_pb2.WorkflowDefinition, completed: Set[str], names: Iterable[str]) -> set[str]:
    """The jobs of a definition of plain jobs that are run again; ``names`` are those of such jobs."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for edge in _edges(definition):
        if edge.list_of:
            following[edge.source].append(edge.list_of)
        elif LOCAL_PEER not in (edge.source, edge.destination):
            following[edge.source].append(edge.destination)
    for job in definition.jobs:
        for name in job.needs:
            following[name].append(job.name)
    found: set[str] = set()
    todo = [*names, *(job.name for job in definition.jobs if job.name not in completed)]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += following[node]
    return found


def named_jobs(
    definition: workflows_pb2.WorkflowDefinition, plain: workflows_pb2.WorkflowDefinition, names: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The plain jobs that these names stand for, and the names that stand for none.

    The name of a job with a matrix stands for all of its instances.
    """
    known = {job.name for job in plain.jobs}
    templates = {job.name: job for job in definition.jobs if job.name not in known}
    found: list[str] = []
    unknown: list[str] = []
    for name in dict.fromkeys(names):  # each once: a name may stand for thousands
        if name in known:
            found.append(name)
        elif name in templates:
            found += [instance_name(name, index) for index in range(instance_count(templates[name]))]
        else:
            unknown.append(name)
    return found, unknown


def touched_by(job: workflows_pb2.JobDefinition, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether the job would be another with the new parameters."""
    if substituted(job, before) != substituted(job, after):
        return True
    if not job.when:
        return False
    return any(before.get(name) != after.get(name) for name in parse_condition(job.when).params)


def sent_again(definition: workflows_pb2.WorkflowDefinition, reused: Set[str]) -> set[str]:
    """The reused jobs of a definition of plain jobs whose files somebody takes."""
    return {
        edge.source
        for edge in _edges(definition)
        if edge.source in reused and edge.destination not in reused and edge.list_of not in reused
    }


def _edges(definition: workflows_pb2.WorkflowDefinition) -> list[Edge]:
    """Those of maps too, as if each were one job."""
    return [*edges_of(definition), *(edge for edges in edges_of_maps(definition).values() for edge in edges)]


def without_reused(
    definition: workflows_pb2.WorkflowDefinition, reused: Mapping[str, Reused]
) -> workflows_pb2.WorkflowDefinition:
    """The definition with which the execution runs: nothing leads to a reused job, and it waits for nobody."""
    if not reused:
        return definition
    plain = workflows_pb2.WorkflowDefinition()
    plain.CopyFrom(definition)
    for job in plain.jobs:
        if job.name in reused:
            for field in _OF_A_RUN:
                job.ClearField(field)
            job.on.peer = reused[job.name].peer_id
    return plain


def with_reused(spec: ExecutionSpec, reused: Mapping[str, Reused]) -> ExecutionSpec:
    """The specification, in which each reused job says so."""
    if not reused:
        return spec
    jobs = tuple(
        replace(job, reused_from=reused[job.node_id].execution_id) if job.node_id in reused else job
        for job in spec.jobs
    )
    return replace(spec, jobs=jobs)


def named(node_id: str, reused: Reused) -> jobs_pb2.ReusedJob:
    """The earlier job, for its executor."""
    return jobs_pb2.ReusedJob(
        job_execution_id=reused.job_execution_id, workflow_execution_id=reused.execution_id, node_id=node_id
    )


def reuse_request(
    key: jobs_pb2.JobKey,
    job: workflows_pb2.JobDefinition,
    reused: Reused,
    *,
    workflow_id: int,
    lease_seconds: float,
) -> jobs_pb2.CreateJobRequest:
    """Phase one of a job whose files are sent again."""
    return jobs_pb2.CreateJobRequest(
        key=key,
        workflow_id=str(workflow_id),
        node_id=job.name,
        job_name=job.description or job.name,
        reused=named(job.name, reused),
        lease_seconds=lease_seconds,
        priority=job.priority,
    )
