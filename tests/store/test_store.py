from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx, open_store
from peerd.store import migrate as migrate_module
from peerd.store.requests import forget_old_answers, once, once_outside
from peerd.v1 import backup_pb2, mesh_pb2


def put(tx: Tx, key: str, value: str = "x") -> None:
    tx.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))


async def keys(store: Store) -> set[str]:
    return {row["key"] for row in await store.all("SELECT key FROM meta WHERE key <> 'store_id'")}


async def test_writes_that_wait_together_share_a_commit(store: Store) -> None:
    await store.write(lambda tx: put(tx, "warm"))
    before = store.commits
    await asyncio.gather(*(store.write(partial(put, key=f"k{n}")) for n in range(50)))
    assert await keys(store) == {"warm", *(f"k{n}" for n in range(50))}
    assert store.commits - before < 25


async def test_a_write_that_raises_is_undone_alone(store: Store) -> None:
    def fails(tx: Tx) -> None:
        put(tx, "half")
        raise PeerdError(Reason.INVALID_ARGUMENT, "no")

    results = await asyncio.gather(
        store.write(lambda tx: put(tx, "a")),
        store.write(fails),
        store.write(lambda tx: put(tx, "b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], PeerdError)
    assert await keys(store) == {"a", "b"}


async def test_a_lost_transaction_runs_each_write_again_by_itself(store: Store) -> None:
    attempts = 0

    def loses_the_transaction_once(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        put(tx, "survivor")
        if attempts == 1:
            tx.execute("ROLLBACK")  # what SQLite does by itself when the disk is full

    await asyncio.gather(store.write(lambda tx: put(tx, "a")), store.write(loses_the_transaction_once))
    assert attempts == 2
    assert await keys(store) == {"a", "survivor"}


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(store: Store) -> None:
    def too_much(tx: Tx) -> None:
        tx.execute("PRAGMA max_page_count = 100")
        put(tx, "huge", "x" * 4_000_000)

    results = await asyncio.gather(
        store.write(lambda tx: put(tx, "a")),
        store.write(too_much),
        store.write(lambda tx: put(tx, "b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], PeerdError)
    assert results[1].reason is Reason.DISK_LOW
    assert await keys(store) == {"a", "b"}


async def test_an_error_of_the_disk_itself_is_fatal(tmp_path: Path, clock: FakeClock) -> None:
    deaths: list[str] = []
    store = await open_store(tmp_path / "s.db", clock, on_fatal=deaths.append)

    def fails_to_sync(tx: Tx) -> None:
        tx.execute("ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with pytest.raises(PeerdError) as caught:
        await store.write(fails_to_sync)
    await store.close()
    assert caught.value.reason is Reason.DISK_FAILED
    assert "disk I/O error" in deaths[0]


async def test_a_cancelled_caller_does_not_undo_its_write(store: Store) -> None:
    task = asyncio.create_task(store.write(lambda tx: put(tx, "kept")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(lambda tx: put(tx, "later"))
    assert await keys(store) == {"kept", "later"}


async def test_a_refusal_that_nobody_waits_for_any_more_is_not_complained_about(store: Store) -> None:
    """Regression: each call whose caller went away while it was refused left an error in the log."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    request = backup_pb2.CreateBackupRequest(request_id="one")

    def refuse(tx: Tx) -> None:
        raise PeerdError(Reason.NOT_FOUND, "nothing")

    async def fail() -> backup_pb2.CreateBackupResponse:
        await store.write(refuse)
        raise AssertionError

    async def outside() -> None:
        answer_type = backup_pb2.CreateBackupResponse
        await once_outside(store, caller="me", request_id="one", request=request, answer_type=answer_type, work=fail)

    for asked in (store.write(refuse), outside()):
        task = asyncio.ensure_future(asked)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task, asked
        for _ in range(10):  # by then what it left is over
            await store.write(lambda _: None)
    gc.collect()
    assert complaints == []


async def test_callbacks_run_after_commit_and_never_after_a_rollback(store: Store) -> None:
    heard: list[str] = []

    def good(tx: Tx) -> None:
        tx.on_commit(lambda: heard.append("good"))

    def bad(tx: Tx) -> None:
        tx.on_commit(lambda: heard.append("bad"))
        raise ValueError

    await asyncio.gather(store.write(good), store.write(bad), return_exceptions=True)
    assert heard == ["good"]


async def test_a_callback_that_crashes_leaves_nobody_of_its_batch_waiting(store: Store) -> None:
    heard: list[str] = []

    def crash(tx: Tx) -> str:
        put(tx, "stored")
        tx.on_commit(lambda: heard.remove("never there"))
        tx.on_commit(lambda: heard.append("the next one"))
        return "all the same"

    async with asyncio.timeout(60):
        said = await asyncio.gather(store.write(crash), store.write(lambda _: "other"))
    assert tuple(said) == ("all the same", "other")
    assert heard == ["the next one"] and await keys(store) == {"stored"}


async def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.all("DELETE FROM meta")


async def test_the_store_id_survives_reopening(tmp_path: Path, clock: FakeClock) -> None:
    first = await open_store(tmp_path / "s.db", clock)
    await first.close()
    second = await open_store(tmp_path / "s.db", clock)
    await second.close()
    assert first.store_id == second.store_id
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0


async def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database" * 1000)
    before = path.read_bytes()
    with pytest.raises(PeerdError) as caught:
        await open_store(path, clock)
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert path.read_bytes() == before


async def test_a_store_of_a_later_version_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    await (await open_store(tmp_path / "s.db", clock)).close()
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    with pytest.raises(PeerdError) as caught:
        await open_store(tmp_path / "s.db", clock)
    assert caught.value.reason is Reason.STORE_TOO_NEW


async def test_a_migration_that_fails_leaves_the_old_schema_and_a_backup(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    await (await open_store(path, clock)).close()
    real = migrate_module._migrations()
    bad = [*real, (real[-1][0] + 1, "CREATE TABLE extra (x);\nCREATE TABLE meta (x);\n")]
    monkeypatch.setattr(migrate_module, "_migrations", lambda: bad)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        await open_store(path, clock)
    connection = sqlite3.connect(path)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    assert "extra" not in tables
    assert connection.execute("PRAGMA user_version").fetchone() == (real[-1][0],)
    connection.close()
    assert list((tmp_path / "backups").glob("*.db"))


async def test_a_repeated_request_gets_the_first_answer(store: Store) -> None:
    calls = 0

    async def ask(reason: str) -> mesh_pb2.RevokeInviteResponse:
        def effect() -> mesh_pb2.RevokeInviteResponse:
            nonlocal calls
            calls += 1
            return mesh_pb2.RevokeInviteResponse(invite=mesh_pb2.Invite(invite_id=f"answer {calls}"))

        request = mesh_pb2.RevokeInviteRequest(request_id="r1", invite_id=reason)
        return await store.write(
            lambda tx: once(
                tx,
                caller="me",
                request_id="r1",
                request=request,
                answer_type=mesh_pb2.RevokeInviteResponse,
                effect=effect,
            )
        )

    first, second = await ask("a"), await ask("a")
    assert first == second
    assert calls == 1
    with pytest.raises(PeerdError) as caught:
        await ask("b")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_old_answers_are_forgotten(store: Store, clock: FakeClock) -> None:
    request = mesh_pb2.RevokeInviteRequest(request_id="r1")
    answer = mesh_pb2.RevokeInviteResponse()
    await store.write(
        lambda tx: once(
            tx, caller="me", request_id="r1", request=request, answer_type=type(answer), effect=lambda: answer
        )
    )
    assert await store.write(forget_old_answers) == 0
    clock.advance(8 * 86_400)
    assert await store.write(forget_old_answers) == 1


@pytest.mark.parametrize(("failpoint", "survives"), [("store.before_commit", False), ("store.after_commit", True)])
def test_a_kill_around_the_commit_keeps_all_or_nothing(tmp_path: Path, failpoint: str, survives: bool) -> None:
    program = """
import asyncio, pathlib, sys
from peerd.clock import SystemClock
from peerd.store import open_store
async def main():
    store = await open_store(pathlib.Path(sys.argv[1]), SystemClock())
    await store.write(lambda tx: tx.execute("INSERT INTO meta VALUES ('k', 'v')"))
    print("told", flush=True)
asyncio.run(main())
"""
    path = tmp_path / "s.db"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={"PEERD_FAILPOINT": failpoint}, capture_output=True, text=True
    )
    assert done.returncode == -9
    assert "told" not in done.stdout
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM meta WHERE key = 'k'").fetchone() == (int(survives),)
    connection.close()
