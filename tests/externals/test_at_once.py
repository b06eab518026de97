"""Machines that say things at the same moment, and a gateway that is slow to speak of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.store import Store
from peerd.v1.registry_pb2 import ExternalPeer

OFFLINE_SECONDS = 30.0


@pytest.fixture
async def externals(store: Store, clock: FakeClock, identity: Identity) -> Externals:
    mesh = await Mesh.found(store, identity, clock)
    return Externals(store, mesh, identity, clock, offline_seconds=OFFLINE_SECONDS)


def machine(number: int, **more: Any) -> ExternalPeer:
    return ExternalPeer(hostname=f"box{number}", ip=f"10.0.0.{number}", role="worker", **more)


async def test_a_machine_that_registers_twice_at_once_is_one(externals: Externals) -> None:
    """Regression: one that had heard nothing yet and asked again was listed twice, once as silent for ever."""
    first = asyncio.create_task(externals.register(machine(1), caller="test"))
    others = [asyncio.create_task(externals.register(machine(1 + number % 2), caller="test")) for number in range(6)]
    await asyncio.sleep(0)
    first.cancel()  # whoever asked went away
    made = await asyncio.gather(*others)
    assert len({one.node_id for one in made}) == len(externals.known()) == 2


async def test_one_that_is_back_before_its_silence_is_said_is_not_called_silent(
    externals: Externals, clock: FakeClock, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: with many that fell silent at once, other peers heard it of those that were back meanwhile, and what
    these had just said of themselves was lost."""
    ids = [(await externals.register(machine(number), caller="test")).node_id for number in range(1, 4)]
    clock.advance(OFFLINE_SECONDS + 1)
    write = store.write
    back = False

    async def late(function: Any) -> Any:
        nonlocal back
        result = await write(function)
        if not back:
            back = True
            await externals.beat(ids[1], status="online", metrics={})
            await externals.register(machine(3, labels=["rack=4"]), caller="test")
        return result

    monkeypatch.setattr(store, "write", late)
    await externals.sweep()
    assert back
    said = {one.external.node_id: one.external for one in externals.known()}
    assert [said[one].online for one in ids] == [False, True, True]
    assert list(said[ids[2]].labels) == ["rack=4"]
