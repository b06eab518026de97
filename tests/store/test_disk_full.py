"""Full and failing disks: what was acknowledged is stored, a full one is waited for, a failing one ends the process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.store import Tx, open_store
from peerd.store import writer as writer_module
from peerd.store.migrate import migrate

from .faulty_disk import EX_IOERR, Outcome, Series, run, templates, why_not

TINY = Path(__file__).parent / "programs" / "tiny_disk.py"
SHORT = [
    Series(phase="running", call="pwrite64", error="ENOSPC", length=6, step=12),
    Series(phase="running", call="pwrite64", error="EDQUOT", length=6, step=25),
    Series(phase="running", call="pwrite64", error="EIO", step=25),
    Series(phase="running", call="fdatasync", error="EIO", step=5),
    Series(phase="running", call="openat", error="EIO"),
    Series(phase="migrating", call="pwrite64", error="ENOSPC", step=30),
    Series(phase="creating", call="fdatasync", error="ENOSPC", step=5),
]


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[Path, dict[str, Path | None]]]:
    """Where the writers run, in memory if there is some, and the stores they begin with."""
    if reason := why_not():
        pytest.skip(reason)
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder, templates(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("series", SHORT, ids=lambda series: f"{series.phase}-{series.call}-{series.error}")
def test_full_or_failing_at_the_nth_call(series: Series, places: tuple[Path, dict[str, Path | None]]) -> None:
    outcome: Outcome = run(series, places[0], places[1][series.phase])
    assert outcome.faults == []
    assert outcome.runs > 1, "something was made to fail"
    assert outcome.acknowledged > 0
    if series.phase == "running" and series.error in ("ENOSPC", "EDQUOT"):
        assert outcome.refused["disk_low"] > 0 and outcome.ended["0"] > outcome.runs // 2, "it was waited for"
    if series.phase == "running" and series.error == "EIO" and series.call != "openat":
        assert outcome.ended[str(EX_IOERR)] > 0


def test_a_file_system_of_2_mib_filled_and_freed(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=2m,mode=700 peerd-test "$1" && shift && exec "$@"'
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    inside = [*namespace, "sh", "-c", script, "sh", str(tmp_path)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system may be mounted here")
    done = subprocess.run(
        [*inside, sys.executable, str(TINY), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["acknowledged"] > 10 and found["refused"] > 10
    assert found["start_on_full_disk"] in ("opened", "disk_low")
    assert (found["migration_on_full_disk"], found["left"], found["untouched"]) == ("disk_low", [], True)


def failing(code: int, name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = code
    return error


async def test_after_a_failed_sync_nothing_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    deaths: list[str] = []
    store = await open_store(tmp_path / "s.db", clock, on_fatal=deaths.append)
    tried = 0

    def fails_once(tx: Tx) -> None:
        nonlocal tried
        tried += 1
        tx.execute("INSERT INTO meta VALUES ('k', 'v')")
        if tried == 1:
            raise failing(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")

    other = store.write(lambda tx: tx.execute("INSERT INTO meta VALUES ('other', 'v')"))
    results = await asyncio.gather(store.write(fails_once), other, return_exceptions=True)
    await store.close()
    assert tried == 1 and len(deaths) == 1
    assert isinstance(results[0], PeerdError) and results[0].reason is Reason.DISK_FAILED
    connection = sqlite3.connect(tmp_path / "s.db")
    assert connection.execute("SELECT count(*) FROM meta WHERE key = 'k'").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE])
async def test_a_full_disk_inside_a_statement_is_told_as_such(tmp_path: Path, clock: FakeClock, code: int) -> None:
    deaths: list[str] = []
    store = await open_store(tmp_path / "s.db", clock, on_fatal=deaths.append)

    def full(tx: Tx) -> None:
        raise failing(code, "no room")  # the transaction is open still

    with pytest.raises(PeerdError) as caught:
        await store.write(full)
    assert caught.value.reason is Reason.DISK_LOW
    await store.write(lambda tx: tx.execute("INSERT INTO meta VALUES ('k', 'v')"))
    await store.close()
    assert deaths == []


async def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path: Path, clock: FakeClock) -> None:
    program = """
import asyncio, pathlib, resource, sys
from peerd.clock import SystemClock
from peerd.errors import PeerdError
from peerd.store import open_store
async def main():
    store = await open_store(pathlib.Path(sys.argv[1]), SystemClock())
    put = lambda tx: tx.execute("INSERT INTO meta VALUES ('k', ?)", ("x" * 2_000_000,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        await store.write(put)
    except PeerdError as error:
        print(error.reason.text)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.write(put)
    await store.close()
    print("stored")
asyncio.run(main())
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "s.db"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["disk_low", "stored"]), done.stderr


async def test_the_end_of_the_writer_is_fatal_and_not_a_wait_for_ever(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import asyncio, pathlib, sys
from peerd.clock import SystemClock
from peerd.store import open_store, writer
def broken(self, connection, batch):
    raise RuntimeError("on purpose")
async def main():
    store = await open_store(pathlib.Path(sys.argv[1]), SystemClock())
    writer.Writer._attempt = broken
    await store.write(lambda tx: None)
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "s.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == EX_IOERR and "on purpose" in done.stderr


async def test_a_writer_that_cannot_open_the_file_says_so(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(path: Path) -> sqlite3.Connection:
        raise failing(sqlite3.SQLITE_CANTOPEN, "unable to open database file")

    monkeypatch.setattr(writer_module, "connect", cannot)
    with pytest.raises(PeerdError) as caught:
        async with asyncio.timeout(30):
            await open_store(tmp_path / "s.db", clock)
    assert caught.value.reason is Reason.DISK_FAILED


async def test_a_file_that_can_only_be_read_is_refused_at_once(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    await (await open_store(path, clock)).close()
    real = sqlite3.connect

    def read_only(name: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(f"file:{name}?mode=ro", uri=True, **options)  # type: ignore[call-overload]
        return connection

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(PeerdError) as caught:
        migrate(path, backup_dir=None)
    assert caught.value.reason is Reason.DISK_FAILED
