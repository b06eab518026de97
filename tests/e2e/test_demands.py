"""What jobs and services demand of a machine: GPUs of their own, and limits that the kernel keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .fleet import Fleet, wait_for
from .workflow import definition, start


@pytest.fixture(scope="module")
def alone() -> Iterator[Fleet]:
    """A machine that gives jobs two GPUs and has no control groups."""
    made = Fleet(("c",))
    try:
        made.found(configure={"c": "\n[jobs]\ngpus = 2\nlimits = 'rlimits'\nsandbox = 'none'\n"})
        yield made
    finally:
        made.close()


def offer(fleet: Fleet, name: str, **declared: object) -> None:
    file = fleet.folder / f"{name}.json"
    file.write_text(json.dumps({"name": name, "kind": "SERVICE_KIND_PROCESS", **declared}))
    fleet["c"].peerctl("services", "add", str(file))


def test_jobs_that_run_share_no_gpu_also_after_their_daemon_was_killed(alone: Fleet) -> None:
    c, go = alone["c"], alone.folder / "go"
    program = f'echo "$CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES"; while [ ! -e {go} ]; do sleep 0.05; done'
    offer(alone, "trainer", argv=["/bin/sh", "-c", program], resources={"gpus": 1})
    jobs = [{"name": f"train-{n}", "service": "trainer"} for n in range(3)]
    run = start(alone, "c", definition("train", *jobs))

    def running() -> list[str]:
        return [node for node, entry in run.jobs().items() if entry["status"].endswith("RUNNING")]

    wait_for(lambda: len(running()) == 2, 60, "two run")
    (waiting,) = run.jobs().keys() - set(running())
    wait_for(lambda: run.jobs()[waiting]["reason"] == "gpus", 60, "the third says what it waits for")
    c.kill()
    c.start()
    go.touch()
    assert run.wait() == "COMPLETED", run.explain()
    said = {node: (run.directory(node) / "logs" / "stdout.txt").read_text() for node in run.jobs()}
    first = sorted(text for node, text in said.items() if node != waiting)
    assert first == ["0 0\n", "1 1\n"]
    assert said[waiting] in first
    number = run.jobs()[waiting]["remote_job_execution_id"]
    shown = c.peerctl("jobs", "show", str(number)).stdout
    assert ["gpus", said[waiting].split()[0]] in [line.split() for line in shown.splitlines()]


def test_who_demands_control_groups_is_not_placed_where_there_are_none(alone: Fleet) -> None:
    c = alone["c"]
    offer(alone, "strict", argv=["/bin/true"], limits="LIMITS_LEVEL_CGROUP")
    assert "limits by cgroup" in c.peerctl("services", "list").stdout
    assert "kept by rlimits" in c.peerctl("peers", "show", "c").stdout
    run = start(alone, "c", definition("demanding", {"name": "one", "service": "strict"}))
    assert run.wait() == "FAILED"
    entry = run.jobs()["one"]
    assert "control groups" in entry["message"] and "isolation_insufficient" in entry["message"]
    events = c.json("executions", "events", str(run.id))["events"]
    assert not any(event["kind"] == "job_placed" for event in events), "nobody was asked"
