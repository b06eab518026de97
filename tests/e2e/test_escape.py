"""Hostile jobs in the sandbox of a real daemon: none gets out, nobody else notices, the limit that was hit is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peerd.jobs.runner import processes
from peerd.jobs.runner.limits import probe

from .fleet import PROGRAMS, Fleet, wait_for
from .workflow import Run, definition, job, say, start, tree

GROUPS = probe()


def required(there: bool, what: str) -> None:
    if not there:
        assert not os.environ.get("PEERD_REQUIRE_ALL"), f"{what} missing, and this machine must run everything"
        pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def cell() -> Iterator[Fleet]:
    """a runs hostile jobs of c; beside them there is always one that minds its own business."""
    required(shutil.which("bwrap") is not None, "bubblewrap")
    required(GROUPS is not None, "control groups")
    fleet = Fleet(("c", "a"))
    services = "".join(
        f'\n[[services]]\nname = "{name}"\nkind = "SERVICE_KIND_PROCESS"\n'
        f'argv = ["{sys.executable}", "{PROGRAMS / "escape.py"}", "{name}"{more}]\nread_only_paths = ["{PROGRAMS}"]\n'
        f'isolation = "ISOLATION_LEVEL_BUBBLEWRAP"\nlimits = "LIMITS_LEVEL_CGROUP"\n{params}'
        for name, more, params in (
            *((name, "", "") for name in ("bomb", "eat", "fill")),
            *((name, f', "${{{n}}}"', f'[[services.params]]\nname = "{n}"\n') for name, n in (("connect", "port"),)),
            *(
                (name, ', "${one}", "${two}"', '[[services.params]]\nname = "one"\n[[services.params]]\nname = "two"\n')
                for name in ("read", "see", "kill", "write_through_links")
            ),
        )
    )
    try:
        fleet.found(configure={"a": f"\n[jobs]\nmax_pids = 60\n{services}"})
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def victim(cell: Fleet) -> Iterator[Run]:
    """An honest job that must not notice anything."""
    cell.effect_log.unlink(missing_ok=True)
    honest = job("honest", "a", params={"until": "honest may end"})
    run = start(cell, "c", definition("honest", honest, deliver=["honest"]))
    wait_for(lambda: run.job_status("honest") == "RUNNING", 60, run.explain)
    yield run
    say(cell, "honest may end")
    assert run.wait() == "COMPLETED", run.explain()
    assert cell["a"].alive
    assert tree(run.home)


def hostile(cell: Fleet, service: str, *, memory: str = "128M", disk: str = "32M", **params: str) -> tuple[Run, Any]:
    """Run one to its end; returns how its orchestrator sees it."""
    entry = {
        "name": "hostile", "on": {"peer": "a"}, "service": service, "params": params,
        "resources": {"memory": memory, "disk": disk}, "timeout": "90s",
    }  # fmt: skip
    run = start(cell, "c", definition("attack", entry, deliver=["hostile"]))
    run.wait(150)
    return run, run.jobs()["hostile"]


def said(cell: Fleet, run: Run) -> str:
    return cell["c"].peerctl("logs", str(run.id), "hostile").stdout


def digests(cell: Fleet) -> dict[str, str]:
    paths = [cell["a"].data / "identity.key", cell["a"].data / "peerd.toml"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize(
    ("one", "two"), [("identity.key", "peerd.db"), ("peerd.db-wal", "run/peerd.sock"), ("peerd.toml", "control")]
)
def test_key_store_and_socket_are_not_there(cell: Fleet, victim: Run, one: str, two: str) -> None:
    run, row = hostile(cell, "read", one=str(cell["a"].data / one), two=str(cell["a"].data / two))
    assert (row["status"][-6:], row["reason"]) == ("FAILED", "exit"), run.explain()
    assert said(cell, run).count("refused") == 2


def test_other_jobs_are_not_seen(cell: Fleet, victim: Run) -> None:
    assert cell["a"].process is not None
    folder = victim.directory("honest")
    assert folder.exists()
    run, row = hostile(cell, "see", one=str(folder), two=str(cell["a"].process.pid))
    assert row["reason"] == "exit", run.explain()
    assert "others 0 folder False" in said(cell, run)


def test_daemon_and_other_jobs_cannot_be_signalled(cell: Fleet, victim: Run) -> None:
    assert cell["a"].process is not None
    wrappers = [pid for pid, _ in processes.running() if b"wrapper.py" in command(pid)]
    run, row = hostile(cell, "kill", one=str(cell["a"].process.pid), two=str(max(wrappers)))
    assert row["status"].endswith("FAILED"), run.explain()
    assert said(cell, run).count("refused") == 2
    assert victim.job_status("honest") in ("RUNNING", "COMPLETED")


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_no_network_is_reached(cell: Fleet, victim: Run) -> None:
    run, row = hostile(cell, "connect", port=str(cell["a"].port))
    assert row["reason"] == "exit", run.explain()
    assert said(cell, run).count("refused ") == 2


def test_links_lead_nowhere_and_are_not_followed(cell: Fleet, victim: Run) -> None:
    before, outside = digests(cell), cell.folder / "outside.txt"
    outside.write_text("mine")
    run, row = hostile(cell, "write_through_links", one=str(cell["a"].data / "identity.key"), two=str(outside))
    assert row["status"].endswith("FAILED"), run.explain()
    assert "WROTE" not in said(cell, run)
    assert digests(cell) == before and outside.read_text() == "mine"
    assert not run.home.exists() or not tree(run.home)


@pytest.mark.parametrize(
    ("service", "memory", "limit", "message"),
    [
        ("eat", "128M", "memory_limit", "memory limit of 128M was hit"),
        ("fill", "128M", "disk_limit", "disk limit of 32M was hit"),
        ("bomb", "1G", "pids_limit", "limit of 60 processes was hit"),
    ],
)
def test_who_takes_too_much_is_ended_and_told_which_limit_it_hit(
    cell: Fleet, victim: Run, service: str, memory: str, limit: str, message: str
) -> None:
    run, row = hostile(cell, service, memory=memory)
    assert (row["status"][-6:], row["reason"]) == ("FAILED", "limit"), run.explain()
    assert row["message"] == message
    assert "resources" in row["next_action"]
    shown = cell["a"].json("jobs", "show", row["remote_job_execution_id"])
    assert shown["report"]["limit"] == limit
    assert shown["limits"]["level"] == "LIMITS_LEVEL_CGROUP"
    text = cell["a"].peerctl("jobs", "show", row["remote_job_execution_id"]).stdout
    assert f"{memory} of memory, 32M of disk, 60 processes (by cgroup)" in text and limit in text
    assert message in cell["c"].peerctl("executions", "show", str(run.id)).stdout
    assert sum(path.stat().st_size for path in run.directory("hostile").rglob("*") if path.is_file()) < 1 << 30


def test_nothing_is_left_of_a_job_whose_daemon_and_wrapper_are_killed(cell: Fleet) -> None:
    daemon = cell["a"]
    run = start(cell, "c", definition("orphan", job("orphan", "a", params={"seconds": "600"})))
    wait_for(lambda: run.job_status("orphan") == "RUNNING", 60, run.explain)
    row = run.jobs()["orphan"]
    shown = daemon.json("jobs", "show", row["remote_job_execution_id"])

    def kept() -> list[Path]:
        return [path for path in (daemon.data / "control").iterdir() if (path / "group.json").exists()]

    wait_for(lambda: len(kept()) == 1, 60, "what jobs before it left is cleared away")
    (control,) = kept()
    folders = [Path(folder) for folder in json.loads((control / "group.json").read_text())["folders"]]
    wait_for(lambda: any((folder / "cgroup.procs").read_text() for folder in folders), 60, "the job is in its group")
    assert shown["isolation"] == "ISOLATION_LEVEL_BUBBLEWRAP"
    daemon.kill()
    for pid, _ in processes.running():
        if str(control).encode() in command(pid).split(b"\0"):
            processes.send(pid, signal.SIGKILL)  # it may have ended with the one before
    daemon.start()
    assert run.wait() == "FAILED"
    assert run.jobs()["orphan"]["reason"] == "lost"
    wait_for(lambda: not any(folder.exists() for folder in folders), 60, "the group is gone")


def test_a_job_says_what_it_waits_for_and_the_large_one_gets_its_turn(cell: Fleet) -> None:
    cores = int(cell["a"].json("peers", "show", "a")["hardware"]["cpu_cores"])
    cell.effect_log.unlink(missing_ok=True)
    long: dict[str, Any] = {"params": {"until": "go on"}, "resources": {"cpus": cores}}
    first = start(cell, "c", definition("first", job("first", "a", **long)))
    wait_for(lambda: first.job_status("first") == "RUNNING", 60, first.explain)
    second = start(cell, "c", definition("second", job("second", "a", resources={"cpus": cores})))
    wait_for(lambda: second.jobs()["second"].get("reason") == "cpus", 60, "the reason comes to its orchestrator")
    assert f"waits for {cores} cpus: {cores} of {cores} are taken" in second.jobs()["second"]["message"]
    shown = cell["a"].json("jobs", "show", second.jobs()["second"]["remote_job_execution_id"])
    assert shown["report"]["since"] and shown["report"]["reason"] == "cpus"
    say(cell, "go on")
    assert first.wait() == second.wait() == "COMPLETED"


def test_higher_priorities_run_first(cell: Fleet) -> None:
    cores = int(cell["a"].json("peers", "show", "a")["hardware"]["cpu_cores"])
    all_of_it = {"cpus": cores}
    cell.effect_log.unlink(missing_ok=True)
    first = start(cell, "c", definition("p", job("gate", "a", params={"until": "go on"}, resources=all_of_it)))
    wait_for(lambda: first.job_status("gate") == "RUNNING", 60, first.explain)
    names = {"low": -10, "middle": 0, "high": 10}
    jobs = [job(name, "a", resources=all_of_it, priority=number) for name, number in names.items()]
    run = start(cell, "c", definition("order", *jobs))
    wait_for(
        lambda: all(entry.get("reason") in ("cpus", "reserved", "slot") for entry in run.jobs().values()),
        60, "all are queued",
    )  # fmt: skip
    say(cell, "go on")
    assert run.wait() == "COMPLETED", run.explain()
    begun = {name: entry["started_at"] for name, entry in run.jobs().items()}
    assert sorted(begun, key=begun.__getitem__) == ["high", "middle", "low"]
