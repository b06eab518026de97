"""The catalog over restarts, over the wire, and over several peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from peerd.catalog.catalog import Catalog
from peerd.catalog.search import OnlinePeer, Search
from peerd.catalog.servicer import CatalogServicer
from peerd.errors import PeerdError, Reason
from peerd.identity.key import identity_from_seed
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.store import Store
from peerd.v1 import catalog_pb2, catalog_pb2_grpc

ME, GOOD, LIAR, DEAD = (identity_from_seed(bytes([number]) * 32).peer_id for number in range(1, 5))


def process(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"], **more}


def declaration(name: str, description: str = "") -> catalog_pb2.ServiceDeclaration:
    return catalog_pb2.ServiceDeclaration(
        name=name, kind=catalog_pb2.SERVICE_KIND_PROCESS, argv=["/bin/true"], description=description
    )


class Wire:
    """Channels to servers of this test."""

    def __init__(self) -> None:
        self.ports: dict[PeerId, int] = {}
        self.open: list[aio.Channel] = []

    def channel(self, peer_id: PeerId) -> aio.Channel:
        channel = aio.insecure_channel(f"127.0.0.1:{self.ports[peer_id]}")
        self.open.append(channel)
        return channel


class Bench:
    """A catalog with its servicer, as one daemon has them."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self.store = store
        self.data_dir = data_dir
        self.wire = Wire()
        self.online: list[OnlinePeer] = []
        self.build()

    def build(self) -> None:
        self.catalog = Catalog(self.store, self.data_dir)
        search = Search(self.wire, lambda: self.online)  # type: ignore[arg-type]
        self.servicer = CatalogServicer(self.store, self.catalog, search, ME)

    async def listed(self, **fields: Any) -> list[tuple[int, str, bool]]:
        answer = await self.servicer.ListServices(catalog_pb2.ListServicesRequest(**fields), None)
        return [
            (entry.service_id, entry.declaration.name, entry.status == catalog_pb2.SERVICE_STATUS_ACTIVE)
            for entry in answer.services
        ]

    async def add(self, name: str, **fields: Any) -> catalog_pb2.Service:
        request = catalog_pb2.AddServiceRequest(declaration=declaration(name), **fields)
        return (await self.servicer.AddService(request, None)).service

    async def set_active(self, service: str, active: bool) -> None:
        status = catalog_pb2.SERVICE_STATUS_ACTIVE if active else catalog_pb2.SERVICE_STATUS_INACTIVE
        await self.servicer.SetServiceStatus(catalog_pb2.SetServiceStatusRequest(service=service, status=status), None)

    async def remove(self, service: str, **fields: Any) -> None:
        await self.servicer.RemoveService(catalog_pb2.RemoveServiceRequest(service=service, **fields), None)


@pytest.fixture
async def bench(store: Store, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(store, tmp_path / "data")
    token = current.set(Caller(peer_id=ME, grants=ALL_GRANTS, local=True))
    yield made
    current.reset(token)
    for channel in made.wire.open:
        await channel.close()


async def test_the_configuration_wins_at_every_start_and_names_keep_their_ids(bench: Bench) -> None:
    await bench.catalog.sync([process("one"), process("two")])
    await bench.add("added")
    await bench.set_active("two", False)
    assert await bench.listed() == [(1, "one", True), (2, "two", False), (3, "added", True)]
    bench.build()
    await bench.catalog.sync([process("two", description="new"), process("three")])
    assert [name for _, name, _ in await bench.listed()] == ["two", "added", "three"]
    assert (2, "two", False) in await bench.listed(), "switched off stays switched off"
    await bench.catalog.sync([process("one"), process("two")])
    assert (1, "one", True) in await bench.listed()
    assert await bench.listed(active_only=True) == [(1, "one", True), (3, "added", True)]


async def test_a_wrong_configuration_changes_nothing(bench: Bench) -> None:
    await bench.catalog.sync([process("one")])
    for wrong in ([process("one"), process("one")], [process("two"), {**process("three"), "argv": ["x"]}]):
        with pytest.raises(PeerdError):
            await bench.catalog.sync(wrong)
    assert await bench.listed() == [(1, "one", True)]


async def test_what_comes_from_the_configuration_is_neither_replaced_nor_removed_over_the_wire(bench: Bench) -> None:
    await bench.catalog.sync([process("one")])
    with pytest.raises(PeerdError) as refused:
        await bench.add("one", replace=True)
    assert refused.value.reason is Reason.ALREADY_EXISTS
    with pytest.raises(PeerdError) as refused:
        await bench.remove("one")
    assert "peerd.toml" in refused.value.next_action
    assert await bench.listed() == [(1, "one", True)]


async def test_an_added_service_is_replaced_only_when_asked(bench: Bench) -> None:
    first = await bench.add("mine")
    with pytest.raises(PeerdError) as refused:
        await bench.add("mine")
    assert refused.value.reason is Reason.ALREADY_EXISTS
    assert (await bench.add("mine", replace=True)).service_id == first.service_id
    await bench.remove("mine")
    assert await bench.listed() == []
    assert (await bench.add("mine")).service_id == first.service_id


async def test_a_repeated_request_has_one_effect_and_one_answer(bench: Bench) -> None:
    first = await bench.add("mine", request_id="r1")
    assert await bench.add("mine", request_id="r1") == first
    with pytest.raises(PeerdError) as refused:
        await bench.add("other", request_id="r1")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert len(await bench.listed()) == 1


async def test_services_are_found_by_name_and_by_id(bench: Bench) -> None:
    await bench.catalog.sync([process("one"), process("two")])
    for text in ("two", "2"):
        found = (await bench.servicer.GetService(catalog_pb2.GetServiceRequest(service=text), None)).service
        assert (found.service_id, found.peer_id, found.origin) == (2, ME, "config")
        inside = await bench.store.write(lambda tx, text=text: bench.catalog.find(tx, text))  # type: ignore[misc]
        assert inside is not None
        assert inside.name == "two"
    with pytest.raises(PeerdError) as refused:
        await bench.servicer.GetService(catalog_pb2.GetServiceRequest(service="three"), None)
    assert refused.value.reason is Reason.SERVICE_NOT_FOUND


async def test_the_digest_follows_every_change_and_only_committed_ones(bench: Bench) -> None:
    told: list[bytes] = []
    bench.catalog.on_change(lambda: told.append(bench.catalog.digest))
    await bench.catalog.sync([process("one")])
    await bench.set_active("one", False)
    await bench.set_active("one", True)
    await bench.add("two")
    with pytest.raises(PeerdError):
        await bench.add("two")
    await bench.remove("two")
    assert len(told) == 5
    one, off, on, two, gone = told
    assert len({one, off, two}) == 3
    assert (one, one) == (on, gone)


async def test_services_come_in_pages(bench: Bench) -> None:
    await bench.catalog.sync([process(f"s{number}") for number in range(5)])
    names: list[str] = []
    token = ""
    for _ in range(3):
        answer = await bench.servicer.ListServices(catalog_pb2.ListServicesRequest(page_size=2, page_token=token), None)
        names += [entry.declaration.name for entry in answer.services]
        token = answer.next_page_token
    assert names == ["s0", "s1", "s2", "s3", "s4"]
    assert token == ""


class Remote(CatalogServicer):
    """Another peer's catalog; gives one service a page, under whatever peer id it claims."""

    def __init__(self, names: list[str], claims: str) -> None:  # needs none of what the real one needs
        self._names = names
        self._claims = claims

    async def ListServices(
        self, request: catalog_pb2.ListServicesRequest, context: Any
    ) -> catalog_pb2.ListServicesResponse:
        if not self._names:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        index = int(request.page_token or "0")
        name = self._names[index]
        service = catalog_pb2.Service(
            service_id=7, peer_id=self._claims, declaration=declaration(name, f"{name} for all")
        )
        return catalog_pb2.ListServicesResponse(
            services=[service], next_page_token=str(index + 1) if index + 1 < len(self._names) else ""
        )


async def test_search_asks_everybody_and_lists_who_did_not_answer(bench: Bench) -> None:
    servers = []
    for peer_id, remote in ((GOOD, Remote(["count", "sort"], GOOD)), (LIAR, Remote(["count"], ME))):
        server = aio.server()
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(remote, server)
        bench.wire.ports[peer_id] = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
    bench.wire.ports[DEAD] = 1
    bench.online = [OnlinePeer(peer_id=peer_id, name=name) for peer_id, name in ((GOOD, "g"), (LIAR, "l"), (DEAD, "d"))]
    await bench.catalog.sync([process("count"), process("other", description="it COUNTS too")])

    async def search(*phrases: str) -> tuple[set[tuple[str, str]], list[str]]:
        request = catalog_pb2.SearchServicesRequest(phrases=phrases)
        answer = await bench.servicer.SearchServices(request, None)
        assert all(error.message for error in answer.errors)
        return {(entry.peer_id, entry.declaration.name) for entry in answer.services}, [
            f"{error.name} {error.reason}" for error in answer.errors
        ]

    found, errors = await search("count")
    assert found == {(ME, "count"), (ME, "other"), (GOOD, "count"), (LIAR, "count")}
    assert errors == ["d not_trusted_or_unreachable"]
    everything, _ = await search()
    assert (GOOD, "sort") in everything
    assert len(everything) == 5
    await asyncio.gather(*(server.stop(None) for server in servers))
