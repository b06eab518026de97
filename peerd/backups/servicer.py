"""The wire side of backups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.backups.backups import Backups
from peerd.errors import PeerdError, Reason
from peerd.rpc.caller import current_caller
from peerd.store import Store
from peerd.store.audit import note
from peerd.store.backup import Backup
from peerd.v1 import backup_pb2, backup_pb2_grpc


class BackupServicer(backup_pb2_grpc.BackupServiceServicer):
    """peerd.v1.BackupService."""

    def __init__(self, backups: Backups, store: Store, *, restart: Callable[[], None]) -> None:
        self._backups = backups
        self._store = store
        self._restart = restart

    async def CreateBackup(
        self, request: backup_pb2.CreateBackupRequest, context: Any
    ) -> backup_pb2.CreateBackupResponse:
        made = await self._backups.create(_absolute(request.path) if request.path else None)
        caller = current_caller().peer_id
        await self._store.write(lambda tx: note(tx, "CreateBackup", caller=caller, target={"path": str(made.path)}))
        return backup_pb2.CreateBackupResponse(backup=_message(made))

    async def ListBackups(self, request: backup_pb2.ListBackupsRequest, context: Any) -> backup_pb2.ListBackupsResponse:
        return backup_pb2.ListBackupsResponse(backups=[_message(entry) for entry in await self._backups.list()])

    async def RestoreBackup(
        self, request: backup_pb2.RestoreBackupRequest, context: Any
    ) -> backup_pb2.RestoreBackupResponse:
        path = _absolute(request.path)
        staged = await self._backups.stage(path, allow_other_identity=request.allow_other_identity)
        self._restart()
        return backup_pb2.RestoreBackupResponse(backup=_message(staged))


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise PeerdError(Reason.INVALID_PATH, f"{text[:200]!r} is not an absolute path")
    return path


def _message(backup: Backup) -> backup_pb2.Backup:
    made = backup.made_at
    return backup_pb2.Backup(
        path=str(backup.path),
        bytes=backup.size,
        peer_id=backup.peer_id,
        schema=backup.schema,
        made_at=Timestamp(seconds=made // 1000, nanos=made % 1000 * 1_000_000),
        digest=backup.digest,
    )
