"""Jobs that send again what an earlier one made: who may order them, what they have, and what retention leaves them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.model import Job, JobStatus
from peerd.retention import Wanted
from peerd.v1 import jobs_pb2

from .harness import ORCHESTRATOR, OTHER, Host, calling, ended, interface, job_key, receiver_at

AGAIN = job_key(workflow_job_id=51, workflow_execution_id=101)


def reused(job_id: int, execution: int = 100, node_id: str = "node") -> jobs_pb2.ReusedJob:
    return jobs_pb2.ReusedJob(job_execution_id=job_id, workflow_execution_id=execution, node_id=node_id)


async def made(host: Host) -> Job:
    """A job that completed, with an output, a mount and a log."""
    job_id = await host.create()
    await host.start(job_id, interface("output", receiver_at(1)))
    control = await host.runner.started()
    place = host.floor.places.of(await host.job(job_id))
    (place.output / "deep").mkdir()
    (place.output / "deep" / "a.txt").write_text("a\n")
    (place.output / "link").symlink_to("deep/a.txt")
    (place.mounts / "app").mkdir()
    (place.mounts / "app" / "b.txt").write_text("b\n")
    place.stdout.write_text("said\n")
    await host.runner.finish(control, ended())
    return await host.until(job_id, JobStatus.COMPLETED)


async def order(host: Host, earlier: int, *, caller: PeerId = ORCHESTRATOR, execution: int = 100, **more: Any) -> int:
    return await host.create(caller=caller, key=AGAIN, reused=reused(earlier, execution), **more)


async def refused(coroutine: Any) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        await coroutine
    return caught.value


async def test_what_a_job_made_is_sent_again_and_no_process_is_started(host: Host) -> None:
    earlier = await made(host)
    job_id = await order(host, earlier.id)
    await host.start(job_id, interface("output", receiver_at(9)), interface("stdout", receiver_at(10)), key=AGAIN)
    job = await host.until(job_id, JobStatus.COMPLETED)
    assert (job.exit_code, job.reused_id, job.node_id) == (0, earlier.id, "node")
    assert len(host.runner.specs) == 1
    place = host.floor.places.of(job)
    assert (place.output / "deep" / "a.txt").read_text() == "a\n"
    assert os.readlink(place.output / "link") == "deep/a.txt"
    assert (place.mounts / "app" / "b.txt").read_text() == "b\n"
    assert place.stdout.read_text() == "said\n"
    assert (place.output / "deep" / "a.txt").stat().st_nlink == 2, "linked, not copied"
    sent = {transfer.key.edge_id: transfer for transfer in host.sends.orders}
    assert sent[9].source.root == place.output
    assert sent[10].source.root == place.logs
    with calling(ORCHESTRATOR):
        view = (await host.servicer.GetJob(jobs_pb2.GetJobRequest(job_execution_id=job_id), None)).job
    assert (view.reused_job_execution_id, view.service) == (earlier.id, "work")


async def test_the_same_order_gives_the_same_job(host: Host) -> None:
    earlier = await made(host)
    assert await order(host, earlier.id) == await order(host, earlier.id)


async def test_only_its_orchestrator_has_a_job_used_again(host: Host) -> None:
    earlier = await made(host)
    unfinished = await host.create(key=job_key(30))
    for error in (
        await refused(order(host, earlier.id, caller=OTHER)),
        await refused(order(host, earlier.id, execution=99)),
        await refused(order(host, earlier.id + 100)),
        await refused(order(host, unfinished)),
        await refused(host.create(key=AGAIN, reused=reused(earlier.id, node_id="other"))),
    ):
        assert error.reason is Reason.NOT_FOUND
        assert error.next_action
    assert (await refused(order(host, 0))).reason is Reason.INVALID_ARGUMENT
    with calling(OTHER):
        answer = await host.servicer.CheckJobFiles(jobs_pb2.CheckJobFilesRequest(jobs=[reused(earlier.id)]), None)
    assert list(answer.missing_job_execution_ids) == [earlier.id]


async def test_a_service_that_is_offered_no_longer_does_not_matter(host: Host) -> None:
    earlier = await made(host)
    await host.store.write(lambda tx: host.catalog.set_active(tx, "work", False))
    job_id = await order(host, earlier.id)
    await host.start(job_id, interface("output", receiver_at(9)), key=AGAIN)
    await host.until(job_id, JobStatus.COMPLETED)


async def release(host: Host, *keys: jobs_pb2.JobKey) -> None:
    with calling(ORCHESTRATOR):
        await host.servicer.ReleaseJobs(jobs_pb2.ReleaseJobsRequest(keys=keys), None)


async def test_retention_spares_a_job_until_what_reuses_it_has_ended_and_takes_nothing_from_that(host: Host) -> None:
    earlier = await made(host)
    await host.store.write(lambda tx: tx.execute("UPDATE job_edges SET status = 'delivered'"))
    job_id = await order(host, earlier.id)
    await release(host, job_key())
    wanted = Wanted(older_than_ms=0)
    await host.jobs.retention.collect(wanted)
    assert (await host.job(earlier.id)).files == "present"
    await host.start(job_id, interface("output", receiver_at(9)), key=AGAIN)
    job = await host.until(job_id, JobStatus.COMPLETED)
    await host.jobs.retention.collect(wanted)
    assert (await host.job(earlier.id)).files == "removed"
    assert (host.floor.places.of(job).output / "deep" / "a.txt").read_text() == "a\n"
    with calling(ORCHESTRATOR):
        answer = await host.servicer.CheckJobFiles(
            jobs_pb2.CheckJobFilesRequest(jobs=[reused(earlier.id), reused(job_id, 101)]), None
        )
    assert list(answer.missing_job_execution_ids) == [earlier.id]
    key = job_key(workflow_job_id=60, workflow_execution_id=102)
    error = await refused(host.create(key=key, reused=reused(earlier.id)))
    assert error.reason is Reason.FILES_REMOVED
    assert "run it again from that job" in error.next_action


async def test_stdout_that_was_cut_off_is_sent_to_nobody_again(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id)
    control = await host.runner.started()
    await host.runner.finish(control, ended(stdout_truncated=True))
    await host.until(job_id, JobStatus.COMPLETED)
    again = await order(host, job_id)
    await host.start(again, interface("stdout", receiver_at(9)), key=AGAIN)
    assert (await host.until(again, JobStatus.FAILED)).reason == "output_truncated"


async def test_half_linked_files_are_linked_anew(host: Host) -> None:
    earlier = await made(host)
    job_id = await order(host, earlier.id)
    place = host.floor.places.of(await host.job(job_id))
    (place.output / "deep").mkdir(parents=True)
    (place.output / "deep" / "half").write_text("x")
    await host.start(job_id, interface("output", receiver_at(9)), key=AGAIN)
    await host.until(job_id, JobStatus.COMPLETED)
    assert sorted(path.name for path in (place.output / "deep").iterdir()) == ["a.txt"]


async def test_it_takes_no_place_that_runs_processes(host: Host) -> None:
    earlier = await made(host)
    await host.stop()
    host.config = type(host.config)(max_running=1)
    host.build()
    host.run()
    busy = await host.create(key=job_key(40))
    await host.start(busy, key=job_key(40))
    await host.until(busy, JobStatus.RUNNING)
    job_id = await order(host, earlier.id)
    await host.start(job_id, interface("output", receiver_at(9)), key=AGAIN)
    await host.until(job_id, JobStatus.COMPLETED)
