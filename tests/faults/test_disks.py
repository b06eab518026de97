"""A disk that is full: refused with a reason, nothing acknowledged is lost, and all goes on by itself afterwards."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.workflow import Run, definition, job, start
from tests.faults.disks import SmallDisk, needs_mounts

pytestmark = [needs_mounts, pytest.mark.timeout(400)]

RESERVE_MB = 16
SMALL = f"\n[transfers]\nmin_free_bytes = {RESERVE_MB << 20}\nmin_free_fraction = 0.01\n"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Three daemons; the disk of a is small."""

    fleet: Fleet
    disk: SmallDisk


@pytest.fixture
def scene() -> Iterator[Scene]:
    fleet = Fleet()
    disk = SmallDisk(fleet["a"].data, 96)
    try:
        fleet.found(configure={"a": SMALL})
        yield Scene(fleet=fleet, disk=disk)
    finally:
        fleet.kill()
        disk.close()
        fleet.close()


def test_below_the_reserve_new_work_is_refused_and_the_rest_goes_on(scene: Scene) -> None:
    fleet, disk = scene.fleet, scene.disk
    running = start(fleet, "c", definition("running", job("long", "a", params={"seconds": "600"})))
    wait_for(lambda: fleet.effects_seen()["start long"] == 1, 60, "a job runs")
    disk.fill(leave=(RESERVE_MB << 20) // 2)
    waiting = start(fleet, "c", definition("waiting", job("next", "a")))
    wait_for(lambda: "disk_low" in str(waiting.jobs()["next"]), 60, "the job waits and says why")
    refused = fleet["a"].peerctl("workflows", "run", "--request-id", "own", definition_file(fleet), code=None)
    assert refused.returncode != 0 and "disk_low" in refused.stderr and "peerctl gc" in refused.stderr
    into = start(fleet, "c", definition("into", job("big", "b", params={"write_mb": "4"}), job("sink", "c", ["big"])))
    assert into.wait() == "COMPLETED", "others are not concerned"
    running_id = str(running.id)
    fleet["c"].peerctl("executions", "cancel", running_id)
    assert running.wait() == "CANCELLED", "a cancel goes through"
    fleet.wait_until_all_see_all(60)
    disk.drain()
    assert waiting.wait(150) == "COMPLETED", waiting.explain()
    again = fleet["a"].json("workflows", "run", "--request-id", "own", definition_file(fleet))
    assert Run(fleet, fleet["a"], int(again["workflow_execution_id"])).wait() == "COMPLETED"


def definition_file(fleet: Fleet) -> str:
    file = fleet.folder / "own.json"
    file.write_text(json.dumps(definition("own", job("own", "c"))))
    return str(file)


def test_files_for_a_full_disk_wait_and_arrive_when_there_is_room(scene: Scene) -> None:
    fleet, disk = scene.fleet, scene.disk
    slow = job("sink", "a", ["big"])
    run = start(
        fleet, "c", definition("late", job("big", "b", params={"until": "big goes on", "write_mb": "30"}), slow)
    )
    wait_for(lambda: run.job_status("sink") == "WAITING_INPUTS", 60, "the consumer was created while there was room")
    disk.fill(leave=(RESERVE_MB << 20) + (20 << 20))
    with fleet.effect_log.open("a") as log:
        log.write("big goes on\n")
    wait_for(
        lambda: "disk_low" in json.dumps(fleet["b"].json("transfers", "list")), 60, "the transfer says why it waits"
    )
    assert run.job_status("sink") == "WAITING_INPUTS"
    disk.drain()
    assert run.wait(150) == "COMPLETED", run.explain()
    assert fleet.effects_seen()["done sink"] == 1


def health(daemon: Daemon) -> dict[str, bool]:
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        return {
            name: stub.Check(health_pb2.HealthCheckRequest(service=f"peerd.v1.{name}")).status == serving
            for name in ("JobService", "DaemonService")
        }


def test_a_disk_full_to_the_last_byte_loses_nothing_that_was_acknowledged(scene: Scene) -> None:
    fleet, disk = scene.fleet, scene.disk
    orchestrator = fleet["a"]
    before = [start(fleet, "a", definition(f"before-{number}", job(f"b{number}", "b"))) for number in range(3)]
    disk.fill()
    acknowledged = set()
    for number in range(10):
        done = orchestrator.peerctl(
            "workflows", "run", definition_file(fleet), "--request-id", f"full-{number}", "-o", "json", code=None
        )
        if done.returncode == 0:
            acknowledged.add(int(json.loads(done.stdout)["workflow_execution_id"]))
        else:
            assert "disk_low" in done.stderr, done.stderr
    assert orchestrator.alive, "a full disk ends no daemon"
    wait_for(lambda: health(orchestrator) == {"JobService": False, "DaemonService": True}, 40, "health says so")
    disk.drain()
    for run in before:
        assert run.wait(60) == "COMPLETED", run.explain()
    ids = [
        int(
            orchestrator.json("workflows", "run", definition_file(fleet), "--request-id", f"full-{n}")[
                "workflow_execution_id"
            ]
        )
        for n in range(10)
    ]
    wait_for(lambda: health(orchestrator) == {"JobService": True, "DaemonService": True}, 40, "health says so")
    assert acknowledged <= set(ids) and len(set(ids)) == 10, "each request has one execution"
    assert all(Run(fleet, orchestrator, each).wait(60) == "COMPLETED" for each in ids)
    effects = fleet.effects_seen()
    assert [effects[f"done b{number}"] for number in range(3)] == [1, 1, 1]
    assert effects["done own"] == 10
    assert orchestrator.stop() == 0
    with sqlite3.connect(orchestrator.data / "peerd.db") as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
