"""Backups of this daemon's store, by request and by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from peerd.clock import Clock, to_datetime
from peerd.config import StoreConfig
from peerd.disk import Reserve
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.store import Store, Tx
from peerd.store.backup import Backup, create_backup, list_backups, remove_unfinished
from peerd.store.restore import discard, prepare, stage
from peerd.uninterrupted import uninterrupted

_AUTOMATIC = "auto-"


class Backups:
    """The copies in ``<data>/backups``. One is made or put back at a time."""

    def __init__(
        self,
        config: StoreConfig,
        store: Store,
        store_path: Path,
        self_id: PeerId,
        clock: Clock,
        *,
        reserve: Reserve,
    ) -> None:
        self._config = config
        self._store = store
        self._store_path = store_path
        self._self_id = self_id
        self._clock = clock
        self._reserve = reserve
        self._alone = asyncio.Lock()
        self.folder = store_path.parent / "backups"

    async def create(self, target: Path | None, *, prefix: str = "peerd-") -> Backup:
        """Make one. Raises INVALID_BACKUP, INVALID_PATH, ALREADY_EXISTS or DISK_LOW."""
        async with self._alone:
            now = self._clock.now()
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{prefix}{to_datetime(now):%Y%m%dT%H%M%S}{int(now) % 1000:03d}.db"
            return await uninterrupted(
                asyncio.to_thread(
                    create_backup, self._store_path, target or self.folder / name, peer_id=self._self_id, now=now
                )
            )

    async def list(self) -> list[Backup]:
        """Newest first."""
        return await asyncio.to_thread(list_backups, self.folder)

    async def restore(
        self, path: Path, *, allow_other_identity: bool, then: Callable[[Tx, Backup], object], end: Callable[[], None]
    ) -> Backup:
        """Have the next start take it, and call ``end``: nothing is written to the present store any more.

        ``then`` runs in a transaction of the new store. Raises NOT_FOUND, INVALID_BACKUP, STORE_TOO_NEW, OTHER_IDENTITY
        or DISK_LOW, and then everything goes on. So it does when whoever asked goes away before all is prepared.
        """
        async with self._alone:
            preparing = asyncio.to_thread(
                prepare,
                path,
                self._store_path,
                peer_id=self._self_id,
                allow_other_identity=allow_other_identity,
                now=self._clock.now(),
                then=then,
            )
            try:
                found = await uninterrupted(preparing)
            except asyncio.CancelledError:
                await uninterrupted(asyncio.to_thread(discard, self._store_path))
                raise
            # From here on to its end: a store that is staged and still written to must not be.
            await uninterrupted(self._take(end))
            return found

    async def _take(self, end: Callable[[], None]) -> None:
        await self._store.hold()
        try:
            await asyncio.to_thread(stage, self._store_path)
        except BaseException:
            self._store.let_go()
            raise
        end()
        self._store.let_go(PeerdError(Reason.SHUTTING_DOWN, "this peer ends to start again with a restored store"))

    async def keep_up(self) -> None:
        """Make one when it is time, and delete those that are too many. Raises DISK_LOW."""
        async with self._alone:
            await asyncio.to_thread(remove_unfinished, self.folder)
        if self._config.backup_hours <= 0:
            return
        automatic = await asyncio.to_thread(list_backups, self.folder, prefix=_AUTOMATIC)
        now = self._clock.now()
        # One from the future was made while the clock was wrong: it says nothing about when the next is due.
        ages_ms = [now - backup.made_at for backup in automatic if backup.made_at <= now]
        if not ages_ms or min(ages_ms) >= self._config.backup_hours * 3_600_000:
            self._check_space()
            automatic.insert(0, await self.create(None, prefix=_AUTOMATIC))
        for backup in automatic[max(1, self._config.backups_kept) :]:
            backup.path.unlink(missing_ok=True)

    def _check_space(self) -> None:
        self._reserve.look(self._store_path.parent).check(self._store_path.stat().st_size)
