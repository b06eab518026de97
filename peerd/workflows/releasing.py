"""Tells executors that an execution is over, and whether it is kept: from then on their retention may take its files.

The wish lies in the rows (``told``), so it outlives restarts and is repeated until each executor has heard it. What was
ordered before the store was restored is known there under the id that the store had then.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence

import structlog

from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.v1 import jobs_pb2
from peerd.workflows.contacts import Contacts
from peerd.workflows.dispatch import CALL_SECONDS, Dispatcher

_log = structlog.get_logger(__name__)

_EXECUTIONS = 500
_KEYS_PER_CALL = 1000
_ANY = 2**63
_UNTOLD = (
    "SELECT j.id, j.workflow_execution_id, j.placement, j.executor_peer_id, x.kept FROM workflow_jobs j "
    "JOIN workflow_executions x ON x.id = j.workflow_execution_id WHERE x.id IN "
    "(SELECT id FROM workflow_executions WHERE settled = 1 AND told = 0 ORDER BY id LIMIT ?) "
    "AND j.told = 0 AND j.executor_peer_id IS NOT NULL AND j.remote_job_execution_id IS NOT NULL"
)
_MARK_JOB = (
    "UPDATE workflow_jobs SET told = 1 WHERE id = ? AND EXISTS "
    "(SELECT 1 FROM workflow_executions x WHERE x.id = workflow_execution_id AND x.kept = ?)"
)
_MARK_EXECUTIONS = (
    "UPDATE workflow_executions SET told = 1 WHERE settled = 1 AND told = 0 AND NOT EXISTS "
    "(SELECT 1 FROM workflow_jobs j WHERE j.workflow_execution_id = workflow_executions.id AND j.told = 0 "
    "AND j.executor_peer_id IS NOT NULL AND j.remote_job_execution_id IS NOT NULL)"
)

_EARLIER = "earlier_stores"
"""In ``meta``: by each id that the store had, the highest execution of then."""


def remember_store(tx: Tx, store_id: str) -> None:
    """The store had that id until now, when it is restored."""
    found = tx.one("SELECT value FROM meta WHERE key = ?", (_EARLIER,))
    highest = tx.one("SELECT coalesce(max(id), 0) AS id FROM workflow_executions")
    assert highest is not None  # noqa: S101 - an aggregate is always there
    earlier = {**(json.loads(found["value"]) if found is not None else {}), store_id: highest["id"]}
    tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_EARLIER, json.dumps(earlier)))


class Releasing:
    """Says it to whom it concerns."""

    def __init__(
        self, store: Store, dispatcher: Dispatcher, contacts: Contacts, is_revoked: Callable[[PeerId], bool]
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._contacts = contacts
        self._is_revoked = is_revoked

    async def round(self) -> None:
        """Tell every executor that can be reached what it has not heard."""
        if await self._store.one("SELECT 1 FROM workflow_executions WHERE settled = 1 AND told = 0") is None:
            return
        groups: dict[tuple[PeerId, int], list[sqlite3.Row]] = {}
        for row in await self._store.all(_UNTOLD, (_EXECUTIONS,)):
            groups.setdefault((PeerId(row["executor_peer_id"]), row["kept"]), []).append(row)
        found = await self._store.one("SELECT value FROM meta WHERE key = ?", (_EARLIER,))
        earlier: dict[str, int] = json.loads(found["value"]) if found is not None else {}
        await asyncio.gather(*(self._tell(peer, rows, kept, earlier) for (peer, kept), rows in groups.items()))
        await self._store.write(lambda tx: tx.execute(_MARK_EXECUTIONS))

    async def _tell(self, peer: PeerId, rows: Sequence[sqlite3.Row], kept: int, earlier: Mapping[str, int]) -> None:
        """A revoked peer is not told: it deletes what it likes."""
        if self._contacts.is_away(peer):
            return
        for start in range(0, len(rows), _KEYS_PER_CALL):
            part = rows[start : start + _KEYS_PER_CALL]
            for store_id, highest in {self._store.store_id: _ANY, **earlier}.items():
                of_store = [row for row in part if row["workflow_execution_id"] <= highest]
                if not of_store or self._is_revoked(peer):
                    continue
                if not await self._call(peer, store_id, of_store, keep=bool(kept)):
                    return
            failpoint("workflow.release.after_send")
            await self._store.write(lambda tx, part=part: _mark(tx, part, kept))  # type: ignore[misc]

    async def _call(self, peer: PeerId, store_id: str, rows: Sequence[sqlite3.Row], *, keep: bool) -> bool:
        keys = [
            jobs_pb2.JobKey(
                store_id=store_id,
                workflow_execution_id=row["workflow_execution_id"],
                workflow_job_id=row["id"],
                placement=row["placement"],
            )
            for row in rows
        ]
        try:
            with remote_errors(peer):
                request = jobs_pb2.ReleaseJobsRequest(keys=keys, keep=keep)
                await self._dispatcher.stub(peer).ReleaseJobs(request, timeout=CALL_SECONDS)
        except PeerdError as error:
            _log.info("releasing.not_heard", peer=peer, reason=error.reason.text)
            return False
        return True


def _mark(tx: Tx, rows: Sequence[sqlite3.Row], kept: int) -> None:
    tx.executemany(_MARK_JOB, ((row["id"], kept) for row in rows))
