"""Executions that are run again on real daemons: what runs, what is sent again, over kills, and without the files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS

from .fleet import Fleet, wait_for
from .workflow import FINAL, Run, definition, job, start, tree

pytestmark = pytest.mark.timeout(300)

OF_RERUNS = [name for name in FAILPOINTS if name.startswith(("workflow.rerun.", "job.reuse."))]
ON_THE_WAY = ["job.create.after_commit", "job.exit.before_commit", "workflow.create.after_send"]


@pytest.fixture(scope="module")
def pair() -> Iterator[Fleet]:
    """An orchestrator and an executor."""
    made = Fleet(("c", "a"))
    try:
        made.found()
        yield made
    finally:
        made.close()


def chain(name: str, *, fail_first: int = 0) -> dict[str, Any]:
    """A job on each machine; the second takes an output and a log of the first and may fail at first."""
    two = job(
        f"{name}-two",
        "c",
        [{"from": f"{name}-one.output", "to": "files"}, {"from": f"{name}-one.stdout", "to": "said"}],
        params={"fail_first": str(fail_first)},
    )
    last = job(f"{name}-three", "a", [f"{name}-two"], params={"seconds": "${params.seconds}"})
    whole = definition(name, job(f"{name}-one", "a"), two, last, deliver=[f"{name}-three", f"{name}-one"])
    return {**whole, "params": {"seconds": "0"}}


def rerun(run: Run, *options: str) -> Run:
    answer = run.orchestrator.json("executions", "rerun", str(run.id), *options)
    return Run(run.fleet, run.orchestrator, int(answer["workflow_execution_id"]))


def starts(fleet: Fleet, name: str) -> dict[str, int]:
    """How often each job of a chain was started."""
    effects = fleet.effects_seen()
    return {which: effects[f"start {name}-{which}"] for which in ("one", "two", "three")}


def test_after_a_failure_only_what_did_not_complete_runs_and_the_files_come_from_where_they_are(pair: Fleet) -> None:
    first = start(pair, "c", chain("mend", fail_first=1))
    assert first.wait() == "FAILED"
    second = rerun(first, "--failed")
    assert second.wait() == "COMPLETED", second.explain()
    assert starts(pair, "mend") == {"one": 1, "two": 2, "three": 1}
    home = tree(second.home)
    assert home["mend-one/mend-one.txt"] == "made by mend-one\n"
    seen = {path.rpartition("seen/input/")[2] for path in home if "/seen/" in path}
    assert "mend-two.txt" in seen
    assert tree(second.directory("mend-two") / "input") == {
        "files/mend-one.txt": "made by mend-one\n",
        "said/stdout.txt": "mend-one was here\n",
    }
    shown = pair["c"].peerctl("executions", "show", str(second.id)).stdout
    assert f"rerun of      execution {first.id}" in shown
    reused = first.jobs()["mend-one"]["remote_job_execution_id"]
    assert f"which sends what {reused} of execution {first.id} made" in shown
    why = pair["c"].peerctl("why", f"{second.id}/mend-one").stdout
    assert f"reused: not run again: it completed in execution {first.id}" in why
    assert pair["c"].peerctl("logs", str(second.id), "mend-one").stdout == "mend-one was here\n"

    # From the last job on, with another parameter: nobody needs the first but Local Peer.
    third = rerun(second, "--from", "mend-three", "--param", "seconds=0.1")
    assert third.wait() == "COMPLETED", third.explain()
    assert starts(pair, "mend") == {"one": 1, "two": 2, "three": 2}
    assert tree(third.home) == home
    refused = pair["c"].peerctl("executions", "rerun", str(third.id), "--failed", code=None)
    assert refused.returncode != 0 and "every job completed" in refused.stderr and "--from JOB" in refused.stderr

    # As a whole.
    fourth = rerun(third)
    assert fourth.wait() == "COMPLETED", fourth.explain()
    assert starts(pair, "mend") == {"one": 2, "two": 3, "three": 3}


def test_files_that_retention_has_taken_are_refused_and_running_from_further_up_helps(pair: Fleet) -> None:
    c, a = pair["c"], pair["a"]
    first = start(pair, "c", chain("gone"))
    assert first.wait() == "COMPLETED"
    directory = first.directory("gone-one")

    def taken() -> bool:
        a.peerctl("gc", "--older-than", "0s", "--execution", str(first.id))
        return not directory.exists()

    wait_for(taken, 60, "retention takes the files")
    refused = c.peerctl("executions", "rerun", str(first.id), "--from", "gone-three", code=None)
    assert refused.returncode != 0
    assert "files_removed" in refused.stderr
    assert "--from gone-one" in refused.stderr
    again = rerun(first, "--from", "gone-one")
    assert again.wait() == "COMPLETED"


def test_a_machine_that_is_away_is_waited_for(pair: Fleet) -> None:
    c, a = pair["c"], pair["a"]
    first = start(pair, "c", chain("away"))
    assert first.wait() == "COMPLETED"
    a.kill()
    second = rerun(first, "--from", "away-two")
    wait_for(lambda: "does not answer" in second.jobs()["away-one"].get("message", ""), 60, "it says what it waits for")
    a.start()
    assert second.wait() == "COMPLETED", second.explain()
    assert starts(pair, "away") == {"one": 1, "two": 2, "three": 2}
    assert c.alive


def arm(fleet: Fleet, name: str) -> None:
    for daemon in fleet.daemons.values():
        if daemon.alive:
            daemon.kill()
        elif daemon.process is not None:
            daemon.wait()
        daemon.start(failpoint=name)


def restart_the_dead(fleet: Fleet) -> int:
    dead = [daemon for daemon in fleet.daemons.values() if daemon.process is not None and not daemon.alive]
    for daemon in dead:
        daemon.wait()
        daemon.start()
    return len(dead)


@pytest.mark.parametrize("name", [*OF_RERUNS, *ON_THE_WAY])
def test_every_daemon_dies_once_at_every_failpoint_of_a_rerun(pair: Fleet, name: str) -> None:
    word = name.replace(".", "-").replace("_", "-")
    first = start(pair, "c", chain(word))
    assert first.wait() == "COMPLETED"
    home = tree(first.home)
    arm(pair, name)
    deaths, again, until = 0, None, time.monotonic() + 150
    while again is None or again.status_if_reachable() not in FINAL:
        deaths += restart_the_dead(pair)
        again = again or hand_in(first, word)
        assert time.monotonic() < until, f"not final after a death at {name}"
    deaths += restart_the_dead(pair)
    assert deaths >= 1, f"nobody passed {name}: the test shows nothing"
    assert again.status == "COMPLETED", again.explain()
    assert again.id == first.id + 1, "one execution, however often it was asked for"
    assert starts(pair, word) == {"one": 1, "two": 2, "three": 2}
    assert tree(again.home) == home


def hand_in(first: Run, word: str) -> Run | None:
    """The operator repeats it with the same request id until it is answered."""
    options = ("--from", f"{word}-two", "--request-id", word, "-o", "json")
    done = first.orchestrator.peerctl("executions", "rerun", str(first.id), *options, code=None)
    if done.returncode != 0:
        return None
    return Run(first.fleet, first.orchestrator, int(json.loads(done.stdout)["workflow_execution_id"]))


def test_a_map_runs_again_as_a_whole_or_not_at_all(pair: Fleet) -> None:
    c = pair["c"]
    pair.effect_log.unlink(missing_ok=True)
    listed = job("list", "a", package=[{"path": "made", "text": "x\ny\n"}])
    each = {
        **{"name": "work", "service": "step", "params": {"name": "work-${each.item}"}},
        **{"map": {"from": "list.output/seen/package/made"}, "inputs": [{"from": "list"}]},
    }
    whole = definition("over", listed, each, job("sum", "c", ["work"]), job("report", "a", ["sum"]), deliver=["report"])
    first = start(pair, "c", whole)
    assert first.wait() == "COMPLETED", first.explain()

    # What it made is not needed: its instances are not there.
    second = rerun(first, "--from", "report")
    assert second.wait() == "COMPLETED", second.explain()
    assert set(second.jobs()) == {"list", "work", "sum", "report"}
    assert second.jobs()["work"]["reason"] == "reused"
    assert tree(second.home).keys() == tree(first.home).keys()

    refused = c.peerctl("executions", "rerun", str(first.id), "--from", "sum", code=None)
    assert refused.returncode != 0 and "has a map" in refused.stderr and "--from work" in refused.stderr

    # Its list, and the files of each instance, come from the first execution.
    third = rerun(first, "--from", "work")
    assert third.wait() == "COMPLETED", third.explain()
    assert tree(third.directory("work.1") / "input")["list.txt"] == "made by list\n"
    effects = pair.effects_seen()
    names = ("list", "work-x", "work-y", "sum", "report")
    assert [effects[f"start {name}"] for name in names] == [1, 2, 2, 2, 3]

    # The list is made anew, so all that follows from it is.
    fourth = rerun(second, "--from", "list")
    assert fourth.wait() == "COMPLETED", fourth.explain()
    assert {"work.0", "work.1"} <= set(fourth.jobs())
