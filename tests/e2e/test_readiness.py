"""A consumer never starts before every declared input is complete and verified."""

from __future__ import annotations

import hashlib

import pytest

from .fleet import Fleet, wait_for
from .workflow import definition, job, say, start, tree

pytestmark = pytest.mark.timeout(300)


def order(fleet: Fleet, *lines: str) -> list[str]:
    """The lines of the effect log that are asked about, in the order they were written."""
    return [line for line in fleet.effect_log.read_text().splitlines() if line in lines]


def test_a_job_that_arrives_long_before_its_transfer_waits(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition(
            "early",
            job("slow-p", "a", params={"until": "slow-p goes on"}),
            job("early-c", "b", ["slow-p"]),
            deliver=["early-c"],
        ),
    )
    wait_for(lambda: run.job_status("early-c") == "WAITING_INPUTS", 40, "the consumer waits")
    waiting = run.jobs()["early-c"]
    assert "slow-p" in waiting["message"] or "a" in waiting["message"]
    assert waiting["since"] and waiting["next_action"]
    say(fleet, "slow-p goes on")
    assert run.wait() == "COMPLETED"
    assert order(fleet, "done slow-p", "start early-c") == ["done slow-p", "start early-c"]


def test_a_large_transfer_is_complete_before_the_consumer_starts(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition("large", job("big", "a", params={"write_mb": "150"}), job("big-c", "b", ["big"]), deliver=["big-c"]),
    )
    assert run.wait(150) == "COMPLETED", run.explain()
    sent = hashlib.sha256((run.directory("big") / "output" / "big.bin").read_bytes()).hexdigest()
    seen = hashlib.sha256((run.directory("big-c") / "output" / "seen" / "input" / "big.bin").read_bytes()).hexdigest()
    assert sent == seen
    assert order(fleet, "done big", "start big-c") == ["done big", "start big-c"]


def test_a_retried_producer_sends_only_what_the_successful_attempt_made(fleet: Fleet) -> None:
    retry = {"attempts": 3, "backoff": "0.2s"}
    run = start(
        fleet,
        "c",
        definition(
            "retry",
            job("flaky", "a", params={"fail_first": "2"}, retry=retry),
            job("after", "b", ["flaky"]),
            deliver=["after"],
        ),
    )
    assert run.wait() == "COMPLETED"
    assert order(fleet, "fail flaky", "done flaky", "start after") == [
        "fail flaky",
        "fail flaky",
        "done flaky",
        "start after",
    ]
    assert int(run.jobs()["flaky"]["attempt"]) == 3
    assert set(tree(run.home)) == {"after.txt", "seen/input/flaky.txt"}


def test_a_producer_that_fails_for_good_fails_its_consumers_and_nothing_else(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition(
            "fails",
            job("bad", "a", params={"fail_first": "9"}),
            job("never", "b", ["bad"]),
            job("free", "c"),
            deliver=["free"],
        ),
    )
    assert run.wait() == "FAILED"
    jobs = run.jobs()
    assert (jobs["bad"]["reason"], int(jobs["bad"]["exit_code"])) == ("exit", 3)
    assert jobs["never"]["reason"] == "upstream_failed"
    assert run.job_status("free") == "COMPLETED"
    assert fleet.effects_seen()["start never"] == 0
    assert "2 of 3 jobs failed" in run.view()["error"]


def test_a_producer_moved_to_another_peer_feeds_a_consumer_that_had_its_interfaces() -> None:
    quick = "\n[workflows]\nlease_seconds = 10\nsync_seconds = 0.5\n"
    quick += "max_clock_skew_seconds = 0.5\nreplace_after_seconds = 2\n"
    fleet = Fleet()
    try:
        fleet.found(configure={"c": quick})
        producer = {
            **job("mover", ""),
            "on": {"role": "worker"},
            "params": {"name": "mover", "until": "mover goes on"},
            "retry": {"attempts": 2, "on": ["lost"]},
        }
        run = start(fleet, "c", definition("moves", producer, job("stays", "c", ["mover"]), deliver=["stays"]))
        wait_for(lambda: run.job_status("mover") == "RUNNING", 40, "the producer runs")
        wait_for(lambda: run.job_status("stays") == "WAITING_INPUTS", 40, "the consumer has its interfaces")
        first = run.jobs()["mover"]["executor_peer_id"]
        next(daemon for daemon in fleet.daemons.values() if daemon.peer_id == first).kill()
        say(fleet, "mover goes on")
        assert run.wait(120) == "COMPLETED", run.explain()
        moved = run.jobs()["mover"]
        assert moved["executor_peer_id"] != first
        assert int(moved["placement"]) == 2
        assert order(fleet, "start stays") == ["start stays"]
        assert tree(run.home)["seen/input/mover.txt"] == "made by mover\n"
    finally:
        fleet.close()
