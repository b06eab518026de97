"""Migrations: killed anywhere they leave the old schema or the new one, and what was there before is kept first."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import FakeClock, Millis
from peerd.errors import PeerdError, Reason
from peerd.store import migrate as module
from peerd.store import open_store
from peerd.store.backup import list_backups, read_backup
from peerd.store.migrate import COPIES_KEPT, migrate
from peerd.store.restore import prepare, stage, swap_staged

PROGRAM = Path(__file__).parent / "programs" / "migration_kills.py"
ALL = module._migrations()
SAMPLE = 8


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where a sync costs nothing, if there is one: a SIGKILL does not ask what is synced."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory)) if os.access(memory, os.W_OK) else tmp_path
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(*args: object) -> Any:
    done = subprocess.run([sys.executable, PROGRAM, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def be_of(patch: pytest.MonkeyPatch, version: int) -> None:
    patch.setattr(module, "_migrations", lambda: [entry for entry in ALL if entry[0] <= version])


def schema_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def old_store(path: Path, patch: pytest.MonkeyPatch) -> int:
    """A store of the schema before the newest, with a row to lose."""
    with patch.context() as past:
        be_of(past, ALL[-2][0])
        migrate(path, backup_dir=None)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO meta VALUES ('mine', 'kept')")
    return ALL[-2][0]


def value(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'mine'").fetchone()[0])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_around_statements_of_each_migration_one_of_the_two_schemas_is_there(in_memory: Path) -> None:
    """All statements of the newest, a few of those that are older; ``scripts/kill-migrations`` walks all."""
    found = run("statements", in_memory, SAMPLE)
    for number, sql in ALL:
        calls, kills = found["calls"][f"to {number}"], found["kills"][f"to {number}"]
        assert calls >= 2 * (len(module._statements(sql)) + 3), "around each statement"
        assert kills == (calls if number == ALL[-1][0] else min(calls, SAMPLE))
    assert found["left"]["old"] > 0 and found["left"]["new"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_opening_killed_at_random_moments_comes_to_its_end(in_memory: Path) -> None:
    found = run("random", in_memory, 1, 60)
    assert found["kills"] >= 60 and found["finished"] > 0


def test_what_was_there_before_is_a_backup_that_can_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, backups = tmp_path / "s.db", tmp_path / "backups"
    before = old_store(path, monkeypatch)
    migrate(path, backup_dir=backups, peer_id="me", now=Millis(1_700_000_000_000))
    (made,) = list_backups(backups)
    assert (made.schema, made.peer_id, made.path.stat().st_mode & 0o777) == (before, "me", 0o600)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'lost' WHERE key = 'mine'")
    prepare(made.path, path, peer_id="me", allow_other_identity=False, now=Millis(2))
    stage(path)
    swap_staged(path, backup_dir=backups, peer_id="me", now=Millis(2))
    assert (value(path), schema_of(path)) == ("kept", ALL[-1][0])


def test_copies_do_not_pile_up_and_a_torn_one_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, backups = tmp_path / "s.db", tmp_path / "backups"
    backups.mkdir()
    for number in range(COPIES_KEPT + 5):
        (backups / f"peerd-before-{number - 100:04d}.db").write_bytes(b"of long ago")
    torn = backups / f".peerd-before-{ALL[-1][0]:04d}.db.{'0' * 32}.tmp"
    torn.write_bytes(b"half a copy")
    torn.with_name(torn.name + "-journal").write_bytes(b"its journal")
    (backups / "peerd-20260101T000000000.db").write_bytes(b"somebody's own")
    old_store(path, monkeypatch)
    migrate(path, backup_dir=backups)
    kept = sorted(backups.glob("peerd-before-*.db"))
    assert len(kept) == COPIES_KEPT and schema_of(kept[-1]) == ALL[-2][0]
    assert not list(backups.glob(".*"))
    assert (backups / "peerd-20260101T000000000.db").exists()


@pytest.mark.parametrize("during", ["the copy", "the migration"])
def test_a_full_disk_refuses_to_migrate_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    path, backups = tmp_path / "s.db", tmp_path / "backups"
    before = old_store(path, monkeypatch)
    real = sqlite3.connect
    limit = 2 if during == "the copy" else schema_pages(path)

    def small(name: object, **options: Any) -> sqlite3.Connection:
        connection = real(name, **options)  # type: ignore[call-overload]
        if (during == "the copy") == str(name).endswith(".tmp"):
            connection.execute(f"PRAGMA max_page_count = {limit}")
        return connection  # type: ignore[no-any-return]

    big = [*ALL, (ALL[-1][0] + 1, "CREATE TABLE large (x);\nINSERT INTO large VALUES (zeroblob(1000000));\n")]
    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", small)
        full.setattr(module, "_migrations", lambda: big)
        with pytest.raises(PeerdError) as caught:
            migrate(path, backup_dir=backups)
    assert caught.value.reason is Reason.DISK_LOW
    assert value(path) == "kept"
    assert schema_of(path) == (before if during == "the copy" else ALL[-1][0])
    assert [entry.name for entry in backups.iterdir() if ".tmp" in entry.name] == []
    migrate(path, backup_dir=backups)
    assert schema_of(path) == ALL[-1][0]


def schema_pages(path: Path) -> int:
    """As many pages as all migrations but a large one need."""
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    migrate(copy, backup_dir=None)
    with closing(sqlite3.connect(copy)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0]) + 2


async def test_opening_keeps_the_copy_in_the_name_of_the_peer(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_store(tmp_path / "s.db", monkeypatch)
    await (await open_store(tmp_path / "s.db", clock, peer_id="me")).close()
    (path,) = (tmp_path / "backups").iterdir()
    assert read_backup(path).peer_id == "me"
