"""Rows that cannot be read are put aside and said, so that one of them does not keep everything else from working.

SQLite finds damaged pages, not a changed byte in a value. Whoever decodes a value and fails keeps it here, and goes on
without it: what other peers hold as well comes back by gossip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from peerd.clock import DAY_MS, Millis
from peerd.digest import digest
from peerd.store.store import Store
from peerd.store.writer import Tx

_log = structlog.get_logger(__name__)

KEPT = 1000
"""The newest stay."""
SHOWN_DAYS = 30
"""How long they are pointed out."""
NEXT_ACTION = (
    "what other peers hold comes back by itself, a member that nobody else knows has to be admitted again; for the "
    "rest restore a backup from before: 'peerd restore FILE'"
)
COUNT = "SELECT count(*) AS count, max(at) AS newest FROM quarantine WHERE at > ?"
_LIST = "SELECT source, key, content, error, at FROM quarantine ORDER BY id DESC LIMIT ?"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One row, as it was."""

    source: str
    key: Mapping[str, object]
    content: bytes
    error: str
    at: Millis


def put_aside(tx: Tx, source: str, key: Mapping[str, object], content: bytes, error: Exception) -> None:
    """Keep what could not be read. The row itself stays; its owner marks or deletes it."""
    said = f"{type(error).__name__}: {error}"[:500]
    name = json.dumps(dict(key), default=lambda value: bytes(value).hex())
    added = tx.execute(
        "INSERT INTO quarantine (source, key, content, digest, error, at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (source, name, content, digest(content), said, tx.now),
    ).rowcount
    tx.execute("DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (KEPT,))
    if added:
        tx.on_commit(lambda: _log.warning("store.row_quarantined", table=source, key=name, error=said))


def move_aside(tx: Tx, source: str, key: Mapping[str, object], content: bytes, error: Exception) -> None:
    """The same, and the row is gone from its table."""
    put_aside(tx, source, key, content, error)
    where = " AND ".join(f"{column} = ?" for column in key)
    tx.execute(f"DELETE FROM {source} WHERE {where}", tuple(key.values()))  # noqa: S608 - names from our own code


async def quarantined(store: Store, limit: int = 100) -> list[Quarantined]:
    """The newest first."""
    return [
        Quarantined(
            source=row["source"],
            key=json.loads(row["key"]),
            content=row["content"],
            error=row["error"],
            at=row["at"],
        )
        for row in await store.all(_LIST, (limit,))
    ]


async def count_recent(store: Store, now: Millis) -> int:
    """How many were put aside lately."""
    row = await store.one(COUNT, (now - SHOWN_DAYS * DAY_MS,))
    return int(row["count"]) if row is not None else 0
