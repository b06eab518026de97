"""Schedules and concurrency groups on real daemons: by the clock, over kills, as operators see them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS

from .fleet import Daemon, Fleet, wait_for
from .workflow import Run, definition, job, say, start, tree

pytestmark = pytest.mark.timeout(300)

EXAMPLES = Path(__file__).parents[2] / "examples"
OF_SCHEDULES = [name for name in FAILPOINTS if name.startswith("schedule.")]
OF_GROUPS = [name for name in FAILPOINTS if name.startswith("workflow.turn.")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Fleet]:
    """One daemon, which allows itself commands."""
    made = Fleet(("c",))
    try:
        made.found()
        c = made["c"]
        c.kill()
        c.configure(f"\n[jobs]\nallow_commands_from = ['{c.peer_id}']\n")
        c.start()
        yield made
    finally:
        made.close()


def living(fleet: Fleet) -> Daemon:
    """The daemon, also after a test that failed while it was dead."""
    c = fleet["c"]
    if not c.alive:
        if c.process is not None:
            c.wait()
        c.start()
    return c


def put(fleet: Fleet, name: str, schedule: dict[str, Any], *jobs: dict[str, Any], **more: Any) -> None:
    """Store a definition with a schedule."""
    file = fleet.folder / f"{name}.json"
    file.write_text(json.dumps({**definition(name, *(jobs or (job("one", "c"),))), "schedule": schedule, **more}))
    fleet["c"].peerctl("workflows", "put", str(file))


def executions(c: Daemon, name: str) -> list[dict[str, Any]]:
    """Of a workflow, oldest first."""
    found: list[dict[str, Any]] = c.json("executions", "list", "--workflow", name)["executions"]
    return found[::-1]


def firings(c: Daemon, name: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = c.json("schedules", "firings", name)["firings"]
    return found[::-1]


def was_down(daemon: Daemon, *, hours: int, name: str) -> None:
    """What the store of a daemon says that nobody started for so long, with an hourly schedule."""
    with closing(sqlite3.connect(daemon.data / "peerd.db")) as store, store:
        store.execute(
            "UPDATE schedules SET decided_until = decided_until - ?, next_at = 0 WHERE name = ?",
            (hours * 3_600_000, name),
        )


@pytest.mark.slow
def test_a_definition_that_is_stored_runs_at_the_next_minute(alone: Fleet) -> None:
    c = living(alone)
    # No minute begins between the two questions.
    wait_for(lambda: time.gmtime().tm_sec < 40, 30, "the minute is young")
    put(alone, "minutely", {"cron": "* * * * *", "timezone": "America/New_York"})
    (shown,) = [item for item in c.json("schedules", "list")["schedules"] if item["name"] == "minutely"]
    assert shown["next"][0]["local"].endswith(("-04:00", "-05:00")) and not shown["reason"]
    wait_for(lambda: executions(c, "minutely"), 120, "the first minute has come", pause=0.5)
    c.peerctl("schedules", "pause", "minutely", "--reason", "seen enough")
    (first,) = executions(c, "minutely")
    assert Run(alone, c, int(first["workflow_execution_id"])).wait() == "COMPLETED"
    (seen,) = firings(c, "minutely")
    assert (seen["local"], seen["status"]) == (shown["next"][0]["local"], "FIRING_STATUS_FIRED")
    assert first["started_by"] == f"schedule minutely, planned for {seen['local']}"
    assert "started by    schedule minutely" in c.peerctl("executions", "show", first["workflow_execution_id"]).stdout
    assert "seen enough" in c.peerctl("schedules", "show", "minutely").stdout


@pytest.mark.parametrize("name", OF_SCHEDULES)
def test_a_daemon_that_dies_at_every_failpoint_fires_each_planned_time_once(alone: Fleet, name: str) -> None:
    c = living(alone)
    workflow = name.replace(".", "-")
    minute = (time.gmtime().tm_min + 50) % 60  # none comes while the test runs
    put(alone, workflow, {"cron": f"{minute} * * * *", "overlap": "queue", "catch_up": "all", "catch_up_limit": 3})
    c.kill()
    was_down(c, hours=5, name=workflow)
    c.start(failpoint=name, wait=False)
    wait_for(lambda: not c.alive, 60, f"it dies at {name}")
    c.wait()
    c.start()
    wait_for(lambda: len(firings(c, workflow)) == 5, 60, "every time is decided on")
    states = [f"FIRING_STATUS_{word}" for word in ("MISSED", "MISSED", "FIRED", "FIRED", "FIRED")]
    wait_for(lambda: [f["status"] for f in firings(c, workflow)] == states, 90, "three are caught up", pause=0.3)
    started = [found["started_by"] for found in executions(c, workflow)]
    assert started == [f"schedule {workflow}, planned for {entry['local']}" for entry in firings(c, workflow)[2:]]
    for found in executions(c, workflow):
        assert Run(alone, c, int(found["workflow_execution_id"])).wait() == "COMPLETED"


@pytest.mark.parametrize("name", OF_GROUPS)
def test_a_group_runs_one_after_the_other_over_the_death_of_its_orchestrator(alone: Fleet, name: str) -> None:
    c = living(alone)
    alone.effect_log.unlink(missing_ok=True)
    c.kill()
    c.start(failpoint=name)
    runs = []
    for number in range(3):
        params = {"seconds": "0.2"} if number else {"until": "go"}  # all are there before the first ends
        content = definition(f"g{number}", job(f"n{number}", "c", params=params))
        runs.append(start(alone, "c", {**content, "concurrency": {"group": "g"}}))
    view = runs[2].view()
    assert view["reason"].startswith(f"waits for executions {runs[0].id}, {runs[1].id} of group g")
    assert view["next_action"] and view["since"] and view["waits_for_turn"]
    shown = c.peerctl("executions", "show", str(runs[2].id)).stdout
    assert f"  waits for     executions {runs[0].id}, {runs[1].id} of group g" in shown
    say(alone, "go")
    wait_for(lambda: not c.alive, 60, f"it dies at {name}")
    c.wait()
    c.start()
    for run in runs:
        assert run.wait() == "COMPLETED", run.explain()
    assert [line for line in alone.effect_log.read_text().splitlines() if line != "go"] == [
        f"{event} n{number}" for number in range(3) for event in ("start", "done")
    ]


def test_what_an_operator_does_with_a_schedule(alone: Fleet) -> None:
    c = living(alone)
    file = alone.folder / "plain.json"
    file.write_text(
        json.dumps({**definition("plain", job("one", "c", params={"until": "${params.s}"})), "params": {"s": ""}})
    )
    c.peerctl("workflows", "put", str(file))
    c.peerctl("schedules", "put", "plain", "--cron", "0 4 31 2 *", code=2)
    c.peerctl("schedules", "put", "plain", "--cron", "0 4 * * *", "--timezone", "Mars/Base", code=2)
    c.peerctl("schedules", "put", "nothing", "--cron", "0 4 * * *", code=5)
    made = (
        "--name",
        "early",
        "--cron",
        "0 4 * * sun",
        "--timezone",
        "Europe/Zurich",
        "--param",
        "s=2",
        "--catch-up",
        "none",
    )
    assert "T04:00:00+0" in c.peerctl("schedules", "put", "plain", *made).stdout
    assert len(c.peerctl("schedules", "next", "early", "--count", "20").stdout.splitlines()) == 20
    assert c.peerctl("schedules", "trigger", "early").stdout.startswith("fired as execution ")
    second = c.peerctl("schedules", "trigger", "early")
    assert second.stdout == "skipped_overlap\n" and "had not ended" in second.stderr
    say(alone, "2")
    shown = c.peerctl("schedules", "show", "early").stdout
    assert "0 4 * * sun in Europe/Zurich" in shown and "s=2" in shown and "skipped_overlap" in shown
    c.peerctl("schedules", "pause", "early", "--reason", "new disk")
    assert "new disk" in c.peerctl("schedules", "list").stdout
    assert "early goes on; next " in c.peerctl("schedules", "resume", "early").stdout
    audit = c.peerctl("audit", "list").stdout
    assert all(word in audit for word in ("PutSchedule", "TriggerSchedule", "PauseSchedule", "ResumeSchedule"))
    c.peerctl("schedules", "delete", "early")
    assert "no schedule 'early'" in c.peerctl("schedules", "show", "early", code=5).stderr


def test_the_example_of_a_schedule_runs(alone: Fleet) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    c = living(alone)
    c.peerctl("workflows", "put", str(EXAMPLES / "schedule.yaml"))
    c.peerctl("schedules", "trigger", "nightly-report")
    (found,) = executions(c, "nightly-report")
    run = Run(alone, c, int(found["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    (text,) = tree(run.home).values()
    assert text.startswith(f"report of {time.strftime('%Y')}-") and ", planned for 20" in text
    (shown,) = [item for item in c.json("schedules", "list")["schedules"] if item["name"] == "nightly-report"]
    assert shown["next"][0]["local"][10:19] == "T02:30:00"


def test_the_example_of_a_group_runs(alone: Fleet) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    c = living(alone)
    runs = []
    for target, seconds in (("live", "3"), ("live", "0"), ("test", "0")):
        params = ("--param", f"target={target}", "--param", f"seconds={seconds}")
        answer = c.json("workflows", "run", str(EXAMPLES / "concurrency.yaml"), *params)
        runs.append(Run(alone, c, int(answer["workflow_execution_id"])))
    waits = runs[1].view()
    assert waits["concurrency_group"] == "deploy-live"
    assert not runs[2].view().get("waits_for_turn"), "another group does not wait for them"
    assert [run.wait() for run in runs] == ["COMPLETED"] * 3
    first, second, _ = (run.view() for run in runs)
    assert first["ended_at"] <= second["started_at"], "one after the other"
