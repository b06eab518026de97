"""One job on one machine: from its creation to what is sent, tried again, cancelled or expired."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from peerd.errors import PeerdError, Reason
from peerd.jobs import files
from peerd.jobs.choosing import Choice
from peerd.jobs.model import JobFile, JobStatus
from peerd.jobs.occupancy import doubt_open
from peerd.jobs.runner import Outcome
from peerd.v1 import jobs_pb2

from .harness import CONSUMER, EXECUTOR, ORCHESTRATOR, OTHER, Host, ended, interface, job_key, receiver_at, sender_at


async def running(host: Host, *interfaces: jobs_pb2.JobInterface, **fields: Any) -> int:
    job_id = await host.create(**fields)
    await host.start(job_id, *interfaces)
    await host.runner.started()
    await host.until(job_id, JobStatus.RUNNING)
    return job_id


async def test_a_job_runs_completes_and_sends_what_it_made(host: Host) -> None:
    job_id = await running(host, interface("output", receiver_at(5)), interface("stdout", receiver_at(6)))
    control = await host.runner.started()
    place = host.floor.places.of(await host.job(job_id))
    assert host.runner.specs[control].job_directory == place.directory
    (place.output / "made.txt").write_text("made\n")
    assert host.sends.orders == []
    await host.runner.finish(control, ended(0))
    job = await host.until(job_id, JobStatus.COMPLETED)
    assert job.exit_code == 0
    assert [(order.key.edge_id, order.source.root, order.source.only) for order in host.sends.orders] == [
        (5, place.output, None),
        (6, place.logs, "stdout.txt"),
    ]
    key = host.sends.orders[0].key
    assert (key.orchestrator, key.source_peer_id, key.source_job_execution_id) == (ORCHESTRATOR, EXECUTOR, job_id)
    assert (key.destination_peer_id, key.destination_job_execution_id) == (CONSUMER, 90)
    listed = await host.store.all("SELECT path, size FROM job_files WHERE job_execution_id = ?", (job_id,))
    assert [tuple(row) for row in listed] == [("output/made.txt", 5)]


async def test_params_and_environment_reach_the_process_and_nothing_else_does(host: Host) -> None:
    await running(host, service="greet", params={"who": "a b; ${count} $(id)"}, env={"LOCALE": "C"})
    spec = host.runner.specs[await host.runner.started()]
    assert spec.argv == ("/bin/echo", "--to=a b; ${count} $(id)", "2 times a b; ${count} $(id)")
    assert dict(spec.env) == {"FIXED": "1", "LOCALE": "C"}


async def test_stdin_is_the_received_files_in_the_order_of_the_edges(host: Host) -> None:
    job_id = await host.create()
    stdin = interface(
        "stdin", sender_at(1, destination="x", position=1), sender_at(2, job_id=71, destination="y", position=0)
    )
    await host.start(job_id, stdin)
    await host.receive(host.incoming(job_id, 1), "stdout.txt")
    await host.receive(host.incoming(job_id, 2, source_job=71), "b.txt", "a.txt")
    spec = host.runner.specs[await host.runner.started()]
    assert [str(path.relative_to(spec.job_directory)) for path in spec.stdin_files] == [
        "input/y/a.txt",
        "input/y/b.txt",
        "input/x/stdout.txt",
    ]


async def test_another_try_keeps_the_inputs_and_empties_what_it_made(host: Host) -> None:
    retry = jobs_pb2.RetryPolicy(attempts=3, backoff_seconds=2)
    job_id = await host.create(retry=retry)
    await host.start(
        job_id,
        interface("input", sender_at(1)),
        interface("output", receiver_at(2)),
        interface("mount", sender_at(3), path="both"),
        interface("mount", receiver_at(4), path="both"),
    )
    await host.receive(host.incoming(job_id, 1), "in.txt")
    await host.receive(host.incoming(job_id, 3), "given.txt")
    control = await host.runner.started(1)
    place = host.floor.places.of(await host.job(job_id))
    for made in (place.output / "half.txt", place.mount("both") / "deep" / "half.txt"):
        made.parent.mkdir(exist_ok=True)
        made.write_text("half")
    await host.runner.finish(control, ended(3))
    job = await host.until(job_id, JobStatus.READY)
    assert job.next_try_at == host.clock.now() + 2000
    assert "attempt 1 of 3: exited with code 3" in job.message
    assert len(host.runner.specs) == 1
    host.pass_time(2.1)
    control = await host.runner.started(2)
    assert (await host.job(job_id)).id == job_id
    left = {str(path.relative_to(place.directory)) for path in place.directory.rglob("*") if path.is_file()}
    assert left == {"input/in.txt", "mounts/both/given.txt"}
    assert host.sends.orders == []
    await host.runner.finish(control, ended(0))
    assert (await host.until(job_id, JobStatus.COMPLETED)).attempt == 2


async def test_a_job_fails_once_its_tries_are_spent_and_sends_nothing(host: Host) -> None:
    job_id = await running(host, interface("output", receiver_at(2)))
    await host.runner.finish(await host.runner.started(), ended(9))
    job = await host.until(job_id, JobStatus.FAILED)
    assert (job.reason, job.exit_code, job.message) == ("exit", 9, "exited with code 9")
    assert host.sends.orders == []


@pytest.mark.parametrize(
    ("reasons", "status"), [([], JobStatus.READY), (["timeout"], JobStatus.READY), (["exit"], JobStatus.FAILED)]
)
async def test_a_timeout_is_tried_again_if_the_policy_says_so(
    host: Host, reasons: list[str], status: JobStatus
) -> None:
    job_id = await running(host, timeout_seconds=3, retry=jobs_pb2.RetryPolicy(attempts=2, reasons=reasons))
    control = await host.runner.started()
    assert host.runner.specs[control].timeout_seconds == 3
    await host.runner.finish(control, ended(143, outcome=Outcome.TIMED_OUT))
    assert (await host.until(job_id, status)).reason == ("retry" if status is JobStatus.READY else "timeout")


async def test_truncated_stdout_fails_a_job_only_if_somebody_needs_it(host: Host) -> None:
    needed = await running(host, interface("stdout", receiver_at(1)))
    await host.runner.finish(await host.runner.started(1), ended(0, stdout_truncated=True))
    assert (await host.until(needed, JobStatus.FAILED)).reason == "output_truncated"
    other = await host.create(key=job_key(28))
    await host.start(other, key=job_key(28))
    await host.runner.finish(await host.runner.started(2), ended(0, stdout_truncated=True))
    await host.until(other, JobStatus.COMPLETED)


async def test_what_cannot_be_started_fails_with_the_cause(host: Host) -> None:
    host.runner.start_error = OSError("no space for another process")
    job_id = await host.create()
    await host.start(job_id)
    job = await host.until(job_id, JobStatus.FAILED)
    assert job.message == "could not be started: no space for another process"


async def test_no_more_jobs_run_at_once_than_there_is_room_for(host: Host) -> None:
    ids = []
    for number in range(1, 7):
        ids.append(await host.create(key=job_key(number)))
        await host.start(ids[-1], key=job_key(number))
    await host.runner.started(4)
    statuses = [(await host.job(job_id)).status for job_id in ids]
    assert statuses == [JobStatus.RUNNING] * 4 + [JobStatus.READY] * 2
    assert host.jobs.executor.running == 4
    await host.runner.finish(next(iter(host.runner.specs)), ended(0))
    await host.until(ids[4], JobStatus.RUNNING)
    assert (await host.job(ids[5])).status is JobStatus.READY


async def test_a_data_job_offers_its_path_and_is_over_even_when_there_is_no_room(host: Host) -> None:
    for number in range(1, 5):
        await host.start(await host.create(key=job_key(number)), key=job_key(number))
    await host.runner.started(4)
    folder = host.data_dir.parent / "books"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b.txt").write_text("book")
    await host.catalog.sync([{"name": "books", "kind": "SERVICE_KIND_DATA", "path": str(folder)}])
    job_id = await host.create(key=job_key(9), service="books")
    await host.start(job_id, interface("output", receiver_at(1)), key=job_key(9))
    await host.until(job_id, JobStatus.COMPLETED)
    assert [order.source.root for order in host.sends.orders] == [folder]
    assert len(host.runner.specs) == 4
    listed = await host.store.one("SELECT path, size FROM job_files WHERE job_execution_id = ?", (job_id,))
    assert listed is not None
    assert tuple(listed) == ("sub/b.txt", 4)


async def test_a_data_job_whose_path_is_gone_fails(host: Host) -> None:
    await host.catalog.sync([{"name": "gone", "kind": "SERVICE_KIND_DATA", "path": "/nowhere/at/all"}])
    job_id = await host.create(service="gone")
    await host.start(job_id)
    assert "cannot be offered: No such file" in (await host.until(job_id, JobStatus.FAILED)).message


async def test_what_is_offered_is_listed_once_at_a_time_also_beside_a_listing_that_fails(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.stop()
    paths = {name: host.data_dir.parent / name for name in ("odd", "slow")}
    services = []
    for name, path in paths.items():
        path.mkdir()
        services.append({"name": name, "kind": "SERVICE_KIND_DATA", "path": str(path)})
    await host.catalog.sync(services)
    ids = {}
    for number, name in enumerate(paths, start=1):
        ids[name] = await host.create(key=job_key(number), service=name)
        await host.start(ids[name], key=job_key(number))
    listed, looks, may_end = files.offered_files, {"odd": 0, "slow": 0}, threading.Event()

    def listing(path: Path) -> list[JobFile]:
        looks[path.name] += 1
        if path == paths["slow"]:
            assert may_end.wait(30)
        elif looks["odd"] == 1:
            raise RuntimeError("of any kind")
        return listed(path)

    monkeypatch.setattr(files, "offered_files", listing)
    host.run()
    async with asyncio.timeout(30):
        while looks != {"odd": 1, "slow": 1}:
            await asyncio.sleep(0.01)
    for _ in range(5):
        host.pass_time(2)
        await host.job(ids["slow"])
    assert looks == {"odd": 1, "slow": 1}, "the slow one is still being listed"
    may_end.set()
    await host.until(ids["slow"], JobStatus.COMPLETED)
    host.pass_time(2)
    await host.until(ids["odd"], JobStatus.COMPLETED)
    assert looks == {"odd": 2, "slow": 1}


async def test_files_whose_names_are_no_text_are_listed_by_their_bytes(host: Host) -> None:
    job_id = await running(host)
    control, place = await host.runner.started(), host.floor.places.of(await host.job(job_id))
    for folder in (place.output, host.data_dir.parent / "old"):
        folder.mkdir(exist_ok=True)
        (folder / os.fsdecode(b"caf\xe9")).write_text("latin-1")
        (folder / "caf\\xe9").write_text("what it is listed as")
    await host.runner.finish(control, ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    folder = host.data_dir.parent / "old"
    await host.catalog.sync([{"name": "old", "kind": "SERVICE_KIND_DATA", "path": str(folder)}])
    offering = await host.create(key=job_key(28), service="old")
    await host.start(offering, key=job_key(28))
    await host.until(offering, JobStatus.COMPLETED)
    rows = await host.store.all("SELECT job_execution_id, path FROM job_files ORDER BY job_execution_id")
    assert [tuple(row) for row in rows] == [(job_id, "output/caf\\xe9"), (offering, "caf\\xe9")]


@pytest.mark.parametrize("set_by", [86_400, -86_400], ids=["ahead", "back"])
async def test_setting_the_clock_changes_nothing_about_when_an_engine_that_was_away_is_asked_again(
    host: Host, set_by: float
) -> None:
    host.clock.set(set_by)
    host.runner.start_error = PeerdError(Reason.ENGINE_UNAVAILABLE, "no container engine answers on this machine")
    job_id = await host.create()
    await host.start(job_id)
    async with asyncio.timeout(30):
        while (await host.job(job_id)).reason != "engine_unavailable":
            await asyncio.sleep(0.01)
    host.runner.start_error = None
    host.pass_time(9)
    await host.start(await host.create(key=job_key(28)), key=job_key(28))
    await host.runner.started(1)  # the executor has looked by now
    assert (await host.job(job_id)).status is JobStatus.READY
    host.pass_time(2)
    await host.until(job_id, JobStatus.RUNNING)


# Cancel


async def test_a_running_job_is_stopped_and_the_answer_is_its_end(host: Host) -> None:
    job_id = await running(host)
    report = await host.cancel()
    assert report.status == jobs_pb2.JOB_STATUS_CANCELLED
    assert report.message == "enough"
    assert len(host.runner.stopped) == 1
    assert (await host.job(job_id)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("stage", ["created", "waiting", "ready"])
async def test_a_job_without_process_is_cancelled_at_once(host: Host, stage: str) -> None:
    retry = jobs_pb2.RetryPolicy(attempts=2, backoff_seconds=60)
    job_id = await host.create(retry=retry)
    if stage == "waiting":
        await host.start(job_id, interface("input", sender_at(1)))
    if stage == "ready":
        await host.start(job_id)
        await host.runner.finish(await host.runner.started(), ended(1))
        await host.until(job_id, JobStatus.READY)
    assert (await host.cancel()).status == jobs_pb2.JOB_STATUS_CANCELLED
    assert host.runner.stopped == []


async def test_a_cancel_after_the_end_was_committed_changes_nothing(host: Host) -> None:
    job_id = await running(host)
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    before = await host.job(job_id)
    assert (await host.cancel()).status == jobs_pb2.JOB_STATUS_COMPLETED
    assert await host.job(job_id) == before


async def test_an_exit_that_comes_after_the_wish_was_committed_is_a_cancel(host: Host) -> None:
    job_id = await running(host, interface("output", receiver_at(1)))
    host.runner.may_stop.clear()
    cancelling = asyncio.ensure_future(host.cancel())
    while not host.runner.stopped:
        await asyncio.sleep(0)
    await host.runner.finish(await host.runner.started(), ended(0))
    host.runner.may_stop.set()
    assert (await cancelling).status == jobs_pb2.JOB_STATUS_CANCELLED
    assert (await host.job(job_id)).status is JobStatus.CANCELLED
    assert host.sends.orders == []


async def test_a_process_that_takes_long_to_stop_does_not_hold_up_the_answer(host: Host) -> None:
    job_id = await running(host)
    host.runner.may_stop.clear()
    cancelling = asyncio.ensure_future(host.cancel())
    while not host.runner.stopped:
        await asyncio.sleep(0)
    host.pass_time(2.5)
    report = await cancelling
    assert (report.status, report.reason) == (jobs_pb2.JOB_STATUS_RUNNING, "cancelling")
    host.runner.may_stop.set()
    await host.until(job_id, JobStatus.CANCELLED)


async def test_a_repeated_wish_is_recorded_once(host: Host) -> None:
    job_id = await running(host)
    host.runner.may_stop.clear()
    wishes = [asyncio.ensure_future(host.cancel())]
    while not host.runner.stopped:
        await asyncio.sleep(0)
    revision = (await host.job(job_id)).revision
    wishes.append(asyncio.ensure_future(host.cancel()))
    wishes.append(asyncio.ensure_future(host.cancel()))
    await host.sync(job_key())  # written after both
    assert (await host.job(job_id)).revision == revision
    host.runner.may_stop.set()
    assert {report.status for report in await asyncio.gather(*wishes)} == {jobs_pb2.JOB_STATUS_CANCELLED}
    assert len(host.runner.stopped) == 1


async def test_the_wish_to_cancel_survives_a_restart(host: Host) -> None:
    job_id = await running(host)
    host.runner.may_stop.clear()
    cancelling = asyncio.ensure_future(host.cancel())
    while not host.runner.stopped:
        await asyncio.sleep(0)
    cancelling.cancel()
    await host.stop()
    host.runner.may_stop.set()
    await host.restart()
    assert (await host.until(job_id, JobStatus.CANCELLED)).message == "enough"


async def test_a_cancel_before_its_create_wins(host: Host) -> None:
    report = await host.cancel()
    assert (report.status, report.job_execution_id) == (jobs_pb2.JOB_STATUS_CANCELLED, 0)
    with pytest.raises(PeerdError) as refused:
        await host.create()
    assert refused.value.reason is Reason.JOB_CANCELLED
    assert await host.create(key=job_key(placement=2)) > 0
    assert await host.create(caller=OTHER) > 0


# Recovery


async def test_a_job_that_finished_while_the_daemon_was_down_is_recorded_as_finished(host: Host) -> None:
    job_id = await running(host, interface("output", receiver_at(1)))
    await host.stop()
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.restart()
    job = await host.until(job_id, JobStatus.COMPLETED)
    assert job.ended_at == 2
    assert len(host.sends.orders) == 1
    assert len(host.runner.specs) == 1


async def test_a_job_that_still_runs_is_watched_again(host: Host) -> None:
    job_id = await running(host)
    await host.restart()
    await host.runner.finish(await host.runner.started(), ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    assert len(host.runner.specs) == 1


async def test_an_attempt_that_never_started_is_made_and_counts_once(host: Host) -> None:
    await host.stop()
    job_id = await host.create()
    await host.start(job_id)
    choice = Choice(start=(job_id,), waits={})
    begun = await host.store.write(lambda tx: host.jobs.executor._recording.begin(tx, choice, 2, lambda job: {}))
    assert [entry.job.id for entry in begun] == [job_id]
    await host.restart()
    await host.runner.finish(await host.runner.started(), ended(0))
    job = await host.until(job_id, JobStatus.COMPLETED)
    assert job.attempt == 1
    rows = await host.store.all("SELECT attempt, outcome FROM job_attempts ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, "never_started"), (1, "exit")]


@pytest.mark.parametrize("knows_by", ["recover", "wait"])
async def test_a_lost_job_is_never_run_again_in_silence(host: Host, knows_by: str) -> None:
    job_id = await running(host, retry=jobs_pb2.RetryPolicy(attempts=5))
    control = await host.runner.started()
    if knows_by == "recover":
        await host.stop()
        host.runner.lost.add(control)
        await host.restart()
    else:
        await host.runner.finish(control, None)
    job = await host.until(job_id, JobStatus.LOST)
    assert job.reason == "lost"
    assert len(host.runner.specs) == 1


async def test_a_lost_job_is_run_again_when_its_policy_says_so(host: Host) -> None:
    job_id = await running(host, retry=jobs_pb2.RetryPolicy(attempts=2, backoff_seconds=1, reasons=["lost"]))
    await host.stop()
    host.runner.lost.add(await host.runner.started())
    await host.restart()
    await host.until(job_id, JobStatus.READY)
    host.pass_time(1.1)
    await host.runner.finish(await host.runner.started(2), ended(0))
    assert (await host.until(job_id, JobStatus.COMPLETED)).attempt == 2


async def test_the_pause_before_another_try_survives_a_restart(host: Host) -> None:
    job_id = await running(host, retry=jobs_pb2.RetryPolicy(attempts=2, backoff_seconds=30))
    await host.runner.finish(await host.runner.started(), ended(1))
    await host.until(job_id, JobStatus.READY)
    await host.restart()
    host.pass_time(10)
    assert (await host.job(job_id)).status is JobStatus.READY
    host.pass_time(25)
    await host.runner.started(2)


async def test_of_a_restored_store_only_jobs_whose_attempts_can_be_asked_go_on(host: Host) -> None:
    job_id = await running(host)
    await host.runner.started()
    waiting = await host.create(key=job_key(28))
    await host.start(waiting, interface("input", sender_at(1)), key=job_key(28))
    before = await host.job(job_id)
    await host.stop()
    row = await host.store.one("SELECT id FROM job_attempts")
    assert row is not None
    assert await host.store.write(lambda tx: doubt_open(tx, {row["id"]})) == 1
    await host.restart()
    answer = await host.sync(job_key(), job_key(28))
    assert list(answer.unknown) == [job_key(28)], "its orchestrator hears that it is lost"
    assert answer.reports[0].revision > before.revision + 1000, "whatever was said before the restore is older"
    await host.runner.finish(await host.runner.started(), ended(0))
    assert (await host.until(job_id, JobStatus.COMPLETED)).attempt == 1


# Leases


async def test_a_job_created_and_never_started_expires_unless_it_is_asked_for(host: Host) -> None:
    job_id = await host.create()
    asked = await host.create(key=job_key(28))
    host.pass_time(3500)
    await host.sync(job_key(28))
    host.pass_time(200)
    job = await host.until(job_id, JobStatus.FAILED)
    assert job.reason == "refused"
    assert "not started" in job.message
    assert (await host.job(asked)).status is JobStatus.CREATED


async def test_silence_while_the_daemon_was_down_does_not_expire_a_job(host: Host) -> None:
    job_id = await host.create()
    await host.stop()
    host.clock.advance(7200)
    await host.restart()
    later = await host.create(key=job_key(28))
    await host.start(later, key=job_key(28))
    await host.runner.started()  # the executor has looked at everything by now
    assert (await host.job(job_id)).status is JobStatus.CREATED
    host.pass_time(3700)
    await host.until(job_id, JobStatus.FAILED)


@pytest.mark.parametrize("policy", [jobs_pb2.PARTITION_POLICY_FINISH, jobs_pb2.PARTITION_POLICY_STOP])
async def test_when_its_lease_runs_out_a_job_follows_its_policy(
    host: Host, policy: jobs_pb2.PartitionPolicy.ValueType
) -> None:
    job_id = await running(host, lease_seconds=60, partition_policy=policy)
    control = await host.runner.started()
    host.pass_time(50)
    await host.sync(job_key())
    host.pass_time(50)
    await host.until(job_id, JobStatus.RUNNING)
    host.pass_time(61)
    if policy == jobs_pb2.PARTITION_POLICY_STOP:
        job = await host.until(job_id, JobStatus.FAILED)
        assert job.reason == "lost"
        assert "not heard from" in job.message
        assert host.runner.stopped == [control]
    else:
        await host.runner.finish(control, ended(0))
        await host.until(job_id, JobStatus.COMPLETED)


async def test_setting_the_clock_ahead_ends_no_lease(host: Host) -> None:
    created = await host.create()
    leased = await host.create(key=job_key(28), lease_seconds=60, partition_policy=jobs_pb2.PARTITION_POLICY_STOP)
    await host.start(leased, key=job_key(28))
    control = await host.runner.started(1)
    host.clock.set(86_400)
    host.pass_time(1)
    later = await host.create(key=job_key(29))
    await host.start(later, key=job_key(29))
    await host.runner.started(2)  # the executor has looked at everything by now
    assert ((await host.job(created)).status, (await host.job(leased)).status) == (JobStatus.CREATED, JobStatus.RUNNING)
    assert control not in host.runner.stopped
    host.pass_time(61)
    assert (await host.until(leased, JobStatus.FAILED)).reason == "lost"


async def test_setting_the_clock_back_prolongs_no_lease_and_no_pause(host: Host) -> None:
    leased = await running(host, lease_seconds=60, partition_policy=jobs_pb2.PARTITION_POLICY_STOP)
    again = await host.create(key=job_key(28), retry=jobs_pb2.RetryPolicy(attempts=2, backoff_seconds=30))
    await host.start(again, key=job_key(28))
    await host.runner.finish(await host.runner.started(2), ended(1))
    await host.until(again, JobStatus.READY)
    host.clock.set(-86_400)
    host.pass_time(50)
    await host.runner.started(3)
    host.pass_time(11)
    assert (await host.until(leased, JobStatus.FAILED)).reason == "lost"


async def test_an_interface_that_cannot_be_read_ends_its_own_job_and_no_other(host: Host) -> None:
    ids = []
    for number in (1, 2):
        key = job_key(number)
        ids.append(await host.create(key=key))
        await host.start(ids[-1], interface("output", receiver_at(5)), key=key)
        await host.runner.started(number)
    damaged, well = ids
    await host.store.write(
        lambda tx: tx.execute("UPDATE job_edges SET selection = '{' WHERE job_execution_id = ?", (damaged,)).rowcount
    )
    await host.stop()
    for control in list(host.runner.specs):
        await host.runner.finish(control, ended(0))
    await host.restart()
    await host.until(well, JobStatus.COMPLETED)
    reports = (await host.sync(job_key(1), job_key(2))).reports
    assert {report.job_execution_id for report in reports} == {damaged, well}
    assert (await host.until(damaged, JobStatus.FAILED)).reason == "lost"
    (kept,) = await host.store.all("SELECT source FROM quarantine")
    assert kept["source"] == "job_edges"
