"""The wire side of the audit log."""

from __future__ import annotations

import sqlite3
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.identity.peer_id import PeerId
from peerd.rpc.paging import page_size, page_start
from peerd.store import Store
from peerd.store.audit import entry_of, link
from peerd.v1 import audit_pb2, audit_pb2_grpc

_PAGE = 100
_CHUNK = 5000
_END = 2**62


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """peerd.v1.AuditService."""

    def __init__(self, self_id: PeerId, store: Store) -> None:
        self._self_id = self_id
        self._store = store

    async def ListAudit(self, request: audit_pb2.ListAuditRequest, context: Any) -> audit_pb2.ListAuditResponse:
        size, before = page_size(request.page_size, default=_PAGE), page_start(request.page_token) or _END
        rows = await self._store.all(
            "SELECT * FROM audit_log WHERE id < :before AND at >= :since"
            " AND (:caller = '' OR caller = :caller) AND (:method = '' OR method = :method)"
            " ORDER BY id DESC LIMIT :count",
            {
                "before": before,
                "since": request.since.ToMilliseconds(),
                "caller": request.caller,
                "method": request.method,
                "count": size + 1,
            },
        )
        token = str(rows[size - 1]["id"]) if len(rows) > size else ""
        return audit_pb2.ListAuditResponse(entries=[self._message(row) for row in rows[:size]], next_page_token=token)

    async def VerifyAudit(self, request: audit_pb2.VerifyAuditRequest, context: Any) -> audit_pb2.VerifyAuditResponse:
        count, last, head = 0, 0, None
        while True:
            rows = await self._store.all("SELECT * FROM audit_log WHERE id > ? ORDER BY id LIMIT ?", (last, _CHUNK))
            for row in rows:
                fault = _fault(row, head)
                if fault:
                    return audit_pb2.VerifyAuditResponse(
                        entries=count, intact=False, broken_id=row["id"], message=f"entry {row['id']} {fault}"
                    )
                count, last, head = count + 1, row["id"], row["digest"]
            if len(rows) < _CHUNK:
                return audit_pb2.VerifyAuditResponse(entries=count, intact=True, head=head or b"")

    def _message(self, row: sqlite3.Row) -> audit_pb2.AuditEntry:
        return audit_pb2.AuditEntry(
            id=row["id"],
            at=Timestamp(seconds=row["at"] // 1000, nanos=row["at"] % 1000 * 1_000_000),
            caller=row["caller"],
            local=row["caller"] == self._self_id,
            method=row["method"],
            target=row["target"],
            result=row["result"],
            request_id=row["request_id"],
            digest=row["digest"],
        )


def _fault(row: sqlite3.Row, head: bytes | None) -> str:
    # The oldest kept entry follows one that is not kept any more.
    if head is not None and row["previous"] != head:
        return "does not follow the entry before it: one was removed, added or changed"
    if row["digest"] != link(row["previous"], entry_of(row)):
        return "was changed"
    return ""
