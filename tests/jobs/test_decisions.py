"""The pure parts: transitions, admission, ends, merging, commands."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from peerd.catalog.model import Declaration, InterfaceKind, Service, ServiceKind
from peerd.disk import Disk
from peerd.errors import PeerdError, Reason
from peerd.jobs.admission import Machine, Orderer, admit, admit_load
from peerd.jobs.commands import command_work
from peerd.jobs.ends import Ending, judge
from peerd.jobs.files import clear_received, empty_outputs, made_files, make_place
from peerd.jobs.merging import merge
from peerd.jobs.model import (
    TRANSITIONS,
    Edge,
    EdgeStatus,
    Job,
    JobKey,
    JobStatus,
    Resources,
    RetryPolicy,
    Stop,
    Work,
    check_transition,
)
from peerd.jobs.paths import JobPlace
from peerd.jobs.readiness import readiness
from peerd.v1 import registry_pb2

from .harness import CONSUMER, EXECUTOR, ORCHESTRATOR, OTHER, PRODUCER, Host

BUBBLEWRAP, NONE = registry_pb2.ISOLATION_LEVEL_BUBBLEWRAP, registry_pb2.ISOLATION_LEVEL_NONE
RLIMITS, CGROUP = registry_pb2.LIMITS_LEVEL_RLIMITS, registry_pb2.LIMITS_LEVEL_CGROUP


def a_job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        name: 0 for name in Job.__dataclass_fields__ if name not in ("key", "work", "retry", "status", "stop")
    }
    key = JobKey(orchestrator=ORCHESTRATOR, store_id="s", workflow_execution_id=1, workflow_job_id=2, placement=1)
    defaults = {"status": JobStatus.RUNNING, "attempt": 1, "stop": None, "stop_message": ""}
    return Job(**{**values, "key": key, "work": Work(), "retry": RetryPolicy(), **defaults, **fields})


@pytest.mark.parametrize(("present", "to"), list(product(JobStatus, JobStatus)))
async def test_an_illegal_move_is_refused_and_changes_nothing(host: Host, present: JobStatus, to: JobStatus) -> None:
    await host.stop()
    job_id = await host.create()
    await host.store.write(
        lambda tx: tx.execute("UPDATE job_executions SET status = ? WHERE id = ?", (present.value, job_id))
    )
    before = await host.job(job_id)
    if to in TRANSITIONS[present]:
        moved = await host.store.write(lambda tx: host.floor.repository.move(tx, before, to))
        assert moved.status is to
        assert moved.revision == before.revision + 1
        return
    with pytest.raises(PeerdError) as refused:
        await host.store.write(lambda tx: host.floor.repository.move(tx, before, to))
    assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    assert await host.job(job_id) == before


async def test_a_move_of_a_job_that_has_moved_meanwhile_is_refused(host: Host) -> None:
    job_id = await host.create()
    before = await host.job(job_id)
    await host.cancel()
    with pytest.raises(PeerdError) as refused:
        await host.store.write(lambda tx: host.floor.repository.move(tx, before, JobStatus.READY))
    assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    assert (await host.job(job_id)).status is JobStatus.CANCELLED


def test_final_is_what_has_no_way_out() -> None:
    final = {status for status in JobStatus if status.final}
    assert final == {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.LOST, JobStatus.CANCELLED}
    for status in final:
        with pytest.raises(PeerdError):
            check_transition(1, status, JobStatus.RUNNING)


# Admission

HAS = Resources(cpus=4, memory_bytes=1000, disk_bytes=2000, gpus=1)
MACHINE = Machine(isolation=BUBBLEWRAP, limits=CGROUP, capacity=lambda: HAS)
ORDERER = Orderer(peer_id=ORCHESTRATOR, roles=frozenset({"lab"}))


def service(*, active: bool = True, **declared: Any) -> Service:
    declaration = Declaration(name="s", kind=ServiceKind.PROCESS, argv=("/bin/true",), **declared)
    return Service(service_id=1, active=active, origin="config", declaration=declaration)


@pytest.mark.parametrize(
    ("machine", "wanted", "needs", "reason"),
    [
        ({}, service(), {}, None),
        ({}, service(active=False), {}, Reason.SERVICE_INACTIVE),
        ({}, service(allowed_peers=frozenset({ORCHESTRATOR})), {}, None),
        ({}, service(allowed_peers=frozenset({OTHER})), {}, Reason.SERVICE_NOT_ALLOWED),
        ({}, service(allowed_roles=frozenset({"lab"})), {}, None),
        ({}, service(allowed_roles=frozenset({"scanner"})), {}, Reason.SERVICE_NOT_ALLOWED),
        ({}, service(allowed_peers=frozenset({OTHER}), allowed_roles=frozenset({"lab"})), {}, None),
        ({}, service(isolation=BUBBLEWRAP), {}, None),
        ({"isolation": NONE}, service(isolation=BUBBLEWRAP), {}, Reason.ISOLATION_INSUFFICIENT),
        ({"isolation": NONE}, service(), {}, None),
        ({}, None, {}, Reason.ADHOC_NOT_ALLOWED),
        ({"allow_commands_from": frozenset({OTHER})}, None, {}, Reason.ADHOC_NOT_ALLOWED),
        ({"allow_commands_from": frozenset({ORCHESTRATOR})}, None, {}, None),
        ({"allow_commands_from": frozenset({"lab"})}, None, {}, None),
        (
            {"allow_commands_from": frozenset({"lab"}), "isolation": NONE},
            None,
            {},
            Reason.ISOLATION_INSUFFICIENT,
        ),
        ({}, service(), {"cpus": 4.0}, None),
        ({}, service(), {"cpus": 4.1}, Reason.RESOURCES_INSUFFICIENT),
        ({}, service(), {"memory_bytes": 1001}, Reason.RESOURCES_INSUFFICIENT),
        ({}, service(), {"disk_bytes": 2001}, Reason.RESOURCES_INSUFFICIENT),
        ({}, service(), {"gpus": 2}, Reason.RESOURCES_INSUFFICIENT),
        ({}, service(limits=CGROUP), {}, None),
        ({"limits": RLIMITS}, service(limits=CGROUP), {}, Reason.ISOLATION_INSUFFICIENT),
        ({"limits": RLIMITS}, service(limits=RLIMITS), {}, None),
    ],
)
def test_admission(
    machine: dict[str, Any], wanted: Service | None, needs: dict[str, Any], reason: Reason | None
) -> None:
    needed = Resources(**needs)
    if reason is None:
        admit(replace(MACHINE, **machine), ORDERER, wanted, needed)
        return
    with pytest.raises(PeerdError) as refused:
        admit(replace(MACHINE, **machine), ORDERER, wanted, needed)
    assert refused.value.reason is reason


def test_below_the_reserve_of_free_space_nothing_new_is_taken() -> None:
    admit_load(MACHINE, 0, Disk(total_bytes=99, free_bytes=10, reserve_bytes=10))
    with pytest.raises(PeerdError) as refused:
        admit_load(MACHINE, 0, Disk(total_bytes=99, free_bytes=9, reserve_bytes=10))
    assert refused.value.reason is Reason.DISK_LOW


@pytest.mark.parametrize(
    ("argv", "env", "field"),
    [
        ([], {}, "command.argv"),
        (["a\0b"], {}, "command.argv"),
        (["ls"], {"LD_PRELOAD": "x"}, "env['LD_PRELOAD']"),
        (["ls"], {"PEERD_JOB": "x"}, "env['PEERD_JOB']"),
        (["ls"], {"A=B": "x"}, "env['A=B']"),
        (["ls"], {"A": "x" * 40_000}, "env['A']"),
    ],
)
def test_a_command_that_cannot_be_run_names_its_field(argv: list[str], env: dict[str, str], field: str) -> None:
    with pytest.raises(PeerdError) as refused:
        command_work(argv, env, network=False)
    assert [violation.field for violation in refused.value.violations] == [field]


# Ends


@pytest.mark.parametrize(
    ("job", "ending", "status", "reason"),
    [
        ({}, Ending(outcome="exit", exit_code=0), JobStatus.COMPLETED, ""),
        ({}, Ending(outcome="exit", exit_code=1), JobStatus.FAILED, "exit"),
        ({}, Ending(outcome="exit"), JobStatus.FAILED, "exit"),
        ({}, Ending(outcome="timeout", exit_code=143), JobStatus.FAILED, "timeout"),
        ({}, Ending(outcome="lost"), JobStatus.LOST, "lost"),
        ({"stop": Stop.CANCEL}, Ending(outcome="exit", exit_code=0), JobStatus.CANCELLED, "cancelled"),
        ({"stop": Stop.CANCEL}, Ending(outcome="lost"), JobStatus.CANCELLED, "cancelled"),
        ({"stop": Stop.LEASE}, Ending(outcome="exit", exit_code=0), JobStatus.FAILED, "lost"),
        ({"retry": RetryPolicy(attempts=2)}, Ending(outcome="exit", exit_code=1), JobStatus.READY, "retry"),
        (
            {"retry": RetryPolicy(attempts=2), "attempt": 2},
            Ending(outcome="exit", exit_code=1),
            JobStatus.FAILED,
            "exit",
        ),
        ({"retry": RetryPolicy(attempts=2)}, Ending(outcome="lost"), JobStatus.LOST, "lost"),
        ({"retry": RetryPolicy(attempts=2)}, Ending(outcome="refused"), JobStatus.FAILED, "refused"),
    ],
)
def test_what_an_end_means(job: dict[str, Any], ending: Ending, status: JobStatus, reason: str) -> None:
    verdict = judge(a_job(**job), ending, sends_stdout=True)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert (verdict.retry_after_seconds is not None) == (status is JobStatus.READY)


def test_the_pause_doubles_up_to_its_limit() -> None:
    policy = RetryPolicy(attempts=100, backoff_seconds=2, max_backoff_seconds=10)
    key = a_job().key
    assert [policy.delay_seconds(attempt, key) for attempt in (1, 2, 3, 4, 99)] == [2, 4, 8, 10, 10]


def test_jitter_shortens_a_pause_by_its_share_and_always_by_the_same() -> None:
    policy = RetryPolicy(attempts=100, backoff_seconds=8, max_backoff_seconds=8, jitter=0.5)
    keys = [replace(a_job().key, workflow_job_id=number) for number in range(1, 201)]
    pauses = [policy.delay_seconds(attempt, key) for key in keys for attempt in (1, 2)]
    assert pauses == [policy.delay_seconds(attempt, key) for key in keys for attempt in (1, 2)]
    assert min(pauses) >= 4 and max(pauses) <= 8 and len(set(pauses)) == 400
    assert 4 <= min(pauses) < 4.2 and max(pauses) > 7.8 and 5.8 < sum(pauses) / 400 < 6.2, "evenly spread"


@pytest.mark.parametrize(("code", "again"), [(75, True), (9, False), (10, True), (19, True), (20, False), (137, False)])
def test_only_the_listed_exit_codes_are_tried_again(code: int, again: bool) -> None:
    policy = RetryPolicy(attempts=3, exit_codes=((10, 19), (75, 75)))
    verdict = judge(a_job(retry=policy), Ending(outcome="exit", exit_code=code), sends_stdout=False)
    assert verdict.status is (JobStatus.READY if again else JobStatus.FAILED)
    assert ("which is not tried again" in verdict.message) == (not again)


def test_a_time_out_has_no_exit_code_to_look_at() -> None:
    policy = RetryPolicy(attempts=3, exit_codes=((75, 75),))
    verdict = judge(a_job(retry=policy), Ending(outcome="timeout", exit_code=137), sends_stdout=False)
    assert verdict.status is JobStatus.READY


def test_a_cut_stdout_that_nobody_needs_yet_is_remembered() -> None:
    ending = Ending(outcome="exit", exit_code=0, stdout_truncated=True)
    verdict = judge(a_job(), ending, sends_stdout=False)
    assert (verdict.status, verdict.reason) == (JobStatus.COMPLETED, "output_truncated")


# Interfaces


def incoming(edge_id: int, job_id: int = 70, **fields: Any) -> Edge:
    values = {"incoming": True, "kind": InterfaceKind.INPUT, "path": "", "peer_id": PRODUCER, **fields}
    return Edge(edge_id=edge_id, peer_workflow_job_id=1, peer_job_execution_id=job_id, **values)


def outgoing(edge_id: int, job_id: int = 90, **fields: Any) -> Edge:
    return incoming(edge_id, job_id, **{"incoming": False, "kind": InterfaceKind.OUTPUT, "peer_id": CONSUMER, **fields})


def test_a_chain_never_waits_for_its_own_consumer() -> None:
    edges = [incoming(1, status=EdgeStatus.RECEIVED), outgoing(2)]
    assert readiness(edges, waits_for_inputs=True, name_of=str).status is JobStatus.READY
    waiting = readiness([incoming(1), outgoing(2)], waits_for_inputs=True, name_of=lambda peer_id: "alpha")
    assert waiting.status is JobStatus.WAITING_INPUTS
    assert waiting.message == "waits for input from alpha (edge 1, its job 70)"
    assert readiness([incoming(1)], waits_for_inputs=False, name_of=str).status is JobStatus.READY


def test_what_a_generation_keeps_drops_and_sends() -> None:
    present = [
        incoming(1, status=EdgeStatus.RECEIVED, bytes=5),
        incoming(2, status=EdgeStatus.RECEIVED),
        outgoing(3, status=EdgeStatus.DELIVERED, bytes=9),
        outgoing(4, status=EdgeStatus.SENDING),
        outgoing(5, status=EdgeStatus.SENDING),
    ]
    wanted = [incoming(1), incoming(2, 71), outgoing(3), outgoing(4, 91)]
    fresh = merge(a_job(attempt=0, status=JobStatus.WAITING_INPUTS), present[:2], wanted[:2])
    assert [(edge.edge_id, edge.status) for edge in fresh.put] == [(1, EdgeStatus.RECEIVED), (2, EdgeStatus.CLEARING)]
    done = merge(a_job(status=JobStatus.COMPLETED), present, wanted)
    assert [(edge.edge_id, edge.status, edge.bytes) for edge in done.put] == [
        (3, EdgeStatus.DELIVERED, 9),
        (4, EdgeStatus.SENDING, 0),
    ]
    assert [edge.peer_job_execution_id for edge in done.send] == [91]
    assert [(edge.edge_id, edge.peer_job_execution_id) for edge in done.withdraw] == [(4, 90), (5, 90)]
    assert [edge.edge_id for edge in done.drop] == [5]


# Files


def place_at(folder: Path) -> JobPlace:
    return JobPlace(
        data_dir=folder, orchestrator=ORCHESTRATOR, workflow_execution_id=1, executor=EXECUTOR, job_execution_id=3
    )


def test_links_and_special_files_are_never_followed_nor_listed(tmp_path: Path) -> None:
    place = place_at(tmp_path)
    make_place(place, ["app"])
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "keep.txt").write_text("keep")
    (place.output / "file.txt").write_text("12345")
    (place.output / "link.txt").symlink_to(tmp_path / "precious" / "keep.txt")
    (place.output / "folder").symlink_to(tmp_path / "precious")
    assert [(file.path, file.size) for file in made_files(place, ["app"])] == [("output/file.txt", 5)]
    place.mount("app").rmdir()
    place.mount("app").symlink_to(tmp_path / "precious")
    assert len(made_files(place, ["app"])) == 1
    empty_outputs(place, ["app"], [])
    assert list(place.output.iterdir()) == []
    assert place.mount("app").is_dir()
    assert not place.mount("app").is_symlink()
    assert (tmp_path / "precious" / "keep.txt").read_text() == "keep"


def test_clearing_an_edge_spares_what_others_brought_and_bring(tmp_path: Path) -> None:
    root = tmp_path / "input"
    for name in ("old.txt", "sub/old.txt", "sub/kept.txt", "arriving/part.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    clear_received(root, [root / "sub" / "kept.txt"], [root / "arriving", root])
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == {"sub/kept.txt", "arriving/part.txt"}
    clear_received(tmp_path / "absent", [], [])
