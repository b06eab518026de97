"""What is over goes, what is kept stays, nothing that is needed is touched; and the operator sees what takes space."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS
from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.workflow import Run, definition, job, say, start

pytestmark = pytest.mark.timeout(300)

QUOTA_MB = 4
SMALL_QUOTA = f"\n[jobs]\nquota_bytes_per_orchestrator = {QUOTA_MB << 20}\n"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """c (founder), a, and b with a quota for others."""
    made = Fleet()
    try:
        made.found(configure={"b": SMALL_QUOTA})
        yield made
    finally:
        made.close()


def finished(fleet: Fleet, name: str, *options: str, megabytes: int = 1) -> Run:
    file = fleet.folder / f"{name}.json"
    made = job("made", "a", params={"name": f"{name}-made", "write_mb": str(megabytes)})
    file.write_text(json.dumps(definition(name, made, job("used", "c", ["made"]), deliver=["used"])))
    answer = fleet["c"].json("workflows", "run", str(file), *options)
    run = Run(fleet, fleet["c"], int(answer["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    wait_for(lambda: told(fleet["c"], run), 40, "executors know that it is over")
    return run


def told(daemon: Daemon, run: Run) -> bool:
    return bool(rows(daemon, f"SELECT 1 FROM workflow_executions WHERE id = {run.id} AND told = 1"))


def rows(daemon: Daemon, sql: str) -> list[Any]:
    with sqlite3.connect(f"file:{daemon.data / 'peerd.db'}?mode=ro", uri=True) as store:
        return store.execute(sql).fetchall()


def gc(daemon: Daemon, *options: str) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.json("gc", "--older-than", "0s", *options)
    return answer


def kinds(answer: dict[str, Any]) -> list[str]:
    return sorted(entry["kind"].removeprefix("REMOVAL_KIND_") for entry in answer.get("removals", []))


def test_files_go_when_all_is_over_and_what_was_kept_stays(fleet: Fleet) -> None:
    run, kept = finished(fleet, "goes"), finished(fleet, "kept", "--keep")
    made, home = run.directory("made"), run.home
    assert made.is_dir() and home.is_dir()
    said = gc(fleet["a"], "--dry-run")
    assert kinds(said) == ["JOB"] and said["removals"][0]["name"] == "made"
    assert int(said["bytes"]) > 1 << 20 and made.is_dir(), "nothing goes in a dry run"
    shown = fleet["a"].peerctl("gc", "--older-than", "0s").stdout
    assert "1 directory with" in shown and "made" in shown and not made.exists()
    assert kinds(gc(fleet["c"])) == ["EXECUTION", "JOB"]
    assert not home.exists() and kept.home.is_dir() and kept.directory("made").is_dir()
    assert run.view()["files_removed"] is True and kept.view()["kept"] is True
    assert run.status == "COMPLETED", "the record stays"
    pages = {each.id: fleet["c"].peerctl("executions", "show", str(each.id)).stdout for each in (run, kept)}
    assert "removed by retention since" in pages[run.id] and "kept: retention takes none" in pages[kept.id]
    gone = fleet["c"].peerctl("logs", str(run.id), "used", code=5).stderr
    assert "files_removed" in gone and "removed by retention" in gone
    assert gc(fleet["a"]).get("count", 0) == gc(fleet["c"]).get("count", 0) == 0
    fleet["c"].peerctl("executions", "keep", str(kept.id), "--release")
    wait_for(lambda: told(fleet["c"], kept), 40, "executors know that it is not kept any more")
    assert kinds(gc(fleet["a"])) == ["JOB"] and not kept.directory("made").exists()


def test_only_the_named_execution_goes(fleet: Fleet) -> None:
    one, two = finished(fleet, "one"), finished(fleet, "two")
    assert kinds(gc(fleet["c"], "--execution", str(two.id))) == ["EXECUTION", "JOB"]
    assert one.home.is_dir() and not two.home.exists()


def test_nothing_of_an_execution_under_way_is_touched(fleet: Fleet) -> None:
    slow = definition(
        "slow", job("first", "a"), job("then", "c", ["first"], params={"until": "then goes on"}), deliver=["then"]
    )
    run = start(fleet, "c", slow)
    wait_for(lambda: run.job_status("then") == "RUNNING", 40, "the second runs")
    before = run.directory("first")
    assert gc(fleet["a"], "--execution", str(run.id)).get("count", 0) == 0
    assert gc(fleet["c"], "--execution", str(run.id)).get("count", 0) == 0
    assert (before / "output" / "first.txt").is_file()
    say(fleet, "then goes on")
    assert run.wait() == "COMPLETED", run.explain()


def test_retention_works_by_itself_and_old_rows_go_too() -> None:
    fleet = Fleet(("c", "a"))
    quick = "\n[retention]\n" + "".join(
        f"{key} = {value}\n"
        for key, value in {
            "executions_days": 0.00001,
            "jobs_days": 0.00001,
            "history_days": 0.00015,
            "collect_minutes": 0.01,
        }.items()
    )
    try:
        fleet.found(configure={"c": quick, "a": quick})
        kept = fleet.folder / "kept.json"
        kept.write_text(json.dumps(definition("kept", job("z", "a"))))
        fleet["c"].peerctl("workflows", "put", str(kept))
        run = start(fleet, "c", definition("gone", job("x", "a"), job("y", "c", ["x"]), deliver=["y"]))
        assert run.wait() == "COMPLETED"
        wait_for(lambda: fleet["c"].peerctl("executions", "show", str(run.id), code=None).returncode == 5, 90, "gone")
        tables = ("workflow_executions", "workflow_jobs", "execution_edges", "execution_events", "job_executions")
        more = ("job_attempts", "job_edges", "job_files", "outgoing_transfers", "incoming_transfers")
        for daemon in fleet.daemons.values():
            wait_for(
                lambda daemon=daemon: all(not rows(daemon, f"SELECT 1 FROM {table}") for table in (*tables, *more)),
                60,
                "no row is left",
            )
            wait_for(
                lambda daemon=daemon: rows(daemon, "SELECT name FROM workflows") in ([("kept",)], []),
                60,
                "only the definition that somebody stored is left",
            )
            wait_for(
                lambda daemon=daemon: not below(daemon.data / "workflows"),
                60,
                "no directory is left",
            )
        assert fleet["c"].json("workflows", "show", "kept")["version"] == 1
    finally:
        fleet.close()


def test_a_directory_that_the_store_does_not_know_goes_late(fleet: Fleet) -> None:
    run = finished(fleet, "known")
    stranger = run.directory("made").with_name("987654321")
    shutil.copytree(run.directory("made"), stranger)
    assert "ORPHAN" not in kinds(gc(fleet["a"], "--dry-run")), "it is too young"
    assert stranger.is_dir()
    week_ago = time.time() - 8 * 86_400
    os.utime(stranger, (week_ago, week_ago))
    assert "ORPHAN" in kinds(gc(fleet["a"]))
    assert not stranger.exists()


def test_what_takes_space_is_said(fleet: Fleet) -> None:
    finished(fleet, "large", megabytes=20)
    usage = fleet["a"].json("du")
    areas = {area["name"]: int(area["bytes"]) for area in usage["areas"]}
    assert areas["workflows"] > 20 << 20 and areas["store"] > 0
    taken = sum(map(occupied, [fleet["a"].data, *below(fleet["a"].data)]))
    assert abs(sum(areas.values()) - taken) < 2 << 20, "all of it is accounted for"
    assert int(usage["free_bytes"]) > int(usage["reserve_bytes"]) > 0
    (mine,) = [entry for entry in usage["orchestrators"] if entry["name"] == "c"]
    assert int(mine["bytes"]) > 20 << 20
    assert int(usage["executions"][0]["bytes"]) > 20 << 20
    shown = fleet["a"].peerctl("du").stdout
    assert "ORCHESTRATOR" in shown and "stay free" in shown


def below(folder: Path) -> list[Path]:
    """Everything there; what goes meanwhile may be among it or not."""
    return [Path(base, name) for base, folders, files in os.walk(folder) for name in (*folders, *files)]


def occupied(path: Path) -> int:
    """Bytes on the disk; none of what is gone by now."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def limit(daemon: Daemon, megabytes: int) -> None:
    """Start it anew with another quota for the jobs of each other peer."""
    daemon.stop()
    file = daemon.data / "peerd.toml"
    old = next(line for line in file.read_text().splitlines() if line.startswith("quota_bytes_per_orchestrator"))
    file.write_text(file.read_text().replace(old, f"quota_bytes_per_orchestrator = {megabytes << 20}"))
    daemon.start()


def collected(fleet: Fleet, run: Run) -> None:
    """The execution is over for b, and b removes its files."""
    wait_for(lambda: told(fleet["c"], run), 40, "b knows that it is over")
    gone = gc(fleet["b"], "--execution", str(run.id))["removals"]
    assert [entry["kind"] for entry in gone if entry["orchestrator_peer_id"] == fleet["c"].peer_id] == [
        "REMOVAL_KIND_JOB"
    ]


def test_one_orchestrator_may_not_take_all_of_a_disk(fleet: Fleet) -> None:
    limit(fleet["b"], 0)
    run = start(fleet, "c", definition("big", job("big", "b", params={"write_mb": str(QUOTA_MB + 1)})))
    assert run.wait() == "COMPLETED", "there is no limit yet"
    limit(fleet["b"], QUOTA_MB)
    waiting = start(fleet, "c", definition("more", job("more", "b")))
    wait_for(lambda: "storage_quota" in str(waiting.jobs()["more"]), 60, "the next one waits and says why")
    assert "occupy" in waiting.jobs()["more"]["message"]
    own = start(fleet, "b", definition("own", job("own", "b")))
    assert own.wait() == "COMPLETED", "its owner is not limited"
    quota = [entry for entry in fleet["b"].json("du")["orchestrators"] if entry["name"] == "c"]
    assert int(quota[0]["quota_bytes"]) == QUOTA_MB << 20
    collected(fleet, run)
    assert waiting.wait(90) == "COMPLETED", "room was made"
    collected(fleet, waiting)


def test_files_that_exceed_a_quota_wait_until_there_is_room(fleet: Fleet) -> None:
    first = start(fleet, "c", definition("first", job("first", "b", params={"write_mb": "3"})))
    assert first.wait() == "COMPLETED", first.explain()
    produced = job("made", "a", params={"write_mb": "1"})  # its consumer copies it: twice that must fit later
    run = start(fleet, "c", definition("late", produced, job("taken", "b", ["made"])))
    wait_for(lambda: run.jobs()["taken"].get("reason") == "storage_quota", 60, "it says why its files do not come")
    taken = run.jobs()["taken"]
    assert run.job_status("taken") == "WAITING_INPUTS" and "do not fit" in taken["message"]
    shown = fleet["c"].peerctl("executions", "show", str(run.id)).stdout
    assert "storage_quota" in shown and "quota_bytes_per_orchestrator" in shown, "and what to do"
    wait_for(lambda: "storage_quota" in json.dumps(fleet["a"].json("transfers", "list")), 40, "so does the sender")
    collected(fleet, first)
    assert run.wait(90) == "COMPLETED", run.explain()
    assert fleet.effects_seen()["done taken"] == 1
    collected(fleet, run)


def test_files_larger_than_a_quota_wait_until_it_is_raised(fleet: Fleet) -> None:
    produced = job("huge", "a", params={"write_mb": str(QUOTA_MB + 2)})
    run = start(fleet, "c", definition("raised", produced, job("sink", "b", ["huge"])))
    wait_for(lambda: run.jobs()["sink"].get("reason") == "storage_quota", 60, "it says why its files do not come")
    limit(fleet["b"], 10 * QUOTA_MB)
    assert run.wait(90) == "COMPLETED", run.explain()
    collected(fleet, run)
    limit(fleet["b"], QUOTA_MB)


def greedy(name: str, peer: str) -> dict[str, Any]:
    """A job that writes more than it may, and then goes on for long."""
    return job(name, peer, params={"name": name, "write_mb": str(QUOTA_MB + 4), "then_seconds": "600"})


def test_a_job_that_writes_more_than_it_may_is_ended_while_it_runs(fleet: Fleet) -> None:
    calm = start(fleet, "c", definition("calm", job("calm", "b", params={"seconds": "12"})))
    own = start(fleet, "b", definition("own-greedy", greedy("own-greedy", "b")))
    run = start(fleet, "c", definition("greedy", greedy("greedy", "b")))
    assert run.wait(90) == "FAILED", run.explain()
    ended = run.jobs()["greedy"]
    assert ended["reason"] == "storage_quota" and "what it had made is removed" in ended["message"]
    shown = fleet["c"].peerctl("executions", "show", str(run.id)).stdout
    assert "storage_quota" in shown and "let it write less" in shown
    effects = fleet.effects_seen()
    assert effects["start greedy"] == 1 and effects["done greedy"] == 0
    assert not list(run.directory("greedy").rglob("*.bin")), "its files make room"
    assert "greedy was here" in fleet["c"].peerctl("logs", str(run.id), "greedy").stdout, "its logs stay"
    assert calm.wait(90) == "COMPLETED", "a job that writes little is let be"
    assert own.job_status("own-greedy") == "RUNNING", "the owner's own job has no limit"
    fleet["b"].peerctl("executions", "cancel", str(own.id), "--wait")


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("job.quota.")])
def test_a_job_that_is_to_be_ended_is_ended_though_the_daemon_is_killed_at(fleet: Fleet, name: str) -> None:
    daemon, label = fleet["b"], name.replace(".", "-").replace("_", "-")
    daemon.stop()
    daemon.start(failpoint=name)
    run = start(fleet, "c", definition(label, greedy(label, "b")))
    wait_for(lambda: not daemon.alive, 90, f"b dies at {name}")
    daemon.wait()
    daemon.start()
    assert run.wait(90) == "FAILED", run.explain()
    assert run.jobs()[label]["reason"] == "storage_quota"
    assert fleet.effects_seen()[f"start {label}"] == 1 and not list(run.directory(label).rglob("*.bin"))


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--older-than", "7"), "no age"), (("--older-than", "-3d"), "no age"), (("--execution", "x"), "integer")],
    ids=["no unit", "negative", "no number"],
)
def test_a_wrong_age_or_execution_is_refused(fleet: Fleet, options: tuple[str, ...], says: str) -> None:
    assert says in fleet["c"].peerctl("gc", *options, code=2).stderr


def test_an_unknown_execution_cannot_be_kept(fleet: Fleet) -> None:
    assert "not_found" in fleet["c"].peerctl("executions", "keep", "4711", code=5).stderr
