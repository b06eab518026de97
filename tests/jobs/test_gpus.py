"""Which GPUs a job gets: no two that run share one, whatever is restarted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.jobs.gpus import assign, from_text, to_text, variables
from peerd.jobs.model import JobStatus
from peerd.store import Store
from peerd.v1 import jobs_pb2

from .harness import ORCHESTRATOR, SERVICES, Host, calling, ended, job_key


@pytest.fixture
async def host(store: Store, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Host]:
    """A machine that gives jobs three GPUs."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    made = Host(store, clock, data_dir, max_running=8, gpus=3)
    await made.catalog.sync(SERVICES)
    made.run()
    yield made
    await made.stop()


async def put(host: Host, number: int, gpus: int, **fields: Any) -> int:
    key = job_key(number)
    job_id = await host.create(key=key, resources=jobs_pb2.JobResources(gpus=gpus), **fields)
    await host.start(job_id, key=key)
    return job_id


def environment(host: Host, job_id: int) -> list[str | None]:
    (spec,) = [spec for spec in host.runner.specs.values() if spec.job_directory.name == str(job_id)]
    return [spec.env.get(name) for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")]


async def running(host: Host, job_id: int, processes: int) -> list[str | None]:
    await host.until(job_id, JobStatus.RUNNING)
    await host.runner.started(processes)
    return environment(host, job_id)


async def end(host: Host, job_id: int) -> None:
    (control,) = [control for control, spec in host.runner.specs.items() if spec.job_directory.name == str(job_id)]
    await host.runner.finish(control, ended())
    await host.until(job_id, JobStatus.COMPLETED)


async def test_each_job_is_told_its_own_and_what_one_leaves_the_next_gets(host: Host) -> None:
    one = await put(host, 1, 1)
    assert await running(host, one, 1) == ["0", "0"]
    two = await put(host, 2, 2)
    assert await running(host, two, 2) == ["1,2", "1,2"]
    none = await put(host, 3, 0)
    assert await running(host, none, 3) == [None, None]
    third = await put(host, 4, 1)
    await end(host, one)
    assert await running(host, third, 4) == ["0", "0"]
    with calling(ORCHESTRATOR):
        shown = (await host.servicer.GetJob(jobs_pb2.GetJobRequest(job_execution_id=two), None)).job
    assert list(shown.gpu_indices) == [1, 2]


async def test_a_restart_gives_nobody_what_a_job_has_that_still_runs(host: Host) -> None:
    first = await put(host, 1, 2)
    await running(host, first, 1)
    await host.restart()
    second = await put(host, 2, 1)
    assert await running(host, second, 2) == ["2", "2"]


async def test_more_than_there_are_is_refused(host: Host) -> None:
    with pytest.raises(PeerdError) as caught:
        await put(host, 1, 4)
    assert caught.value.reason is Reason.RESOURCES_INSUFFICIENT
    assert "3 for jobs" in caught.value.message


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 8))
def test_what_is_assigned_is_free_and_as_much_as_was_asked_for_while_there_is_enough(
    wishes: list[int], total: int
) -> None:
    taken: set[int] = set()
    for count in wishes:
        got = assign(count, total, taken)
        assert not taken & set(got)
        assert len(got) == min(count, total - len(taken))
        assert all(0 <= index < total for index in got)
        assert from_text(to_text(got)) == got
        assert bool(variables(got)) == bool(got)
        taken.update(got)
