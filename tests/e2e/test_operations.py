"""A new machine, a backup, a supervisor, a caller that calls too often: what an operator does besides jobs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.client import Client
from peerd.errors import PeerdError, Reason
from tests.e2e.fleet import Daemon, Fleet, free_port, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    try:
        made.found(configure={"a": "\n[jobs]\nstop_grace_seconds = 60\n"})
        yield made
    finally:
        made.close()


# -- Bootstrap


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_machine_becomes_a_peer_with_one_command_and_the_second_time_nothing_changes(fleet: Fleet) -> None:
    token = fleet["c"].json("invite", "--role", "worker", "--grants", "observe,execute")["token"]
    folder, prefix, units = fleet.folder / "n", fleet.folder / "opt", fleet.folder / "units"
    port = free_port()
    places = ["--data-dir", str(folder), "--prefix", str(prefix), "--units", str(units)]
    command = [str(ROOT / "scripts" / "bootstrap"), *places, "--listen", f"127.0.0.1:{port}", "--name", "new"]
    environ = {**os.environ, "PEERD_HTTP_LISTEN": "127.0.0.1:0"}

    def bootstrap(*more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*command, *more, token], capture_output=True, text=True, env=environ, check=False, timeout=400
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def content() -> dict[str, bytes]:
        kept = [folder / "peerd.toml", folder / "identity.key", units / "peerd.service"]
        return {str(path): path.read_bytes() for path in kept}

    try:
        first = bootstrap("--role", "worker", "--labels", "gpu,eu")
        assert "this machine is peer" in first.stdout
        wait_for(lambda: label_of(fleet["c"], "new") == ["eu", "gpu"], 60, "the others know it, with its labels")
        before = content()
        second = bootstrap("--role", "worker", "--labels", "gpu,eu")
        assert "nothing to do" in second.stdout
        assert content() == before
        wrong = bootstrap("--role", "scanner", "--labels", "gpu,eu", code=1)
        assert "peerctl peers roles" in wrong.stderr
        assert "ExecStart=" in (units / "peerd.service").read_text()
    finally:
        pid = folder / "peerd.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def label_of(daemon: Daemon, name: str) -> list[str]:
    found = [peer["labels"] for peer in daemon.json("peers", "list")["peers"] if peer["name"] == name]
    return list(found[0]) if found else []


# -- Backups


def test_a_store_is_backed_up_while_it_is_used_and_restored(fleet: Fleet) -> None:
    a = fleet["a"]
    a.peerctl("services", "list")
    file = fleet.folder / "copy.db"
    made = a.json("backup", "create", str(file))
    assert (made["peer_id"], int(made["bytes"])) == (a.peer_id, file.stat().st_size)
    assert a.peerctl("backup", "create", str(file), code=1).stderr.count("already_exists") == 1
    own = a.json("backup", "create")
    assert own["path"] in a.peerctl("backup", "list").stdout
    key = (a.data / "identity.key").read_bytes()
    assert key not in file.read_bytes()
    before = a.json("status")["store_id"]
    a.peerctl("tokens", "create", "--scope", "read", "--name", "after the backup")
    # Another peer's store is not taken, and nothing changes.
    refused = fleet["c"].peerctl("backup", "restore", str(file), code=1)
    assert "other_identity" in refused.stderr
    (fleet.folder / "rubbish.db").write_bytes(b"rubbish" * 1000)
    assert "invalid_backup" in a.peerctl("backup", "restore", str(fleet.folder / "rubbish.db"), code=1).stderr
    assert a.alive and a.json("status")["store_id"] == before
    a.peerctl("backup", "restore", str(file))
    assert a.wait() == 75, "it ends to be started again"
    a.start()
    assert a.json("status")["store_id"] != before
    assert a.json("tokens", "list")["tokens"] == [], "as it was when the backup was made"
    assert list((a.data / "backups").glob("replaced-*.db"))
    # The others' memory of it outranks its own: it must be heard again all the same.
    fleet.wait_until_all_see_all(60)
    a.stop()
    assert a.peerd("restore", str(file)).returncode == 0
    a.start()
    fleet.wait_until_all_see_all(60)


# -- A supervisor


def test_a_supervisor_hears_that_it_is_ready_lives_and_stops(fleet: Fleet) -> None:
    a = fleet["a"]
    a.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(fleet.folder / "notify"))
        manager.settimeout(30)
        os.environ["NOTIFY_SOCKET"] = str(fleet.folder / "notify")
        os.environ["WATCHDOG_USEC"] = "600000"
        try:
            a.start()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        heard = [manager.recv(1000) for _ in range(4)]
        assert any(message.startswith(b"READY=1\nSTATUS=listens on") for message in heard)
        assert b"WATCHDOG=1" in heard
        assert a.process is not None
        status = Path(f"/proc/{a.process.pid}/stat")
        a.signal(signal.SIGSTOP)
        wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", 20, "it is stopped")
        manager.settimeout(0.01)
        with pytest.raises(TimeoutError):
            while True:
                manager.recv(1000)  # what was on its way
        manager.settimeout(1.2)
        with pytest.raises(TimeoutError):
            manager.recv(1000)
        a.signal(signal.SIGCONT)
        manager.settimeout(30)
        assert manager.recv(1000) == b"WATCHDOG=1"
        a.signal(signal.SIGTERM)
        while not (message := manager.recv(1000)).startswith(b"STOPPING=1"):
            assert message == b"WATCHDOG=1"
        a.wait()


def test_a_daemon_told_to_stop_waits_for_running_jobs_and_takes_no_new_ones(fleet: Fleet) -> None:
    from tests.e2e.workflow import definition, job, start

    run = start(fleet, "c", definition("slow", job("slow", "a", params={"seconds": "3"})))
    wait_for(lambda: fleet.effects_seen(), 30, "the job runs")
    fleet["a"].signal(signal.SIGTERM)
    later = start(fleet, "c", definition("later", job("later", "a")))
    assert fleet["a"].wait(60) == 0
    assert run.wait() == "COMPLETED", "within the grace, and reported before the end"
    assert later.status == "RUNNING"
    fleet["a"].start()
    assert later.wait() == "COMPLETED", later.explain()


# -- The audit log and rate limits


def test_every_change_leaves_a_row_that_cannot_be_changed_unseen(fleet: Fleet) -> None:
    c, a = fleet["c"], fleet["a"]
    c.peerctl("peers", "drain", "a", "--reason", "x")
    a.peerctl("--peer", "c", "peers", "rename", "a", "boss", code=4)
    entries = c.json("audit", "list")["entries"]
    assert [entry["method"] for entry in entries[:2]] == ["RenamePeer", "DrainPeer"]
    refused, drained = entries[:2]
    assert (refused["caller"], refused["local"], refused["result"]) == (a.peer_id, False, "permission_denied")
    assert (drained["local"], drained["result"], '"peer": "a"' in drained["target"]) == (True, "ok", True)
    assert not any("token" in entry["target"] for entry in entries)
    assert c.json("audit", "verify")["intact"] is True
    c.stop()
    connection = sqlite3.connect(c.data / "peerd.db")
    connection.execute("UPDATE audit_log SET caller = 'nobody' WHERE id = 2")
    connection.commit()
    connection.close()
    c.start()
    broken = c.peerctl("audit", "verify", code=1)
    assert "entry 2 was changed" in broken.stdout


# -- The Python client


async def test_the_client_answers_from_what_it_knew_when_the_daemon_is_gone(fleet: Fleet, tmp_path: Path) -> None:
    cache = tmp_path / "peers"
    async with Client(socket=fleet["c"].socket, cache=cache, timeout=30) as peerd:
        everybody = await peerd.peers()
        assert (len(everybody), everybody.stale) == (2, False)
        assert [peer.name for peer in await peerd.peers_by_role("worker")] == ["a"]
        async with asyncio.timeout(30):  # a busy one may be suspected for a moment
            while [peer.name for peer in await peerd.available_peers(role="worker")] != ["a"]:
                await asyncio.sleep(0.05)
        assert (await peerd.peer("a")).peer_id == fleet["a"].peer_id
        fleet["c"].kill()
        known = await peerd.peers()
        assert (len(known), known.stale, known.as_of == everybody.as_of) == (2, True, True)
        assert [peer.name for peer in await peerd.available_peers(role="worker")] == ["a"]
        assert await peerd.available_peers(label="none") == []
    async with Client(socket=fleet["c"].socket, cache=cache, timeout=2) as fresh:
        assert (await fresh.peers_by_role("worker")).stale, "another process knows it from the cache"
        with pytest.raises(PeerdError) as caught:
            await fresh.peers(where="cpus>1")
        assert caught.value.reason is Reason.DAEMON_NOT_REACHABLE
    async with Client(socket=fleet["c"].socket, timeout=2) as ignorant:
        with pytest.raises(PeerdError):
            await ignorant.peers()
    shutil.rmtree(tmp_path)
