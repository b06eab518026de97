"""CatalogService: the catalog on the wire."""

from __future__ import annotations

import sqlite3

from peerd.catalog import repository
from peerd.catalog.catalog import Catalog
from peerd.catalog.search import Search, matches
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import current_caller
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import catalog_pb2, catalog_pb2_grpc

MAX_PAGE = 1000


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Proto in, one call, proto out."""

    def __init__(self, store: Store, catalog: Catalog, search: Search, peer_id: PeerId) -> None:
        self._store = store
        self._catalog = catalog
        self._search = search
        self._peer_id = peer_id

    async def ListServices(
        self, request: catalog_pb2.ListServicesRequest, context: object
    ) -> catalog_pb2.ListServicesResponse:
        """A page of this peer's services, in the order of their ids."""
        size = page_size(request.page_size)
        rows = await self._store.all(
            f"{repository.OFFERED} AND id > ? AND active >= ? ORDER BY id LIMIT ?",
            (page_start(request.page_token), int(request.active_only), size + 1),
        )
        return catalog_pb2.ListServicesResponse(
            services=[self._to_proto(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1]["id"]) if len(rows) > size else "",
            peer_id=self._peer_id,
            catalog_digest=self._catalog.digest,
        )

    async def GetService(
        self, request: catalog_pb2.GetServiceRequest, context: object
    ) -> catalog_pb2.GetServiceResponse:
        """One service by name or id."""
        rows = await self._store.all(repository.OFFERED)
        wanted = request.service
        for row in rows:
            if wanted in (row["name"], str(row["id"])):
                return catalog_pb2.GetServiceResponse(service=self._to_proto(row))
        raise PeerdError(Reason.SERVICE_NOT_FOUND, f"this peer offers no service {wanted!r}")

    async def SearchServices(
        self, request: catalog_pb2.SearchServicesRequest, context: object
    ) -> catalog_pb2.SearchServicesResponse:
        """Own services and those of every online peer."""
        rows = await self._store.all(f"{repository.OFFERED} AND active >= ? ORDER BY id", (int(request.active_only),))
        answer = catalog_pb2.SearchServicesResponse()
        found = [self._to_proto(row) for row in rows]
        for peer in await self._search.ask_all(active_only=request.active_only):
            found.extend(peer.services)
            if peer.error is not None:
                answer.errors.append(peer.error)
        answer.services.extend(service for service in found if matches(service, request.phrases, request.kinds))
        return answer

    async def AddService(
        self, request: catalog_pb2.AddServiceRequest, context: object
    ) -> catalog_pb2.AddServiceResponse:
        """Offer a service from now on."""

        def effect(tx: Tx) -> catalog_pb2.AddServiceResponse:
            self._catalog.add(tx, request.declaration, replace=request.replace)
            return catalog_pb2.AddServiceResponse(service=self._stored(tx, request.declaration.name))

        caller = current_caller().peer_id
        answer = await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=catalog_pb2.AddServiceResponse,
                effect=lambda: effect(tx),
            )
        )
        failpoint("catalog.change.after_commit")
        return answer

    async def SetServiceStatus(
        self, request: catalog_pb2.SetServiceStatusRequest, context: object
    ) -> catalog_pb2.SetServiceStatusResponse:
        """Active or inactive; survives restarts, also for services of the configuration."""
        if request.status == catalog_pb2.SERVICE_STATUS_UNSPECIFIED:
            raise PeerdError(Reason.INVALID_ARGUMENT, "status must be active or inactive")
        active = request.status == catalog_pb2.SERVICE_STATUS_ACTIVE

        def effect(tx: Tx) -> catalog_pb2.SetServiceStatusResponse:
            service = self._catalog.set_active(tx, request.service, active)
            return catalog_pb2.SetServiceStatusResponse(service=self._stored(tx, service.name))

        caller = current_caller().peer_id
        answer = await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=catalog_pb2.SetServiceStatusResponse,
                effect=lambda: effect(tx),
            )
        )
        failpoint("catalog.change.after_commit")
        return answer

    async def RemoveService(
        self, request: catalog_pb2.RemoveServiceRequest, context: object
    ) -> catalog_pb2.RemoveServiceResponse:
        """Offer a service no longer."""

        def effect(tx: Tx) -> catalog_pb2.RemoveServiceResponse:
            self._catalog.remove(tx, request.service)
            return catalog_pb2.RemoveServiceResponse()

        caller = current_caller().peer_id
        answer = await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=catalog_pb2.RemoveServiceResponse,
                effect=lambda: effect(tx),
            )
        )
        failpoint("catalog.change.after_commit")
        return answer

    def _stored(self, tx: Tx, name: str) -> catalog_pb2.Service:
        row = repository.find(tx, name)
        assert row is not None  # noqa: S101 - written in this very transaction
        return self._to_proto(row)

    def _to_proto(self, row: sqlite3.Row) -> catalog_pb2.Service:
        return catalog_pb2.Service(
            service_id=row["id"],
            peer_id=self._peer_id,
            status=catalog_pb2.SERVICE_STATUS_ACTIVE if row["active"] else catalog_pb2.SERVICE_STATUS_INACTIVE,
            origin=row["origin"],
            declaration=catalog_pb2.ServiceDeclaration.FromString(row["declaration"]),
        )


def page_size(asked: int) -> int:
    """What was asked for, within reason; the largest page when nothing was."""
    return min(asked, MAX_PAGE) if asked > 0 else MAX_PAGE


def page_start(token: str) -> int:
    """The id after which a page starts. Raises INVALID_PAGE_TOKEN."""
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "the page token is not one that this peer gave")
    return int(token)
