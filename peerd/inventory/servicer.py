"""The wire side of the inventory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason
from peerd.inventory import changes
from peerd.inventory.diffs import Diffs
from peerd.inventory.graph import parse_node
from peerd.inventory.inventory import MAX_DEPTH, PORTS, Inventory
from peerd.inventory.splits import splits
from peerd.inventory.wire import (
    to_certificate,
    to_change,
    to_difference,
    to_edge,
    to_host,
    to_port,
    to_service,
    to_view,
)
from peerd.rpc.paging import page_size
from peerd.v1 import inventory_pb2, inventory_pb2_grpc

_PAGE = 100
_NEIGHBOURS = 100
_LOOK_SECONDS = 0.5
"""How often a watch looks for changes."""
_CHANGES = 500


class InventoryServicer(inventory_pb2_grpc.InventoryServiceServicer):
    """peerd.v1.InventoryService."""

    def __init__(self, inventory: Inventory, clock: Clock) -> None:
        self._inventory = inventory
        self._store = inventory.store
        self._diffs = Diffs(inventory.store)
        self._clock = clock

    async def ListHosts(self, request: inventory_pb2.ListHostsRequest, context: Any) -> inventory_pb2.ListHostsResponse:
        page = await self._inventory.lists.hosts(
            self._inventory.question(request.where, _at(request, "at")),
            size=page_size(request.page_size, default=_PAGE),
            token=request.page_token,
        )
        return inventory_pb2.ListHostsResponse(hosts=[to_host(host) for host in page.items], next_page_token=page.token)

    async def GetHost(self, request: inventory_pb2.GetHostRequest, context: Any) -> inventory_pb2.GetHostResponse:
        if request.depth > MAX_DEPTH:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"depth must be between 0 and {MAX_DEPTH}")
        found = await self._inventory.around(
            request.address,
            depth=request.depth,
            at=_at(request, "at"),
            size=page_size(request.page_size, default=PORTS),
            token=request.page_token,
        )
        return inventory_pb2.GetHostResponse(
            host=to_host(found.host),
            ports=[to_port(line, details=request.depth >= 2) for line in found.ports],
            views=[to_view(view, line) for view, line in found.views],
            related=[inventory_pb2.RelatedHost(address=address, through=through) for address, through in found.related],
            next_page_token=found.token,
        )

    async def ListPorts(self, request: inventory_pb2.ListPortsRequest, context: Any) -> inventory_pb2.ListPortsResponse:
        page = await self._inventory.lists.ports(
            self._inventory.question(request.where, _at(request, "at")),
            size=page_size(request.page_size, default=_PAGE),
            token=request.page_token,
        )
        return inventory_pb2.ListPortsResponse(ports=[to_port(line) for line in page.items], next_page_token=page.token)

    async def ListSeenServices(
        self, request: inventory_pb2.ListSeenServicesRequest, context: Any
    ) -> inventory_pb2.ListSeenServicesResponse:
        page = await self._inventory.lists.services(
            self._inventory.question(request.where),
            size=page_size(request.page_size, default=_PAGE),
            token=request.page_token,
        )
        return inventory_pb2.ListSeenServicesResponse(
            services=[
                inventory_pb2.CountedService(service=to_service(service), ports=ports) for service, ports in page.items
            ],
            next_page_token=page.token,
        )

    async def ListSeenCertificates(
        self, request: inventory_pb2.ListSeenCertificatesRequest, context: Any
    ) -> inventory_pb2.ListSeenCertificatesResponse:
        page = await self._inventory.lists.certificates(
            self._inventory.question(request.where),
            size=page_size(request.page_size, default=_PAGE),
            token=request.page_token,
        )
        return inventory_pb2.ListSeenCertificatesResponse(
            certificates=[
                inventory_pb2.CountedCertificate(certificate=to_certificate(certificate), ports=ports)
                for certificate, ports in page.items
            ],
            next_page_token=page.token,
        )

    async def DiffInventory(
        self, request: inventory_pb2.DiffInventoryRequest, context: Any
    ) -> inventory_pb2.DiffInventoryResponse:
        where, size = self._inventory.where(request.where), page_size(request.page_size, default=_PAGE)
        earlier, later = _at(request, "earlier"), _at(request, "later")
        if request.earlier_job_id and request.later_job_id and earlier is None and later is None:
            page = await self._diffs.between_scans(
                request.earlier_job_id, request.later_job_id, where=where, size=size, token=request.page_token
            )
        elif earlier is not None and not request.earlier_job_id and not request.later_job_id:
            page = await self._diffs.between_moments(
                earlier,
                self._clock.now() if later is None else later,
                where=where,
                size=size,
                token=request.page_token,
            )
        else:
            raise PeerdError(Reason.INVALID_ARGUMENT, "a diff is between two moments or between two ingest jobs")
        return inventory_pb2.DiffInventoryResponse(
            differences=[to_difference(one) for one in page.items], next_page_token=page.token
        )

    async def ListSplits(
        self, request: inventory_pb2.ListSplitsRequest, context: Any
    ) -> inventory_pb2.ListSplitsResponse:
        page = await splits(
            self._store,
            where=self._inventory.where(request.where),
            size=page_size(request.page_size, default=_PAGE),
            token=request.page_token,
        )
        return inventory_pb2.ListSplitsResponse(
            splits=[
                inventory_pb2.InventorySplit(
                    port=to_port(one.line), views=[to_view(view, one.line) for view in one.views]
                )
                for one in page.items
            ],
            next_page_token=page.token,
        )

    async def WatchInventory(
        self, request: inventory_pb2.WatchInventoryRequest, context: Any
    ) -> AsyncIterator[inventory_pb2.WatchInventoryResponse]:
        after = request.after if request.HasField("after") else await changes.newest(self._store)
        if after:
            await changes.check_token(self._store, after)
        if request.tell_begin:
            yield inventory_pb2.WatchInventoryResponse(change_id=after)
        while True:
            found = await changes.changes_after(self._store, after, limit=_CHANGES)
            if after and found and found[0].change_id > after + 1:
                await changes.check_token(self._store, after)  # whoever reads so slowly must know what is missing
            for change in found:
                after = change.change_id
                yield to_change(change)
            if len(found) < _CHANGES:
                await self._clock.sleep(_LOOK_SECONDS)

    async def ListNeighbours(
        self, request: inventory_pb2.ListNeighboursRequest, context: Any
    ) -> inventory_pb2.ListNeighboursResponse:
        edges = await self._inventory.graph.neighbours(parse_node(request.node), limit=request.limit or _NEIGHBOURS)
        return inventory_pb2.ListNeighboursResponse(edges=[to_edge(edge) for edge in edges])

    async def FindPath(self, request: inventory_pb2.FindPathRequest, context: Any) -> inventory_pb2.FindPathResponse:
        path = await self._inventory.graph.path(parse_node(request.begin), parse_node(request.end), depth=request.depth)
        return inventory_pb2.FindPathResponse(
            found=path.found,
            edges=[to_edge(edge) for edge in path.edges],
            looked_at=path.looked_at,
            complete=path.complete,
        )


def _at(request: Message, field: str) -> int | None:
    """A moment that may be left out, in milliseconds."""
    if not request.HasField(field):
        return None
    timestamp: Timestamp = getattr(request, field)
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000
