"""Everything about scans, put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peerd import metrics
from peerd.clock import DAY_MS, Clock
from peerd.config import ScansConfig
from peerd.disk import Disk
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.scans import data, hand_ins, repository
from peerd.scans.changes import Changes
from peerd.scans.collaborators import Inventory, Reader
from peerd.scans.control import Control
from peerd.scans.ingest import Ingest
from peerd.scans.model import IngestState
from peerd.scans.plain import PlainScans
from peerd.scans.receiving import Receiving, Trust
from peerd.scans.servicer import ScanServicer
from peerd.scans.signing import Signer
from peerd.scans.submission import Submissions
from peerd.scans.wire import JobMessages
from peerd.store import Store

_AT_ONCE = 500
"""Rows of one transaction."""
_OPEN = (IngestState.PENDING, IngestState.PROCESSING)


class Scans:
    """What this peer does with scans."""

    def __init__(
        self,
        store: Store,
        store_path: Path,
        clock: Clock,
        config: ScansConfig,
        identity: Identity,
        *,
        trust: Trust,
        disk: Callable[[], Disk],
        inventory: Inventory,
        reader: Reader,
        name_of: Callable[[str], str],
        resolve: Callable[[str], PeerId],
    ) -> None:
        self._store = store
        self._config = config
        changes = Changes()
        self.receiving = Receiving(store, clock, config, changes, self_id=identity.peer_id, trust=trust, disk=disk)
        self.ingest = Ingest(store, store_path, clock, config, changes, inventory=inventory, reader=reader)
        self.web = PlainScans(store, clock, config, self.receiving)
        self.signer = Signer(identity, clock)
        to_message = JobMessages(clock, name_of)
        self._submissions = Submissions(store, self.receiving, to_message)
        self.servicer = ScanServicer(
            store,
            self._submissions,
            self.signer,
            Control(changes),
            changes,
            to_message,
            name_of=name_of,
            resolve=resolve,
        )

    async def load(self) -> None:
        """Before anything is served: what streams left that did not come to their end goes."""
        await self._store.write(data.remove_unowned)

    async def count(self) -> None:
        """Bring metrics up to date."""
        found = await repository.count_states(self._store)
        for state in _OPEN:
            metrics.ingest_jobs.labels(state.value).set(found.get(state.value, 0))

    async def data_bytes(self) -> int:
        """What the bytes of scans take in the store."""
        return await repository.data_bytes(self._store)

    async def prune(self, now: int) -> None:
        """Remove the bytes and skipped lines of what has long been final, and what is older still."""
        await self._submissions.clear()
        data_before = now - round(self._config.keep_data_days * DAY_MS)
        skipped_before = data_before - round(self._config.keep_skipped_days * DAY_MS)
        jobs_before = now - round(self._config.keep_jobs_days * DAY_MS) if self._config.keep_jobs_days else 0
        while await self._store.write(
            lambda tx: repository.prune(
                tx, data_before=data_before, skipped_before=skipped_before, jobs_before=jobs_before
            )
        ):
            pass
        while await self._store.write(lambda tx: hand_ins.prune(tx, before=skipped_before, limit=_AT_ONCE)):
            pass
