"""Backups of this daemon's store, by request and by the clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peerd.clock import Clock, to_datetime
from peerd.config import StoreConfig
from peerd.identity.peer_id import PeerId
from peerd.store.backup import Backup, create_backup, list_backups, stage

_AUTOMATIC = "auto-"


class Backups:
    """The copies in ``<data>/backups``."""

    def __init__(self, config: StoreConfig, store_path: Path, self_id: PeerId, clock: Clock) -> None:
        self._config = config
        self._store_path = store_path
        self._self_id = self_id
        self._clock = clock
        self.folder = store_path.parent / "backups"

    async def create(self, target: Path | None, *, prefix: str = "peerd-") -> Backup:
        """Make one. Raises INVALID_BACKUP, INVALID_PATH or ALREADY_EXISTS."""
        now = self._clock.now()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{prefix}{to_datetime(now):%Y%m%dT%H%M%S}{int(now) % 1000:03d}.db"
        return await asyncio.to_thread(
            create_backup, self._store_path, target or self.folder / name, peer_id=self._self_id, now=now
        )

    async def list(self) -> list[Backup]:
        """Newest first."""
        return await asyncio.to_thread(list_backups, self.folder)

    async def stage(self, path: Path, *, allow_other_identity: bool) -> Backup:
        """Have the next start take it. Raises NOT_FOUND, INVALID_BACKUP, STORE_TOO_NEW or OTHER_IDENTITY."""
        return await asyncio.to_thread(
            stage, path, self._store_path, peer_id=self._self_id, allow_other_identity=allow_other_identity
        )

    async def keep_up(self) -> None:
        """Make one when it is time, and delete those that are too many."""
        if self._config.backup_hours <= 0:
            return
        automatic = [backup for backup in await self.list() if backup.path.name.startswith(_AUTOMATIC)]
        age_ms = self._clock.now() - automatic[0].made_at if automatic else None
        if age_ms is None or age_ms >= self._config.backup_hours * 3_600_000:
            automatic.insert(0, await self.create(None, prefix=_AUTOMATIC))
        for backup in automatic[max(1, self._config.backups_kept) :]:
            backup.path.unlink(missing_ok=True)
