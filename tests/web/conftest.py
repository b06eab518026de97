"""The HTTP application on a real store, with real tokens, a founder's registry and real external machines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from peerd.clock import FakeClock
from peerd.externals.externals import Externals
from peerd.identity.key import Identity
from peerd.mesh.mesh import Mesh
from peerd.registry.adverts import Adverts
from peerd.registry.notes import Notes
from peerd.registry.registry import Registry
from peerd.rpc.rates import Rates
from peerd.store import Store
from peerd.tokens.tokens import Tokens
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

    around = Surroundings(
        self_id=identity.peer_id,
        version="0",
        started_at=clock.now(),
        clock=clock,
        peers=registry,
        externals=externals,
        tokens=tokens,
        profile=lambda role: None,
        checks=all_checks,
        database=database,
        collect=lambda: None,
    )
    return Site(around, tokens, store, clock, checks)
