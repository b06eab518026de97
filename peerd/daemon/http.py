"""The HTTP surface of this daemon: what it is given, and its life."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.types import ASGIApp

from peerd.clock import Millis
from peerd.config import HttpConfig
from peerd.disk import Disk
from peerd.errors import PeerdError
from peerd.rpc.rates import Rates
from peerd.store import Store, quarantine
from peerd.web.app import application
from peerd.web.surroundings import Check, Surroundings

_MAX_LAG_SECONDS = 1.0
_CONNECT_SECONDS = 1.0


def gated(around: Surroundings, config: HttpConfig, *, loopback: bool) -> ASGIApp:
    """The application behind its gate."""
    rates = Rates(per_second=config.requests_per_second, burst=config.burst)
    return application(around, rates=rates, loopback=loopback)


async def checks(
    store: Store,
    disk: Disk,
    *,
    now: Millis,
    address: str,
    stopping: bool,
    loop_lag: float,
    maintenance: str | None,
) -> Sequence[Check]:
    """Everything that being ready depends on, looked at now."""
    answers = await listens(address)
    return [
        await _store_check(store),
        await _damage_check(store, now),
        Check(
            name="disk",
            ok=disk.has_room(),
            message=f"{disk.free_bytes} bytes free, {disk.reserve_bytes} are kept in reserve",
        ),
        Check(name="grpc", ok=answers, message=f"{'listens' if answers else 'does not answer'} on {address}"),
        Check(
            name="event_loop",
            ok=loop_lag < _MAX_LAG_SECONDS,
            message=f"was late by {loop_lag:.3f} s when last looked at",
        ),
        Check(name="stopping", ok=not stopping, message="is being stopped" if stopping else "runs"),
        Check(name="maintenance", ok=maintenance is None, message=maintenance or "takes jobs", required=False),
    ]


async def listens(address: str) -> bool:
    """Whether somebody takes connections at that address of this machine."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError):
        return False
    writer.close()
    return True


async def database(store: Store, path: Path) -> Mapping[str, object]:
    """The store, in the words of the source document."""
    check = await _store_check(store)
    version = await store.one("PRAGMA user_version") if check.ok else None
    return {"connected": check.ok, "path": str(path), "schema": version[0] if version is not None else None}


async def _damage_check(store: Store, now: Millis) -> Check:
    """Rows that were put aside are said, and no reason to take this peer out of service; damaged pages are."""
    try:
        count = await quarantine.count_recent(store, now)
    except PeerdError as error:
        return Check(name="store_whole", ok=False, message=error.message)
    if store.damage:
        return Check(name="store_whole", ok=False, message=store.damage)
    message = f"{count} damaged rows were put aside; see 'peerd doctor'" if count else "nothing damaged was found"
    return Check(name="store_whole", ok=not count, message=message, required=False)


async def _store_check(store: Store) -> Check:
    try:
        await store.write(lambda tx: tx.execute("UPDATE meta SET value = value WHERE key = 'store_id'"))
    except PeerdError as error:
        return Check(name="store", ok=False, message=error.message)
    except Exception as error:  # noqa: BLE001 - whatever it is, the store does not work
        return Check(name="store", ok=False, message=type(error).__name__)
    return Check(name="store", ok=True, message="takes writes")
