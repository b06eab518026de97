"""A job on a peer that is down waits, says so, holds up nobody else, and runs when the peer returns."""

from __future__ import annotations

import pytest

from .fleet import Fleet, wait_for
from .workflow import definition, job, start

pytestmark = pytest.mark.timeout(300)


def test_a_job_waits_for_its_peer_and_runs_when_it_returns(own_fleet: Fleet) -> None:
    own_fleet["a"].kill()
    run = start(
        own_fleet,
        "c",
        definition(
            "waits",
            job("on-a", "a", deadline="10m"),
            job("after", "b", ["on-a"]),
            job("free", "b"),
            deliver=["after", "free"],
        ),
    )
    wait_for(lambda: run.job_status("free") == "COMPLETED", 60, "the unrelated job completes")
    wait_for(lambda: "until" in run.jobs()["on-a"].get("message", ""), 60, "it says for whom it waits, and how long")
    waiting = run.jobs()["on-a"]
    assert run.status == "RUNNING"
    assert waiting["reason"] and waiting["since"] and waiting["next_action"]
    assert "a" in waiting["message"] and "until" in waiting["message"]
    own_fleet["a"].start()
    assert run.wait(90) == "COMPLETED"
    assert (run.home / "after" / "after.txt").exists()


def test_with_a_deadline_it_fails_with_that_reason(own_fleet: Fleet) -> None:
    own_fleet["a"].kill()
    run = start(own_fleet, "c", definition("deadline", job("late", "a", deadline="3s"), job("free", "b")))
    assert run.wait(90) == "FAILED"
    late = run.jobs()["late"]
    assert late["reason"] == "timeout"
    assert "deadline" in late["message"]
    assert run.job_status("free") == "COMPLETED"
    own_fleet["a"].start()
    assert own_fleet.effects_seen()["start late"] == 0


def test_a_timeout_ends_the_attempt_and_says_so(fleet: Fleet) -> None:
    run = start(fleet, "c", definition("timeout", job("sleeper", "a", params={"seconds": "60"}, timeout="1s")))
    assert run.wait(90) == "FAILED"
    assert run.jobs()["sleeper"]["reason"] == "timeout"
