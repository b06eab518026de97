"""The queue of a real executor on a real store, with processes that end when the test says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import JobStatus, Resources
from peerd.store import Store
from peerd.v1 import jobs_pb2, registry_pb2

from .harness import ORCHESTRATOR, OTHER, Host, calling, ended, interface, job_key, sender_at


async def put(host: Host, number: int, *, caller: PeerId = ORCHESTRATOR, **fields: Any) -> int:
    """One job that is ready."""
    key = job_key(number)
    job_id = await host.create(caller=caller, key=key, **fields)
    await host.start(job_id, caller=caller, key=key)
    return job_id


@pytest.fixture
async def idle(store: Store, clock: FakeClock, tmp_path: Path) -> Any:
    """A machine with four cpus whose executor does not run yet."""
    from .harness import SERVICES

    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    host = Host(store, clock, data_dir, max_running=8, cpus=4, memory_bytes=1 << 30)
    few = {"name": "few", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"], "max_concurrent": 2}
    sized = {
        "name": "sized", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"],
        "resources": {"cpus": 3, "memory": "64M", "disk": "1M"},
    }  # fmt: skip
    strict = {"name": "strict", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"], "limits": "LIMITS_LEVEL_CGROUP"}
    await host.catalog.sync([*SERVICES, few, sized, strict])
    yield host
    await host.stop()


async def until_waiting(host: Host, job_id: int, reason: str) -> str:
    async with asyncio.timeout(30):
        while (job := await host.job(job_id)).reason != reason:
            await asyncio.sleep(0.01)
    return job.message


def one(**resources: Any) -> jobs_pb2.JobResources:
    return jobs_pb2.JobResources(**resources)


async def test_a_job_waits_for_what_others_have_reserved_and_says_so(idle: Host) -> None:
    first = await put(idle, 1, resources=one(cpus=3))
    second = await put(idle, 2, resources=one(cpus=2))
    idle.run()
    await idle.until(first, JobStatus.RUNNING)
    assert await until_waiting(idle, second, "cpus") == "waits for 2 cpus: 3 of 4 are taken"
    since = (await idle.job(second)).since
    await idle.runner.finish(await idle.runner.started(), ended(0))
    job = await idle.until(second, JobStatus.RUNNING)
    assert job.since >= since
    assert idle.runner.specs[await idle.runner.started(2)].limits.pids == 1024


async def test_what_a_service_reserves_counts_where_the_job_says_nothing(idle: Host) -> None:
    first = await put(idle, 1, service="sized")
    second = await put(idle, 2, service="sized", resources=one(cpus=1))
    third = await put(idle, 3, service="sized")
    idle.run()
    await idle.until(first, JobStatus.RUNNING)
    await idle.until(second, JobStatus.RUNNING)
    await until_waiting(idle, third, "cpus")
    expected = Resources(cpus=3, memory_bytes=64 << 20, disk_bytes=1 << 20)
    assert (await idle.job(third)).resources == expected
    limits = idle.runner.specs[await idle.runner.started(2)].limits
    assert (limits.memory_bytes, limits.disk_bytes) == (64 << 20, 1 << 20)


async def test_a_service_runs_no_more_at_once_than_it_may(idle: Host) -> None:
    ids = [await put(idle, number, service="few") for number in range(1, 6)]
    other = await put(idle, 9)
    idle.run()
    await idle.until(other, JobStatus.RUNNING)
    assert "2 run, 2 may" in await until_waiting(idle, ids[2], "service_limit")
    for number in range(5):
        running = [job for job in [await idle.job(job_id) for job_id in ids] if job.status is JobStatus.RUNNING]
        assert len(running) <= 2
        await finish_of(idle, ids[number])


async def finish_of(host: Host, job_id: int, code: int = 0) -> None:
    """Let the process of that job end well, once it runs."""
    await host.until(job_id, JobStatus.RUNNING)
    job = await host.job(job_id)
    async with asyncio.timeout(30):
        while not (found := [c for c, s in host.runner.specs.items() if s.job_directory.name == str(job_id)]):
            await asyncio.sleep(0.005)
    await host.runner.finish(found[-1], ended(code))
    await host.until(job.id, JobStatus.COMPLETED if code == 0 else JobStatus.FAILED)


async def test_a_large_job_gets_its_turn_though_small_ones_keep_coming(idle: Host) -> None:
    first = [await put(idle, number, resources=one(cpus=1)) for number in range(1, 5)]
    idle.run()
    for job_id in first:
        await idle.until(job_id, JobStatus.RUNNING)
    large = await put(idle, 50, resources=one(cpus=4))
    small = await put(idle, 51, resources=one(cpus=1))
    nothing = await put(idle, 52)
    await idle.until(nothing, JobStatus.RUNNING)
    await finish_of(idle, first[0])
    assert f"behind job execution {large}" in await until_waiting(idle, small, "reserved")
    for job_id in first[1:]:
        await finish_of(idle, job_id)
    await finish_of(idle, large)
    await idle.until(small, JobStatus.RUNNING)


@pytest.mark.timeout(300)
async def test_a_thousand_jobs_of_two_orchestrators_with_three_priorities(idle: Host) -> None:
    """Strictly by priority; within one they take turns, though one of them had ordered all of its before the other."""
    ids: dict[int, tuple[PeerId, int]] = {}
    for caller in (ORCHESTRATOR, OTHER):
        for number in range(500):
            priority = (-5, 0, 7)[number % 3]
            job_id = await put(idle, number + 1, caller=caller, priority=priority, resources=one(cpus=1))
            ids[job_id] = (caller, priority)
    seen = 0
    idle.run()
    while seen < len(ids):
        wave = await next_wave(idle, seen)
        assert len(wave) <= 4, "never more than the machine has"
        seen += len(wave)
        if seen in (200, 600):
            await idle.restart()
        for control in wave:
            await idle.runner.finish(control, ended(0))
    rows = await idle.store.all("SELECT job_execution_id FROM job_attempts ORDER BY id")
    order = [row["job_execution_id"] for row in rows]
    assert sorted(order) == sorted(ids), "each ran once"
    priorities = [ids[job_id][1] for job_id in order]
    assert priorities == sorted(priorities, reverse=True)
    for priority in (7, 0, -5):
        callers = [ids[job_id][0] for job_id in order if ids[job_id][1] == priority]
        for count in range(8, len(callers) + 1, 8):
            shares = Counter(callers[:count])
            assert abs(shares[ORCHESTRATOR] - shares[OTHER]) <= 2, (priority, count, shares)
        for caller in (ORCHESTRATOR, OTHER):
            mine = [job_id for job_id in order if ids[job_id] == (caller, priority)]
            assert mine == sorted(mine), "in the order they were created"


async def next_wave(host: Host, seen: int) -> list[Path]:
    """All that run now, once the machine is full or nothing is left: so jobs of both end evenly."""
    await host.runner.started(min(seen + 4, 1000))
    async with asyncio.timeout(30):
        while True:
            rows = await host.store.all("SELECT count(*) FROM job_attempts WHERE outcome IS NOT 'never_started'")
            if rows[0][0] == len(host.runner.specs):
                break
            await asyncio.sleep(0.002)
    return list(host.runner.specs)[seen:]


@pytest.mark.parametrize("priority", [101, -101])
async def test_a_priority_out_of_range_is_refused(idle: Host, priority: int) -> None:
    with pytest.raises(PeerdError) as refused:
        await put(idle, 1, priority=priority)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


async def test_a_service_that_demands_control_groups_is_refused_where_there_are_none(idle: Host) -> None:
    with pytest.raises(PeerdError) as refused:
        await put(idle, 1, service="strict")
    assert refused.value.reason is Reason.ISOLATION_INSUFFICIENT


async def test_the_record_shows_what_was_reserved_and_what_was_in_force(idle: Host) -> None:
    job_id = await put(idle, 1, service="sized", priority=3)
    idle.run()
    await idle.until(job_id, JobStatus.RUNNING)
    with calling(ORCHESTRATOR):
        job = (await idle.servicer.GetJob(jobs_pb2.GetJobRequest(job_execution_id=job_id), None)).job
    assert job.resources == jobs_pb2.JobResources(cpus=3, memory_bytes=64 << 20, disk_bytes=1 << 20)
    assert job.priority == 3
    assert job.limits == jobs_pb2.JobLimits(
        level=registry_pb2.LIMITS_LEVEL_RLIMITS, memory_bytes=64 << 20, pids=1024, disk_bytes=1 << 20
    )


async def test_a_job_that_is_held_back_takes_its_files_and_starts_when_it_is_told(idle: Host) -> None:
    key = job_key(1)
    held = await idle.create(key=key)
    told = await idle.start(held, interface("input", sender_at(1)), key=key, hold=True)
    assert told.status == jobs_pb2.JOB_STATUS_WAITING_INPUTS
    idle.run()
    await idle.receive(idle.incoming(held, 1), "a.txt")
    assert (await idle.until(held, JobStatus.READY)).reason == "held"
    await idle.restart()
    after = await put(idle, 2)
    await idle.until(after, JobStatus.RUNNING)
    assert (await idle.job(held)).reason == "held", "a place is free, and it has not started"
    told = await idle.start(held, interface("input", sender_at(1)), key=key, generation=2)
    assert (told.status, told.reason) == (jobs_pb2.JOB_STATUS_READY, "slot")
    await idle.until(held, JobStatus.RUNNING)


async def test_data_that_is_held_back_is_not_offered(idle: Host, tmp_path: Path) -> None:
    (tmp_path / "offered").write_text("x")
    await idle.catalog.sync([{"name": "data", "kind": "SERVICE_KIND_DATA", "path": str(tmp_path / "offered")}])
    key = job_key(1)
    held = await idle.create(key=key, service="data")
    await idle.start(held, key=key, hold=True)
    idle.run()
    other = await put(idle, 2, service="data")
    await idle.until(other, JobStatus.COMPLETED)
    assert (await idle.job(held)).reason == "held"
    await idle.start(held, key=key, generation=2)
    await idle.until(held, JobStatus.COMPLETED)
