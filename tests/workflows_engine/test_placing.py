"""Where the candidates of placement come from: the registry, and catalogs asked for over real gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from peerd.clock import FakeClock, Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.registry.model import PeerStatus, PeerView
from peerd.v1 import access_pb2, catalog_pb2, catalog_pb2_grpc, registry_pb2, workflows_pb2
from peerd.workflows.placing import FRESH_SECONDS, Nobody, Placed, Placer, Waits


def peer(
    name: str, *, status: PeerStatus = PeerStatus.ONLINE, digest: bytes = b"1", roles: str = "", **more: Any
) -> PeerView:
    facts: dict[str, Any] = {"why": "", "peerd_version": "1", "hardware": registry_pb2.Hardware(cpu_cores=4), **more}
    return PeerView(
        peer_id=PeerId(name),
        name=name,
        status=status,
        since=Millis(0),
        roles=frozenset(roles.split()),
        grants=frozenset({access_pb2.GRANT_EXECUTE}),
        labels=frozenset(),
        isolation=registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP,
        catalog_digest=digest,
        **facts,
    )


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    """One peer's services; counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked = 0

    async def ListServices(self, request: catalog_pb2.ListServicesRequest, context: Any) -> Any:
        self.asked += 1
        start = int(request.page_token or 0)
        answer = catalog_pb2.ListServicesResponse(catalog_digest=b"1")
        for number, name in list(enumerate(self.names))[start : start + 1]:
            declaration = catalog_pb2.ServiceDeclaration(name=name, kind=catalog_pb2.SERVICE_KIND_PROCESS, argv=["/x"])
            answer.services.add(
                service_id=number + 1, status=catalog_pb2.SERVICE_STATUS_ACTIVE, declaration=declaration
            )
        if start + 1 < len(self.names):
            answer.next_page_token = str(start + 1)
        return answer


CATALOG: Any = Catalog  # it serves one of the service's methods


class Known:
    """Registry and connections in one."""

    def __init__(self, *peers: PeerView) -> None:
        self.views = peers
        self.channels: dict[str, aio.Channel] = {}

    def peers(self) -> tuple[PeerView, ...]:
        return self.views

    def channel(self, peer_id: PeerId) -> aio.Channel:
        if peer_id not in self.channels:
            raise PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "nobody there")
        return self.channels[peer_id]


def job(name: str = "j", service: str = "s", **on: str) -> workflows_pb2.JobDefinition:
    return workflows_pb2.JobDefinition(name=name, service=service, on=workflows_pb2.Placement(**on))


def placer(known: Known, clock: FakeClock) -> Placer:
    connections: Any = known
    return Placer(known, connections, clock)


async def test_a_job_goes_to_the_peer_whose_catalog_has_its_service(clock: FakeClock) -> None:
    catalogs = {"p": CATALOG("other", "more"), "q": CATALOG("other", "s")}
    known = Known(peer("p"), peer("q"))
    server = {}
    for name, catalog in catalogs.items():
        server[name] = aio.server()
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server[name])
        port = server[name].add_insecure_port("127.0.0.1:0")
        await server[name].start()
        known.channels[name] = aio.insecure_channel(f"127.0.0.1:{port}")
    made = placer(known, clock)
    await made.refresh()
    assert made.place(job(), (), assigned={}) == Placed(peer="q")
    found = made.place(job(service="none"), (), assigned={})
    assert isinstance(found, Nobody)
    assert "p offers no service none (service_not_found)" in found.message
    asked = catalogs["p"].asked
    await made.refresh()
    assert catalogs["p"].asked == asked, "what is fresh is not asked for again"
    clock.advance(FRESH_SECONDS + 0.1)
    await asyncio.gather(*(made.refresh() for _ in range(100)))
    assert catalogs["p"].asked == 2 * asked, "once for all who want to know"
    for name in catalogs:
        await known.channels[name].close()
        await server[name].stop(None)


async def test_a_peer_that_does_not_tell_its_catalog_may_be_tried(clock: FakeClock) -> None:
    made = placer(Known(peer("p")), clock)
    await made.refresh()
    assert made.place(job(), (), assigned={}) == Placed(peer="p")


def test_the_least_loaded_peer_gets_the_job_and_excluded_ones_never(clock: FakeClock) -> None:
    made = placer(Known(peer("p"), peer("q"), peer("r")), clock)
    assert made.place(job(), (), assigned={"p": 2, "q": 1, "r": 3}) == Placed(peer="q")
    assert made.place(job(), (), excluded={"q"}, assigned={"p": 2, "r": 3}) == Placed(peer="p")


def test_a_job_whose_peer_is_offline_waits_and_one_whose_peer_is_unknown_does_not(clock: FakeClock) -> None:
    made = placer(Known(peer("p", status=PeerStatus.OFFLINE), peer("q")), clock)
    found = made.place(job(peer="p"), (), assigned={})
    assert isinstance(found, Waits)
    assert found.message == "waits for p (offline)"
    assert found.next_action
    assert isinstance(made.place(job(peer="nobody"), (), assigned={}), Nobody)


def test_what_a_job_waits_for_is_named_with_its_reason(clock: FakeClock) -> None:
    known = Known(
        peer("p", status=PeerStatus.MAINTENANCE, why="new fan"),
        peer("q", status=PeerStatus.LEFT),
        peer("r", status=PeerStatus.OFFLINE),
        peer("s", status=PeerStatus.OFFLINE),
    )
    found = placer(known, clock).place(job(), (), assigned={})
    assert isinstance(found, Waits)
    assert found.message == "waits for p (in maintenance) or q (offline) or r (offline) or one of 1 more"
    assert "peerctl peers resume p" in found.next_action


def test_equal_peers_take_turns_even_when_nothing_is_left_of_what_they_were_given(clock: FakeClock) -> None:
    made = placer(Known(peer("p"), peer("q"), peer("r")), clock)
    given = [made.place(job(), (), assigned={}) for _ in range(30)]
    assert given == [Placed(peer=name) for name in "pqr"] * 10


def test_a_job_goes_where_what_it_takes_is_unless_that_peer_is_busier(clock: FakeClock) -> None:
    made = placer(Known(peer("p"), peer("q")), clock)
    assert made.place(job(), (), assigned={}, near={"q": 1}) == Placed(peer="q")
    assert made.place(job(), (), assigned={}, near={"q": 1}) == Placed(peer="q"), "nearness goes before turns"
    assert made.place(job(), (), assigned={"q": 1}, near={"q": 1}) == Placed(peer="p")


def test_a_job_that_asks_for_an_idle_peer_waits_until_there_is_one(clock: FakeClock) -> None:
    busy, idle = registry_pb2.Sample(running_jobs=2), registry_pb2.Sample(running_jobs=1)
    known = Known(peer("p", sample=busy))
    made = placer(known, clock)
    before_anybody_waits = made.fingerprint()
    known.views = (peer("p", sample=idle),)
    assert made.fingerprint() == before_anybody_waits, "load alone wakes nobody"
    known.views = (peer("p", sample=busy),)
    asks = job(where="running_jobs<2")
    found = made.place(asks, (), assigned={})
    assert isinstance(found, Waits)
    assert found.message == "waits for p (busy): p: running_jobs is 2, running_jobs<2 is asked"
    waiting = made.fingerprint()
    assert made.place(asks, (), assigned={}) == found
    assert made.fingerprint() == waiting, "waiting on changes nothing"
    known.views = (peer("p", sample=idle),)
    assert made.fingerprint() != waiting
    assert made.place(asks, (), assigned={}) == Placed(peer="p")
    assert isinstance(made.place(job(where="cpus>64"), (), assigned={}), Nobody), "nobody grows cores by waiting"


def test_the_fingerprint_changes_when_a_peer_comes_back(clock: FakeClock) -> None:
    away, back = Known(peer("p", status=PeerStatus.OFFLINE)), Known(peer("p"))
    assert placer(away, clock).fingerprint() != placer(back, clock).fingerprint()
    assert placer(back, clock).fingerprint() == placer(Known(peer("p")), clock).fingerprint()


async def test_a_name_that_nobody_has_is_waited_for_while_a_member_has_not_said_its_own(clock: FakeClock) -> None:
    """Its advert may have been damaged here, and comes back by gossip."""
    said, mute = peer("p"), peer("q", peerd_version="")
    waits = placer(Known(said, mute), clock).place(job(peer="lost"), (), assigned={})
    assert isinstance(waits, Waits) and "q has not said yet what it is" in waits.message
    assert isinstance(placer(Known(said), clock).place(job(peer="lost"), (), assigned={}), Nobody)
