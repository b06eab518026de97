"""Bad definitions and bad files: named exactly, changing nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .fleet import Fleet, wait_for
from .workflow import definition, job, start

HEAD = "name: w\njobs:\n"
BAD = {
    "cycle": (
        HEAD + "  - {name: a, on: {peer: a}, service: step, inputs: [{from: b}]}\n"
        "  - {name: b, on: {peer: a}, service: step, inputs: [{from: a}]}\n",
        "cycle",
        None,
    ),
    "unknown job": (HEAD + "  - {name: a, service: step, inputs: [{from: nobody}]}\n", "unknown_job", 3),
    "illegal pair": (
        HEAD + "  - {name: a, service: step}\n  - {name: b, service: step, inputs: [{from: a.stdin}]}\n",
        "illegal_pair",
        4,
    ),
    "colliding destinations": (
        HEAD + "  - {name: a, service: step}\n  - {name: b, service: step}\n"
        "  - name: c\n    service: step\n    inputs:\n      - {from: a, to: x}\n      - {from: b, to: x}\n",
        "colliding_destinations",
        9,
    ),
    "bad yaml": ("name: w\njobs: [\n  - {\n", "bad_yaml", None),
    "unknown field": (HEAD + "  - {name: a, servise: step}\n", "unknown_field", 3),
    "path out of the job": (
        HEAD + "  - {name: a, service: step}\n  - {name: b, service: step, inputs: [{from: a, to: ../../x}]}\n",
        "bad_path",
        4,
    ),
    "absolute mount": (
        HEAD + "  - {name: a, service: step}\n  - {name: b, service: step, inputs: [{from: a, into: mounts//etc}]}\n",
        "bad_path",
        4,
    ),
    "bad name": (HEAD + "  - {name: ../a, service: step}\n", "bad_name", 3),
    "long name": (HEAD + f"  - {{name: {'x' * 64}, service: step}}\n", "bad_name", 3),
}


@pytest.mark.parametrize(("text", "reason", "line"), BAD.values(), ids=BAD.keys())
def test_a_bad_definition_is_refused_with_file_line_and_reason(
    fleet: Fleet, text: str, reason: str, line: int | None
) -> None:
    file = fleet.folder / "bad.yaml"
    file.write_text(text)
    c = fleet["c"]
    before = c.json("executions", "list")
    done = c.peerctl("workflows", "validate", str(file), code=1)
    assert f"{file}:" in done.stdout
    assert f"{reason}:" in done.stdout, done.stdout
    if line is not None:
        assert f"{file}:{line}:" in done.stdout, done.stdout
    problems = json.loads(c.peerctl("workflows", "validate", str(file), "-o", "json", code=1).stdout)["problems"]
    assert all(problem["next_action"] for problem in problems)
    assert c.peerctl("workflows", "run", str(file), code=None).returncode in (1, 2)
    assert c.json("executions", "list") == before


def test_a_service_that_is_missing_or_inactive_is_said_in_the_plan_and_refuses_the_job(own_fleet: Fleet) -> None:
    c, a = own_fleet["c"], own_fleet["a"]
    a.peerctl("services", "deactivate", "step")
    file = own_fleet.folder / "plan.json"
    file.write_text(json.dumps(definition("plan", job("one", "a"), {**job("two", "b"), "service": "nothing"})))
    plan: list[dict[str, Any]] = []

    def planned() -> bool:
        """What a peer offers is not known while it does not answer, and what is not known is not refused."""
        plan[:] = json.loads(c.peerctl("workflows", "plan", str(file), "-o", "json", code=None).stdout)["jobs"]
        reasons = {entry["node_id"]: {r["reason"] for r in entry["refusals"]} for entry in plan}
        return "service_inactive" in reasons["one"] and "service_not_found" in reasons["two"]

    wait_for(planned, 60, lambda: f"the plan says what is missing: {plan}", pause=0.5)
    assert all(r["next_action"] for entry in plan for r in entry["refusals"])
    run = start(own_fleet, "c", definition("inactive", job("one", "a")))
    assert run.wait() == "FAILED"
    assert run.jobs()["one"]["reason"] == "refused"
    assert own_fleet.effects_seen()["start one"] == 0


@pytest.mark.parametrize("odd", ["link", "fifo"])
def test_links_and_special_files_are_not_sent(fleet: Fleet, odd: str) -> None:
    act = {"link": "os.symlink('/etc/passwd', 'output/odd')", "fifo": "os.mkfifo('output/odd')"}[odd]
    name = f"odd-{odd}"
    service = fleet.folder / f"{name}.json"
    import sys

    service.write_text(
        json.dumps({"name": name, "kind": "SERVICE_KIND_PROCESS", "argv": [sys.executable, "-c", f"import os; {act}"]})
    )
    fleet["a"].peerctl("services", "add", str(service))
    made = {"name": "made", "on": {"peer": "a"}, "service": name}
    run = start(fleet, "c", definition(name, made, job("used", "b", ["made"])))
    assert run.wait() == "FAILED"
    used = run.jobs()["used"]
    assert used["reason"] == "transfer"
    assert "odd" in used["message"]
    assert not (run.directory("used") / "input" / "odd").exists()


def test_a_request_id_starts_one_execution_however_often_it_comes(fleet: Fleet) -> None:
    file = fleet.folder / "once.json"
    file.write_text(json.dumps(definition("once", job("once", "c"))))
    arguments = ("workflows", "run", str(file), "--request-id", "the-same")
    first, second = fleet["c"].json(*arguments), fleet["c"].json(*arguments)
    assert first["workflow_execution_id"] == second["workflow_execution_id"]
