"""What the jobs of one orchestrator may occupy, how that is known while they run, and when their files go."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peerd import trees
from peerd.clock import FakeClock
from peerd.disk import NOTHING_KEPT
from peerd.errors import PeerdError, Reason
from peerd.identity.peer_id import PeerId
from peerd.jobs.files import made_files
from peerd.jobs.model import JobStatus
from peerd.jobs.paths import JobPlace
from peerd.retention import Wanted
from peerd.space.leftovers import Leftovers
from peerd.store import Store
from peerd.transfers.manifest import Manifest, scan
from peerd.transfers.model import Source, TransferKey
from peerd.transfers.receiver import Limits, Receiver

from .harness import EXECUTOR, ORCHESTRATOR, OTHER, SERVICES, Host, ended, interface, job_key, sender_at

MB = 1024**2
DAY = 86_400


@pytest.fixture
async def limited(store: Store, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Host]:
    """A machine on which the jobs of another peer may occupy 4 MiB."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    made = Host(store, clock, data_dir, quota_bytes_per_orchestrator=4 * MB)
    await made.catalog.sync(SERVICES)
    made.run()
    yield made
    await made.stop()


async def eventually(host: Host, condition: Callable[[], bool]) -> None:
    """Let time pass until it holds."""
    async with asyncio.timeout(30):
        while not condition():
            host.pass_time(6)
            await asyncio.sleep(0.01)


# What is sent to a job that waits


def parcel(folder: Path, megabytes: int) -> tuple[Manifest, bytes]:
    folder.mkdir()
    (folder / "f").write_bytes(os.urandom(megabytes * MB))
    return scan(Source(root=folder)).manifest, (folder / "f").read_bytes()


async def waiting(host: Host, number: int, *, caller: PeerId = ORCHESTRATOR) -> TransferKey:
    """A job that waits for one edge."""
    key = job_key(number)
    job_id = await host.create(caller=caller, key=key)
    await host.start(job_id, interface("input", sender_at(number)), caller=caller, key=key)
    expected = host.incoming(job_id, number)
    return TransferKey(**{**expected.__dict__, "orchestrator": caller})


def receiver(host: Host) -> Receiver:
    return Receiver(EXECUTOR, host.store, host.floor.expectations, Limits(reserve=NOTHING_KEPT))


async def push(to: Receiver, key: TransferKey, manifest: Manifest, content: bytes) -> None:
    async def pieces() -> AsyncIterator[tuple[int, int, bytes]]:
        yield 0, 0, content

    await to.push(key, manifest.digest(), pieces())


async def test_offers_that_come_at_once_are_not_promised_the_same_room(limited: Host, tmp_path: Path) -> None:
    manifest, content = parcel(tmp_path / "out", 3)
    keys = [await waiting(limited, number) for number in (1, 2, 3)]
    here = receiver(limited)
    answers = await asyncio.gather(
        *(here.offer(key, manifest.digest(), manifest.files) for key in keys), return_exceptions=True
    )
    refused = [each for each in answers if isinstance(each, PeerdError)]
    assert [each.reason for each in refused] == [Reason.STORAGE_QUOTA] * 2 and refused[0].retryable
    (taken,) = [key for key, answer in zip(keys, answers, strict=True) if not isinstance(answer, PeerdError)]
    (other, _) = [key for key in keys if key != taken]
    job = await limited.job(other.destination_job_execution_id)
    assert (job.status, job.reason) == (JobStatus.WAITING_INPUTS, "storage_quota")
    assert "input from producer" in job.message and f"{MB} more may be sent" in job.message
    # A new daemon knows what was promised: the same offer is taken again, another is not.
    here = receiver(limited)
    assert await here.offer(taken, manifest.digest(), manifest.files) is not None
    with pytest.raises(PeerdError, match="do not fit"):
        await here.offer(other, manifest.digest(), manifest.files)
    assert (await limited.job(other.destination_job_execution_id)).revision == job.revision, "it is told once"
    await push(here, taken, manifest, content)
    assert (await limited.job(taken.destination_job_execution_id)).bytes_received == 3 * MB
    with pytest.raises(PeerdError, match="do not fit"):
        await here.offer(other, manifest.digest(), manifest.files)


async def test_a_transfer_that_waited_for_room_is_taken_when_there_is_some(limited: Host, tmp_path: Path) -> None:
    manifest, content = parcel(tmp_path / "out", 3)
    first, second = [await waiting(limited, number) for number in (1, 2)]
    here = receiver(limited)
    await here.offer(first, manifest.digest(), manifest.files)
    with pytest.raises(PeerdError):
        await here.offer(second, manifest.digest(), manifest.files)
    assert (await limited.cancel(key=job_key(1))).status, "what was promised to a job that has ended is free again"
    assert await here.offer(second, manifest.digest(), manifest.files) == [(0, 0)]
    job = await limited.job(second.destination_job_execution_id)
    assert (job.status, job.reason) == (JobStatus.WAITING_INPUTS, "inputs"), "it says no longer that there is no room"
    await push(here, second, manifest, content)
    await limited.until(job.id, JobStatus.RUNNING)


async def test_other_peers_are_limited_and_the_owner_is_not(limited: Host, tmp_path: Path) -> None:
    manifest, _ = parcel(tmp_path / "out", 5)
    own, strange = await waiting(limited, 1, caller=EXECUTOR), await waiting(limited, 2, caller=OTHER)
    here = receiver(limited)
    assert await here.offer(own, manifest.digest(), manifest.files) is not None
    with pytest.raises(PeerdError, match="do not fit"):
        await here.offer(strange, manifest.digest(), manifest.files)


async def test_nobody_is_limited_without_a_quota(host: Host, tmp_path: Path) -> None:
    manifest, _ = parcel(tmp_path / "out", 5)
    assert await receiver(host).offer(await waiting(host, 3), manifest.digest(), manifest.files) is not None


# What a running job writes


async def running(host: Host, number: int, **fields: Any) -> tuple[int, Path, Path]:
    """(id, its directory, its control directory) of a job whose process runs."""
    key, before = job_key(number), len(host.runner.specs)
    job_id = await host.create(key=key, **fields)
    await host.start(job_id, key=key, caller=fields.get("caller", ORCHESTRATOR))
    control = await host.runner.started(before + 1)
    return job_id, host.floor.places.of(await host.job(job_id)).directory, control


async def measured(host: Host, job_id: int, at_least: int) -> None:
    async with asyncio.timeout(30):
        while (await host.job(job_id)).disk_bytes < at_least:
            host.pass_time(6)
            await asyncio.sleep(0.01)


async def test_a_job_that_exceeds_the_quota_is_ended_and_others_go_on(limited: Host) -> None:
    calm, calm_place, calm_control = await running(limited, 1)
    (calm_place / "output" / "some").write_bytes(b"x" * (2 * MB))
    await measured(limited, calm, 2 * MB)
    wild, wild_place, wild_control = await running(limited, 2, retry={"attempts": 3})
    (wild_place / "output" / "much").write_bytes(b"x" * (3 * MB))
    (wild_place / "elsewhere").write_bytes(b"x" * MB)
    (wild_place / "logs" / "stdout.txt").write_text("said\n")
    await eventually(limited, lambda: wild_control in limited.runner.stopped)
    job = await limited.until(wild, JobStatus.FAILED)
    assert job.reason == "storage_quota" and "what it had made is removed" in job.message
    assert [path.name for path in wild_place.rglob("*") if path.is_file()] == ["stdout.txt"]
    assert job.disk_bytes < MB
    assert limited.runner.stopped == [wild_control], "the other one stays as it is"
    assert (await limited.job(calm)).status is JobStatus.RUNNING
    await limited.runner.finish(calm_control, ended(0))
    await limited.until(calm, JobStatus.COMPLETED)


async def test_what_it_received_stays(limited: Host) -> None:
    job_id = await limited.create()
    await limited.start(job_id, interface("input", sender_at(4)))
    place = await limited.receive(limited.incoming(job_id, 4), "a", "deep/b")
    control = await limited.runner.started()
    (place / "own").write_bytes(b"x" * (5 * MB))
    await eventually(limited, lambda: control in limited.runner.stopped)
    await limited.until(job_id, JobStatus.FAILED)
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == ["a", "b"]


async def test_the_wish_to_end_it_survives_a_restart(limited: Host) -> None:
    limited.runner.may_stop.clear()
    job_id, place, control = await running(limited, 1)
    (place / "output" / "much").write_bytes(b"x" * (5 * MB))
    await eventually(limited, lambda: control in limited.runner.stopped)
    await limited.stop()
    limited.runner.may_stop.set()
    await limited.runner.finish(control, ended(0))
    await limited.restart()
    job = await limited.until(job_id, JobStatus.FAILED)
    assert job.reason == "storage_quota" and not (place / "output" / "much").exists()


async def test_a_job_that_writes_no_more_is_let_be_though_the_quota_was_lowered(limited: Host) -> None:
    job_id, place, control = await running(limited, 1)
    (place / "output" / "some").write_bytes(b"x" * (3 * MB))
    await measured(limited, job_id, 3 * MB)
    limited.config = type(limited.config)(max_running=4, quota_bytes_per_orchestrator=2 * MB)
    await limited.restart()
    with pytest.raises(PeerdError) as refused:
        await limited.create(key=job_key(9))
    assert refused.value.reason is Reason.STORAGE_QUOTA
    small = place / "output" / "small"
    for number in range(5):
        before = await limited.job(job_id)
        limited.pass_time(6)
        await asyncio.sleep(0.02)
        assert (await limited.job(job_id)).stop is None and before.disk_bytes >= 3 * MB, number
    small.write_bytes(b"x" * 5000)
    await eventually(limited, lambda: control in limited.runner.stopped)


async def test_a_job_that_writes_little_is_let_be_though_its_orchestrator_is_over_the_quota(limited: Host) -> None:
    done, place, control = await running(limited, 1)
    calm, calm_place, calm_control = await running(limited, 2)
    (place / "output" / "much").write_bytes(b"x" * (5 * MB))
    await limited.runner.finish(control, ended(0))
    await limited.until(done, JobStatus.COMPLETED)
    (calm_place / "logs" / "stdout.txt").write_bytes(b"x" * (MB // 2))
    await measured(limited, calm, MB // 2)
    assert limited.runner.stopped == []
    (calm_place / "output" / "more").write_bytes(b"x" * MB)
    await eventually(limited, lambda: calm_control in limited.runner.stopped)
    await limited.until(calm, JobStatus.FAILED)


async def test_the_owners_own_jobs_have_no_quota(limited: Host) -> None:
    own = await limited.create(caller=EXECUTOR)
    await limited.start(own, caller=EXECUTOR)
    control = await limited.runner.started()
    place = limited.floor.places.of(await limited.job(own)).directory
    (place / "output" / "much").write_bytes(b"x" * (6 * MB))
    other, _, _ = await running(limited, 5)
    await measured(limited, other, 1)
    assert (await limited.job(own)).disk_bytes == 0 and limited.runner.stopped == []
    await limited.runner.finish(control, ended(0))
    await limited.until(own, JobStatus.COMPLETED)


@contextmanager
def somebody() -> Iterator[Path]:
    """A directory of a plain user, whom permissions hold up, and we are that user."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder) / "job"
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o100])
def test_a_job_cannot_hide_what_it_wrote_behind_closed_directories(mode: int) -> None:
    with somebody() as place:
        inside = place / "closed" / "within"
        inside.mkdir(parents=True)
        (inside / "much").write_bytes(b"x" * MB)
        for folder in (inside, inside.parent, place):
            folder.chmod(mode)
        assert trees.measure(place, opening=True) > MB
        assert trees.measure(place, without=place / "closed", opening=True) < MB


def test_what_a_job_made_is_found_behind_closed_directories() -> None:
    with somebody() as folder:
        place = JobPlace(
            data_dir=folder, orchestrator=OTHER, workflow_execution_id=1, executor=EXECUTOR, job_execution_id=1
        )
        inside = place.output / "closed" / "within"
        inside.mkdir(parents=True)
        (inside / "made").write_text("made\n")
        inside.chmod(0o400)
        inside.parent.chmod(0o000)
        assert [file.path for file in made_files(place, ())] == ["output/closed/within/made"]


# When files go


async def over(host: Host, job_id: int, number: int) -> None:
    await host.runner.finish(list(host.runner.specs)[-1], ended(0))
    await host.until(job_id, JobStatus.COMPLETED)
    assert (await host.sync(job_key(number))).reports


async def test_files_of_an_orchestrator_that_is_never_heard_of_again_go_late(host: Host) -> None:
    job_id, place, _ = await running(host, 1)
    await over(host, job_id, 1)
    retention = host.jobs.retention
    host.pass_time(8 * DAY)
    assert await retention.find(Wanted()) == [], "it may still have to send them again"
    host.pass_time(20 * DAY)
    await host.sync(job_key(1))
    host.pass_time(29 * DAY)
    assert await retention.find(Wanted(older_than_ms=0)) == [], "its orchestrator was heard of 29 days ago"
    host.pass_time(2 * DAY)
    (found,) = await retention.find(Wanted())
    assert (found.job_execution_id, found.orchestrator, found.path) == (job_id, ORCHESTRATOR, place)
    assert await retention.collect(Wanted()) == [found] and found.bytes > 0
    assert not place.exists() and (await host.job(job_id)).files == "removed"


async def test_files_that_are_kept_stay_though_their_orchestrator_is_never_heard_of_again(host: Host) -> None:
    job_id, place, _ = await running(host, 1)
    await over(host, job_id, 1)
    job = await host.job(job_id)
    await host.jobs.retention.release([job.key], keep=True)
    host.pass_time(400 * DAY)
    assert await host.jobs.retention.collect(Wanted()) == [] and place.is_dir()
    await host.jobs.retention.release([job.key], keep=False)
    assert [each.job_execution_id for each in await host.jobs.retention.collect(Wanted())] == [job_id]


async def test_a_directory_that_cannot_be_removed_keeps_no_other_and_goes_when_it_can(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {}
    for number in (1, 2):
        job_id, place, _ = await running(host, number)
        await over(host, job_id, number)
        await host.jobs.retention.release([(await host.job(job_id)).key], keep=False)
        places[job_id] = place
    (stuck, bad), (other, good) = places.items()
    host.pass_time(400 * DAY)
    remove = trees.remove

    def refuse(path: Path, *, up_to: Path) -> None:
        if path == bad:
            raise PermissionError(1, "Operation not permitted", str(path))  # a file that is immutable
        remove(path, up_to=up_to)

    monkeypatch.setattr(trees, "remove", refuse)
    for _ in range(2):  # also in a round that begins with what the one before left
        gone = [each.job_execution_id for each in await host.jobs.retention.collect(Wanted())]
        assert not good.exists() and bad.is_dir()
        assert (await host.job(other)).files == "removed" and (await host.job(stuck)).files == "removing"
        assert stuck not in gone
    monkeypatch.undo()
    await host.jobs.retention.collect(Wanted())
    assert not bad.exists() and (await host.job(stuck)).files == "removed"


async def test_staging_that_cannot_be_removed_keeps_no_other(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "kept"
    staged = [
        root / "workflows" / ORCHESTRATOR / "1" / "jobs" / EXECUTOR / str(job) / ".incoming" / "1-abc" for job in (1, 2)
    ]
    for folder in staged:
        folder.mkdir(parents=True)
    remove = trees.remove

    def refuse(path: Path, *, up_to: Path) -> None:
        if path == staged[0]:
            raise PermissionError(1, "Operation not permitted", str(path))
        remove(path, up_to=up_to)

    monkeypatch.setattr(trees, "remove", refuse)
    leftovers = Leftovers(host.store, data_dir=root, self_id=EXECUTOR)
    assert await leftovers.clear() == 1 and not staged[1].exists()
    monkeypatch.undo()
    assert await leftovers.clear() == 1 and not staged[0].exists()
