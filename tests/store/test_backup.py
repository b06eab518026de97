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
from peerd.store import open_store
from peerd.store.backup import create_backup, list_backups, read_backup, stage, staged_path, swap_staged

NOW = Millis(1_700_000_000_000)


async def store_with(path: Path, *values: str) -> str:
    """A store that holds these audit targets; returns its store id."""
    store = await open_store(path, FakeClock())
    for value in values:
        await store.write(
            lambda tx, value=value: tx.execute(  # type: ignore[misc]
                "INSERT INTO audit_log (at, caller, method, target, result, request_id, previous, digest)"
                " VALUES (1, '', '', ?, '', '', x'', x'')",
                (value,),
            )
        )
    found = store.store_id
    await store.close()
    return found


def held(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT target FROM audit_log ORDER BY id")]
    finally:
        connection.close()


async def test_a_copy_made_while_the_store_is_written_to_is_whole(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "s.db", SystemClock())

    async def write_on() -> int:
        count = 0
        while not done.is_set():
            await store.write(
                lambda tx: tx.execute(
                    "INSERT INTO audit_log (at, caller, method, target, result, request_id, previous, digest)"
                    " VALUES (1, '', '', 'x', '', '', zeroblob(2000), x'')"
                )
            )
            count += 1
        return count

    done = asyncio.Event()
    writing = asyncio.ensure_future(write_on())
    made = await asyncio.to_thread(create_backup, tmp_path / "s.db", tmp_path / "b.db", peer_id="me", now=NOW)
    done.set()
    assert await writing > 0
    await store.close()
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
    with pytest.raises(PeerdError) as caught:
        stage(made.path, tmp_path / "s.db", peer_id="me", allow_other_identity=False)
    assert caught.value.reason is reason
    assert not staged_path(tmp_path / "s.db").exists()
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
        stage(made.path, tmp_path / "s.db", peer_id="me", allow_other_identity=False)
    assert caught.value.reason is Reason.OTHER_IDENTITY
    stage(made.path, tmp_path / "s.db", peer_id="me", allow_other_identity=True)
    assert staged_path(tmp_path / "s.db").exists()


async def test_a_restored_store_has_the_old_rows_a_new_id_and_keeps_what_it_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    before = await store_with(path, "one")
    made = create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    await store_with(path, "two")
    stage(made.path, path, peer_id="me", allow_other_identity=False)
    assert held(path) == ["one", "two"], "nothing has happened yet"
    kept = swap_staged(path, backup_dir=tmp_path / "backups", now=NOW)
    assert kept is not None and held(kept) == ["one", "two"]
    assert held(path) == ["one"]
    assert await store_with(path) != before
    assert swap_staged(path, backup_dir=tmp_path / "backups", now=NOW) is None


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
from peerd.store.backup import stage, swap_staged
folder = Path(sys.argv[1])
stage(folder / "b.db", folder / "s.db", peer_id="me", allow_other_identity=False)
swap_staged(folder / "s.db", backup_dir=folder / "backups", now=1)
"""


async def test_killed_while_it_is_made_a_backup_has_no_name_and_the_next_one_is_made(tmp_path: Path) -> None:
    await store_with(tmp_path / "s.db", "one")
    program = (
        "import sys; from pathlib import Path; from peerd.store.backup import create_backup as c;"
        "f = Path(sys.argv[1]); c(f / 's.db', f / 'b.db', peer_id='me', now=1)"
    )
    environ = {**os.environ, "PEERD_FAILPOINT": "backup.create.before_rename"}
    assert subprocess.run([sys.executable, "-c", program, tmp_path], env=environ, check=False).returncode == -9
    assert list_backups(tmp_path) == []
    create_backup(tmp_path / "s.db", tmp_path / "b.db", peer_id="me", now=NOW)


@pytest.mark.parametrize(
    "failpoint",
    [
        "backup.stage.before_rename",
        "backup.stage.after_rename",
        "backup.swap.before_replace",
        "backup.swap.after_replace",
    ],
)
async def test_killed_at_any_point_a_restore_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, failpoint: str
) -> None:
    path = tmp_path / "s.db"
    await store_with(path, "one")
    create_backup(path, tmp_path / "b.db", peer_id="me", now=NOW)
    await store_with(path, "two")
    environ = {**os.environ, "PEERD_FAILPOINT": failpoint}
    killed = subprocess.run([sys.executable, "-c", RESTORE, str(tmp_path)], env=environ, check=False)
    assert killed.returncode == -9
    assert held(path) in (["one", "two"], ["one"])
    swap_staged(path, backup_dir=tmp_path / "backups", now=Millis(2))  # what the next start does
    assert held(path) == (["one", "two"] if failpoint == "backup.stage.before_rename" else ["one"])
    await store_with(path)
