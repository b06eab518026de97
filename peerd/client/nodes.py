"""Organizations and their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import nodes_pb2, nodes_pb2_grpc, workflows_pb2


class NodeCalls(Calls):
    """The calls about organizations, nodes and protocols."""

    @cached_property
    def _nodes(self) -> nodes_pb2_grpc.NodeServiceAsyncStub:
        return nodes_pb2_grpc.NodeServiceStub(self._channel)

    @cached_property
    def _organizations(self) -> nodes_pb2_grpc.OrganizationServiceAsyncStub:
        return nodes_pb2_grpc.OrganizationServiceStub(self._channel)

    # Organizations

    async def add_organization(
        self,
        slug: str,
        policy: nodes_pb2.OrganizationPolicy,
        *,
        name: str = "",
        description: str = "",
        contact_email: str = "",
    ) -> nodes_pb2.Organization:
        """A new one."""
        request = nodes_pb2.AddOrganizationRequest(
            request_id=new_request_id(),
            slug=slug,
            name=name,
            description=description,
            contact_email=contact_email,
            policy=policy,
        )
        return (await self._call(self._organizations.AddOrganization, request)).organization

    async def update_organization(
        self,
        org: str,
        *,
        name: str | None = None,
        description: str | None = None,
        contact_email: str | None = None,
        policy: nodes_pb2.OrganizationPolicy | None = None,
        policy_before: nodes_pb2.OrganizationPolicy | None = None,
    ) -> nodes_pb2.Organization:
        """Change what is given; a policy replaces the whole policy.

        ``policy_before``: what it was made from. Raises STALE if it is another now.
        """
        request = nodes_pb2.UpdateOrganizationRequest(
            request_id=new_request_id(),
            org=org,
            name=name,
            description=description,
            contact_email=contact_email,
            policy=policy,
            policy_before=policy_before,
        )
        return (await self._call(self._organizations.UpdateOrganization, request)).organization

    async def set_organization_active(self, org: str, active: bool) -> nodes_pb2.Organization:
        """Let it start something or not."""
        request = nodes_pb2.SetOrganizationActiveRequest(request_id=new_request_id(), org=org, active=active)
        return (await self._call(self._organizations.SetOrganizationActive, request)).organization

    async def organization(self, org: str) -> nodes_pb2.Organization:
        """One by UUID or slug."""
        request = nodes_pb2.GetOrganizationRequest(org=org)
        return (await self._call(self._organizations.GetOrganization, request)).organization

    async def organizations(self) -> list[nodes_pb2.Organization]:
        """All that this peer may act for."""
        request = nodes_pb2.ListOrganizationsRequest(page_size=PAGE_SIZE)
        return await self._all(self._organizations.ListOrganizations, request, lambda page: page.organizations)

    # Nodes

    async def scan_node(
        self,
        target: str,
        *,
        org: str,
        protocol: str = "",
        level: int = 0,
        on: workflows_pb2.Placement | None = None,
    ) -> nodes_pb2.NodeAnswer:
        """Scan a target, or learn what has to happen first."""
        request = nodes_pb2.ScanNodeRequest(
            request_id=new_request_id(), org=org, target=target, protocol=protocol, level=level, on=on
        )
        return (await self._call(self._nodes.ScanNode, request)).answer

    async def discover_node(
        self, node_id: str, *, org: str = "", host: str = "", on: workflows_pb2.Placement | None = None
    ) -> nodes_pb2.NodeAnswer:
        """Have found out which protocol a node speaks."""
        request = nodes_pb2.DiscoverNodeRequest(request_id=new_request_id(), org=org, node_id=node_id, host=host, on=on)
        return (await self._call(self._nodes.DiscoverNode, request)).answer

    async def sweep_nodes(
        self,
        *,
        org: str,
        protocol: str = "",
        level: int = 0,
        limit: int = 0,
        on: workflows_pb2.Placement | None = None,
    ) -> nodes_pb2.SweepNodesResponse:
        """Discover and scan all that is due."""
        request = nodes_pb2.SweepNodesRequest(
            request_id=new_request_id(), org=org, protocol=protocol, level=level, limit=limit, on=on
        )
        return await self._call(self._nodes.SweepNodes, request)

    async def sweep(self, sweep_id: int, *, org: str = "") -> nodes_pb2.NodeSweep:
        """How far a sweep is."""
        request = nodes_pb2.GetSweepRequest(org=org, sweep_id=sweep_id)
        return (await self._call(self._nodes.GetSweep, request)).sweep

    async def node(self, node: str, *, org: str = "") -> nodes_pb2.GetNodeResponse:
        """One by UUID or target, with its history."""
        return await self._call(self._nodes.GetNode, nodes_pb2.GetNodeRequest(org=org, node=node))

    async def nodes(
        self,
        *,
        org: str = "",
        statuses: Sequence[nodes_pb2.NodeStatus.ValueType] = (),
        protocol: str = "",
        limit: int | None = None,
    ) -> list[nodes_pb2.Node]:
        """Those of an organization, or of all that this peer may act for."""
        request = nodes_pb2.ListNodesRequest(
            org=org, statuses=statuses, protocol=protocol, page_size=min(limit or PAGE_SIZE, PAGE_SIZE)
        )
        return await self._all(self._nodes.ListNodes, request, lambda page: page.nodes, limit)

    async def node_runs(self, node: str, *, org: str = "", limit: int | None = None) -> list[nodes_pb2.NodeRun]:
        """Discoveries and scans of a node, newest first."""
        request = nodes_pb2.ListNodeRunsRequest(org=org, node=node, page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._nodes.ListNodeRuns, request, lambda page: page.runs, limit)

    async def node_report(self, node: str, *, org: str = "", run_id: int = 0) -> nodes_pb2.GetNodeReportResponse:
        """What a scan found; the newest that went well unless a run is named."""
        request = nodes_pb2.GetNodeReportRequest(org=org, node=node, run_id=run_id)
        return await self._call(self._nodes.GetNodeReport, request)

    async def protocols(self) -> list[nodes_pb2.NodeProtocol]:
        """All that the daemon knows."""
        request = nodes_pb2.ListProtocolsRequest(page_size=PAGE_SIZE)
        return await self._all(self._nodes.ListProtocols, request, lambda page: page.protocols)

    async def protocol(self, name: str) -> nodes_pb2.NodeProtocol:
        """One by name."""
        return (await self._call(self._nodes.GetProtocol, nodes_pb2.GetProtocolRequest(name=name))).protocol
