"""Jobs of a matrix over real daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .fleet import Fleet, wait_for
from .workflow import definition, job, say, start, tree


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a", "b"))
    try:
        made.found()
        yield made
    finally:
        made.close()


def on_each_host(**more: Any) -> dict[str, Any]:
    """A job that runs on each of two machines, and one that takes the files of both."""
    work = job("work", "${each.host}", ["source"], params={"name": "work-${each.host}", **more})
    work["matrix"] = [{"name": "host", "values": ["a", "b"]}]
    return definition("each", job("source", "c"), work, job("all", "c", ["work"]), deliver=["all", "work"])


def test_a_job_runs_once_on_each_of_two_machines_and_its_files_come_together(fleet: Fleet) -> None:
    run = start(fleet, "c", on_each_host())
    assert run.wait() == "COMPLETED", run.explain()
    jobs = run.jobs()
    assert sorted(jobs) == ["all", "source", "work.0", "work.1"]
    assert jobs["work.0"]["executor_peer_id"] == fleet["a"].peer_id
    assert jobs["work.1"]["executor_peer_id"] == fleet["b"].peer_id
    inputs = tree(run.directory("all") / "input")
    assert {path.split("/")[0] for path in inputs} == {"work.0", "work.1"}
    assert {path.split("/")[0] for path in tree(run.home)} == {"all", "work.0", "work.1"}


def test_it_goes_on_after_its_orchestrator_was_killed(fleet: Fleet) -> None:
    run = start(fleet, "c", on_each_host(until="go on"))
    wait_for(lambda: run.job_status("work.1") == "RUNNING", 40, "an instance runs")
    fleet["c"].kill()
    fleet["c"].start()
    say(fleet, "go on")
    assert run.wait() == "COMPLETED", run.explain()
    assert len(run.jobs()) == 4


def test_the_plan_shows_every_instance(fleet: Fleet) -> None:
    file = fleet.folder / "plan.json"

    file.write_text(json.dumps(on_each_host()))
    plan = fleet["c"].json("workflows", "plan", str(file))
    assert {each["node_id"]: each["peer_name"] for each in plan["jobs"]} == {
        "source": "c",
        "work.0": "a",
        "work.1": "b",
        "all": "c",
    }
