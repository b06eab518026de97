"""Kills migrations: right before and after every statement, every rename and removal, and at random moments.

``migration_kills.py statements FOLDER [SAMPLE]`` or ``migration_kills.py random FOLDER SEED COUNT``. Each victim is a
child process that a SIGKILL ends; what it left is judged by opening it again. Prints JSON: kills and faults. With a
SAMPLE, of migrations before the newest only so many calls are chosen for a kill, evenly, the first and last included.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from peerd.clock import Millis, SystemClock
from peerd.store import migrate as module
from peerd.store import open_store
from peerd.store.backup import read_backup
from peerd.store.migrate import migrate

ALL = module._migrations()
REAL_CONNECT = sqlite3.connect
Dump = dict[str, list[tuple[Any, ...]]]


class Killer:
    """Counts calls, and ends this process at the one that is meant."""

    def __init__(self, at: int) -> None:
        self.calls = 0
        self.at = at

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            try:
                return function(*args, **kwargs)
            finally:
                self.tick()

        return call

    def tick(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Put it around all that touches the files."""
        killer = self

        class Connection(sqlite3.Connection):
            execute = killer.around(sqlite3.Connection.execute)
            backup = killer.around(sqlite3.Connection.backup)
            close = killer.around(sqlite3.Connection.close)

        def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            return REAL_CONNECT(*args, factory=Connection, **kwargs)

        sqlite3.connect = connect  # type: ignore[assignment]
        for name in ("replace", "fsync", "unlink", "mkdir"):
            setattr(os, name, killer.around(getattr(os, name)))


def in_child(work: Callable[[], None]) -> int:
    """Run it in a child; returns the wait status. Whatever it raises is printed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def up_to(version: int) -> None:
    """Be a peerd of that schema."""
    module._migrations = lambda: [entry for entry in ALL if entry[0] <= version]


def dump(path: Path) -> tuple[int, Dump]:
    """The schema's number and all rows, of a store that must be whole."""
    with closing(REAL_CONNECT(path)) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchall()
        assert verdict == [("ok",)], f"integrity_check: {verdict}"
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return version, {table: sorted(connection.execute(f'SELECT * FROM "{table}"'), key=repr) for table in tables}


def shape(path: Path) -> list[tuple[Any, ...]]:
    with closing(REAL_CONNECT(path)) as connection:
        return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


def fill(path: Path, rows: int) -> None:
    """Rows in each table that later migrations touch, and enough of them for several pages."""
    with closing(REAL_CONNECT(path, isolation_level=None)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        connection.execute("BEGIN")
        for number in range(rows):
            connection.execute("INSERT INTO meta VALUES (?, ?)", (f"k{number}", "x" * 100))
            if "services" in tables:
                connection.execute(
                    "INSERT INTO services (name, origin, offered, active, declaration, changed_at)"
                    " VALUES (?, 'added', 1, 1, zeroblob(100), 1)",
                    (f"s{number}",),
                )
            if "audit_log" in tables:
                connection.execute(
                    "INSERT INTO audit_log (at, caller, method, target, result, request_id, previous, digest)"
                    " VALUES (1, '', '', '', '', '', zeroblob(32), zeroblob(32))"
                )
            if "node_sweeps" in tables:
                connection.execute(
                    "INSERT INTO organizations (org_id, slug, name, policy, created_at, updated_at, created_by)"
                    " VALUES (?, ?, '', zeroblob(100), 1, 1, '')",
                    (f"o{number}", f"o{number}"),
                )
                connection.execute(
                    "INSERT INTO node_sweeps (org_id, workflow_execution_id, started_at, caller) VALUES (?, 1, 1, '')",
                    (f"o{number}",),
                )
        if "audit_log" in tables:
            connection.execute("DELETE FROM audit_log WHERE id = 1")
        connection.execute("COMMIT")


def keeps(old: Dump, new: Dump) -> None:
    """All old rows are there; a table may have got more columns, at its end."""
    for table, rows in old.items():
        if table == "sqlite_sequence":
            continue
        width = len(rows[0]) if rows else 0
        assert sorted((row[:width] for row in new[table]), key=repr) == rows, f"rows of {table}"


def judge_backups(folder: Path, source: Dump, version: int) -> None:
    """Whatever has the name of a copy is a whole copy of what there was."""
    for path in folder.glob("peerd-before-*.db"):
        found = read_backup(path)
        assert found.schema == version, f"{path.name} has schema {found.schema}"
        _, rows = dump(path)
        rows["meta"] = [row for row in rows["meta"] if not str(row[0]).startswith("backup_")]
        assert rows == source, f"{path.name} has other rows"


def chosen(calls: int, sample: int) -> list[int]:
    """Of the calls from 1 on, so many; all when there are not more, or none are said."""
    if not 1 < sample < calls:
        return list(range(1, calls + 1))
    return sorted({1 + round(index * (calls - 1) / (sample - 1)) for index in range(sample)})


def counted(template: Path, place: Path) -> int:
    """How many calls a migration makes that nobody kills."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.copyfile(template, place / "s.db")

    def work() -> None:
        killer = Killer(0)
        killer.install()
        migrate(place / "s.db", backup_dir=place / "backups", peer_id="me", now=Millis(1))
        (place / "calls").write_text(str(killer.calls))

    assert in_child(work) == 0
    return int((place / "calls").read_text())


def statements(folder: Path, sample: int) -> dict[str, Any]:
    """From each schema to the next, killed at every call, or a sample of them."""
    kills: Counter[str] = Counter()
    calls_of: dict[str, int] = {}
    found: Counter[str] = Counter()
    versions = [0, *(number for number, _ in ALL)]
    for version, following in itertools.pairwise(versions):
        template = folder / f"template-{version}.db"
        if version:
            up_to(version)
            migrate(template, backup_dir=None)
            fill(template, 5)
            _, before = dump(template)
        else:
            template.touch()
            before = {}
        up_to(following)
        whole = folder / f"whole-{following}.db"
        shutil.copyfile(template, whole)
        migrate(whole, backup_dir=None)
        shapes = {version: shape(template), following: shape(whole)}
        place = folder / "victim"
        calls = calls_of[f"to {following}"] = counted(template, place)
        for at in chosen(calls, 0 if following == versions[-1] else sample):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            path = place / "s.db"
            shutil.copyfile(template, path)
            status = in_child(lambda at=at, path=path: victim(at, path))  # type: ignore[misc]
            assert os.WIFSIGNALED(status), f"to {following}, call {at}: it ended by itself, {status}"
            kills[f"to {following}"] += 1
            left, rows = dump(path)
            assert left in shapes, f"to {following}, call {at}: schema {left}"
            assert shape(path) == shapes[left], f"to {following}, call {at}: neither of the two schemas"
            found["new" if left == following else "old"] += 1
            if left == version:
                assert rows == before, f"to {following}, call {at}: other rows"
            else:
                keeps(before, rows)
            judge_backups(place / "backups", before, version)
            migrate(path, backup_dir=place / "backups", peer_id="me", now=Millis(2))
            left, rows = dump(path)
            assert (left, shape(path)) == (following, shapes[following]), f"to {following}, call {at}: not finished"
            keeps(before, rows)
            judge_backups(place / "backups", before, version)
            strays = [entry.name for entry in place.rglob("*") if ".tmp" in entry.name]
            assert not strays, f"to {following}, call {at}: {strays}"
    return {"kills": dict(kills), "calls": calls_of, "left": dict(found)}


def victim(at: int, path: Path) -> None:
    Killer(at).install()
    migrate(path, backup_dir=path.parent / "backups", peer_id="me", now=Millis(1))


def at_random(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """The real open_store, from a random schema to the newest, killed after a random time, opened again until done."""
    chance = random.Random(seed)
    newest = ALL[-1][0]
    templates: dict[int, tuple[Path, Dump]] = {}
    for version, _ in ALL[:-1]:
        path = folder / f"large-{version}.db"
        up_to(version)
        migrate(path, backup_dir=None)
        fill(path, 2000)
        templates[version] = (path, dump(path)[1])
    module._migrations = lambda: ALL
    kills, finished = Counter[str](), 0
    (folder / "first").mkdir()
    first = folder / "first" / "s.db"
    shutil.copyfile(templates[1][0], first)
    began = time.monotonic()
    assert in_child(lambda: asyncio.run(opened(first))) == 0
    took = time.monotonic() - began
    while kills.total() < count:
        version = chance.choice(list(templates))
        template, before = templates[version]
        place = folder / "victim"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / "s.db"
        shutil.copyfile(template, path)
        while True:
            began = time.monotonic()
            child = os.fork()
            if child == 0:
                try:
                    asyncio.run(opened(path))
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            time.sleep(chance.uniform(0, took * 1.2))
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, f"seed {seed}: it failed by itself"
                took = 0.5 * took + 0.5 * (time.monotonic() - began)
            left, rows = dump(path)
            assert version <= left <= newest
            keeps(before, rows)
            for copy in (place / "backups").glob("peerd-before-*.db"):
                dump(copy)
                assert read_backup(copy).peer_id == "me"
            if os.WIFEXITED(status):
                break
            kills[str(left)] += 1
        assert left == newest
        strays = [entry.name for entry in place.rglob("*") if ".tmp" in entry.name]
        assert not strays, f"seed {seed}: {strays}"
        assert len(list((place / "backups").iterdir())) <= 1
        finished += 1
    return {"seed": seed, "kills": kills.total(), "schema_left": dict(kills), "finished": finished}


async def opened(path: Path) -> None:
    await (await open_store(path, SystemClock(), peer_id="me")).close()


if __name__ == "__main__":
    if sys.argv[1] == "statements":
        print(json.dumps(statements(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)))
    else:
        print(json.dumps(at_random(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
