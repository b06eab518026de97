from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.detector.contact import Contact
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.mesh import gossip
from peerd.mesh.mesh import Mesh
from peerd.mesh.model import OBSERVE
from peerd.registry.adverts import Adverts
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.store import Store
from peerd.v1.registry_pb2 import Sample
from tests.mesh.nodes import Fleet
from tests.mesh.signing import ADA, BOB, ZOE


@pytest.fixture(autouse=True)
def patient_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers here compare nothing later on, so that a push which a busy machine holds up must not be given up."""
    monkeypatch.setattr(gossip, "_PUSH_SECONDS", 60.0)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def mesh(store: Store, identity: Identity, clock: FakeClock) -> Mesh:
    """A founder with three members that it has never heard of."""
    founded = await Mesh.found(store, identity, clock)
    for member in (ADA, BOB, ZOE):
        await store.write(
            lambda tx, member=member: founded.admit(  # type: ignore[misc]
                tx, actor=founded.self_id, subject=member.peer_id, grants=frozenset({OBSERVE}), roles=frozenset()
            )
        )
    return founded


@pytest.fixture
def adverts(store: Store, mesh: Mesh, identity: Identity) -> Adverts:
    return Adverts(store, mesh, identity)


@pytest.fixture
def notes(store: Store, mesh: Mesh, identity: Identity) -> Notes:
    return Notes(store, mesh, identity)


class Seen:
    """What the failure detector would say; nothing until a test says so."""

    def __init__(self, clock: FakeClock) -> None:
        self.local_health = 0
        self.contacts: dict[str, Contact] = {}
        self._started = clock.now()

    def contact(self, peer_id: PeerId) -> Contact:
        return self.contacts.get(peer_id, Contact(since=self._started))


@pytest.fixture
def seen(clock: FakeClock) -> Seen:
    return Seen(clock)


@pytest.fixture
def registry(mesh: Mesh, adverts: Adverts, notes: Notes, seen: Seen, clock: FakeClock) -> Registry:
    made = Registry(mesh, adverts, notes, clock)
    made.attach(seen, own_sample=Sample)
    return made
