"""Kill -9 at the worst moments. The effect log, which the jobs write outside peerd, is the judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from peerd.errors import PeerdError
from peerd.failpoints import FAILPOINTS

from .fleet import Daemon, Fleet, wait_for
from .workflow import FINAL, Run, definition, job, say, staged, start, tree

T = TypeVar("T")
CHAIN: dict[str, Any] = definition(
    "chain",
    job("one", "a", params={"seconds": "0.3"}),
    job("two", "b", ["one"], params={"seconds": "0.3"}),
    deliver=["two"],
)


def assert_done_once(fleet: Fleet, *names: str) -> None:
    effects = fleet.effects_seen()
    assert {name: effects[f"done {name}"] for name in names} == dict.fromkeys(names, 1), effects


def restart_the_dead(fleet: Fleet) -> int:
    """Start every daemon that has died; returns how many."""
    found = dead(fleet)
    for daemon in found:
        daemon.wait()
        daemon.start()
    return len(found)


def dead(fleet: Fleet) -> list[Daemon]:
    """Those that have died and were not started again."""
    return [daemon for daemon in fleet.daemons.values() if daemon.process is not None and not daemon.alive]


class Mended:
    """A fleet whose daemons die at failpoints and are started again."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.deaths = 0
        self._have_died: set[str] = set()
        self._refused = ""

    def until(self, found: Callable[[], T | None], what: str, seconds: float = 150) -> T:
        """Start whoever has died, as often as that takes until something is so, or there; returns what it is.

        A daemon is gone a moment before it is seen to have died: who is asked then cannot answer, and is asked again.
        """
        answers: list[T] = []

        def look() -> bool:
            self._have_died |= {daemon.name for daemon in dead(self.fleet)}
            self.deaths += restart_the_dead(self.fleet)
            try:
                answer = found()
            except PeerdError as error:
                self._refused = str(error)
                return False
            answers[:] = [answer] if answer else []
            return bool(answers)

        wait_for(look, seconds, lambda: f"{what}; {self.deaths} deaths; last refused: {self._refused}")
        return answers[0]

    def passed(self, name: str) -> None:
        """Somebody has died at that failpoint, or does now: who dies at the very end is seen a little later."""
        self.until(lambda: self.deaths, f"nobody passed {name}: the test shows nothing", 30)

    def hold_still(self, daemon: Daemon) -> None:
        """From now on it does not die any more: it may have its failpoint still before it."""
        if daemon.name not in self._have_died:
            daemon.kill()
            daemon.start()


def test_the_orchestrator_dies_between_the_phases(own_fleet: Fleet) -> None:
    c = own_fleet["c"]
    c.kill()
    c.start(failpoint="workflow.create.after_commit")
    own_fleet["c"].peerctl("workflows", "put", str(write(own_fleet)), code=0)
    c.peerctl("workflows", "run", "chain", code=None)
    wait_for(lambda: not c.alive, 60, "the orchestrator dies")
    c.wait()
    c.start()
    run = Run(own_fleet, c, 1)
    assert run.wait() == "COMPLETED"
    assert_done_once(own_fleet, "one", "two")


def write(fleet: Fleet) -> str:
    file = fleet.folder / "chain.json"
    file.write_text(json.dumps(CHAIN))
    return str(file)


def test_an_executor_dies_while_its_job_runs_and_the_job_ends_without_it(own_fleet: Fleet) -> None:
    run = start(
        own_fleet,
        "c",
        definition(
            "alone", job("long", "a", params={"until": "a is dead"}), job("next", "b", ["long"]), deliver=["next"]
        ),
    )
    wait_for(lambda: own_fleet.effects_seen()["start long"] == 1, 60, "the job runs")
    own_fleet["a"].kill()
    say(own_fleet, "a is dead")
    wait_for(lambda: own_fleet.effects_seen()["done long"] == 1, 60, "the job ends while its daemon is down")
    own_fleet["a"].start()
    assert run.wait() == "COMPLETED"
    assert_done_once(own_fleet, "long", "next")
    assert own_fleet.effects_seen()["start long"] == 1


@pytest.mark.parametrize("failpoint", ["job.exit.before_commit", "job.exit.after_commit"])
def test_an_executor_dies_while_its_job_finishes(own_fleet: Fleet, failpoint: str) -> None:
    a = own_fleet["a"]
    a.kill()
    a.start(failpoint=failpoint)
    run = start(own_fleet, "c", CHAIN)
    wait_for(lambda: not a.alive, 60, "the executor dies")
    a.wait()
    a.start()
    assert run.wait() == "COMPLETED"
    assert_done_once(own_fleet, "one", "two")


def sent_while_dying(fleet: Fleet, dying: Daemon, failpoint: str) -> None:
    dying.kill()
    dying.start(failpoint=failpoint)
    big = definition("big", job("made", "a", params={"write_mb": "200"}), job("used", "b", ["made"]), deliver=["used"])
    run = start(fleet, "c", big)
    wait_for(lambda: not dying.alive, 90, f"{dying.name} dies at {failpoint}")
    dying.wait()
    partial = staged(fleet["b"].data / "workflows")
    assert partial or dying.name == "a", "the transfer was in the middle"
    dying.start()
    assert run.wait(120) == "COMPLETED"
    assert_done_once(fleet, "made", "used")
    assert (run.directory("made") / "output" / "made.bin").read_bytes() == (
        run.directory("used") / "input" / "made.bin"
    ).read_bytes()
    wait_for(lambda: not staged(fleet.folder), 30, "no temporary file stays")


def test_the_receiver_dies_in_the_middle_of_a_large_transfer(own_fleet: Fleet) -> None:
    sent_while_dying(own_fleet, own_fleet["b"], "transfer.block.after_write@6")


def test_the_sender_dies_in_the_middle_of_a_large_transfer(own_fleet: Fleet) -> None:
    sent_while_dying(own_fleet, own_fleet["a"], "sender.push.after_block@6")


def test_the_orchestrator_is_away_while_all_jobs_run_and_finish(own_fleet: Fleet) -> None:
    slow = definition(
        "slow", job("one", "a", params={"until": "c is dead"}), job("two", "b", ["one"]), job("three", "a", ["two"])
    )
    run = start(own_fleet, "c", slow)
    wait_for(lambda: own_fleet.effects_seen()["start one"] == 1, 60, "the first job runs")
    wait_for(lambda: run.job_status("three") == "WAITING_INPUTS", 60, "all have their interfaces")
    own_fleet["c"].kill()
    say(own_fleet, "c is dead")
    wait_for(lambda: own_fleet.effects_seen()["done three"] == 1, 60, "all finish without the orchestrator")
    own_fleet["c"].start()
    assert run.wait() == "COMPLETED"
    assert_done_once(own_fleet, "one", "two", "three")


# The first commits of a daemon are its start; these fall into the run, or just before it on a slow machine.
EXTRA_HITS = {
    "store.before_commit": "@25",
    "store.after_commit": "@25",
    "catalog.change.before_commit": "@2",
}
NEEDS_CANCEL = tuple(name for name in FAILPOINTS if ".cancel" in name and not name.startswith("scans."))
# Those of the mesh and the catalog are walked further below, those of backups in tests/store, those of quotas in
# test_space.py; blocks on their way need the large transfers above.
OF_THE_MESH = tuple(name for name in FAILPOINTS if name.startswith(("mesh.", "registry.", "catalog.", "documents.")))
OF_RETENTION = tuple(
    name for name in FAILPOINTS if name.startswith(("job.release.", "job.gc.", "workflow.release.", "workflow.gc."))
)
# Walked where they belong: test_schedules, test_map, test_rerun, test_devices, test_nodes, test_scans.
ELSEWHERE = tuple(
    name
    for name in FAILPOINTS
    if name.startswith(
        (
            "backup.",
            "sender.push.",
            "job.quota.",
            "schedule.",
            "workflow.turn.",
            "workflow.map.",
            "workflow.expand.",
            "workflow.rerun.",
            "job.reuse.",
            "devices.",
            "scan_hand_in.",
            "nodes.",
            "scans.",
        )
    )
)
# Walked in test_control.py: a plain chain has nothing to decide and no time-outs.
OF_CONTROL = tuple(name for name in FAILPOINTS if name.startswith(("workflow.gate.", "workflow.timeout.")))
NOT_IN_A_RUN = (*OF_THE_MESH, *OF_CONTROL, *OF_RETENTION, *ELSEWHERE)


@pytest.mark.parametrize("name", [n for n in FAILPOINTS if n not in NEEDS_CANCEL and n not in NOT_IN_A_RUN])
def test_every_daemon_dies_once_at_every_failpoint_of_a_run(failpoint_fleet: Fleet, name: str) -> None:
    fleet = failpoint_fleet
    fleet.effect_log.unlink(missing_ok=True)
    arm(fleet, name)
    content = {**CHAIN, "jobs": [dict(entry) for entry in CHAIN["jobs"]]}
    content["jobs"][1]["package"] = [{"path": "p.txt", "text": "x"}]
    file = fleet.folder / "chain.json"
    file.write_text(json.dumps(content))
    mended = Mended(fleet)
    run = mended.until(lambda: hand_in(fleet, file, f"run-{name}"), f"taken after a death at {name}")
    mended.until(lambda: run.status in FINAL, f"final after a death at {name}")
    mended.passed(name)
    mended.hold_still(fleet["c"])
    assert run.status == "COMPLETED", run.explain()
    assert_done_once(fleet, "one", "two")
    assert set(tree(run.home)) == {"two.txt", "seen/input/one.txt", "seen/package/p.txt"}
    mended.until(lambda: not staged(fleet.folder), "no staged file is left", 60)


def hand_in(fleet: Fleet, file: Path, request_id: str) -> Run | None:
    """The request may die with its daemon: the operator repeats it with the same id and gets one execution."""
    done = fleet["c"].peerctl("workflows", "run", str(file), "--request-id", request_id, "-o", "json", code=None)
    if done.returncode != 0:
        return None
    return Run(fleet, fleet["c"], int(json.loads(done.stdout)["workflow_execution_id"]))


@pytest.mark.parametrize("name", NEEDS_CANCEL)
def test_every_daemon_dies_once_at_every_failpoint_of_a_cancel(failpoint_fleet: Fleet, name: str) -> None:
    fleet = failpoint_fleet
    fleet.effect_log.unlink(missing_ok=True)
    arm(fleet, name)
    content = definition("stop", job("one", "a", params={"seconds": "600"}), job("two", "b", ["one"]))
    run = start(fleet, "c", content)
    wait_for(lambda: fleet.effects_seen()["start one"] == 1, 60, "the job runs")
    mended = Mended(fleet)

    def cancelled() -> bool:
        """An operator who sees no answer asks again."""
        done = fleet["c"].peerctl("executions", "cancel", str(run.id), code=None)
        return done.returncode == 0 or run.status in FINAL

    mended.until(cancelled, "the cancel is acknowledged")
    mended.until(lambda: run.status in FINAL, f"final after a death at {name}")
    mended.passed(name)
    mended.hold_still(fleet["c"])
    assert run.status == "CANCELLED", run.explain()
    assert fleet.effects_seen()["done one"] == 0


@pytest.mark.parametrize("name", OF_RETENTION)
def test_every_daemon_dies_once_at_every_failpoint_of_retention(failpoint_fleet: Fleet, name: str) -> None:
    fleet = failpoint_fleet
    arm(fleet, name)
    file = fleet.folder / "chain.json"
    file.write_text(json.dumps(CHAIN))
    mended = Mended(fleet)
    run = mended.until(lambda: hand_in(fleet, file, f"gc-{name}"), f"taken after a death at {name}")
    mended.until(lambda: run.status == "COMPLETED", f"completed, whoever dies at {name}")
    homes = mended.until(lambda: [run.home.parent, run.directory("one"), run.directory("two")], "the places are known")
    assert all(home.is_dir() for home in homes)

    def gone() -> bool:
        for daemon in fleet.daemons.values():
            daemon.peerctl("gc", "--older-than", "0s", "--execution", str(run.id), code=None)
        removed = run.view()["files_removed"] is True
        return removed and not any(home.exists() for home in homes)

    mended.until(gone, f"gone after deaths at {name}")
    mended.passed(name)
    mended.hold_still(fleet["c"])
    assert run.status == "COMPLETED" and run.view()["files_removed"] is True
    assert not any(home.exists() for home in homes)


@pytest.mark.parametrize("name", OF_THE_MESH)
def test_every_daemon_dies_once_at_every_failpoint_of_joining_and_of_the_catalog(
    failpoint_fleet: Fleet, name: str
) -> None:
    fleet = failpoint_fleet
    arm(fleet, name)
    service = fleet.folder / "extra.json"
    offered = f"extra-{name.replace('.', '-')}"
    service.write_text(json.dumps({"name": offered, "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"]}))
    newcomer = Daemon("n", fleet.folder / f"n-{name}", 0, fleet.folder / "n.log")
    mended = Mended(fleet)
    added, drained, joined, promoted, token, peer_id = False, False, False, False, "", ""

    def known_everywhere() -> bool:
        answers = [d.peerctl("peers", "list", "-o", "json", code=None) for d in fleet.daemons.values()]
        return all(peer_id in answer.stdout for answer in answers)

    def all_done() -> bool:
        nonlocal added, drained, joined, promoted, token, peer_id
        if promoted:
            return known_everywhere()
        c = fleet["c"]
        if not added:
            done = c.peerctl("services", "add", str(service), code=None)
            added = done.returncode == 0 or "already_exists" in done.stderr
        elif not drained:
            drained = c.peerctl("peers", "drain", "b", "--reason", name, code=None).returncode == 0
        elif not token:
            done = c.peerctl("invite", "--grants", "observe", "-o", "json", code=None)
            token = json.loads(done.stdout)["token"] if done.returncode == 0 else ""
        elif not joined:
            # The joiner dies once too, then is started like any other command.
            done = newcomer.peerd("join", token, check=False, failpoint="" if mended.deaths else name)
            mended.deaths += done.returncode == -9
            joined = done.returncode == 0
            peer_id = newcomer.peerd("identity").stdout.strip()
        elif not promoted:
            done = c.peerctl("peers", "admit", peer_id, "--role", "worker", "--grants", "observe", code=None)
            promoted = done.returncode == 0
        return False

    mended.until(all_done, f"all is done after a death at {name}")
    mended.passed(name)
    for daemon in fleet.daemons.values():
        mended.hold_still(daemon)
    assert [s["declaration"]["name"] for s in fleet["c"].json("services", "list")["services"]].count(offered) == 1
    assert sum(peer["peer_id"] == peer_id for peer in fleet["c"].json("peers", "list")["peers"]) == 1
    told = lambda daemon: daemon.json("peers", "show", "b").get("maintenance", {}).get("reason") == name  # noqa: E731
    wait_for(lambda: all(map(told, fleet.daemons.values())), 60, "everybody was told of the maintenance")
    fleet["c"].peerctl("peers", "resume", "b")


def arm(fleet: Fleet, name: str) -> None:
    """Restart every daemon so that it dies at the failpoint, once."""
    for daemon in fleet.daemons.values():
        if daemon.process is not None:
            daemon.kill()
    for daemon in fleet.daemons.values():
        daemon.start(failpoint=name + EXTRA_HITS.get(name, ""), wait=False)
    settled = lambda daemon: not daemon.alive or (daemon.data / "run" / "listen").exists()  # noqa: E731
    wait_for(lambda: all(map(settled, fleet.daemons.values())), 60, "everybody listens, or has died on the way")


@pytest.fixture(scope="module")
def failpoint_fleet() -> Iterator[Fleet]:
    made = Fleet()
    try:
        made.found()
        yield made
    finally:
        made.close()
