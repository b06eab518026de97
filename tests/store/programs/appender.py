"""A real writer for ``scripts/faulty-disk``: appends rows to a store and says on stdout which were acknowledged.

``appender.py FOLDER COUNT``. It meets a disk that is full as any caller of peerd does: refused, it tries again a moment
later. Exit 3 and the reason when the store cannot be opened: then it is up to the next start.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.store import Store, open_store

TRIES = 100
SIDE_BY_SIDE = 3
VALUE = "x" * 3000


def say(word: str) -> None:
    """Not with write(2), which is made to fail."""
    os.writev(1, [f"{word}\n".encode()])


async def opened(path: Path) -> Store:
    try:
        return await open_store(path, SystemClock(), peer_id="me")
    except PeerdError as error:
        say(f"refused {error.reason.text}")
        sys.exit(3)


async def append(store: Store, key: str) -> None:
    for _ in range(TRIES):
        try:
            await store.write(lambda tx: tx.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, VALUE)))
        except PeerdError as error:
            say(f"refused {error.reason.text}")
            if error.reason not in (Reason.DISK_LOW, Reason.DISK_FAILED):
                raise
            await asyncio.sleep(0.001)
        else:
            say(f"stored {key}")
            return
    sys.exit("the disk was full for too long")


async def main(folder: Path, count: int) -> None:
    store = await opened(folder / "s.db")
    try:
        await store.write(lambda tx: tx.execute("PRAGMA wal_autocheckpoint = 8"))
        there = {row["key"] for row in await store.all("SELECT key FROM meta WHERE key LIKE 'row%'")}
        todo = [key for key in (f"row{number}" for number in range(count)) if key not in there]
        for first in range(0, len(todo), SIDE_BY_SIDE):
            await asyncio.gather(*(append(store, key) for key in todo[first : first + SIDE_BY_SIDE]))
    finally:
        await store.close()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
