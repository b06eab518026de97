"""The wire side of the audit log."""

from __future__ import annotations

import sqlite3
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.audit import repository
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.moments import moment
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store
from peerd.v1 import audit_pb2, audit_pb2_grpc

_PAGE = 100
_END = 2**62


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """peerd.v1.AuditService."""

    def __init__(self, self_id: PeerId, store: Store) -> None:
        self._self_id = self_id
        self._store = store

    async def ListAudit(self, request: audit_pb2.ListAuditRequest, context: Any) -> audit_pb2.ListAuditResponse:
        size = page_size(request.page_size, default=_PAGE)
        rows = await repository.read_page(
            self._store,
            before=page_start(request.page_token) or _END,
            since=_millis(request.since),
            caller=request.caller,
            method=request.method,
            count=size + 1,
        )
        token = str(rows[size - 1]["id"]) if len(rows) > size else ""
        return audit_pb2.ListAuditResponse(entries=[self._message(row) for row in rows[:size]], next_page_token=token)

    async def VerifyAudit(self, request: audit_pb2.VerifyAuditRequest, context: Any) -> audit_pb2.VerifyAuditResponse:
        found = await repository.verify(self._store)
        return audit_pb2.VerifyAuditResponse(
            entries=found.entries,
            intact=not found.fault,
            broken_id=found.broken_id,
            message=found.fault,
            head=found.head,
        )

    def _message(self, row: sqlite3.Row) -> audit_pb2.AuditEntry:
        return audit_pb2.AuditEntry(
            id=row["id"],
            at=moment(row["at"]),
            caller=row["caller"],
            local=row["caller"] == self._self_id,
            method=row["method"],
            target=row["target"],
            result=row["result"],
            request_id=row["request_id"],
            digest=row["digest"],
        )


def _millis(timestamp: Timestamp) -> int:
    """Raises INVALID_ARGUMENT for a moment that no timestamp means."""
    try:
        return timestamp.ToMilliseconds()
    except ValueError as error:
        raise PeerdError(Reason.INVALID_ARGUMENT, "since is no moment between the years 1 and 9999") from error
