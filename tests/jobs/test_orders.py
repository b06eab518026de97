"""Creating and starting jobs: keys, tombstones, orchestrators, generations, and who may ask."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from peerd.errors import PeerdError, Reason
from peerd.jobs.model import JobStatus
from peerd.transfers.model import Received
from peerd.transfers.repository import record_received, was_received
from peerd.v1 import access_pb2, jobs_pb2

from .harness import (
    CONSUMER,
    INPUT,
    ORCHESTRATOR,
    OTHER,
    PRODUCER,
    Host,
    calling,
    ended,
    interface,
    job_key,
    receiver_at,
    sender_at,
)


async def refused(coroutine: Any) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        await coroutine
    return caught.value


async def rows(host: Host) -> int:
    found = await host.store.one("SELECT count(*) FROM job_executions")
    assert found is not None
    return int(found[0])


async def test_the_same_key_gives_the_same_id_also_when_asked_at_once(host: Host) -> None:
    ids = await asyncio.gather(*(host.create() for _ in range(50)))
    assert len(set(ids)) == 1
    assert await host.create(lease_seconds=5) == ids[0], "the length of the lease is no content"
    assert await rows(host) == 1


async def test_a_key_with_other_content_is_refused(host: Host) -> None:
    await host.create()
    error = await refused(host.create(timeout_seconds=5))
    assert error.reason is Reason.ALREADY_EXISTS
    assert await rows(host) == 1


async def test_two_orchestrators_with_the_same_numbers_have_two_jobs(host: Host) -> None:
    mine, theirs = await host.create(), await host.create(caller=OTHER)
    other_store = await host.create(key=job_key(store_id="restored"))
    assert len({mine, theirs, other_store}) == 3
    await host.cancel(caller=OTHER)
    assert (await host.job(mine)).status is JobStatus.CREATED
    assert (await host.job(theirs)).status is JobStatus.CANCELLED
    error = await refused(host.start(mine, caller=OTHER))
    assert error.reason is Reason.NOT_FOUND, "the id of another orchestrator's job is no job of one's own"


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"service": "nothing"}, Reason.SERVICE_NOT_FOUND, None),
        ({"service": ""}, Reason.INVALID_ARGUMENT, "service"),
        ({"service": "greet"}, Reason.INVALID_ARGUMENT, "params['who']"),
        ({"service": "greet", "params": {"who": "x", "count": "many"}}, Reason.INVALID_ARGUMENT, "params['count']"),
        ({"service": "greet", "params": {"who": "x", "typo": "1"}}, Reason.INVALID_ARGUMENT, "params['typo']"),
        ({"env": {"LD_PRELOAD": "/x"}}, Reason.INVALID_ARGUMENT, "env['LD_PRELOAD']"),
        ({"env": {"LOCALE": "C"}}, Reason.INVALID_ARGUMENT, "env['LOCALE']"),
        ({"timeout_seconds": float("nan")}, Reason.INVALID_ARGUMENT, "timeout_seconds"),
        ({"retry": jobs_pb2.RetryPolicy(reasons=["always"])}, Reason.INVALID_ARGUMENT, "retry.reasons"),
        ({"key": job_key(0)}, Reason.INVALID_ARGUMENT, "key.workflow_job_id"),
        ({"key": job_key(store_id="../x")}, Reason.INVALID_ARGUMENT, "key.store_id"),
        ({"resources": jobs_pb2.JobResources(cpus=10_000)}, Reason.RESOURCES_INSUFFICIENT, None),
        ({"command": jobs_pb2.Command(argv=["ls"])}, Reason.ADHOC_NOT_ALLOWED, None),
    ],
)
async def test_what_is_refused_names_its_reason_and_stores_nothing(
    host: Host, fields: dict[str, Any], reason: Reason, field: str | None
) -> None:
    error = await refused(host.create(**fields))
    assert error.reason is reason
    assert error.next_action
    if field is not None:
        assert [violation.field for violation in error.violations] == [field]
    assert await rows(host) == 0


async def test_an_inactive_service_is_refused_and_its_created_jobs_go_on(host: Host) -> None:
    before = await host.create()
    await host.store.write(lambda tx: host.catalog.set_active(tx, "work", False))
    assert (await refused(host.create(key=job_key(28)))).reason is Reason.SERVICE_INACTIVE
    assert await host.create() == before
    await host.start(before)
    await host.runner.started()


async def test_more_jobs_than_may_queue_are_refused_for_now(host: Host) -> None:
    await host.stop()
    host.config = type(host.config)(max_queued=2)
    host.build()
    await host.create(key=job_key(1))
    await host.create(key=job_key(2))
    error = await refused(host.create(key=job_key(3)))
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after_seconds
    await host.cancel(key=job_key(1))
    await host.create(key=job_key(3))


# Interfaces


async def test_a_start_for_an_unknown_key_says_not_found_so_that_the_job_is_created_anew(host: Host) -> None:
    assert (await refused(host.start(7))).reason is Reason.NOT_FOUND
    job_id = await host.create()
    assert (await refused(host.start(job_id + 1))).reason is Reason.NOT_FOUND


async def test_a_start_for_a_tombstone_says_cancelled(host: Host) -> None:
    await host.cancel()
    assert (await refused(host.start(1))).reason is Reason.JOB_CANCELLED


@pytest.mark.parametrize(
    "wrong",
    [
        interface("unspecified", sender_at(1)),
        interface("output", sender_at(1)),
        interface("stdin", receiver_at(1)),
        interface("input", sender_at(1), path="x"),
        interface("mount", sender_at(1)),
        interface("mount", sender_at(1), path="../up"),
        interface("mount", sender_at(1), path="/etc"),
        interface("input", sender_at(1, destination="a/../../b")),
        interface("input", sender_at(0)),
        interface("input", sender_at(1), sender_at(1)),
        interface("input", jobs_pb2.JobInterfacePeer(edge_id=1, peer_id=PRODUCER, mount_function=3)),  # type: ignore[arg-type]
        interface("output", jobs_pb2.JobInterfacePeer(edge_id=1, peer_id="nobody", mount_function=INPUT)),
    ],
    ids=range(12),
)
async def test_wrong_interfaces_are_refused_and_change_nothing(host: Host, wrong: jobs_pb2.JobInterface) -> None:
    job_id = await host.create()
    before = await host.job(job_id)
    error = await refused(host.start(job_id, wrong))
    assert error.reason in (Reason.INVALID_ARGUMENT, Reason.INVALID_PATH, Reason.INVALID_PEER_ID)
    assert await host.job(job_id) == before


async def test_an_interface_the_service_does_not_declare_is_refused(host: Host) -> None:
    declared = {"name": "narrow", "kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"]}
    interfaces = [
        {"kind": "INTERFACE_KIND_MOUNT", "path": "app", "mount_function": "MOUNT_FUNCTION_INPUT"},
        {"kind": "INTERFACE_KIND_STDOUT"},
    ]
    await host.catalog.sync([{**declared, "interfaces": interfaces}])
    job_id = await host.create(service="narrow")
    for wrong in (
        interface("input", sender_at(1)),
        interface("mount", sender_at(1), path="other"),
        interface("mount", receiver_at(1), path="app"),
        interface("output", receiver_at(1)),
    ):
        assert (await refused(host.start(job_id, wrong))).reason is Reason.ILLEGAL_INTERFACE
    await host.start(job_id, interface("mount", sender_at(1), path="app"), interface("stdout", receiver_at(2)))


async def test_a_repeated_start_changes_nothing(host: Host) -> None:
    job_id = await host.create()
    first = await host.start(job_id, interface("input", sender_at(1)), generation=2)
    assert first.status == jobs_pb2.JOB_STATUS_WAITING_INPUTS
    assert first.reason == "inputs"
    assert "producer" in first.message
    assert "edge 1" in first.message
    for generation in (2, 1):
        again = await host.start(job_id, generation=generation)
        assert (again.revision, again.generation) == (first.revision, 2)
    assert (await host.job(job_id)).status is JobStatus.WAITING_INPUTS


async def test_a_replaced_producer_makes_a_waiting_job_drop_what_it_had_and_wait_again(host: Host) -> None:
    job_id = await host.create()
    two = interface("input", sender_at(1, destination="one"), sender_at(2, job_id=71, destination="two"))
    await host.start(job_id, two)
    old = await host.receive(host.incoming(job_id, 1), "old.txt")
    moved = interface("input", sender_at(1, OTHER, 5, destination="one"), sender_at(2, job_id=71, destination="two"))
    await host.start(job_id, moved, generation=2)
    stale = await refused(host.receive(host.incoming(job_id, 1), "late.txt"))
    assert stale.reason is Reason.UNEXPECTED_TRANSFER
    new = host.incoming(job_id, 1, source=OTHER, source_job=5)
    await until_expected(host, new)
    assert list(old.iterdir()) == []
    await host.receive(host.incoming(job_id, 2, source_job=71), "two.txt")
    assert (await host.job(job_id)).status is JobStatus.WAITING_INPUTS
    await host.receive(new, "new.txt")
    await host.runner.started()
    assert [path.name for path in old.iterdir()] == ["new.txt"]


async def test_a_job_that_has_started_keeps_its_inputs_and_follows_its_destination(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("input", sender_at(1)), interface("output", receiver_at(2)))
    directory = await host.receive(host.incoming(job_id, 1), "in.txt")
    control = await host.runner.started()
    await host.start(
        job_id, interface("input", sender_at(1, OTHER, 5)), interface("output", receiver_at(2, OTHER, 6)), generation=2
    )
    await host.runner.finish(control, ended(0))
    job = await host.until(job_id, JobStatus.COMPLETED)
    assert job.generation == 2
    assert (directory / "in.txt").exists()
    assert [(order.key.destination_peer_id, order.key.destination_job_execution_id) for order in host.sends.orders] == [
        (OTHER, 6)
    ]


async def test_a_completed_job_sends_again_to_a_new_destination(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("output", receiver_at(2)))
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    first = host.sends.orders[0].key
    await host.start(job_id, interface("output", receiver_at(2, OTHER, 6)), generation=2)
    assert host.sends.withdrawn == [first]
    assert [order.key.destination_peer_id for order in host.sends.orders] == [CONSUMER, OTHER]
    await host.store.write(lambda tx: host.floor.expectations.delivered(tx, first, 5))
    (edge,) = (await host.sync(job_key())).reports[0].edges
    assert edge.status == jobs_pb2.EDGE_STATUS_SENDING, "news of the old destination is no news"
    await host.store.write(lambda tx: host.floor.expectations.delivered(tx, host.sends.orders[1].key, 5))
    (edge,) = (await host.sync(job_key())).reports[0].edges
    assert (edge.status, edge.bytes) == (jobs_pb2.EDGE_STATUS_DELIVERED, 5)


async def test_the_progress_of_what_is_being_sent_is_told(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("output", receiver_at(2), receiver_at(3)))
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    await host.store.write(lambda tx: host.floor.expectations.delivered(tx, host.sends.orders[0].key, 100))
    host.sends.sent = (7, 50)
    (report,) = (await host.sync(job_key())).reports
    assert [(edge.bytes, edge.bytes_total) for edge in report.edges] == [(100, 100), (7, 50)]
    assert report.bytes_sent == 107


async def test_files_of_a_producer_that_is_named_again_must_come_again(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("input", sender_at(1), sender_at(2, job_id=71)))
    key = host.incoming(job_id, 1)
    await host.receive(key, "x")
    received = Received(manifest_digest=b"d", file_count=1, total_bytes=1, files=("x",))
    await host.store.write(lambda tx: record_received(tx, key, received))
    await host.start(job_id, interface("input", sender_at(1, OTHER), sender_at(2, job_id=71)), generation=2)
    assert not await host.store.write(lambda tx: was_received(tx, key, b"d"))


async def test_an_edge_that_was_given_up_is_tried_again_by_a_new_generation(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("output", receiver_at(2)))
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    key = host.sends.orders[0].key
    await host.store.write(lambda tx: host.floor.expectations.undeliverable(tx, key, "disk_low", "no room"))
    (edge,) = (await host.sync(job_key())).reports[0].edges
    assert (edge.status, edge.reason, edge.message) == (jobs_pb2.EDGE_STATUS_FAILED, "disk_low", "no room")
    assert (await host.job(job_id)).status is JobStatus.COMPLETED
    await host.start(job_id, interface("output", receiver_at(2)), generation=2)
    assert [order.key for order in host.sends.orders] == [key, key]


async def test_without_constraint_a_job_starts_before_its_inputs(host: Host) -> None:
    job_id = await host.create(execution_constraint=jobs_pb2.EXECUTION_CONSTRAINT_NONE)
    await host.start(job_id, interface("input", sender_at(1)))
    await host.runner.started()
    directory = await host.receive(host.incoming(job_id, 1), "late.txt")
    assert (directory / "late.txt").exists()
    assert (await host.job(job_id)).bytes_received == 10


# What is expected


async def until_expected(host: Host, key: Any) -> None:
    """Until old files are removed; the removal is told by no change of the job."""
    async with asyncio.timeout(30):
        while True:
            try:
                await host.store.write(lambda tx: host.floor.expectations.expect(tx, key))
            except PeerdError as error:
                assert error.reason is Reason.NOT_YET_EXPECTED
            else:
                return


async def test_a_push_before_the_interfaces_is_to_be_tried_again(host: Host) -> None:
    job_id = await host.create()
    for key in (host.incoming(job_id, 1), host.incoming(job_id + 1, 1)):
        error = await refused(host.receive(key, "x"))
        assert error.reason is Reason.NOT_YET_EXPECTED
        assert error.retryable
    await host.start(job_id, interface("input", sender_at(1)))
    newer = await refused(host.receive(host.incoming(job_id, 1, source_job=75), "x"))
    assert newer.reason is Reason.NOT_YET_EXPECTED, "the same peer runs the producer anew, we hear of it later"


async def test_a_wrong_push_is_refused_for_good(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id, interface("input", sender_at(1), sender_at(2)), interface("output", receiver_at(3)))
    right = host.incoming(job_id, 1)
    for wrong in (
        replace(right, source_peer_id=OTHER),
        replace(right, source_job_execution_id=69),
        replace(right, edge_id=9),
        replace(right, edge_id=3),
        replace(right, orchestrator=OTHER),
        replace(right, store_id="other"),
        replace(right, workflow_execution_id=101),
        replace(right, destination_peer_id=OTHER),
    ):
        error = await refused(host.receive(wrong, "x"))
        assert error.reason is Reason.UNEXPECTED_TRANSFER
    place = host.floor.places.of(await host.job(job_id))
    assert not place.input.exists()
    await host.receive(right, "x")
    assert (await refused(host.receive(right, "x"))).reason is Reason.UNEXPECTED_TRANSFER
    await host.cancel()
    error = await refused(host.receive(host.incoming(job_id, 2), "x"))
    assert error.reason is Reason.UNEXPECTED_TRANSFER


@pytest.mark.parametrize(
    ("kind", "path", "destination", "expected"),
    [
        ("input", "", "", "input"),
        ("input", "", "a/b", "input/a/b"),
        ("stdin", "", "x", "input/x"),
        ("mount", "app/data", "", "mounts/app/data"),
        ("mount", "app", "sub", "mounts/app/sub"),
        ("package", "", "", "package"),
    ],
)
async def test_files_land_where_the_path_rule_says(
    host: Host, kind: str, path: str, destination: str, expected: str
) -> None:
    job_id = await host.create()
    await host.start(job_id, interface(kind, sender_at(1, destination=destination), path=path))
    key = host.incoming(job_id, 1)
    found = await host.store.write(lambda tx: host.floor.expectations.expect(tx, key))
    root = host.data_dir.joinpath("workflows", ORCHESTRATOR, "100", "jobs", host.floor.places.executor, str(job_id))
    assert (found.root, found.directory) == (root, root / expected)


# Asking


async def test_sync_tells_known_jobs_and_lists_unknown_keys(host: Host) -> None:
    job_id = await host.create()
    answer = await host.sync(job_key(), job_key(99))
    assert [report.job_execution_id for report in answer.reports] == [job_id]
    assert list(answer.unknown) == [job_key(99)]
    assert list((await host.sync(job_key(), caller=OTHER)).unknown) == [job_key()]


async def test_jobs_are_listed_page_by_page_newest_first(host: Host) -> None:
    ids = [await host.create(key=job_key(number)) for number in range(1, 6)]
    await host.cancel(key=job_key(1))
    seen: list[int] = []
    token = ""
    while True:
        request = jobs_pb2.ListJobsRequest(page_size=2, page_token=token, statuses=[jobs_pb2.JOB_STATUS_CREATED])
        answer = await host.servicer.ListJobs(request, None)
        seen += [job.job_execution_id for job in answer.jobs]
        token = answer.next_page_token
        if not token:
            break
    assert seen == ids[:0:-1]
    with pytest.raises(PeerdError):
        await host.servicer.ListJobs(jobs_pb2.ListJobsRequest(page_token="x"), None)


async def test_the_record_shows_interfaces_attempts_and_directory(host: Host) -> None:
    interfaces = [interface("input", sender_at(1)), interface("output", receiver_at(2), receiver_at(3))]
    job_id = await host.create()
    await host.start(job_id, *interfaces)
    await host.receive(host.incoming(job_id, 1), "x")
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    job = (await host.servicer.GetJob(jobs_pb2.GetJobRequest(job_execution_id=job_id), None)).job
    assert list(job.interfaces) == interfaces
    assert [(entry.attempt, entry.outcome, entry.exit_code) for entry in job.attempts] == [(1, "exit", 0)]
    assert job.directory.endswith(f"/{job_id}")
    assert job.orchestrator_peer_id == ORCHESTRATOR
    assert job.report.key == job_key()
    assert job.lease_until.ToMilliseconds() == host.clock.now() + 60_000


@pytest.mark.parametrize(
    ("who", "grants", "allowed"),
    [
        (ORCHESTRATOR, {access_pb2.GRANT_OPERATE}, True),
        (OTHER, {access_pb2.GRANT_OPERATE}, False),
        (OTHER, {access_pb2.GRANT_OBSERVE}, True),
    ],
)
async def test_logs_are_read_by_the_orchestrator_and_by_observers(
    host: Host, who: Any, grants: set[int], allowed: bool
) -> None:
    job_id = await host.create()
    place = host.floor.places.of(await host.job(job_id))
    place.logs.mkdir(parents=True)
    place.stdout.write_text("out")
    place.stderr.write_text("err")
    request = jobs_pb2.ReadJobLogsRequest(job_execution_id=job_id)
    with calling(who, grants=frozenset(grants)):
        if allowed:
            pieces = [piece async for piece in host.servicer.ReadJobLogs(request, None)]
            assert {piece.stream: piece.data for piece in pieces} == {1: b"out", 2: b"err"}
        else:
            with pytest.raises(PeerdError) as caught:
                _ = [piece async for piece in host.servicer.ReadJobLogs(request, None)]
            assert caught.value.reason is Reason.NOT_THE_ORCHESTRATOR


async def test_a_follower_gets_all_until_the_end_and_can_resume(host: Host) -> None:
    job_id = await host.create()
    await host.start(job_id)
    control = await host.runner.started()
    place = host.floor.places.of(await host.job(job_id))
    place.stdout.write_bytes(b"x" * 100_000)
    request = jobs_pb2.ReadJobLogsRequest(
        job_execution_id=job_id, stream=jobs_pb2.LOG_STREAM_STDOUT, follow=True, offset=99_990
    )
    with calling(ORCHESTRATOR):
        stream = host.servicer.ReadJobLogs(request, None)
        first = await anext(stream)
        assert (first.data, first.next_offset) == (b"x" * 10, 100_000)
        with place.stdout.open("ab") as file:
            file.write(b"the end")
        await host.runner.finish(control, ended(0))
        await host.until(job_id, JobStatus.COMPLETED)

        async def rest() -> bytes:
            return b"".join([piece.data async for piece in stream])

        reading = asyncio.ensure_future(rest())
        while not reading.done():
            host.clock.advance(0.2)
            await asyncio.sleep(0)
        assert reading.result() == b"the end"


async def test_a_log_that_was_replaced_by_a_link_is_not_followed(host: Host) -> None:
    job_id = await host.create()
    place = host.floor.places.of(await host.job(job_id))
    place.logs.mkdir(parents=True)
    (host.data_dir / "identity.key").write_text("secret")
    place.stdout.symlink_to(host.data_dir / "identity.key")
    with calling(ORCHESTRATOR):
        request = jobs_pb2.ReadJobLogsRequest(job_execution_id=job_id)
        assert [piece async for piece in host.servicer.ReadJobLogs(request, None)] == []
