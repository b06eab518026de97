"""The wire side of backups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peerd.backups.backups import Backups
from peerd.errors import PeerdError, Reason
from peerd.moments import moment
from peerd.rpc.caller import current_caller
from peerd.store import Store, Tx
from peerd.store.backup import Backup
from peerd.store.requests import once, once_outside
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
        async def work() -> backup_pb2.CreateBackupResponse:
            made = await self._backups.create(_absolute(request.path) if request.path else None)
            return backup_pb2.CreateBackupResponse(backup=_message(made))

        return await once_outside(
            self._store,
            caller=current_caller().peer_id,
            request_id=request.request_id,
            request=request,
            answer_type=backup_pb2.CreateBackupResponse,
            work=work,
        )

    async def ListBackups(self, request: backup_pb2.ListBackupsRequest, context: Any) -> backup_pb2.ListBackupsResponse:
        return backup_pb2.ListBackupsResponse(backups=[_message(entry) for entry in await self._backups.list()])

    async def RestoreBackup(
        self, request: backup_pb2.RestoreBackupRequest, context: Any
    ) -> backup_pb2.RestoreBackupResponse:
        caller = current_caller().peer_id

        def then(tx: Tx, found: Backup) -> None:
            # In the restored store: there the call is known, and a repeat of it does not restore again.
            once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=backup_pb2.RestoreBackupResponse,
                effect=lambda: backup_pb2.RestoreBackupResponse(backup=_message(found)),
            )

        try:
            return await self._store.write(
                lambda tx: once(
                    tx,
                    caller=caller,
                    request_id=request.request_id,
                    request=request,
                    answer_type=backup_pb2.RestoreBackupResponse,
                    effect=_not_yet,
                )
            )
        except _NotYetError:
            taken = await self._backups.restore(
                _absolute(request.path),
                allow_other_identity=request.allow_other_identity,
                then=then,
                end=self._restart,
            )
            return backup_pb2.RestoreBackupResponse(backup=_message(taken))


class _NotYetError(Exception):
    """A request was not answered before. What it asks for is a file, and so cannot be done inside a transaction."""


def _not_yet() -> Any:
    raise _NotYetError


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise PeerdError(Reason.INVALID_PATH, f"{text[:200]!r} is not an absolute path")
    return path


def _message(backup: Backup) -> backup_pb2.Backup:
    return backup_pb2.Backup(
        path=str(backup.path),
        bytes=backup.size,
        peer_id=backup.peer_id,
        schema=backup.schema,
        made_at=moment(backup.made_at),
        digest=backup.digest,
    )
