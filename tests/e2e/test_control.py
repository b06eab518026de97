"""What runs when, on real daemons: conditions, allowed failures, retries, time-outs; and kill -9 in between."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS

from .fleet import Fleet, wait_for
from .test_kills import Mended, hand_in
from .workflow import FINAL, Run, definition, job, say, short, start, tree

EXAMPLES = Path(__file__).parents[2] / "examples"
FAILS = {"fail_first": "99"}
FINAL_JOB = ("COMPLETED", "FAILED", "LOST", "CANCELLED")
SYNC = "\n[workflows]\nsync_seconds = 1\n"


@pytest.fixture(scope="module")
def control_fleet() -> Iterator[Fleet]:
    """c orders; a runs one job at a time, and commands of c; d is away."""
    fleet = Fleet(("c", "a", "b", "d"))
    try:
        fleet.found(configure={"c": SYNC})
        allowed = f"\n[jobs]\nallow_commands_from = ['{fleet.founder.peer_id}']\n"
        for name, more in (("a", "max_running = 1\n"), ("b", "")):
            fleet[name].kill()
            fleet[name].configure(allowed + more)
            fleet[name].start()
        fleet.wait_until_all_see_all()
        fleet["d"].kill()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(control_fleet: Fleet) -> Fleet:
    control_fleet.effect_log.unlink(missing_ok=True)
    return control_fleet


def ends(run: Run) -> dict[str, tuple[str, str]]:
    return {node: (short(row["status"]), row.get("reason", "")) for node, row in run.jobs().items()}


def test_conditions_decide_who_runs_and_what_the_execution_becomes(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        {
            **definition(
                "conditions",
                job("shaky", "a", params=FAILS, continue_on_failure=True),
                job("good", "b"),
                job("sum", "a", ["shaky", "good"]),
                job("only-else", "b", needs=["good"], when="params.mode == 'else'"),
                job("after-else", "b", ["only-else"]),
                job("alarm", "b", needs=["sum"], when="failure()"),
                job("saw", "b", needs=["shaky"], when="jobs.shaky.status == 'failed' && jobs.shaky.exit_code == 3"),
                job("tidy", "a", ["sum", "only-else"], needs=["alarm", "after-else"], when="always()"),
                deliver=["sum", "only-else", "tidy"],
            ),
            "params": {"mode": "this"},
        },
    )
    assert run.wait() == "COMPLETED", run.explain()
    assert ends(run) == {
        "shaky": ("FAILED", "exit"),
        "good": ("COMPLETED", ""),
        "sum": ("COMPLETED", ""),
        "only-else": ("SKIPPED", "when"),
        "after-else": ("SKIPPED", "upstream_skipped"),
        "alarm": ("SKIPPED", "when"),
        "saw": ("COMPLETED", ""),
        "tidy": ("COMPLETED", ""),
    }
    assert set(tree(run.home)) == {
        "sum/sum.txt",
        "sum/seen/input/good/good.txt",
        "tidy/tidy.txt",
        "tidy/seen/input/sum/sum.txt",
        "tidy/seen/input/sum/seen/input/good/good.txt",
    }
    assert fleet.effects_seen()["start only-else"] == fleet.effects_seen()["start after-else"] == 0
    shown = fleet["c"].peerctl("executions", "show", str(run.id)).stdout
    assert "when: does not hold: params.mode == 'else'" in shown
    assert "upstream_skipped: only-else was skipped: when" in shown


def test_a_failure_still_fails_the_execution_when_others_clean_up_after_it(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition(
            "clean-up",
            job("bad", "a", params=FAILS),
            job("next", "b", ["bad"], needs=["bad"]),
            job("alarm", "b", needs=["next"], when="failure()"),
            job("tidy", "b", ["bad"], when="always()"),
            deliver=["alarm"],
        ),
    )
    assert run.wait() == "FAILED"
    assert ends(run) == {
        "bad": ("FAILED", "exit"),
        "next": ("FAILED", "upstream_failed"),
        "alarm": ("COMPLETED", ""),
        "tidy": ("COMPLETED", ""),
    }
    assert run.view()["error"].startswith("2 of 4 jobs failed; first bad")
    assert set(tree(run.home)) == {"alarm.txt"}


def test_when_everything_is_skipped_the_execution_is_complete(fleet: Fleet) -> None:
    alone = definition("nothing", job("one", "a", when="false"), job("two", "b", ["one"]), deliver=["two"])
    run = start(fleet, "c", alone)
    assert run.wait() == "COMPLETED"
    assert ends(run) == {"one": ("SKIPPED", "when"), "two": ("SKIPPED", "upstream_skipped")}


def test_a_cancel_ends_all_and_nothing_runs_for_it(fleet: Fleet) -> None:
    stopped = definition(
        "stopped", job("long", "b", params={"seconds": "600"}), job("tidy", "b", needs=["long"], when="always()")
    )
    run = start(fleet, "c", stopped)
    wait_for(lambda: run.job_status("long") == "RUNNING", 60, "it runs")
    assert "waits for the end of long" in run.jobs()["tidy"]["message"]
    fleet["c"].peerctl("executions", "cancel", str(run.id))
    assert run.wait() == "CANCELLED"
    assert ends(run)["tidy"][0] == "CANCELLED"
    assert fleet.effects_seen()["start tidy"] == 0


def test_only_listed_exit_codes_are_tried_again(fleet: Fleet) -> None:
    again = {"attempts": 3, "backoff": "100ms", "jitter": 1}
    run = start(
        fleet,
        "c",
        definition(
            "codes",
            job("listed", "b", params={"fail_first": "1"}, retry={**again, "exit_codes": ["1-3"]}),
            job("other", "b", params={"fail_first": "1"}, retry={**again, "exit_codes": ["4", "75"]}),
        ),
    )
    assert run.wait() == "FAILED"
    effects = fleet.effects_seen()
    assert (effects["start listed"], effects["done listed"], effects["start other"]) == (2, 1, 1)
    assert "which is not tried again" in run.jobs()["other"]["message"]


def kill_orchestrator(fleet: Fleet) -> None:
    fleet["c"].kill()
    fleet["c"].start()


def test_a_job_that_no_peer_takes_in_time_fails_also_over_a_restart(fleet: Fleet) -> None:
    # So long that it is seen before it is over, also on a busy machine.
    content = definition("queue", job("stranded", "d", queue_timeout="10s"), job("gated", "b", needs=["stranded"]))
    run = start(fleet, "c", content)
    wait_for(lambda: "its queue_timeout" in run.jobs()["stranded"].get("message", ""), 60, "it says until when")
    kill_orchestrator(fleet)
    assert run.wait() == "FAILED"
    row = run.jobs()["stranded"]
    assert (row["reason"], row["message"]) == ("timeout", "queue_timeout: no peer had taken it within 10 s")
    assert ends(run)["gated"] == ("FAILED", "upstream_failed")


def behind_another(name: str, node: str) -> dict[str, Any]:
    """A job that may wait 10 s for the one place of a, which another has until "go on" is said."""
    return definition(
        name,
        job("blocker", "a", params={"until": "go on"}),
        job(node, "a", ["quick"], start_timeout="10s"),
        # Not before the other has the place.
        job("quick", "b", params={"until": "start blocker"}),
    )


def test_a_job_that_is_ready_and_does_not_start_in_time_fails_also_over_a_restart(fleet: Fleet) -> None:
    run = start(fleet, "c", behind_another("busy", "blocked"))
    wait_for(lambda: "its start_timeout" in run.jobs()["blocked"].get("message", ""), 60, "it is ready and waits")
    kill_orchestrator(fleet)
    wait_for(lambda: run.job_status("blocked") == "FAILED", 60, "it fails")
    say(fleet, "go on")
    assert run.jobs()["blocked"]["message"].startswith("start_timeout: it did not run within 10 s")
    assert run.wait() == "FAILED"
    assert fleet.effects_seen()["start blocked"] == 0


def test_a_start_in_time_stands_although_the_orchestrator_was_away_when_the_time_was_over(fleet: Fleet) -> None:
    run = start(fleet, "c", behind_another("late-news", "held-up"))
    wait_for(lambda: "its start_timeout" in run.jobs()["held-up"].get("message", ""), 60, "it is ready and waits")
    ready = time.monotonic()
    fleet["c"].kill()
    say(fleet, "go on")
    wait_for(lambda: fleet.effects_seen()["done held-up"] == 1, 60, "it runs while the orchestrator is away")
    wait_for(lambda: time.monotonic() > ready + 11, 60, "the time is over")
    fleet["c"].start()
    assert run.wait() == "COMPLETED", run.explain()


def test_an_edge_that_does_not_arrive_in_time_fails_its_receiver_also_over_a_restart(fleet: Fleet) -> None:
    content = definition(
        "stuck",
        job("made", "a", params={"until": "b is stopped"}),
        job("used", "b", ["made"], transfer_timeout="5s"),
        job("tidy", "c", ["made"], needs=["used"], when="always()"),
        deliver=["used"],
    )
    run = start(fleet, "c", content)
    wait_for(lambda: run.job_status("used") == "WAITING_INPUTS", 60, "it waits for its files")
    fleet["b"].signal(signal.SIGSTOP)
    say(fleet, "b is stopped")
    try:
        wait_for(lambda: run.job_status("made") == "COMPLETED", 60, "the files are there")
        kill_orchestrator(fleet)
        wait_for(lambda: run.job_status("used") == "FAILED", 90, "it fails")
    finally:
        fleet["b"].signal(signal.SIGCONT)
    assert run.jobs()["used"]["message"] == "transfer_timeout: the files of made (edge 1) did not arrive within 5 s"
    assert run.wait() == "FAILED"
    assert ends(run)["tidy"] == ("COMPLETED", "")
    # b may still begin it before it hears of the end; it is told to stop, and what it makes does not count.
    stopped = lambda: all(row["report"]["status"].endswith(FINAL_JOB) for row in jobs_of(fleet, run))  # noqa: E731
    wait_for(stopped, 60, "b has been told to stop")
    assert ends(run)["used"] == ("FAILED", "timeout")
    assert tree(run.home) == {}


def jobs_of(fleet: Fleet, run: Run) -> list[dict[str, Any]]:
    """What b holds of an execution."""
    return [
        row
        for row in fleet["b"].json("jobs", "list")["jobs"]
        if int(row["report"]["key"]["workflow_execution_id"]) == run.id
    ]


def run_example(fleet: Fleet, name: str, **params: str) -> Run:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    arguments = [argument for key, value in params.items() for argument in ("--param", f"{key}={value}")]
    answer = fleet["c"].json("workflows", "run", str(EXAMPLES / name), *arguments)
    return Run(fleet, fleet["c"], int(answer["workflow_execution_id"]))


@pytest.mark.parametrize(
    ("params", "status", "delivered", "skipped"),
    [
        ({}, "COMPLETED", {"bundle", "tidy"}, {"publish", "announce", "alarm"}),
        ({"publish": "yes"}, "COMPLETED", {"bundle", "tidy"}, {"alarm"}),
        ({"least": "2"}, "FAILED", {"alarm", "tidy"}, {"publish", "announce"}),
        ({"publish": "yes", "least": "2"}, "FAILED", {"alarm", "tidy"}, set()),
    ],
)
def test_the_example_of_conditions_runs(
    fleet: Fleet, params: dict[str, str], status: str, delivered: set[str], skipped: set[str]
) -> None:
    run = run_example(fleet, "conditions.yaml", **params)
    assert run.wait() == status, run.explain()
    assert {path.partition("/")[0] for path in tree(run.home)} == delivered
    assert {node for node, (word, _) in ends(run).items() if word == "SKIPPED"} == skipped
    assert ends(run)["style"] == ("FAILED", "exit")


def test_the_example_of_limits_runs(fleet: Fleet) -> None:
    run = run_example(fleet, "limits.yaml")
    assert run.wait() == "COMPLETED", run.explain()
    assert run.jobs()["fetch"]["attempt"] == 2
    assert [text.split() for text in tree(run.home).values()] == [["8", "input/page"]]


# Walked where there is something to wait for, to cancel, to remove, to write out or to run again: test_schedules.py,
# test_kills.py, test_map.py, test_rerun.py.
_ELSEWHERE = ("cancel_request", "gc", "rel", "turn", "map", "expand", "rerun")
NOT_OF_ONE_RUN = tuple(f"workflow.{name}" for name in _ELSEWHERE)
RETRY = {"attempts": 2, "backoff": "300ms", "jitter": 0.5, "exit_codes": ["3"]}
EVERYTHING: dict[str, Any] = {
    **definition(
        "everything",
        job("shaky", "b", params=FAILS, retry=RETRY, continue_on_failure=True),
        job("flaky", "b", params={"fail_first": "1", "until": "start blocker"}, retry=RETRY),
        job("sum", "b", ["shaky", "flaky"], transfer_timeout="1m"),
        job("never", "b", needs=["flaky"], when="params.mode == 'else'"),
        job("after-never", "b", ["never"]),
        job("stranded", "d", queue_timeout="2s", continue_on_failure=True),
        # It keeps the one place of a, which it has before "flaky" goes on, until "blocked" has failed.
        job("blocker", "a", params={"until": "done alarm"}),
        job("blocked", "a", needs=["flaky"], start_timeout="1s"),
        job("alarm", "b", needs=["blocked"], when="failure()"),
        job("tidy", "b", ["sum"], needs=["blocked", "after-never", "stranded"], when="always()"),
        deliver=["sum", "never", "alarm", "tidy"],
    ),
    "params": {"mode": "this"},
}
OF_CONTROL = [name for name in FAILPOINTS if name.startswith("workflow.") and not name.startswith(NOT_OF_ONE_RUN)]


@pytest.mark.parametrize("name", OF_CONTROL)
def test_the_orchestrator_dies_once_at_every_failpoint_and_all_is_decided_as_without(fleet: Fleet, name: str) -> None:
    fleet["c"].kill()
    fleet["c"].start(failpoint=name)
    file = fleet.folder / "everything.json"
    content = {**EVERYTHING, "jobs": [dict(entry) for entry in EVERYTHING["jobs"]]}
    content["jobs"][2]["package"] = [{"path": "p.txt", "text": "x"}]
    file.write_text(json.dumps(content))
    mended = Mended(fleet)
    run = mended.until(lambda: hand_in(fleet, file, f"run-{name}"), f"taken after a death at {name}")
    mended.until(lambda: run.status in FINAL, f"final after a death at {name}")
    mended.passed(name)
    assert mended.deaths == 1, f"{mended.deaths} deaths at {name}"
    assert run.status == "FAILED"
    assert ends(run) == {
        "shaky": ("FAILED", "exit"),
        "flaky": ("COMPLETED", ""),
        "sum": ("COMPLETED", ""),
        "never": ("SKIPPED", "when"),
        "after-never": ("SKIPPED", "upstream_skipped"),
        "stranded": ("FAILED", "timeout"),
        "blocker": ("COMPLETED", ""),
        "blocked": ("FAILED", "timeout"),
        "alarm": ("COMPLETED", ""),
        "tidy": ("COMPLETED", ""),
    }
    effects = fleet.effects_seen()
    assert {line: count for line, count in effects.items() if not line.startswith("fail ")} == {
        **{f"{what} {node}": 1 for what in ("start", "done") for node in ("sum", "blocker", "alarm", "tidy")},
        **{"start shaky": 2, "start flaky": 2, "done flaky": 1},
    }
    assert {path.partition("/")[0] for path in tree(run.home)} == {"sum", "alarm", "tidy"}
    assert run.view()["error"].startswith("1 of 10 jobs failed; first blocked: start_timeout")
