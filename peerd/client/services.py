"""Services: what peers offer to run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import catalog_pb2, catalog_pb2_grpc


class ServiceCalls(Calls):
    """The calls about services."""

    @cached_property
    def _catalog(self) -> catalog_pb2_grpc.CatalogServiceAsyncStub:
        return catalog_pb2_grpc.CatalogServiceStub(self._channel)

    async def services(self, *, active_only: bool = False) -> list[catalog_pb2.Service]:
        """What this peer offers."""
        request = catalog_pb2.ListServicesRequest(active_only=active_only, page_size=PAGE_SIZE)
        return await self._all(self._catalog.ListServices, request, lambda page: page.services)

    async def service(self, service: str) -> catalog_pb2.Service:
        """One service of this peer by name or id."""
        return (await self._call(self._catalog.GetService, catalog_pb2.GetServiceRequest(service=service))).service

    async def search_services(
        self,
        phrases: Sequence[str] = (),
        *,
        kinds: Sequence[catalog_pb2.ServiceKind.ValueType] = (),
        active_only: bool = False,
    ) -> catalog_pb2.SearchServicesResponse:
        """What all online peers offer, and which peers did not answer."""
        request = catalog_pb2.SearchServicesRequest(phrases=phrases, kinds=kinds, active_only=active_only)
        return await self._call(self._catalog.SearchServices, request)

    async def add_service(
        self, declaration: catalog_pb2.ServiceDeclaration, *, replace: bool = False
    ) -> catalog_pb2.Service:
        """Offer a service on this peer."""
        request = catalog_pb2.AddServiceRequest(request_id=new_request_id(), declaration=declaration, replace=replace)
        return (await self._call(self._catalog.AddService, request)).service

    async def set_service_status(
        self, service: str, status: catalog_pb2.ServiceStatus.ValueType
    ) -> catalog_pb2.Service:
        """Activate or deactivate a service of this peer."""
        request = catalog_pb2.SetServiceStatusRequest(request_id=new_request_id(), service=service, status=status)
        return (await self._call(self._catalog.SetServiceStatus, request)).service

    async def remove_service(self, service: str) -> None:
        """Stop offering a service that was added."""
        request = catalog_pb2.RemoveServiceRequest(request_id=new_request_id(), service=service)
        await self._call(self._catalog.RemoveService, request)
