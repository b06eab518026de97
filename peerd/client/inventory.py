"""What scans said of hosts and ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from functools import cached_property

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from peerd.client.calls import PAGE_SIZE, STOOD_SECONDS, Calls, connection_lost
from peerd.v1 import inventory_pb2, inventory_pb2_grpc

_WATCH_SECONDS = 300.0
"""Deadline of one stream; a watch goes on with the next one."""
_AGAIN_SECONDS = 0.5
_LONGEST_AWAY_SECONDS = 60.0


class InventoryCalls(Calls):
    """The calls about the inventory. ``where`` is a filter such as ``network=10.0.0.0/8 AND port=443``."""

    @cached_property
    def _inventory(self) -> inventory_pb2_grpc.InventoryServiceAsyncStub:
        return inventory_pb2_grpc.InventoryServiceStub(self._channel)

    async def hosts(
        self, where: str = "", *, at: datetime | None = None, limit: int | None = None
    ) -> list[inventory_pb2.InventoryHost]:
        """Hosts, by address; as they were known at a moment."""
        request = inventory_pb2.ListHostsRequest(where=where, at=_timestamp(at), page_size=_page(limit))
        return await self._all(self._inventory.ListHosts, request, lambda page: page.hosts, limit)

    async def host(
        self, address: str, *, depth: int = 2, at: datetime | None = None, limit: int | None = None
    ) -> inventory_pb2.GetHostResponse:
        """One host; with depth 1 its ports, with 2 what answers there, with 3 who said so and what is related.

        All its ports, or so many and ``next_page_token`` if there are more.
        """
        request = inventory_pb2.GetHostRequest(address=address, depth=depth, at=_timestamp(at), page_size=_page(limit))
        found = await self._call(self._inventory.GetHost, request)
        while found.next_page_token and (limit is None or len(found.ports) < limit):
            request.page_token = found.next_page_token
            request.page_size = _page(None if limit is None else limit - len(found.ports))
            more = await self._call(self._inventory.GetHost, request)
            found.ports.extend(more.ports)
            found.views.extend(more.views)
            found.next_page_token = more.next_page_token
        return found

    async def ports(
        self, where: str = "", *, at: datetime | None = None, limit: int | None = None
    ) -> list[inventory_pb2.InventoryPort]:
        """Ports, by address and number; as they were known at a moment."""
        request = inventory_pb2.ListPortsRequest(where=where, at=_timestamp(at), page_size=_page(limit))
        return await self._all(self._inventory.ListPorts, request, lambda page: page.ports, limit)

    async def each_port(
        self, where: str = "", *, at: datetime | None = None
    ) -> AsyncIterator[inventory_pb2.InventoryPort]:
        """The same one by one, however many there are."""
        request = inventory_pb2.ListPortsRequest(where=where, at=_timestamp(at), page_size=PAGE_SIZE)
        while True:
            page = await self._call(self._inventory.ListPorts, request)
            for port in page.ports:
                yield port
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def seen_services(self, where: str = "", *, limit: int | None = None) -> list[inventory_pb2.CountedService]:
        """What answers at ports, with at how many."""
        request = inventory_pb2.ListSeenServicesRequest(where=where, page_size=_page(limit))
        return await self._all(self._inventory.ListSeenServices, request, lambda page: page.services, limit)

    async def certificates(
        self, where: str = "", *, limit: int | None = None
    ) -> list[inventory_pb2.CountedCertificate]:
        """TLS certificates, with at how many ports."""
        request = inventory_pb2.ListSeenCertificatesRequest(where=where, page_size=_page(limit))
        return await self._all(self._inventory.ListSeenCertificates, request, lambda page: page.certificates, limit)

    async def inventory_diff(
        self,
        *,
        earlier: datetime | None = None,
        later: datetime | None = None,
        earlier_job: int = 0,
        later_job: int = 0,
        where: str = "",
        limit: int | None = None,
    ) -> list[inventory_pb2.InventoryDifference]:
        """What is otherwise between two moments, or between two ingest jobs."""
        request = inventory_pb2.DiffInventoryRequest(
            earlier=_timestamp(earlier),
            later=_timestamp(later),
            earlier_job_id=earlier_job,
            later_job_id=later_job,
            where=where,
            page_size=_page(limit),
        )
        return await self._all(self._inventory.DiffInventory, request, lambda page: page.differences, limit)

    async def splits(self, where: str = "", *, limit: int | None = None) -> list[inventory_pb2.InventorySplit]:
        """Ports of which viewpoints say different things."""
        request = inventory_pb2.ListSplitsRequest(where=where, page_size=_page(limit))
        return await self._all(self._inventory.ListSplits, request, lambda page: page.splits, limit)

    async def watch_inventory(self, *, after: int | None = None) -> AsyncIterator[inventory_pb2.WatchInventoryResponse]:
        """Changes as they become known, without end; ``after`` the last one that is known.

        A daemon that restarts meanwhile is waited for, and nothing is left out or seen twice.
        """
        now = asyncio.get_running_loop().time
        lost_at: float | None = None
        while True:
            begun = now()
            request = inventory_pb2.WatchInventoryRequest(after=after, tell_begin=after is None)
            call = self._inventory.WatchInventory(request, timeout=_WATCH_SECONDS, metadata=self._metadata)
            try:
                async for change in call:
                    lost_at, after = None, change.change_id
                    if change.kind:  # else it says where the watch begins
                        yield change
            except aio.AioRpcError as exc:
                if now() - begun > STOOD_SECONDS:
                    lost_at = None
                if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED and after is not None:
                    continue
                error = self._error(exc)
                lost_at = lost_at or now()
                gone = after is None or not connection_lost(error) or now() - lost_at > _LONGEST_AWAY_SECONDS
                if gone and exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise error from exc
            await asyncio.sleep(_AGAIN_SECONDS)

    async def neighbours(self, node: str, *, limit: int = 0) -> list[inventory_pb2.GraphEdge]:
        """What a node such as ``host:192.0.2.7`` is joined with."""
        request = inventory_pb2.ListNeighboursRequest(node=node, limit=limit)
        return list((await self._call(self._inventory.ListNeighbours, request)).edges)

    async def find_path(self, begin: str, end: str, *, depth: int = 0) -> inventory_pb2.FindPathResponse:
        """A shortest path between two nodes."""
        request = inventory_pb2.FindPathRequest(begin=begin, end=end, depth=depth)
        return await self._call(self._inventory.FindPath, request)


def _page(limit: int | None) -> int:
    return min(limit or PAGE_SIZE, PAGE_SIZE)


def _timestamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp
