"""Answers for whoever asks why: one page about a job, and graphs. Read-only; the servicer's helpers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.store import Store
from peerd.v1 import jobs_pb2, workflows_pb2
from peerd.workflows import history, views
from peerd.workflows.dispatch import Dials
from peerd.workflows.drawing import Drawing, dot, mermaid, of_definition, of_execution
from peerd.workflows.edge_reasons import explain_edge
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.placing import Placer
from peerd.workflows.planning import explain_placement
from peerd.workflows.requesting import read
from peerd.workflows.senders import ask_senders
from peerd.workflows.views import Viewer

_UPSTREAM = 100
_EDGES = 2000


async def explain_job(
    store: Store,
    placer: Placer,
    viewer: Viewer,
    orchestrator: Orchestrator,
    dials: Dials,
    request: workflows_pb2.ExplainJobRequest,
) -> workflows_pb2.ExplainJobResponse:
    """Why a job of an execution is where it is. Raises NOT_FOUND."""
    execution_id, node = request.workflow_execution_id, request.node_id
    asked = workflows_pb2.ExplainPlacementRequest(workflow_execution_id=execution_id, node_id=node)
    placed = await explain_placement(store, placer, viewer, asked, assigned=orchestrator.assigned())
    answer = workflows_pb2.ExplainJobResponse.FromString(placed.SerializeToString())
    execution, _ = await views.read_execution(store, viewer, execution_id)
    jobs = {job.node_id: job for job in execution.jobs}
    answer.job.CopyFrom(jobs[node])
    answer.inputs.extend(_some(edge for edge in execution.edges if edge.destination_node_id == node))
    answer.outputs.extend(_some(edge for edge in execution.edges if edge.source_node_id == node))
    for edge in (*answer.inputs, *answer.outputs):
        explain_edge(edge, jobs)
    await ask_senders(dials, viewer.own_peer_id, execution_id, (*answer.inputs, *answer.outputs), jobs)
    sources = dict.fromkeys(edge.source_node_id for edge in answer.inputs if edge.source_node_id)
    answer.upstream.extend(jobs[name] for name in list(sources)[:_UPSTREAM])
    _lease(answer, orchestrator, execution_id)
    answer.events.extend(await history.last_events(store, viewer.name_of, execution_id, node))
    return answer


def _some(edges: Iterable[workflows_pb2.ExecutionEdge]) -> list[workflows_pb2.ExecutionEdge]:
    """As many as one answer may hold, those first along which something is still to come."""
    found = list(edges)
    if len(found) > _EDGES:
        found.sort(key=lambda edge: edge.status == jobs_pb2.EDGE_STATUS_DELIVERED)
    return found[:_EDGES]


def _lease(answer: workflows_pb2.ExplainJobResponse, orchestrator: Orchestrator, execution_id: int) -> None:
    runner = orchestrator.find(execution_id)
    away = runner.state.away.get(answer.peer_id) if runner is not None else None
    if runner is None or away is None or answer.job.HasField("ended_at"):
        return
    timing = runner.state.timing
    answer.away_since.FromMilliseconds(away.since)
    answer.lease_until.FromMilliseconds(Millis(away.since + timing.lease + timing.max_clock_skew))


async def draw(
    store: Store, viewer: Viewer, request: workflows_pb2.DrawGraphRequest
) -> workflows_pb2.DrawGraphResponse:
    """A graph as text. Raises NOT_FOUND, INVALID_DEFINITION."""
    match request.WhichOneof("what"):
        case "workflow_execution_id":
            execution, _ = await views.read_execution(store, viewer, request.workflow_execution_id)
            drawing = await asyncio.to_thread(of_execution, execution)
        case "source":
            definition = (await read(request.source)).definition
            assert definition is not None  # noqa: S101 - read() saw to it
            drawing = await asyncio.to_thread(of_definition, definition)
        case _:
            raise PeerdError(Reason.INVALID_ARGUMENT, "name an execution, or give a definition")
    return workflows_pb2.DrawGraphResponse(text=await asyncio.to_thread(_text, drawing, request.format))


def _text(drawing: Drawing, form: workflows_pb2.GraphFormat.ValueType) -> str:
    if form == workflows_pb2.GRAPH_FORMAT_DOT:
        return dot(drawing)
    if form in (workflows_pb2.GRAPH_FORMAT_UNSPECIFIED, workflows_pb2.GRAPH_FORMAT_MERMAID):
        return mermaid(drawing)
    raise PeerdError(Reason.INVALID_ARGUMENT, "formats are mermaid and dot")
