"""NodeService and OrganizationService: messages in, one call, messages out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Protocol

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.nodes import repository, runs
from peerd.nodes.asking import Asking
from peerd.nodes.calls import PAGE, Calls, Surroundings
from peerd.nodes.next_action import NODE_NOT_FOUND
from peerd.nodes.organizations import (
    Organizations,
    is_uuid,
    read_organization,
    visible_organizations,
    visible_rows,
)
from peerd.nodes.targets import parse_target
from peerd.nodes.wire import to_answer, to_node, to_organization, to_run, to_sweep, to_transition
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store, Tx
from peerd.v1 import nodes_pb2, nodes_pb2_grpc

_HISTORY = 200
_NEWEST = 2**62


class Known(Protocol):
    """One protocol; see peerd.nodes.protocols."""

    @property
    def name(self) -> str: ...
    @property
    def display_name(self) -> str: ...
    @property
    def category(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def ports(self) -> tuple[int, ...]: ...
    @property
    def source(self) -> str: ...


class OrganizationServicer(Calls, nodes_pb2_grpc.OrganizationServiceServicer):
    """peerd.v1.OrganizationService."""

    def __init__(self, store: Store, around: Surroundings, own_peer_id: PeerId, organizations: Organizations) -> None:
        super().__init__(store, around, own_peer_id)
        self._organizations = organizations

    async def AddOrganization(
        self, request: nodes_pb2.AddOrganizationRequest, context: object
    ) -> nodes_pb2.AddOrganizationResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.AddOrganizationResponse:
            row = self._organizations.add(tx, request, actor)
            return nodes_pb2.AddOrganizationResponse(organization=to_organization(row))

        return await self._once(request, nodes_pb2.AddOrganizationResponse, effect)

    async def UpdateOrganization(
        self, request: nodes_pb2.UpdateOrganizationRequest, context: object
    ) -> nodes_pb2.UpdateOrganizationResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.UpdateOrganizationResponse:
            row = self._organizations.update(tx, request, actor)
            return nodes_pb2.UpdateOrganizationResponse(organization=to_organization(row))

        return await self._once(request, nodes_pb2.UpdateOrganizationResponse, effect)

    async def SetOrganizationActive(
        self, request: nodes_pb2.SetOrganizationActiveRequest, context: object
    ) -> nodes_pb2.SetOrganizationActiveResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.SetOrganizationActiveResponse:
            row = self._organizations.set_active(tx, request.org, request.active, actor)
            return nodes_pb2.SetOrganizationActiveResponse(organization=to_organization(row))

        return await self._once(request, nodes_pb2.SetOrganizationActiveResponse, effect)

    async def GetOrganization(
        self, request: nodes_pb2.GetOrganizationRequest, context: object
    ) -> nodes_pb2.GetOrganizationResponse:
        row = await read_organization(self._store, request.org, self._actor())
        return nodes_pb2.GetOrganizationResponse(organization=to_organization(row))

    async def ListOrganizations(
        self, request: nodes_pb2.ListOrganizationsRequest, context: object
    ) -> nodes_pb2.ListOrganizationsResponse:
        actor, size = self._actor(), page_size(request.page_size, default=PAGE)
        after = page_start(request.page_token)
        rows = [
            row
            for row in await self._store.all(
                f"SELECT {repository.COUNTED} FROM organizations o WHERE o.id > ? ORDER BY o.id",  # noqa: S608 - ours
                (after,),
            )
            if actor.may_act_for(repository.to_organization(row))
        ]
        return nodes_pb2.ListOrganizationsResponse(
            organizations=[to_organization(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1]["id"]) if len(rows) > size else "",
        )


class NodeServicer(Calls, nodes_pb2_grpc.NodeServiceServicer):
    """peerd.v1.NodeService."""

    def __init__(
        self,
        store: Store,
        around: Surroundings,
        own_peer_id: PeerId,
        asking: Asking,
        protocols: Iterable[Known],
    ) -> None:
        super().__init__(store, around, own_peer_id)
        self._asking = asking
        self._protocols = {protocol.name: protocol for protocol in protocols}

    async def ScanNode(self, request: nodes_pb2.ScanNodeRequest, context: object) -> nodes_pb2.ScanNodeResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.ScanNodeResponse:
            return nodes_pb2.ScanNodeResponse(answer=to_answer(self._asking.scan(tx, request, actor)))

        return await self._once(request, nodes_pb2.ScanNodeResponse, effect)

    async def DiscoverNode(
        self, request: nodes_pb2.DiscoverNodeRequest, context: object
    ) -> nodes_pb2.DiscoverNodeResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.DiscoverNodeResponse:
            return nodes_pb2.DiscoverNodeResponse(answer=to_answer(self._asking.discover(tx, request, actor)))

        return await self._once(request, nodes_pb2.DiscoverNodeResponse, effect)

    async def SweepNodes(self, request: nodes_pb2.SweepNodesRequest, context: object) -> nodes_pb2.SweepNodesResponse:
        actor = self._actor()

        def effect(tx: Tx) -> nodes_pb2.SweepNodesResponse:
            sweep_id, answer = self._asking.sweep(tx, request, actor)
            if not sweep_id:
                return nodes_pb2.SweepNodesResponse(error=answer.error or "", next_action=answer.next_action or "")
            row = tx.one(runs.SWEEPS, (sweep_id,))
            assert row is not None  # noqa: S101 - written in this very transaction
            counts = tx.all(runs.SWEEP_COUNTS, (sweep_id,))
            return nodes_pb2.SweepNodesResponse(sweep=to_sweep(row, counts, self._around.name_of))

        return await self._once(request, nodes_pb2.SweepNodesResponse, effect)

    async def GetSweep(self, request: nodes_pb2.GetSweepRequest, context: object) -> nodes_pb2.GetSweepResponse:
        found = await self._store.all(runs.SWEEPS, (request.sweep_id,))
        rows = await visible_rows(self._store, found, request.org, self._actor())
        if not rows:
            raise PeerdError(Reason.NOT_FOUND, f"there is no sweep {request.sweep_id}")
        counts = await self._store.all(runs.SWEEP_COUNTS, (request.sweep_id,))
        return nodes_pb2.GetSweepResponse(sweep=to_sweep(rows[0], counts, self._around.name_of))

    async def GetNode(self, request: nodes_pb2.GetNodeRequest, context: object) -> nodes_pb2.GetNodeResponse:
        row = await self._find(request.org, request.node)
        history = await repository.history(self._store, row["node_id"], _HISTORY)
        return nodes_pb2.GetNodeResponse(
            node=(await self._shown([row]))[0], history=[to_transition(entry) for entry in history]
        )

    async def ListNodes(self, request: nodes_pb2.ListNodesRequest, context: object) -> nodes_pb2.ListNodesResponse:
        org_ids = await visible_organizations(self._store, request.org, self._actor())
        size = page_size(request.page_size, default=PAGE)
        rows = await repository.page_of_nodes(
            self._store,
            org_ids,
            statuses=[_status_text(status) for status in request.statuses],
            protocol=request.protocol.lower(),
            after_id=page_start(request.page_token),
            limit=size + 1,
        )
        return nodes_pb2.ListNodesResponse(
            nodes=await self._shown(rows[:size]), next_page_token=str(rows[size - 1]["id"]) if len(rows) > size else ""
        )

    async def ListNodeRuns(
        self, request: nodes_pb2.ListNodeRunsRequest, context: object
    ) -> nodes_pb2.ListNodeRunsResponse:
        row = await self._find(request.org, request.node)
        size = page_size(request.page_size, default=PAGE)
        before = page_start(request.page_token) or _NEWEST
        found = await runs.of_node(self._store, row["node_id"], before=before, limit=size + 1)
        return nodes_pb2.ListNodeRunsResponse(
            runs=[to_run(run, self._around.name_of) for run in found[:size]],
            next_page_token=str(found[size - 1]["id"]) if len(found) > size else "",
        )

    async def GetNodeReport(
        self, request: nodes_pb2.GetNodeReportRequest, context: object
    ) -> nodes_pb2.GetNodeReportResponse:
        row = await self._find(request.org, request.node)
        run = await runs.with_result(self._store, row["node_id"], request.run_id)
        if run is None or not run["result"]:
            what = f"run {request.run_id} of {row['target']}" if request.run_id else f"a scan of {row['target']}"
            raise PeerdError(
                Reason.NOT_FOUND,
                f"there is no report of {what}",
                next_action=f"scan it: 'peerctl nodes scan {row['target']} --org {row['slug']}'",
            )
        return nodes_pb2.GetNodeReportResponse(
            run=to_run(run, self._around.name_of), json=run["result"], markdown=run["report"]
        )

    async def ListProtocols(
        self, request: nodes_pb2.ListProtocolsRequest, context: object
    ) -> nodes_pb2.ListProtocolsResponse:
        size, start = page_size(request.page_size, default=PAGE), page_start(request.page_token)
        found = sorted(self._protocols)[start : start + size + 1]
        return nodes_pb2.ListProtocolsResponse(
            protocols=[_to_protocol(self._protocols[name]) for name in found[:size]],
            next_page_token=str(start + size) if len(found) > size else "",
        )

    async def GetProtocol(
        self, request: nodes_pb2.GetProtocolRequest, context: object
    ) -> nodes_pb2.GetProtocolResponse:
        protocol = self._protocols.get(request.name.lower())
        if protocol is None:
            raise PeerdError(
                Reason.NOT_FOUND, f"Protocol '{request.name}' not found", next_action="see 'peerctl protocols list'"
            )
        return nodes_pb2.GetProtocolResponse(protocol=_to_protocol(protocol))

    async def _find(self, org: str, node: str) -> sqlite3.Row:
        """A node by UUID or target, among those of the organizations that the caller may act for."""
        column, wanted = ("node_id", node.lower()) if is_uuid(node) else ("target", parse_target(node).text)
        rows = await self._store.all(f"{repository.NODES} WHERE n.{column} = ?", (wanted,))
        found = await visible_rows(self._store, rows, org, self._actor())
        if not found:
            raise PeerdError(Reason.NOT_FOUND, NODE_NOT_FOUND, next_action="see 'peerctl nodes list'")
        if len(found) > 1:
            raise PeerdError(
                Reason.AMBIGUOUS_NAME,
                f"{len(found)} organizations have a node {wanted}",
                next_action="name the organization with --org",
            )
        return found[0]

    async def _shown(self, rows: Iterable[sqlite3.Row]) -> list[nodes_pb2.Node]:
        found = list(rows)
        open_runs = await runs.open_of(self._store, [row["node_id"] for row in found])
        return [to_node(row, open_runs.get(row["node_id"]), self._around.name_of) for row in found]


def _status_text(status: int) -> str:
    known = nodes_pb2.NodeStatus.DESCRIPTOR.values_by_number.get(status)
    if known is None or not status:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"statuses: {status} is no status of a node")
    return known.name.removeprefix("NODE_STATUS_").lower()


def _to_protocol(protocol: Known) -> nodes_pb2.NodeProtocol:
    return nodes_pb2.NodeProtocol(
        name=protocol.name,
        display_name=protocol.display_name,
        category=protocol.category,
        description=protocol.description,
        ports=protocol.ports,
        source=protocol.source,
    )
