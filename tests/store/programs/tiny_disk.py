"""A store on a file system of 2 MiB that is filled and freed: ``tiny_disk.py FOLDER``, run where FOLDER is such a one.

Prints JSON: what was acknowledged and refused, and what each start on a full disk came to.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

from peerd.clock import SystemClock
from peerd.errors import PeerdError, Reason
from peerd.store import Store, open_store
from peerd.store import migrate as module
from peerd.store.migrate import migrate


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error


async def put(store: Store, key: str, size: int) -> bool:
    """Whether it was acknowledged; refused for any reason but the full disk is a failure."""
    try:
        await store.write(lambda tx: tx.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, "x" * size)))
    except PeerdError as error:
        if error.reason is not Reason.DISK_LOW:
            raise
        return False
    return True


def whole(path: Path) -> set[str]:
    """The keys in a file that must be whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {row[0] for row in connection.execute("SELECT key FROM meta")}


async def starts(path: Path) -> str:
    """What came of a start."""
    try:
        await (await open_store(path, SystemClock(), peer_id="me")).close()
    except PeerdError as error:
        return error.reason.text
    return "opened"


async def filled_and_freed(folder: Path) -> dict[str, Any]:
    path, filler, ballast = folder / "s.db", folder / "filler", folder / "ballast"
    ballast.write_bytes(bytes(400_000))
    store = await open_store(path, SystemClock(), peer_id="me")
    acknowledged: set[str] = set()
    while await put(store, key := f"row{len(acknowledged)}", 20_000):
        acknowledged.add(key)
    fill(filler)
    refused = 0
    for number in range(50):
        key = f"small{number}"
        if await put(store, key, 10):
            acknowledged.add(key)
        else:
            refused += 1
        assert len(await store.all("SELECT key FROM meta")) == len(acknowledged) + 1, "it is read as before"
    filler.unlink()
    ballast.unlink()
    assert await put(store, "after", 20_000), "there is room again"
    acknowledged.add("after")
    await store.close()
    assert acknowledged <= whole(path)
    fill(filler)
    on_full = await starts(path)
    filler.unlink()
    assert await starts(path) == "opened"
    assert acknowledged <= whole(path)
    return {"acknowledged": len(acknowledged), "refused": refused, "start_on_full_disk": on_full}


async def migrated(folder: Path) -> dict[str, Any]:
    """No room for the copy that comes first."""
    path, filler, real = folder / "old.db", folder / "filler", module._migrations
    module._migrations = lambda: real()[:-1]
    migrate(path, backup_dir=None)
    module._migrations = real
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO meta VALUES ('mine', ?)", ("x" * 100_000,))
    fill(filler)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 200_000)
    refused = await starts(path)
    left = [entry.name for entry in (folder / "backups").rglob("*")]
    assert "mine" in whole(path)
    with closing(sqlite3.connect(path)) as connection:
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
    filler.unlink()
    assert await starts(path) == "opened"
    assert "mine" in whole(path)
    return {"migration_on_full_disk": refused, "left": left, "untouched": schema == real()[-2][0]}


async def main(folder: Path) -> None:
    found = {**await migrated(folder)}
    for entry in [*(folder / "backups").iterdir(), *folder.glob("old.db*")]:
        entry.unlink()
    print(json.dumps({**found, **await filled_and_freed(folder)}))


try:
    asyncio.run(main(Path(sys.argv[1])))
except BaseException:
    traceback.print_exc()
    os._exit(1)  # without waiting for what is open
