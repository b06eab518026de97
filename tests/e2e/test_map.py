"""Jobs over a list that an earlier job makes, and bounds on how many run at once, over real daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS

from .fleet import Fleet, wait_for
from .workflow import FINAL, Run, definition, job, say, start, tree

OF_MAPS = tuple(name for name in FAILPOINTS if name.startswith(("workflow.map.", "workflow.expand.")))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a", "b"))
    try:
        made.found()
        yield made
    finally:
        made.close()


def over(text: str, *more: dict[str, Any], deliver: list[str], **work: Any) -> dict[str, Any]:
    """``list`` makes the file with that text, ``work`` runs for each item of it."""
    made = job("list", "a", package=[{"path": "made", "text": text}])
    params = {"name": "work-${each.item}", **work.pop("params", {})}
    mapped = {"from": "list.output/seen/package/made"}
    each = {"name": "work", "service": "step", "params": params, "map": mapped, **work}
    return definition("over", made, each, *more, deliver=deliver)


def test_a_list_of_objects_becomes_jobs_whose_files_come_together(fleet: Fleet) -> None:
    fleet.effect_log.unlink(missing_ok=True)
    items = '[{"who": "x", "on": "a", "n": 1}, {"who": "y", "on": "b", "n": 2.50}]'
    content = over(
        items,
        job("other", "b"),
        job("all", "c", ["work", "other"]),
        params={"name": "${each.thing.who}-${each.thing.n}-${each.index}"},
        on={"peer": "${each.thing.on}"},
        inputs=[{"from": "other"}],
        package=[{"path": "brought", "text": "along"}],
        deliver=["all", "work"],
    )
    content["jobs"][1]["map"]["as"] = "thing"
    run = start(fleet, "c", content)
    assert run.wait() == "COMPLETED", run.explain()
    jobs = run.jobs()
    assert list(jobs) == ["list", "work", "other", "all", "work.0", "work.1"]
    assert run.view()["job_count"] == 6
    assert jobs["work"]["message"] == "its list has 2 items"
    assert jobs["work.1"]["job_name"] == "work (thing.who=y, thing.on=b, thing.n=2.50)"
    assert [jobs[f"work.{n}"]["executor_peer_id"] for n in (0, 1)] == [fleet["a"].peer_id, fleet["b"].peer_id]
    assert set(tree(run.directory("all") / "input")) >= {"work.0/x-1-0.txt", "work.1/y-2.50-1.txt", "other/other.txt"}
    assert tree(run.directory("work.1") / "input") == {"other.txt": "made by other\n"}
    assert tree(run.directory("work.0") / "package") == {"brought": "along"}
    assert {path.split("/")[0] for path in tree(run.home)} == {"all", "work.0", "work.1"}
    assert fleet.effects_seen()["done y-2.50-1"] == 1
    why = fleet["c"].json("why", f"{run.id}/work.1")
    assert why["verdicts"][0]["peer_name"] == "b"
    assert fleet["c"].json("why", f"{run.id}/work")["job"]["message"] == "its list has 2 items"
    file = fleet.folder / "plan.json"
    file.write_text(json.dumps(content))
    plan = fleet["c"].json("workflows", "plan", str(file))
    assert "each is placed when the list is known" in next(x["rule"] for x in plan["jobs"] if x["node_id"] == "work")


def test_an_empty_list_completes_at_once_and_a_bad_one_says_what_is_wrong(fleet: Fleet) -> None:
    run = start(fleet, "c", over("[]", job("all", "c", ["work", "list"]), deliver=["all", "work"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert set(run.jobs()) == {"list", "work", "all"}
    assert set(tree(run.directory("all") / "input")) == {"list/list.txt", "list/seen/package/made"}
    run = start(fleet, "c", over('["a", [1]]', job("all", "c", ["work"]), deliver=["all"]))
    assert run.wait() == "FAILED"
    jobs = run.jobs()
    assert (jobs["work"]["reason"], jobs["all"]["reason"]) == ("map", "upstream_failed")
    assert jobs["work"]["message"] == "item 1 is an array; texts, numbers, true and false are taken"
    assert jobs["work"]["next_action"] == "mend what makes the list and run the workflow again"


def bounded(text: str, **more: Any) -> dict[str, Any]:
    return over(text, job("all", "c", ["work"]), deliver=["all"], max_parallel=2, **more)


def most_at_once(fleet: Fleet) -> int:
    running, most = set[str](), 0
    for line in fleet.effect_log.read_text().splitlines():
        verb, _, name = line.partition(" ")
        if name.startswith("work-"):
            (running.add if verb == "start" else running.discard)(name)
            most = max(most, len(running))
    return most


def test_no_more_run_at_once_than_allowed_and_the_others_say_so_also_after_kills(fleet: Fleet) -> None:
    fleet.effect_log.unlink(missing_ok=True)
    lines = "".join(f"{number}\n" for number in range(6))
    run = start(fleet, "c", bounded(lines, params={"until": "go"}))

    def waits() -> list[dict[str, Any]]:
        return [x for x in run.jobs().values() if x.get("reason") == "held"]

    wait_for(lambda: sum(fleet.effects_seen()[f"start work-{n}"] for n in range(6)) == 2, 60, "two run")
    wait_for(lambda: len(waits()) == 4, 60, "four are held back")
    assert "waits for one of the 2 places of work (max_parallel)" in waits()[0]["message"]
    for name in ("c", "a"):
        fleet[name].kill()
        fleet[name].start()
    wait_for(lambda: len(waits()) == 4, 60, "four are still held back")
    say(fleet, "go")
    assert run.wait() == "COMPLETED", run.explain()
    effects = fleet.effects_seen()
    assert [effects[f"done work-{n}"] for n in range(6)] == [1] * 6
    assert most_at_once(fleet) == 2


def test_a_matrix_is_bounded_alike(fleet: Fleet) -> None:
    fleet.effect_log.unlink(missing_ok=True)
    work = {
        "name": "work",
        "service": "step",
        "max_parallel": 1,
        "params": {"name": "work-${each.n}", "seconds": "0.2"},
    }
    work["matrix"] = [{"name": "n", "values": ["0", "1", "2"]}]
    run = start(fleet, "c", definition("rows", work, deliver=["work"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert most_at_once(fleet) == 1


def test_what_waits_for_its_list_says_so_and_can_be_cancelled(fleet: Fleet) -> None:
    fleet.effect_log.unlink(missing_ok=True)
    content = over("1\n2\n", deliver=["work"])
    content["jobs"][0]["params"]["until"] = "never"
    run = start(fleet, "c", content)
    wait_for(lambda: fleet.effects_seen()["start list"] == 1, 60, "the list is being made")
    assert run.jobs()["work"]["message"].startswith("waits for the end of list (on a)")
    fleet["c"].peerctl("executions", "cancel", str(run.id))
    assert run.wait() == "CANCELLED"
    assert set(run.jobs()) == {"list", "work"}


@pytest.mark.parametrize("name", OF_MAPS)
def test_the_orchestrator_dies_at_every_failpoint_of_a_map(fleet: Fleet, name: str) -> None:
    fleet.effect_log.unlink(missing_ok=True)
    c = fleet["c"]
    c.kill()
    c.start(failpoint=name)
    file = fleet.folder / "map.json"
    file.write_text(json.dumps(bounded("a\nb\nc\n")))
    answer = c.json("workflows", "run", str(file), "--request-id", f"map-{name}")
    run = Run(fleet, c, int(answer["workflow_execution_id"]))
    wait_for(lambda: not c.alive, 60, f"it dies at {name}")
    c.wait()
    c.start()
    assert run.wait() in FINAL
    assert run.status == "COMPLETED", run.explain()
    assert list(run.jobs()) == ["list", "work", "all", "work.0", "work.1", "work.2"]
    effects = fleet.effects_seen()
    assert [effects[f"done work-{item}"] for item in "abc"] == [1, 1, 1]
