"""The HTTP application on a real store, with real tokens, a founder's registry and real external machines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from peerd.clock import FakeClock
from peerd.config import ScansConfig
from peerd.disk import NOTHING_KEPT
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.inventory.inventory import Inventory
from peerd.mesh.mesh import Mesh
from peerd.registry.adverts import Adverts
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.rpc.rates import Rates
from peerd.scans.changes import Changes
from peerd.scans.plain import PlainScans
from peerd.scans.receiving import Receiving
from peerd.store import Store
from peerd.tokens.tokens import Tokens
from peerd.v1.devices_pb2 import Device
from peerd.web.app import application
from peerd.web.surroundings import Check, Surroundings


@dataclass
class Site:
    """What the application stands on, and how to ask it."""

    around: Surroundings
    tokens: Tokens
    store: Store
    clock: FakeClock
    checks: list[Check] = field(default_factory=list)

    async def token(self, scope: int, *, ttl_seconds: int = 0) -> str:
        """A new token."""
        made = await self.store.write(lambda tx: self.tokens.create(tx, scope=scope, name="", ttl_seconds=ttl_seconds))
        return made[1]

    @asynccontextmanager
    async def client(
        self, *, loopback: bool = True, rates: Rates | None = None, raises: bool = True
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Somebody who asks. ``raises``: a fault inside the application fails the test."""
        app = application(self.around, rates=rates or Rates(), loopback=loopback)
        transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


def scans(store: Store, clock: FakeClock, identity: Identity) -> PlainScans:
    """What HTTP does with scans, without a limit to how often."""

    class Nobody:
        mesh_id = identity.peer_id

        def grants(self, peer_id: PeerId) -> frozenset[int] | None:
            return None

        def is_revoked(self, peer_id: PeerId) -> bool:
            return False

    config = ScansConfig(submissions_per_minute=0, http_max_bytes=200_000)
    receiving = Receiving(
        store,
        clock,
        config,
        Changes(),
        self_id=identity.peer_id,
        trust=Nobody(),
        disk=lambda: NOTHING_KEPT.look(Path("/")),
    )
    return PlainScans(store, clock, config, receiving)


@pytest.fixture
async def site(store: Store, identity: Identity, clock: FakeClock) -> Site:
    mesh = await Mesh.found(store, identity, clock)
    registry = Registry(mesh, Adverts(store, mesh, identity), Notes(store, mesh, identity), clock)
    externals = Externals(store, mesh, identity, clock, offline_seconds=300)
    registry.list_externals(lambda: externals.views(is_present=registry.is_online, name_of=registry.name_of))
    tokens = Tokens(store, clock)
    checks = [Check(name="store", ok=True, message="takes writes")]

    async def all_checks() -> list[Check]:
        return checks

    async def database() -> dict[str, object]:
        return {"connected": True, "path": "/p", "schema": 1}

    async def devices() -> list[Device]:
        return []

    around = Surroundings(
        self_id=identity.peer_id,
        version="0",
        started_at=clock.now(),
        clock=clock,
        peers=registry,
        externals=externals,
        tokens=tokens,
        inventory=Inventory(store, clock),
        scans=scans(store, clock, identity),
        profile=lambda role: None,
        devices=devices,
        checks=all_checks,
        database=database,
        collect=lambda: None,
    )
    return Site(around, tokens, store, clock, checks)
