"""A map's list is known: its instances become jobs of the execution. Pure, part of evolve.

All that a map builds on has ended before its list is read, so its instances may have peers at once, and whoever has
files for them waits for their ids like for a consumer that has moved. Those who build on the map are gated; they now
wait for the end of every instance.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from peerd.clock import Millis
from peerd.workflows import limits
from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.endings import end
from peerd.workflows.maps import edge_count, instance_edges
from peerd.workflows.matrix import instance_name
from peerd.workflows.model import EdgeStatus, JobSpec, WorkflowJobStatus
from peerd.workflows.parallel import Places
from peerd.workflows.state import EdgeState, ExecutionState, Expanded, JobState


def expand(state: ExecutionState, job: JobState, count: int, first_workflow_job_id: int, at: Millis) -> None:
    """Add the instances and complete the job that stood for them."""
    node, mapped = job.spec.node_id, job.spec.mapped
    assert mapped is not None  # noqa: S101 - only such jobs are expanded
    first_edge_id = len(state.edges) + 1
    counts = {**{name: one.count for name, one in state.maps.items()}, node: count}
    state.maps[node] = Expanded(
        first_workflow_job_id=first_workflow_job_id,
        count=count,
        first_edge_id=first_edge_id,
        edge_count=edge_count(node, mapped.edges, counts),
    )
    state.fresh_maps.append(node)
    inputs: defaultdict[str, list[int]] = defaultdict(list)
    outputs: defaultdict[str, list[int]] = defaultdict(list)
    neighbours: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for edge in instance_edges(node, mapped.edges, counts, first_edge_id):
        one = state.edges[edge.edge_id] = EdgeState(spec=edge)
        source = state.jobs.get(edge.source)
        if source is not None and source.gives_nothing:
            skipped = source.status is WorkflowJobStatus.SKIPPED
            one.status, one.reason = EdgeStatus.FAILED, "upstream_skipped" if skipped else "upstream_failed"
        state.changed_edges[edge.edge_id] = None
        state.home_open += one.brought_home
        if edge.source != LOCAL_PEER:
            outputs[edge.source].append(edge.edge_id)
        if edge.destination != LOCAL_PEER:
            inputs[edge.destination].append(edge.edge_id)
        if LOCAL_PEER not in (edge.source, edge.destination):
            neighbours[edge.source][edge.destination] = None
            neighbours[edge.destination][edge.source] = None
    bounded = 0 < job.spec.max_parallel < count
    if bounded:
        state.places[node] = Places(limit=job.spec.max_parallel)
    names = [instance_name(node, index) for index in range(count)]
    for index, name in enumerate(names):
        spec = _spec(job.spec, name, first_workflow_job_id + index, bounded=bounded)
        state.jobs[name] = instance = JobState(
            spec=spec,
            inputs=tuple(inputs.pop(name, ())),
            outputs=tuple(outputs.pop(name, ())),
            neighbours=tuple(neighbours.pop(name, ())),
            missing=0,
            upstream=job.upstream,
            awaited_by=job.awaited_by,
            gated=True,
            hold=bounded,
            since=at,
        )
        state.unplaced.add(name)
        limits.queues(state, instance, at)
        if spec.deadline_at is not None:
            state.set_timer(spec.deadline_at, node=name)
        state.touch(instance)
    state.remaining += count
    for name, others in neighbours.items():  # of jobs that were there before
        known = state.jobs[name]
        known.inputs += tuple(inputs.pop(name, ()))
        known.outputs += tuple(outputs.pop(name, ()))
        known.neighbours += tuple(others)
        known.missing += len(others)
    for name in job.awaited_by:
        waiting = state.jobs[name]
        waiting.upstream += tuple(names)
        waiting.upstream_left += count
    job.message = f"its list has {count} item{'' if count == 1 else 's'}"
    end(state, job, WorkflowJobStatus.COMPLETED, at)


def _spec(template: JobSpec, name: str, workflow_job_id: int, *, bounded: bool) -> JobSpec:
    return replace(
        template,
        node_id=name,
        workflow_job_id=workflow_job_id,
        instance_of=template.node_id,
        mapped=None,
        needs=(),
        when="",
        places=template.node_id if bounded else "",
        max_parallel=template.max_parallel if bounded else 0,
    )
