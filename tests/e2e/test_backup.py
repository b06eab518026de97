"""Backups of daemons that run: nothing acknowledged is lost, whichever moment one is killed at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.client import Client
from peerd.client.calls import new_request_id
from peerd.errors import PeerdError, Reason
from peerd.failpoints import FAILPOINTS
from peerd.v1 import backup_pb2, tokens_pb2
from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.workflow import definition, job, say, start

RESTART = 75
LONG = "\n[jobs]\nstop_grace_seconds = 1000\n"
"""What a daemon that waited for its jobs would be found out by."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    try:
        made.found(configure={"a": LONG})
        yield made
    finally:
        made.close()


def tokens(daemon: Daemon) -> list[str]:
    return [token["name"] for token in daemon.json("tokens", "list")["tokens"]]


def token(daemon: Daemon, name: str) -> None:
    daemon.peerctl("tokens", "create", "--scope", "read", "--name", name)


def back_up(daemon: Daemon, file: Path) -> Path:
    file.unlink(missing_ok=True)
    daemon.json("backup", "create", str(file))
    return file


async def test_nothing_is_acknowledged_once_a_restore_is(fleet: Fleet) -> None:
    a = fleet["a"]
    file = back_up(a, fleet.folder / "quiet.db")
    start(fleet, "c", definition("long", job("long", "a", params={"until": "long may end"})))
    wait_for(lambda: fleet.effects_seen(), 60, "a job runs, for which a daemon told to stop would wait")
    acknowledged: list[float] = []
    now = asyncio.get_running_loop().time

    async def change_on(peerd: Client) -> PeerdError:
        while True:
            try:
                await peerd.create_token(tokens_pb2.TOKEN_SCOPE_READ, name="x")
            except PeerdError as error:
                return error
            acknowledged.append(now())

    async with Client(socket=a.socket, timeout=60) as one, Client(socket=a.socket, timeout=60) as other:
        changing = asyncio.ensure_future(change_on(one))
        while len(acknowledged) < 5:
            await asyncio.sleep(0.01)
        await other.restore_backup(str(file))
        answered = now()
        refusal = await changing
    assert refusal.reason in (Reason.SHUTTING_DOWN, Reason.DAEMON_NOT_REACHABLE)
    assert max(acknowledged) <= answered
    assert await asyncio.to_thread(a.wait, 60) == RESTART, "at once: what the job does now is forgotten anyway"
    say(fleet, "long may end")
    a.start()
    assert tokens(a) == []
    fleet.wait_until_all_see_all()


def test_the_restored_store_knows_of_its_restore_and_does_not_do_it_twice(fleet: Fleet) -> None:
    a = fleet["a"]
    file = back_up(a, fleet.folder / "twice.db")
    request = backup_pb2.RestoreBackupRequest(request_id=new_request_id(), path=str(file))

    async def restore() -> backup_pb2.RestoreBackupResponse:
        async with Client(socket=a.socket, timeout=60) as peerd:
            return await peerd._call(peerd._backups.RestoreBackup, request)

    first = asyncio.run(restore())
    assert a.wait() == RESTART
    a.start()
    token(a, "after the restore")
    assert asyncio.run(restore()) == first, "asked again by a client that heard nothing"
    assert a.alive and tokens(a) == ["after the restore"]
    noted = [entry for entry in a.json("audit", "list")["entries"] if str(file) in entry["target"]]
    assert [(entry["method"], entry["result"]) for entry in noted] == [("RestoreBackup", "ok")]
    assert a.json("audit", "verify")["intact"] is True


def test_a_backup_asked_for_twice_with_one_request_is_made_once(fleet: Fleet) -> None:
    a = fleet["a"]
    path = fleet.folder / "once.db"
    request = backup_pb2.CreateBackupRequest(request_id=new_request_id(), path=str(path))

    async def create() -> backup_pb2.CreateBackupResponse:
        async with Client(socket=a.socket, timeout=60) as peerd:
            return await peerd._call(peerd._backups.CreateBackup, request)

    first = asyncio.run(create())
    before = path.read_bytes()
    assert asyncio.run(create()) == first
    assert path.read_bytes() == before
    assert (first.backup.path, first.backup.bytes, first.backup.peer_id) == (str(path), len(before), a.peer_id)
    assert len(first.backup.digest) == 32 and first.backup.schema > 0


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name.startswith("backup.")])
def test_a_daemon_killed_at_any_step_of_a_restore_starts_with_one_of_the_two_stores(
    fleet: Fleet, failpoint: str
) -> None:
    a = fleet["a"]
    file = back_up(a, fleet.folder / f"{failpoint}.db")
    token(a, failpoint)
    store_id = a.json("status")["store_id"]
    in_the_call = failpoint.startswith(("backup.create.", "backup.stage."))
    a.stop()
    a.start(failpoint=failpoint if in_the_call else "")
    if failpoint.startswith("backup.create."):
        a.peerctl("backup", "create", str(fleet.folder / "never.db"), code=None)
    else:
        a.peerctl("backup", "restore", str(file), code=None)
    assert a.wait() == (-9 if in_the_call else RESTART)
    if not in_the_call:
        a.start(failpoint=failpoint, wait=False)
        assert a.wait() == -9
    a.start()
    restored = failpoint not in ("backup.create.before_rename", "backup.stage.before_rename")
    assert (failpoint in tokens(a)) is not restored
    assert (a.json("status")["store_id"] != store_id) is restored
    assert not (fleet.folder / "never.db").exists()
    assert not list(a.data.glob(".peerd.db*")), "nothing half-made is left beside the store"


def test_a_store_that_is_damaged_is_replaced_by_the_newest_backup(fleet: Fleet) -> None:
    a = fleet["a"]
    token(a, "in the backup")
    made = a.json("backup", "create")["path"]
    a.stop()
    (a.data / "peerd.db").write_bytes(b"rubbish" * 4000)
    failed = a.peerd("run", check=False)
    assert failed.returncode == 65 and "store_corrupt" in failed.stderr and "backup" in failed.stderr
    before = sorted(path.name for path in a.data.glob("*"))
    refused = a.peerd("restore", str(fleet.folder / "nothing.db"), check=False)
    assert refused.returncode == 1 and "not_found" in refused.stderr
    assert sorted(path.name for path in a.data.glob("*")) == before
    done = a.peerd("restore", made)
    assert "replaced" in done.stdout
    a.start()
    assert "in the backup" in tokens(a)
    fleet.wait_until_all_see_all()
    kept = max((a.data / "backups").glob("replaced-*.db"), key=lambda path: path.stat().st_mtime)
    assert kept.read_bytes() == b"rubbish" * 4000


def test_the_store_of_another_peer_is_taken_when_told_and_a_machine_without_a_key_takes_none(fleet: Fleet) -> None:
    a, c = fleet["a"], fleet["c"]
    file = back_up(c, fleet.folder / "of-c.db")
    refused = a.peerctl("backup", "restore", str(file), code=1)
    assert "other_identity" in refused.stderr and a.alive
    a.peerctl("backup", "restore", str(file), "--allow-other-identity")
    assert a.wait() == RESTART
    a.start()
    assert a.json("status")["peer_id"] == a.peer_id, "the key makes the peer, whatever its store"
    fleet.wait_until_all_see_all()
    empty = fleet.add("empty")
    none = empty.peerd("restore", str(file), "--allow-other-identity", check=False)
    assert none.returncode == 1 and "not_initialized" in none.stderr
    assert not empty.data.exists()
    del fleet.daemons["empty"]


def test_a_job_that_went_on_between_backup_and_restore_is_lost_and_nobody_waits_for_it(fleet: Fleet) -> None:
    a = fleet["a"]
    again = {"attempts": 2, "on": ["lost"]}
    first = job("before", "c", params={"until": "before may end"})
    second = job("behind", "a", ["before.output"], params={"until": "behind may end"}, retry=again)
    run = start(fleet, "c", definition("between", first, second))
    wait_for(lambda: run.jobs()["behind"].get("remote_job_execution_id"), 60, "it waits there for what it takes")
    wait_for(lambda: a.json("jobs", "list")["jobs"], 60, "and is known there")
    file = back_up(a, fleet.folder / "between.db")
    say(fleet, "before may end")
    wait_for(lambda: fleet.effects_seen()["start behind"], 60, "it runs")
    a.peerctl("backup", "restore", str(file))
    assert a.wait() == RESTART
    a.start()
    wait_for(lambda: fleet.effects_seen()["start behind"] == 2, 90, run.explain)
    say(fleet, "behind may end")
    assert run.wait() == "COMPLETED"


def test_an_execution_from_before_the_backup_is_kept_where_it_ran_after_the_restore(fleet: Fleet) -> None:
    a, c = fleet["a"], fleet["c"]
    run = start(fleet, "a", definition("kept", job("made", "c")))
    assert run.wait() == "COMPLETED"

    def may_go() -> bool:
        removals = c.json("gc", "--older-than", "0s", "--execution", str(run.id), "--dry-run").get("removals", [])
        return a.peer_id in [removal["orchestrator_peer_id"] for removal in removals]

    wait_for(may_go, 60, "it is told that the execution is over")
    file = back_up(a, fleet.folder / "kept.db")
    a.peerctl("backup", "restore", str(file))
    assert a.wait() == RESTART
    a.start()
    fleet.wait_until_all_see_all()
    assert may_go()
    a.peerctl("executions", "keep", str(run.id))
    wait_for(lambda: not may_go(), 30, "it is told that its files are to be kept")


def test_nothing_that_came_after_the_backup_is_taken_for_what_comes_after_the_restore(fleet: Fleet) -> None:
    a = fleet["a"]
    file = back_up(a, fleet.folder / "numbers.db")
    forgotten = start(fleet, "a", definition("forgotten", job("old", "a"), deliver=["old.output"]))
    assert forgotten.wait() == "COMPLETED"
    jobs_before = {path.name for path in a.data.glob(f"workflows/*/*/jobs/{a.peer_id}/*")}
    assert [path.name for path in forgotten.home.rglob("*") if path.is_file()]
    a.peerctl("backup", "restore", str(file))
    assert a.wait() == RESTART
    a.start()
    fleet.wait_until_all_see_all()
    later = start(fleet, "a", definition("later", job("new", "a"), deliver=["new.output"]))
    assert later.wait() == "COMPLETED"
    assert later.id > forgotten.id
    assert later.jobs()["new"]["remote_job_execution_id"] not in jobs_before, "what an earlier job was sent lies there"
    got = fleet.folder / "got"
    a.peerctl("executions", "fetch", str(later.id), str(got))
    assert not list(got.rglob("*old*")), "delivered by an execution that is forgotten"
    a.stop()
    a.start()
    assert start(fleet, "a", definition("last", job("x", "a"))).id == later.id + 1, "once for each restore"
