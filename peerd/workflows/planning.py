"""Plans and explanations: where jobs would run, by the very function that places them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.moments import moment
from peerd.store import Store
from peerd.v1 import workflows_pb2
from peerd.workflows import events as e
from peerd.workflows import repository, views
from peerd.workflows.definition import Reading
from peerd.workflows.edges import Edge, edges_of, edges_of_maps
from peerd.workflows.lists import read_items
from peerd.workflows.maps import mapped_instance
from peerd.workflows.matrix import expanded, is_index
from peerd.workflows.placement import Decision
from peerd.workflows.placing import Placer
from peerd.workflows.views import Viewer

# Between two looks at other work while a long plan is made.
_PLAN_CHUNK = 100
_PLACED_LATER = "one job for each item of its list: each is placed when the list is known"


async def plan(
    reading: Reading, placer: Placer, viewer: Viewer, *, assigned: Mapping[str, int]
) -> workflows_pb2.PlanWorkflowResponse:
    """Where each job of a definition would go now, besides those that are ``assigned`` by peer."""
    assert reading.definition is not None  # noqa: S101 - read() saw to it
    await placer.refresh()
    definition = expanded(reading.definition)
    edges = edges_of(definition)
    of_job = _by_job(edges)
    with_maps = itertools.chain(edges, *edges_of_maps(definition).values())
    answer = workflows_pb2.PlanWorkflowResponse(edges=[_planned(edge) for edge in with_maps])
    given = Counter(assigned)
    placed: dict[str, str] = {}
    for index, job in enumerate(definition.jobs):
        if index % _PLAN_CHUNK == 0:
            await asyncio.sleep(0)
        if job.HasField("map"):
            answer.jobs.add(node_id=job.name, waits=True, rule=_PLACED_LATER)
            continue
        mine = of_job.get(job.name, [])
        decision = placer.decide(job, mine, assigned=given, near=_near(job.name, mine, placed))
        if decision.peer_id:
            placed[job.name] = decision.peer_id
            given[decision.peer_id] += 1
        answer.jobs.add(
            node_id=job.name,
            peer_id=decision.peer_id or "",
            peer_name=viewer.name_of(decision.peer_id) if decision.peer_id else "",
            refusals=[refused.to_proto() for refused in decision.refusals],
            waits=bool(decision.waits_for),
            rule=decision.rule,
        )
    return answer


async def explain_placement(
    store: Store,
    placer: Placer,
    viewer: Viewer,
    request: workflows_pb2.ExplainPlacementRequest,
    *,
    assigned: Mapping[str, int],
) -> workflows_pb2.ExplainPlacementResponse:
    """Every peer's verdict on one job of an execution, as things are now. Raises NOT_FOUND."""
    record = await repository.load_execution(store, request.workflow_execution_id)
    job, mine = await _job_of(store, record, request.node_id)
    execution, _ = await views.read_execution(store, viewer, request.workflow_execution_id)
    rows = {row.node_id: row for row in execution.jobs}
    if job is None or job.name not in rows:  # the items of a list are there a moment before its jobs
        raise PeerdError(
            Reason.NOT_FOUND,
            f"execution {request.workflow_execution_id} has no job {request.node_id[:80]!r}",
            next_action="'peerctl executions show' lists its jobs",
        )
    await placer.refresh()
    if job.HasField("map"):
        return workflows_pb2.ExplainPlacementResponse(node_id=job.name)  # it never has a place
    row, peers = rows[job.name], {name: row.executor_peer_id for name, row in rows.items()}
    where = row.executor_peer_id
    others = Counter(assigned)
    if where and not row.HasField("ended_at"):
        others[where] = max(0, others[where] - 1)  # it does not stand in its own way
    past = _past(await repository.read_placements(store, request.workflow_execution_id, job.name))
    decision = placer.decide(job, mine, assigned=others, refused_by=past.refused_by, near=_near(job.name, mine, peers))
    return workflows_pb2.ExplainPlacementResponse(
        node_id=job.name,
        peer_id=where,
        peer_name=viewer.name_of(where) if where else "",
        verdicts=_verdicts(decision),
        placed_at=moment(past.placed_at) if where else None,
    )


async def _job_of(
    store: Store, record: repository.ExecutionRecord, node: str
) -> tuple[workflows_pb2.JobDefinition | None, list[Edge]]:
    """A job of the definition, or an instance of a map, with its edges."""
    definitions = {job.name: job for job in record.definition.jobs}
    if (job := definitions.get(node)) is not None:
        return job, _by_job(edges_of(record.definition)).get(node, [])
    parent, _, number = node.rpartition(".")
    items = (await read_items(store, record.spec.execution_id)).get(parent, ())
    if parent not in definitions or not is_index(number) or not int(number) < len(items):
        return None, []
    edges = [
        replace(edge, destination=node) if edge.destination == parent else replace(edge, source=node)
        for edge in edges_of_maps(record.definition).get(parent, ())
    ]
    return mapped_instance(definitions[parent], int(number), items[int(number)]), edges


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What the log tells of a job's places."""

    placed_at: Millis | None
    # By peer, what it said; the job does not come back to it.
    refused_by: Mapping[str, str]


def _past(events: Iterable[e.JobPlaced | e.JobRefused]) -> _Past:
    peers: dict[int, str] = {}
    refused_by: dict[str, str] = {}
    placed_at: Millis | None = None
    for event in events:
        if isinstance(event, e.JobPlaced):
            peers[event.placement] = event.peer
            placed_at = event.at
        elif event.reason not in e.PASSING_REFUSALS and event.placement in peers:
            refused_by[peers[event.placement]] = event.message
    return _Past(placed_at=placed_at, refused_by=refused_by)


def _near(node_id: str, edges: Iterable[Edge], peers: Mapping[str, str]) -> Counter[str]:
    """By peer, the jobs there whose outputs this one takes."""
    sources = {edge.source for edge in edges if edge.destination == node_id}
    return Counter(peer for source in sources if (peer := peers.get(source)))


def _verdicts(decision: Decision) -> list[workflows_pb2.PeerVerdict]:
    found = [
        workflows_pb2.PeerVerdict(
            verdict=workflows_pb2.VERDICT_FITS if index else workflows_pb2.VERDICT_CHOSEN,
            peer_id=peer.peer_id,
            peer_name=peer.name,
            message="would take it; another is better" if index else decision.rule,
        )
        for index, peer in enumerate(decision.fitting)
    ]
    refused = [
        workflows_pb2.PeerVerdict(
            verdict=workflows_pb2.VERDICT_REFUSED,
            peer_id=entry.peer_id,
            peer_name=entry.peer_name,
            reason=entry.reason,
            message=entry.message,
            next_action=entry.next_action,
        )
        for entry in decision.refusals
    ]
    return found + refused


def _by_job(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    of_job: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        of_job[edge.source].append(edge)
        of_job[edge.destination].append(edge)
    return of_job


def _planned(edge: Edge) -> workflows_pb2.PlannedEdge:
    return workflows_pb2.PlannedEdge(
        edge_id=edge.edge_id,
        source_node_id=edge.source,
        source_kind=edge.source_kind,
        source_path=edge.shown_path,
        destination_node_id=edge.list_of or edge.destination,
        destination_kind=edge.destination_kind,
        destination_path=edge.destination_path,
    )
