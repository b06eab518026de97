"""What the senders of edges say of transfers that do not come through: asked when somebody wants to know why.

Reports carry what changed for good. A receiver that has no room, or does not answer, is known to the sender alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.rpc.status import remote_errors
from peerd.v1 import transfers_pb2, transfers_pb2_grpc, workflows_pb2
from peerd.workflows.dispatch import Dials

_ASK_SECONDS = 3.0
_PAGE = 1000
"""Transfers of the execution that a sender is asked for; those of one that has more may not be found."""


async def ask_senders(
    dials: Dials,
    own_peer_id: str,
    execution_id: int,
    edges: Iterable[workflows_pb2.ExecutionEdge],
    jobs: Mapping[str, workflows_pb2.WorkflowJob],
) -> None:
    """Write into edges that are on their way why the last try did not succeed. Raises nothing for a sender."""
    by_peer: dict[str, dict[int, workflows_pb2.ExecutionEdge]] = {}
    for edge in edges:
        if edge.reason == "sending":
            source = jobs.get(edge.source_node_id)
            by_peer.setdefault(source.executor_peer_id if source else own_peer_id, {})[edge.edge_id] = edge
    await asyncio.gather(
        *(_ask(dials, own_peer_id, execution_id, PeerId(peer), wanted) for peer, wanted in by_peer.items())
    )


async def _ask(
    dials: Dials,
    own_peer_id: str,
    execution_id: int,
    peer: PeerId,
    wanted: Mapping[int, workflows_pb2.ExecutionEdge],
) -> None:
    request = transfers_pb2.ListTransfersRequest(workflow_execution_id=execution_id, page_size=_PAGE)
    try:
        with remote_errors(peer):
            stub = transfers_pb2_grpc.TransferServiceStub(dials.channel(peer))
            answer: transfers_pb2.ListTransfersResponse = await stub.ListTransfers(request, timeout=_ASK_SECONDS)
    except PeerdError as error:
        for edge in wanted.values():
            edge.message += f"; its sender cannot be asked: {error.reason.text}"
        return
    for transfer in answer.transfers:
        edge_or_none = wanted.get(transfer.key.edge_id)
        outgoing = transfer.direction == transfers_pb2.TRANSFER_DIRECTION_OUTGOING
        ours = transfer.key.orchestrator_peer_id == own_peer_id
        if edge_or_none is not None and outgoing and ours and not transfer.HasField("ended_at") and transfer.reason:
            _tell(edge_or_none, transfer)


def _tell(edge: workflows_pb2.ExecutionEdge, transfer: transfers_pb2.Transfer) -> None:
    again = transfer.next_try_at.ToDatetime().strftime("%H:%M:%SZ") if transfer.HasField("next_try_at") else "soon"
    edge.reason = transfer.reason
    edge.message += f"; tried {transfer.tries} times, again at {again}: {transfer.message}"
    if transfer.reason.upper() in Reason.__members__:
        edge.next_action = Reason.from_text(transfer.reason).next_action
