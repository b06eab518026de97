"""What is done to the inventory now and then."""

from __future__ import annotations

from functools import partial

from peerd.clock import DAY_MS
from peerd.config import InventoryConfig
from peerd.inventory.enrichment import Enrichment
from peerd.inventory.orphans import sweep
from peerd.inventory.retention import forget_changes, thin
from peerd.store import Store


class InventoryUpkeep:
    """Looks up new hosts, thins out what is old, and removes what nothing points at."""

    def __init__(self, config: InventoryConfig, store: Store) -> None:
        self._store = store
        self._thinned_until = -1
        self._kept_ms = round(config.observations_days * DAY_MS)
        self._enrichment = Enrichment(store, asn_database=config.asn_database, country_database=config.country_database)

    async def enrich(self) -> None:
        """Look up what came since."""
        await self._enrichment.keep_up()

    async def thin(self, now: int) -> None:
        """Old observations and changes and what they left, a little in each transaction: others get their turn."""
        before = now - self._kept_ms
        done: int | None = 0 if await self._got_old(before) else None
        while done is not None:
            done = await self._store.write(partial(thin, before=before, after_host=done))
        self._thinned_until = before
        while await self._store.write(forget_changes):
            pass
        while await sweep(self._store):
            pass

    async def _got_old(self, before: int) -> bool:
        """Whether any scan has come of age since it was looked at last."""
        row = await self._store.one(
            "SELECT 1 FROM inventory_scans WHERE scanned_at > ? AND scanned_at <= ? LIMIT 1",
            (self._thinned_until, before),
        )
        return row is not None

    def close(self) -> None:
        """Let go of files."""
        self._enrichment.close()
