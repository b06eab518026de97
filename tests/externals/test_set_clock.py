"""An external machine is silent when it is silent, whatever its gateway's clock is set to."""

from __future__ import annotations

import pytest

from peerd.clock import FakeClock
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.registry.model import PeerStatus, PeerView
from peerd.store import Store
from peerd.v1.registry_pb2 import ExternalPeer

OFFLINE_SECONDS = 30.0


@pytest.mark.parametrize("set_by", [-86_400, 86_400])
async def test_setting_the_clock_makes_no_machine_silent_and_hides_no_silence(
    store: Store, clock: FakeClock, identity: Identity, set_by: float
) -> None:
    mesh = await Mesh.found(store, identity, clock)
    externals = Externals(store, mesh, identity, clock, offline_seconds=OFFLINE_SECONDS)

    def view() -> PeerView:
        (found,) = externals.views(is_present=lambda peer_id: True, name_of=str)
        return found

    def status() -> PeerStatus:
        return view().status

    asked = ExternalPeer(hostname="box", ip="10.0.0.9", role="worker")
    registered = await externals.register(asked, caller="test")
    clock.advance(1)
    await externals.beat(registered.node_id, status="online", metrics={})
    clock.set(set_by)
    clock.advance(OFFLINE_SECONDS - 5)
    assert status() is PeerStatus.ONLINE
    assert view().last_seen == clock.now() - 25_000, "people read it by the clock on the wall"
    clock.advance(10)
    assert status() is PeerStatus.OFFLINE
    assert view().since == clock.now() - 5_000
    await externals.sweep()
    document = externals.topic.find(registered.node_id)
    assert document is not None and not document.value.online
    assert document.value.last_heartbeat_at.ToMilliseconds() == clock.now() - 35_000, "so does another peer"
    await externals.beat(registered.node_id, status="online", metrics={})
    assert (status(), view().last_seen) == (PeerStatus.ONLINE, clock.now())
