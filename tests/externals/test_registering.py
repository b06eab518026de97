"""A machine without peerd is one machine, however often it asks to be listed."""

from __future__ import annotations

import asyncio

from peerd.clock import FakeClock
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.store import Store
from peerd.v1.registry_pb2 import ExternalPeer


async def test_a_machine_that_asks_again_before_it_has_an_answer_is_listed_once(
    store: Store, identity: Identity, clock: FakeClock
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    externals = Externals(store, mesh, identity, clock, offline_seconds=90)
    await externals.load()
    asked = ExternalPeer(hostname="pi", ip="192.0.2.9", role="worker")
    answers = await asyncio.gather(*(externals.register(asked, caller="test") for _ in range(5)))
    assert len({answer.node_id for answer in answers}) == 1
    assert [answer.created for answer in answers] == [True, False, False, False, False]
    assert len(externals.known()) == 1


async def test_that_holds_although_it_hung_up_meanwhile(store: Store, identity: Identity, clock: FakeClock) -> None:
    mesh = await Mesh.found(store, identity, clock)
    externals = Externals(store, mesh, identity, clock, offline_seconds=90)
    await externals.load()
    asked = ExternalPeer(hostname="pi", ip="192.0.2.9", role="worker")
    first = asyncio.ensure_future(externals.register(asked, caller="test"))
    await asyncio.sleep(0)  # its write is under way
    first.cancel()
    again = await externals.register(asked, caller="test")
    assert first.cancelled() and not again.created
