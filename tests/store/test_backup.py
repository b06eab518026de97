"""Copies of a store: whole, verified, and put back at a start, whatever is killed when."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peerd.clock import FakeClock, Millis, SystemClock
from peerd.errors import PeerdError, Reason
from peerd.failpoints import FAILPOINTS
from peerd.store import migrate as migrate_module
from peerd.store import open_store
from peerd.store.backup import Backup, create_backup, list_backups, read_backup, remove_unfinished
from peerd.store.restore import prepare, stage, staged_path, swap_staged
from peerd.store.writer import Tx, connect

NOW = Millis(1_700_000_000_000)
ROW = (
    "INSERT INTO audit_log (at, caller, method, target, result, request_id, previous, digest)"
    " VALUES (1, '', '', ?, '', '', zeroblob(?), x'')"
)


def put_back(backup: Path, store: Path, *, allow: bool = False, now: int = 1) -> Path | None:
    """Restore, as 'peerd restore' does it."""
    prepare(backup, store, peer_id="me", allow_other_identity=allow, now=Millis(now))
    stage(store)
    return swap_staged(store, backup_dir=store.parent / "backups", peer_id="me", now=Millis(now))


async def store_with(path: Path, *values: str) -> str:
    """A store that holds these audit targets; returns its store id."""
    store = await open_store(path, FakeClock())
    for value in values:
        await store.write(lambda tx, value=value: tx.execute(ROW, (value, 0)))  # type: ignore[misc]
    found = store.store_id
    await store.close()
    return found


def held(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT target FROM audit_log ORDER BY id")]
    finally:
        connection.close()


@pytest.mark.timeout(300)
async def test_a_copy_of_a_large_store_ends_however_busy_its_writer_is(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "s.db", SystemClock())
    await store.write(lambda tx: [tx.execute(ROW, ("old", 100_000)) for _ in range(600)])

    async def write_on() -> int:
        count = 0
        while not making.done():
            await store.write(lambda tx: tx.execute(ROW, ("new", 10)))
            count += 1
        return count

    making = asyncio.ensure_future(
        asyncio.to_thread(create_backup, tmp_path / "s.db", tmp_path / "b.db", peer_id="me", now=NOW)
    )
    writing = asyncio.ensure_future(write_on())
    async with asyncio.timeout(90):
        made = await making
    written = await writing
    await store.close()
    assert written > 5, "the writer went on meanwhile"
    in_copy = held(made.path).count("new")
    assert held(made.path).count("old") == 600
    assert in_copy < written == held(tmp_path / "s.db").count("new"), "of one moment"
    assert (made.peer_id, made.made_at, made.path) == ("me", NOW, tmp_path / "b.db")
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o600
    assert read_backup(made.path) == made
    assert list_backups(tmp_path) == [made], "the store itself is no backup"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), Reason.NOT_FOUND),
        (lambda path: path.write_bytes(b"rubbish" * 500), Reason.INVALID_BACKUP),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), Reason.INVALID_BACKUP),
        (lambda path: change(path, "PRAGMA user_version = 9999"), Reason.STORE_TOO_NEW),
        (lambda path: change(path, "DELETE FROM meta WHERE key = 'backup_peer_id'"), Reason.INVALID_BACKUP),
    ],
)
async def test_what_is_no_whole_backup_is_refused_and_changes_nothing(
    tmp_path: Path, spoil: object, reason: Reason
) -> None:
    assert callable(spoil)
    await store_with(tmp_path / "s.db", "old")
    made = create_backup(tmp_path / "s.db", tmp_path / "b.db", peer_id="me", now=NOW)
    spoil(made.path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PeerdError) as caught:
        put_back(made.path, tmp_path / "s.db")
    assert caught.value.reason is reason
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert held(tmp_path / "s.db") == ["old"]


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


async def test_a_store_of_another_peer_is_taken_only_when_told(tmp_path: Path) -> None:
    await store_with(tmp_path / "s.db", "old")
    made = create_backup(tmp_path / "s.db", tmp_path / "b.db", peer_id="other", now=NOW)
    with pytest.raises(PeerdError) as caught:
        put_back(made.path, tmp_path / "s.db")
    assert caught.value.reason is Reason.OTHER_IDENTITY
    put_back(made.path, tmp_path / "s.db", allow=True)
    assert held(tmp_path / "s.db") == ["old"]


async def test_a_restored_store_has_the_old_rows_a_new_id_and_keeps_what_it_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    before = await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    await store_with(path, "two")
    prepare(made.path, path, peer_id="me", allow_other_identity=False, now=NOW)
    stage(path)
    assert held(path) == ["one", "two"], "nothing has happened yet"
    kept = swap_staged(path, backup_dir=tmp_path / "backups", peer_id="me", now=NOW)
    assert kept is not None and held(kept) == ["one", "two"]
    assert stat.S_IMODE(os.stat(kept).st_mode) == stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert held(path) == ["one"]
    assert await store_with(path) != before
    assert swap_staged(path, backup_dir=tmp_path / "backups", peer_id="me", now=NOW) is None


async def test_a_restore_is_undone_by_restoring_what_it_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    await store_with(path, "two")
    kept = put_back(made.path, path, now=2)
    assert kept is not None and [entry.path for entry in list_backups(tmp_path / "backups")] == [kept]
    put_back(kept, path, now=3)
    assert held(path) == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"rubbish" * 5000, b"SQLite format 3\0" + b"\xa5" * 9000])
async def test_a_damaged_store_is_replaced_and_kept_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.db"
    await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    path.write_bytes(content)
    path.with_name("s.db-wal").write_bytes(b"journal of the damaged one")
    kept = put_back(made.path, path)
    assert held(path) == ["one"]
    assert kept is not None and kept.read_bytes() == content
    assert not path.with_name("s.db-wal").exists(), "it would be played into the restored store"


async def test_a_backup_of_an_older_schema_is_staged_as_one_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, migrations = tmp_path / "s.db", migrate_module._migrations()
    with monkeypatch.context() as past:
        past.setattr(migrate_module, "_migrations", lambda: migrations[:-1])
        await store_with(path, "one")
        made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    assert made.schema == migrations[-2][0]
    kept = put_back(made.path, path)
    assert held(path) == ["one"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (migrations[-1][0],)
    connection.close()
    assert list(path.parent.joinpath("backups").iterdir()) == [kept]


def test_a_disk_that_is_full_is_a_refusal_and_leaves_nothing(tmp_path: Path) -> None:
    connection = connect(tmp_path / "s.db")
    connection.execute("CREATE TABLE large AS SELECT zeroblob(3000000) AS x")
    connection.close()
    program = (
        "import resource, sys; from pathlib import Path; from peerd.store.backup import create_backup as c\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000)); f = Path(sys.argv[1])\n"
        "try: c(f / 's.db', f / 'b.db', peer_id='me', now=1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PeerdError "), done.stdout
    assert not [path for path in tmp_path.iterdir() if "b.db" in path.name]


async def test_what_the_restore_itself_has_to_say_is_in_the_new_store_only(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)

    def then(tx: Tx, found: Backup) -> None:
        tx.execute(ROW, (f"restored {found.path.name} at {tx.now}", 0))

    prepare(made.path, path, peer_id="me", allow_other_identity=False, now=Millis(7), then=then)
    stage(path)
    assert held(path) == held(made.path) == ["one"]
    assert held(staged_path(path)) == ["one", "restored b.db at 7"]


async def test_a_path_with_every_odd_character_works(tmp_path: Path) -> None:
    folder = tmp_path / "a b?mode=memory#%41"
    folder.mkdir()
    await store_with(folder / "s.db", "one")
    made = create_backup(folder / "s.db", folder / "b.db", peer_id="me", now=NOW)
    put_back(made.path, folder / "s.db")
    assert held(folder / "s.db") == ["one"]


def test_it_never_writes_over_a_file(tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.write_text("precious")
    with pytest.raises(PeerdError) as caught:
        create_backup(tmp_path / "s.db", target, peer_id="me", now=NOW)
    assert caught.value.reason is Reason.ALREADY_EXISTS
    assert target.read_text() == "precious"


RESTORE = """
import sys
from pathlib import Path
from peerd.store.restore import prepare, stage, swap_staged
folder = Path(sys.argv[1])
prepare(folder / "b.db", folder / "s.db", peer_id="me", allow_other_identity=False, now=1)
stage(folder / "s.db")
swap_staged(folder / "s.db", backup_dir=folder / "backups", peer_id="me", now=1)
"""
CREATE = """
import sys
from pathlib import Path
from peerd.store.backup import create_backup
folder = Path(sys.argv[1])
create_backup(folder / "s.db", folder / "b.db", peer_id="me", now=1)
"""


def killed_at(failpoint: str, program: str, folder: Path) -> None:
    environ = {**os.environ, "PEERD_FAILPOINT": failpoint}
    assert subprocess.run([sys.executable, "-c", program, folder], env=environ, check=False).returncode == -9


async def test_killed_while_it_is_made_a_backup_has_no_name_and_the_next_one_is_made(tmp_path: Path) -> None:
    await store_with(tmp_path / "s.db", "one")
    killed_at("backup.create.before_rename", CREATE, tmp_path)
    assert list_backups(tmp_path) == []
    (tmp_path / ".precious.tmp").write_text("somebody else's")
    assert remove_unfinished(tmp_path) == 1
    assert [path.name for path in tmp_path.glob(".*")] == [".precious.tmp"]
    create_backup(tmp_path / "s.db", tmp_path / "b.db", peer_id="me", now=NOW)


@pytest.mark.parametrize(
    "failpoint", [name for name in FAILPOINTS if name.startswith(("backup.stage.", "backup.swap."))]
)
async def test_killed_at_any_point_a_restore_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, failpoint: str
) -> None:
    path = tmp_path / "s.db"
    await store_with(path, "one")
    create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    await store_with(path, "two")
    killed_at(failpoint, RESTORE, tmp_path)
    assert held(path) in (["one", "two"], ["one"])
    swap_staged(path, backup_dir=tmp_path / "backups", peer_id="me", now=Millis(2))  # what the next start does
    assert held(path) == (["one", "two"] if failpoint == "backup.stage.before_rename" else ["one"])
    assert not list(tmp_path.glob(".*")), "nothing of the killed one is left"
    await store_with(path)


async def test_what_a_killed_restore_wrote_never_reaches_the_next(tmp_path: Path) -> None:
    path, left = tmp_path / "s.db", tmp_path / ".s.db.restore.tmp"
    await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    left.write_bytes(made.path.read_bytes())
    program = (
        "import os, sys; from pathlib import Path; from peerd.store.writer import connect\n"
        "c = connect(Path(sys.argv[1])); c.execute(\"INSERT INTO meta VALUES ('ghost', 'x')\"); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, left], check=False).returncode == -9
    assert left.with_name(left.name + "-wal").stat().st_size > 0, "a journal waits to be played"
    put_back(made.path, path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM meta WHERE key = 'ghost'").fetchone() == (0,)
    connection.close()


# -- Holding the store


async def test_a_held_store_lets_writes_wait_then_go_on_or_refuses_them(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "s.db", SystemClock())
    await store.hold()
    waiting = asyncio.ensure_future(store.write(lambda tx: tx.execute(ROW, ("a", 0))))
    await asyncio.sleep(0)
    assert held(tmp_path / "s.db") == [] and not waiting.done()
    store.let_go()
    await waiting
    await store.hold()
    refused = asyncio.ensure_future(store.write(lambda tx: tx.execute(ROW, ("b", 0))))
    await asyncio.sleep(0)
    store.let_go(PeerdError(Reason.SHUTTING_DOWN, "ends"))
    for write in (refused, store.write(lambda tx: tx.execute(ROW, ("c", 0)))):
        with pytest.raises(PeerdError) as caught:
            await write
        assert caught.value.reason is Reason.SHUTTING_DOWN
    await store.close()
    assert held(tmp_path / "s.db") == ["a"]
