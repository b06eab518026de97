"""Damaged stores: refused with the way back, or gone on with, and said; never an error that nobody explains."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import SystemClock
from peerd.config_reading import load_config
from peerd.daemon.daemon import Daemon
from peerd.errors import PeerdError, Reason
from peerd.jobs.damage import put_aside_damaged
from peerd.jobs.repository import to_job
from peerd.jobs.runner import ProcessRunner
from peerd.store import Store, Tx, quarantine
from peerd.store.quarantine import count_recent
from peerd.workflows import repository as workflows
from tests.e2e import fleet as machines
from tests.e2e.fleet import Fleet, wait_for
from tests.e2e.workflow import definition, job, start

FLIPS = int(os.environ.get("PEERD_FLIPS", "200"))
"""Of single bits; a thousand take a minute or two."""
RUBBISH = "x'ff00ff00'"


def change(path: Path, *statements: str) -> None:
    """Do as damage does; each statement must meet a row."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        names = [row[0].decode() for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}


# -- One bit, anywhere


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    """The data directory of a daemon that has worked: members, adverts, documents, services, executions, jobs."""
    fleet = Fleet(("c", "a"))
    try:
        fleet.found()
        c = fleet["c"]
        for number in range(3):
            run = start(fleet, "c", definition(f"w{number}", job("one", "a"), job("two", "c", ["one.output"])))
            assert run.wait() == "COMPLETED"
        c.peerctl("peers", "drain", "a", "--reason", "for the test")
        start(fleet, "c", definition("open", job("waits", "a")))
        for daemon in fleet.daemons.values():
            assert daemon.stop() == 0
        yield c.data
    finally:
        fleet.close()


async def read_all(store: Store) -> None:
    """What the daemon reads besides what it loads first."""
    for row in await store.all("SELECT id FROM workflow_executions ORDER BY id"):
        await workflows.load_execution(store, row["id"])
        await workflows.read_events(store, row["id"])
        await workflows.read_inbox(store, row["id"])
    await workflows.list_workflows(store, before=2**62, limit=100)
    await store.write(put_aside_damaged)
    for row in await store.all("SELECT * FROM job_executions"):
        to_job(row)
    names = [row["name"] for row in await store.all("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for name in names:
        await store.all(f'SELECT * FROM "{name}"')


async def verdict(folder: Path, before: dict[str, list[tuple[Any, ...]]]) -> str:
    """How a daemon gets on with that directory. Anything but a PeerdError goes through."""
    try:
        same = dump(folder / "peerd.db") == before
    except (sqlite3.Error, UnicodeDecodeError):
        same = False
    try:
        daemon = await Daemon.build(load_config(data_dir=folder), SystemClock())
    except PeerdError as error:
        assert error.reason in (Reason.STORE_CORRUPT, Reason.STORE_TOO_NEW, Reason.NOT_INITIALIZED), error
        assert error.reason is not Reason.STORE_CORRUPT or "peerd restore" in error.next_action
        return f"refused: {error.reason.text}"
    store = daemon._store
    try:
        try:
            await read_all(store)
        except PeerdError as error:
            return f"said when read: {error.reason.text}"
        if await count_recent(store, SystemClock().now()):
            return "quarantined"
    finally:
        await daemon.close()
    return "harmless" if same else "a value differs"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_flipped_bit_is_refused_said_or_harmless_and_never_an_unexplained_error(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await ProcessRunner.probe(sandbox="auto", hidden=[])

    async def probed(**_: object) -> ProcessRunner:
        return runner

    monkeypatch.setattr(ProcessRunner, "probe", probed)
    memory = Path("/dev/shm")
    content = (used / "peerd.db").read_bytes()
    found: Counter[str] = Counter()
    unexplained: list[str] = []
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        folder = Path(name) / "data"
        shutil.copytree(used, folder, ignore=shutil.ignore_patterns("workflows", "run", "control", "backups"))
        path = folder / "peerd.db"
        await verdict(folder, {})  # what a start writes by itself
        content, before = path.read_bytes(), dump(path)
        assert not path.with_name("peerd.db-wal").exists()
        for seed in range(FLIPS):
            chance = random.Random(seed)
            flipped, where = bytearray(content), chance.randrange(len(content))
            flipped[where] ^= 1 << chance.randrange(8)
            for left in folder.glob("peerd.db*"):
                left.unlink()
            path.write_bytes(flipped)
            try:
                found[await verdict(folder, before)] += 1
            except Exception as error:
                unexplained.append(f"seed {seed}, byte {where}: {error!r} at {traceback.format_exc()[-600:]}")
    print(json.dumps(found))
    assert unexplained == [], "\n".join(unexplained)
    assert found["refused: store_corrupt"] > 0 and found["harmless"] > 0
    assert found.total() == FLIPS


# -- Rubbish in every table whose values are decoded, under a real daemon


def rubbish(member: str, held: int, broken: int) -> list[str]:
    """Some of each table."""
    of_broken = f"(SELECT workflow_id FROM workflow_executions WHERE id = {broken})"
    return [
        f"UPDATE adverts SET envelope = {RUBBISH} WHERE peer_id = '{member}'",
        f"UPDATE adverts SET envelope = {RUBBISH} WHERE peer_id = (SELECT mesh_id FROM mesh)",
        f"UPDATE member_records SET envelope = {RUBBISH} WHERE subject = '{member}'",
        f"UPDATE documents SET envelope = {RUBBISH}",
        "INSERT INTO services (name, origin, offered, active, declaration, changed_at)"
        f" VALUES ('ghost', 'added', 1, 1, {RUBBISH}, 1)",
        f"UPDATE workflow_versions SET definition = {RUBBISH} WHERE workflow_id = {of_broken}",
        f"UPDATE execution_events SET body = '{{rubbish' WHERE workflow_execution_id = {held} AND seq = 1",
        "UPDATE job_executions SET work = '{rubbish'",
        "UPDATE invites SET roles = '{rubbish' WHERE id = 1",
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rubbish_in_any_table_is_put_aside_and_said_and_all_else_goes_on() -> None:
    fleet = Fleet(("c", "a", "b"))
    try:
        fleet.found()
        c = fleet["c"]
        done = start(fleet, "c", definition("done", job("one", "c")))
        assert done.wait() == "COMPLETED"
        c.peerctl("peers", "drain", "b", "--reason", "for the test")
        held, other, broken = (start(fleet, "c", definition(n, job("one", "b"))) for n in ("held", "other", "broken"))
        c.kill()
        change(c.data / "peerd.db", *rubbish(fleet["a"].peer_id, held.id, broken.id))
        c.start()
        wait_for(lambda: present(c) == {"c", "a", "b"}, 60, "what other peers hold has come back")
        c.peerctl("peers", "resume", "b")
        assert other.wait() == "COMPLETED", other.explain()
        for run, word in ((held, "event 1 of the log"), (broken, "definition")):
            wait_for(lambda run=run: "store_corrupt" in run.view().get("reason", ""), 60, "it says so")
            view = run.view()
            assert "store_corrupt" in view["reason"] and word in view["reason"]
            assert "peerd restore" in view["next_action"] and f"cancel {run.id}" in view["next_action"]
        assert {entry["declaration"]["name"] for entry in c.json("services", "list")["services"]} == {"step"}
        for what in ("peers", "jobs", "executions", "workflows", "invites"):
            c.peerctl(what, "list")
        tables = {row[0] for row in rows(c.data / "peerd.db", "SELECT source FROM quarantine")}
        assert tables == {
            *("adverts", "member_records", "documents", "services"),
            *("workflow_versions", "execution_events", "job_executions", "invites"),
        }
        assert c.log.read_text().count("store.row_quarantined") >= len(tables)
        findings = json.loads(c.peerd("doctor", "-o", "json", check=False).stdout)["findings"]
        (finding,) = [entry for entry in findings if entry["name"] == "damaged rows"]
        assert finding["verdict"] == "warn" and "peerd restore FILE" in finding["next_action"]
        c.peerctl("executions", "cancel", str(held.id))
        assert held.wait() == "CANCELLED"
        assert held.job_status("one") == "CANCELLED"
        again = start(fleet, "c", definition("broken", job("one", "b")))
        assert again.wait() == "COMPLETED", "the same file, stored again, mends its definition"
        said = c.log.read_text().count("store.row_quarantined")
        c.kill()
        c.start()
        assert again.status == "COMPLETED" and held.status == "CANCELLED"
        assert c.log.read_text().count("store.row_quarantined") == said, "nothing is found twice"
        wait_for(lambda: broken.status == "COMPLETED", 60, "the next start goes on with it")
        assert c.alive and "Traceback" not in c.log.read_text()
    finally:
        fleet.close()


def present(daemon: machines.Daemon) -> set[str]:
    """Who is there, by name, as that daemon sees it."""
    peers = daemon.json("peers", "list")["peers"]
    return {peer["name"] for peer in peers if not peer["status"].endswith(("OFFLINE", "UNKNOWN"))}


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_corrupt_file_is_refused_untouched_and_what_the_refusal_says_brings_it_back() -> None:
    fleet = Fleet(("c",))
    try:
        fleet.found()
        c = fleet["c"]
        c.peerctl("backup", "create", str(c.data / "backups" / "mine.db"))
        (c.data / "backups" / "torn.db").write_bytes(b"SQLite format 3\0 and no more")
        assert c.stop() == 0
        path = c.data / "peerd.db"
        content = bytearray(path.read_bytes())
        content[4096:12288] = os.urandom(8192)
        path.write_bytes(content)
        c.start(wait=False)
        assert c.wait() == 65
        said = c.tail(4)
        assert "reason: store_corrupt" in said and path.read_bytes() == content
        command = said.rpartition("'peerd restore ")[2].partition("'\n")[0].strip().removesuffix("'")
        assert command == str(c.data / "backups" / "mine.db")
        c.peerd("restore", command)
        c.start()
        assert c.json("status")["peer_id"] == c.peer_id
        assert c.stop() == 0
        for backup in (c.data / "backups").iterdir():
            backup.unlink()
        path.write_bytes(content)
        assert "there is no whole backup" in c.peerd("run", check=False).stderr
    finally:
        fleet.close()


async def test_what_sqlite_finds_damaged_while_it_is_used_is_told_as_such_and_remembered(store: Store) -> None:
    def torn(tx: Tx) -> None:
        tx.execute("INSERT INTO meta VALUES ('torn', CAST(x'ff' AS TEXT))")

    await store.write(torn)
    for read in (store.all("SELECT * FROM meta"), store.write(lambda tx: tx.all("SELECT * FROM meta"))):
        store.damage = ""
        with pytest.raises(PeerdError) as caught:
            await read
        assert caught.value.reason is Reason.STORE_CORRUPT and "peerd restore" in caught.value.next_action
        assert store.damage == caught.value.message


async def test_a_row_that_one_capability_cannot_read_does_not_make_the_store_a_damaged_one(store: Store) -> None:
    def refuse(tx: Tx) -> None:
        raise PeerdError(Reason.STORE_CORRUPT, "a stored definition of workflow 1 is damaged")

    with pytest.raises(PeerdError):
        await store.write(refuse)
    assert store.damage == ""


async def test_what_is_put_aside_is_kept_once_and_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "KEPT", 5)
    fault = ValueError("no such thing")
    for number in (*range(8), 7):
        content = bytes([number])
        await store.write(
            lambda tx, content=content: quarantine.put_aside(tx, "adverts", {"peer_id": "p"}, content, fault)  # type: ignore[misc]
        )
    found = await quarantine.quarantined(store)
    assert [entry.content[0] for entry in found] == [7, 6, 5, 4, 3]
    assert (found[0].source, found[0].key, found[0].error) == ("adverts", {"peer_id": "p"}, "ValueError: no such thing")
