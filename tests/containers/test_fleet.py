"""Container services between real daemons and a real engine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, TimedOutError, wait_for
from tests.e2e.load import busier
from tests.e2e.workflow import Run, definition, start, tree

from .podman import IMAGE, Podman

pytestmark = pytest.mark.timeout(300)

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
INDEX = """#!/bin/sh
set -e
echo "top $1, stop words: $(cat /job/package/stop.txt | tr '\\n' ' ')"
echo "stdin: $(wc -c) bytes"
for file in $(ls /corpus); do echo "$file: $(wc -w < /corpus/$file) words"; done
if touch /corpus/new 2>/dev/null; then echo "could change its input"; fi
echo indexed > /job/output/index.txt
echo warm > /app/cache/state
"""
REPORT = """
import os, sys
from pathlib import Path
text = sys.stdin.read()
index = (Path(os.environ["PEERD_INPUT"]) / "made" / "index.txt").read_text().strip()
cache = (Path(os.environ["PEERD_MOUNTS"]) / "cache" / "state").read_text().strip()
(Path(os.environ["PEERD_OUTPUT"]) / "report.txt").write_text(f"{text}{index} {cache}\\n")
"""

PROBE = """
data=$(cat /job/package/data) pid=$(cat /job/package/pid) port=$(cat /job/package/port)
ls -d $data $data/identity.key $data/peerd.db $data/run /run/podman 2>/dev/null
cat /proc/$pid/environ 2>/dev/null | head -c 20
kill -9 $pid 2>/dev/null && [ "$pid" != $$ ] && echo killed
nc -w 1 127.0.0.1 $port < /dev/null 2>/dev/null && echo connected
mount -t tmpfs none /job/output 2>/dev/null && echo mounted
ls /job | tr '\\n' ' '
ln -s $data/identity.key /job/output/key; ln -s $data /job/output/all
mkdir /job/output/up; ln -s ../../../../../../../.. /job/output/up/out
echo honest > /job/output/real.txt
"""


def container(name: str, script: str, *, image: str = IMAGE, more: str = "", limits: str = "") -> str:
    """A container service whose image's shell runs a script; the job's name is its first argument."""
    argv = json.dumps(["sh", "-c", script, "sh", "${name}"])
    return (
        f'\n[[services]]\nname = "{name}"\nkind = "SERVICE_KIND_CONTAINER"\nargv = {argv}\n{more}\n'
        f'params = [{{name = "name", default_value = "nobody"}}]\n[services.container]\nimage = "{image}"\n{limits}\n'
    )


def order(service: str, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "on": {"peer": "a"}, "service": service, "params": {"name": name}, **more}


def services(fleet: Fleet) -> str:
    """What the daemon with the engine offers."""
    effects, log = f'writable_paths = ["{fleet.effects}"]', fleet.effect_log
    gate = f"echo start $1 >> {log}; echo up; while [ ! -e {fleet.effects}/$1 ]; do sleep 0.05; done"
    eater = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo \"$x\" | wc -c"
    return (
        container("gated", f"{gate}; echo done $1 >> {log}; echo made > /job/output/$1.txt", more=effects)
        + container(
            "stubborn", f"trap '' TERM; echo start $1 >> {log}; sleep 60 & sleep 60; echo escaped", more=effects
        )
        + container("eater", eater, more='resources = {memory = "32M"}')
        + container("bomb", "for i in $(seq 200); do sleep 20 & done; exit 1", limits="pids = 20")
        + container("prober", PROBE)
        + container("missing", "true", image="localhost/none:1")
    )


@pytest.fixture(scope="module")
def fleet(podman: Podman) -> Iterator[Fleet]:
    """c orchestrates, a has the engine, b has none."""
    made = Fleet()
    made.effects.chmod(0o777)
    try:
        socket = f'\n[containers]\nsocket = "{podman.socket}"\n'
        none = '\n[containers]\nsocket = "none"\n'
        own = services(made)
        made.found(configure={"c": none, "a": socket + own, "b": none + own})
        yield made
    finally:
        made.close()


def none_left(engine: Podman) -> None:
    wait_for(lambda: engine.containers() == [], 60, "the engine has no container")


def open_gate(fleet: Fleet, name: str) -> None:
    (fleet.effects / name).touch()


def waits_at_gate(fleet: Fleet, name: str) -> None:
    try:
        wait_for(lambda: fleet.effects_seen()[f"start {name}"] == 1, 90, f"{name} runs")
    except TimedOutError as error:
        raise TimedOutError(f"{error}; seen: {fleet.effects_seen()}\n{fleet['a'].tail()}") from error


def test_data_container_process_and_home_over_three_daemons(engine: Podman) -> None:
    """The chain of the example, with stdout, mounts and package inputs, and an image that no registry has."""
    engine.load("localhost/index:1", files={"bin/index": INDEX})
    fleet = Fleet(("alpha", "beta", "gamma"))
    try:
        texts = fleet.folder / "texts"
        texts.mkdir()
        (texts / "one.txt").write_text("the quick brown fox\n")
        (texts / "two.txt").write_text("and the lazy dog\n" * 1000)
        (fleet.folder / "tools").mkdir()
        (fleet.folder / "tools" / "report.py").write_text(REPORT)
        declared = declarations(fleet)
        declared["beta"] += f'\n[containers]\nsocket = "{engine.socket}"\n'
        fleet.found(configure=declared)
        answer = fleet["alpha"].json("workflows", "run", str(EXAMPLES / "containers.yaml"), "--param", "top=7")
        run = Run(fleet, fleet["alpha"], int(answer["workflow_execution_id"]))
        assert run.wait(110) == "COMPLETED", run.explain()
        said = (
            "top 7, stop words: the and \n"
            f"stdin: {20 + 17_000} bytes\n"
            "one.txt: 4 words\n"
            "two.txt: 4000 words\n"
        )  # fmt: skip
        assert tree(run.home) == {"report/report.txt": said + "indexed warm\n", "index/stdout.txt": said}
        (row,) = [job for job in fleet["beta"].json("jobs", "list")["jobs"] if job["node_id"] == "index"]
        assert row["isolation"] == "ISOLATION_LEVEL_CONTAINER"
        none_left(engine)
    finally:
        fleet.close()


def declarations(fleet: Fleet) -> dict[str, str]:
    """The declarations that the example writes down, with this machine's paths."""
    text = (EXAMPLES / "containers.yaml").read_text()
    lines = [line[1:].removeprefix("   ") for line in text.splitlines() if line.startswith("#   ")]
    blocks = ("\n" + "\n".join(lines)).split("\n[[services]]")[1:]
    names = ("alpha", "beta", "gamma")
    found = {name: "\n[[services]]" + block + "\n" for name, block in zip(names, blocks, strict=True)}
    places = {"/srv/texts": f"{fleet.folder}/texts", "/srv/tools": f"{fleet.folder}/tools"}
    for name, block in found.items():
        for there, here in {**places, "/usr/bin/python3": sys.executable}.items():
            block = block.replace(there, here)
        found[name] = block
    return found


def test_cancel_ends_it_and_leaves_nothing(fleet: Fleet, engine: Podman) -> None:
    run = start(fleet, "c", definition("cancel", order("stubborn", "c1"), order("stubborn", "c2")))
    wait_for(lambda: {"start c1", "start c2"} <= set(fleet.effects_seen()), 90, "both run")
    assert len(engine.containers()) == 2
    asked = time.monotonic()
    fleet["c"].peerctl("executions", "cancel", str(run.id), "--reason", "enough")
    wait_for(lambda: engine.containers() == [], 90, "the engine has none")
    assert time.monotonic() - asked < 8 * busier()
    assert run.wait(60) == "CANCELLED"


def test_time_out_memory_and_processes_are_told_apart(fleet: Fleet, engine: Podman) -> None:
    run = start(
        fleet,
        "c",
        definition("limits", order("stubborn", "slow", timeout="2s"), order("eater", "eater"), order("bomb", "bomb"),
                   order("missing", "missing")),
    )  # fmt: skip
    assert run.wait(110) == "FAILED"
    jobs = run.jobs()
    assert {name: job["reason"] for name, job in jobs.items()} == {
        "slow": "timeout",
        "eater": "limit",
        "bomb": "limit",
        "missing": "image_not_found",
    }
    assert "32M" in jobs["eater"]["message"]
    assert "20 processes" in jobs["bomb"]["message"]
    assert "podman load" in jobs["missing"]["next_action"]
    none_left(engine)
    assert fleet["a"].json("status")["peer_id"], "the daemon is unaffected"


def test_what_a_container_tries_to_reach_is_not_there(fleet: Fleet, engine: Podman) -> None:
    """Key, store, socket, other jobs, the daemon's process, the network, and what links in its output lead to."""
    daemon = fleet["a"]
    assert daemon.process is not None
    known = {"data": str(daemon.data), "pid": str(daemon.process.pid), "port": str(daemon.port)}
    package = [{"path": path, "text": text} for path, text in known.items()]
    wanted = order("prober", "probe", package=package)
    wanted["params"] = {}
    run = start(fleet, "c", definition("probe", wanted, deliver=["probe", {"from": "probe.stdout", "to": "said"}]))
    assert run.wait(90) == "FAILED"
    assert "is a link" in run.explain(), "and is not sent; nothing is, of such an output"
    assert run.job_status("probe") == "COMPLETED"
    assert daemon.alive
    assert tree(run.home) == {"said/stdout.txt": "input output package "}


def test_a_container_outlives_its_daemon_and_runs_once(fleet: Fleet, engine: Podman) -> None:
    run = start(fleet, "c", definition("outlive", order("gated", "o1"), order("gated", "o2"), deliver=["o1", "o2"]))
    for name in ("o1", "o2"):
        waits_at_gate(fleet, name)

    def running() -> int:
        return len([row for row in engine.containers() if row["State"] == "running"])

    wait_for(lambda: running() == 2, 60, "the engine has written down that both run")
    fleet["a"].kill()
    assert running() == 2
    open_gate(fleet, "o1")
    wait_for(lambda: fleet.effects_seen()["done o1"] == 1, 60, "one ends while nobody looks")
    fleet["a"].start()
    open_gate(fleet, "o2")
    assert run.wait(90) == "COMPLETED", run.explain()
    assert tree(run.home) == {"o1/o1.txt": "made\n", "o2/o2.txt": "made\n"}
    assert set(fleet.effects_seen().values()) == {1}
    none_left(engine)


@pytest.mark.parametrize(
    "failpoint",
    ["job.run.before_commit", "job.spawn.before", "job.spawn.after", "job.exit.before_commit", "job.exit.after_commit"],
)
def test_a_daemon_that_dies_at_any_step_runs_it_once(fleet: Fleet, engine: Podman, failpoint: str) -> None:
    name = failpoint.replace(".", "-")
    fleet["a"].stop()
    open_gate(fleet, name)
    fleet["a"].start(failpoint=failpoint)
    run = start(fleet, "c", definition("step", order("gated", name), deliver=[name]))
    fleet["a"].wait(90)
    fleet["a"].start()
    assert run.wait(110) == "COMPLETED", run.explain()
    assert [fleet.effects_seen()[f"{event} {name}"] for event in ("start", "done")] == [1, 1]
    none_left(engine)


def test_a_cancel_that_its_daemon_did_not_live_to_finish(fleet: Fleet, engine: Podman) -> None:
    fleet["a"].stop()
    fleet["a"].start(failpoint="job.cancel.after_stop")
    run = start(fleet, "c", definition("cancel", order("stubborn", "d1")))
    waits_at_gate(fleet, "d1")
    fleet["c"].peerctl("executions", "cancel", str(run.id))
    fleet["a"].wait(90)
    fleet["a"].start()
    assert run.wait(90) == "CANCELLED"
    none_left(engine)


def test_a_peer_without_an_engine_is_not_chosen(fleet: Fleet, engine: Podman) -> None:
    wanted = {**order("gated", "one"), "on": {"role": "worker"}}
    file = fleet.folder / "plan.json"
    file.write_text(json.dumps(definition("plan", wanted)))

    def refusals() -> dict[str, dict[str, Any]]:
        """By peer, why it is not chosen; none while it is not a that is."""
        said = fleet["c"].peerctl("workflows", "plan", str(file), "-o", "json", code=None).stdout
        (job,) = json.loads(said)["jobs"]
        return {each["peer_name"]: each for each in job["refusals"]} if job["peer_name"] == "a" else {}

    def reason() -> str:
        return str(refusals().get("b", {}).get("reason"))

    # Who restarted just now, or has not said yet what it offers, is not judged by it.
    wait_for(lambda: reason() == "service_kind_unsupported", 60, "a is chosen, and b refused for what it lacks")
    assert "peerd doctor" in refusals()["b"]["next_action"]


def test_a_job_waits_for_an_engine_that_is_away(fleet: Fleet, engine: Podman) -> None:
    open_gate(fleet, "w1")
    engine.stop()
    try:
        run = start(fleet, "c", definition("wait", order("gated", "w1"), deliver=["w1"]))
        wait_for(lambda: run.jobs()["w1"].get("reason") == "engine_unavailable", 60, "it says what it waits for")
        job = run.jobs()["w1"]
        assert "podman.socket" in job["next_action"]
    finally:
        engine.start()
    assert run.wait(110) == "COMPLETED", run.explain()
    assert [fleet.effects_seen()[f"{event} w1"] for event in ("start", "done")] == [1, 1]
    none_left(engine)


def test_logs_are_followed_and_the_doctor_names_the_engine(fleet: Fleet, engine: Podman) -> None:
    run = start(fleet, "c", definition("logs", order("gated", "l1")))
    waits_at_gate(fleet, "l1")
    wait_for(lambda: "up" in fleet["c"].peerctl("logs", str(run.id), "l1").stdout, 60, "what it says is there at once")
    open_gate(fleet, "l1")
    assert run.wait(90) == "COMPLETED"

    def said() -> str:
        answer = json.loads(fleet["a"].peerd("doctor", "-o", "json", check=False).stdout)
        return next(str(entry["message"]) for entry in answer["findings"] if entry["name"] == "containers")

    wait_for(lambda: said().startswith("podman "), 60, "the doctor names the engine, when that answers in time")
