"""Cancel ends every process of every job, everywhere, and stays cancelled."""

from __future__ import annotations

import time
from pathlib import Path

from .fleet import Fleet, wait_for
from .workflow import definition, job, start


def living(fleet: Fleet) -> list[str]:
    """Command lines of processes that work on this fleet's effect log, wherever they have hidden themselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "step.py" in command and str(fleet.effect_log) in command:
            found.append(f"{entry.name} {command}")
    return found


def test_within_two_seconds_no_process_lives_however_it_hides(own_fleet: Fleet) -> None:
    stubborn = {"seconds": "60", "ignore_term": "yes", "hide": "yes"}
    run = start(
        own_fleet, "c", definition("stubborn", job("one", "a", params=stubborn), job("two", "b", params=stubborn))
    )
    effects = own_fleet.effects_seen
    wait_for(lambda: {"start one", "start two", "hidden one", "hidden two"} <= set(effects()), 15, "both run and hide")
    assert len(living(own_fleet)) >= 4
    asked = time.monotonic()
    own_fleet["c"].peerctl("executions", "cancel", str(run.id), "--reason", "enough")
    wait_for(lambda: not living(own_fleet), 10, "all processes are gone")
    assert time.monotonic() - asked < 2.5, "two seconds, and half a one for starting peerctl"
    assert run.wait(10) == "CANCELLED"
    for name in ("a", "b"):
        (row,) = own_fleet[name].json("jobs", "list")["jobs"]
        assert row["report"]["status"] == "JOB_STATUS_CANCELLED"
    for daemon in own_fleet.daemons.values():
        daemon.kill()
        daemon.start()
    assert run.status == "CANCELLED"
    assert not living(own_fleet)
    assert not any(line.startswith(("done", "escaped")) for line in effects())


def test_a_cancel_that_comes_before_the_create_wins(own_fleet: Fleet) -> None:
    own_fleet["a"].kill()
    run = start(own_fleet, "c", definition("early", job("never", "a"), job("other", "b", params={"seconds": "30"})))
    wait_for(lambda: run.job_status("other") == "RUNNING", 15, "the other job runs")
    own_fleet["c"].peerctl("executions", "cancel", str(run.id))
    wait_for(lambda: run.job_status("other") == "CANCELLED", 10, "what can be cancelled is")
    own_fleet["a"].start()
    assert run.wait(20) == "CANCELLED"
    assert own_fleet.effects_seen()["start never"] == 0


def test_a_cancel_that_races_with_completion_tells_one_truth(fleet: Fleet) -> None:
    for delay in ("0", "0.2", "0.4", "0.6"):
        name = f"racer-{delay.replace('.', '')}"
        run = start(fleet, "c", definition("race", job(name, "a", params={"seconds": delay}), deliver=[name]))
        fleet["c"].peerctl("executions", "cancel", str(run.id), code=None)
        status = run.wait()
        theirs = [
            row
            for row in fleet["a"].json("jobs", "list")["jobs"]
            if row["node_id"] == name and row["orchestrator_peer_id"] == fleet["c"].peer_id
        ]
        if status == "COMPLETED":
            assert fleet.effects_seen()[f"done {name}"] == 1
            assert (run.home / f"{name}.txt").exists()
        assert run.job_status(name) in {"COMPLETED", "CANCELLED"}
        assert all(row["report"]["status"].endswith(run.job_status(name)) for row in theirs)


def test_cancelling_again_or_something_final_changes_nothing(fleet: Fleet) -> None:
    run = start(fleet, "c", definition("done", job("quick", "a")))
    assert run.wait() == "COMPLETED"
    fleet["c"].peerctl("executions", "cancel", str(run.id), code=None)
    assert run.status == "COMPLETED"
