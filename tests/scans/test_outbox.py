"""Scans that jobs leave: signed by the peer that ran them and handed in, once, whoever is away or dies in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from peerd.clock import FakeClock, Millis
from peerd.errors import PeerdError, Reason
from peerd.identity.key import identity_from_seed
from peerd.jobs.model import JobFile, JobStatus
from peerd.retention import Wanted
from peerd.rpc.status import to_status
from peerd.scans import hand_ins
from peerd.scans.hand_ins import HandIn, HandInState
from peerd.scans.outbox import GIVE_UP_MS, Outbox
from peerd.scans.signing import Signer
from peerd.store import Store
from peerd.v1 import scans_pb2, scans_pb2_grpc
from peerd.v1.access_pb2 import Grant
from tests.jobs.harness import EXECUTOR, Host, ended, job_key

from .desk import Desk, lines

DAY = 86_400


class Front(scans_pb2_grpc.ScanServiceServicer):
    """The collector's port: refuses what a test says, before or after the collector has taken it in."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.refusal: PeerdError | None = None
        self.lose_answer = False
        self.streams = 0

    async def Submit(self, request: scans_pb2.SubmitRequest, context: Any) -> scans_pb2.SubmitResponse:
        return await self._call("Submit", request, context)  # type: ignore[no-any-return]

    async def SubmitStream(self, request_iterator: Any, context: Any) -> scans_pb2.SubmitStreamResponse:
        self.streams += 1
        return await self._call("SubmitStream", request_iterator, context)  # type: ignore[no-any-return]

    async def _call(self, method: str, request: Any, context: Any) -> Any:
        try:
            if self.refusal is not None:
                raise self.refusal
            answer = await self.desk.call(method, request)
            if self.lose_answer:
                raise PeerdError(Reason.CONNECTION_LOST, "the answer is lost")
        except PeerdError as error:
            await context.abort(*to_status(error))
        return answer


class Scanner:
    """A machine that scans, and the collector that it hands in to."""

    def __init__(self, host: Host, desk: Desk, front: Front, outbox: Outbox) -> None:
        self.host = host
        self.desk = desk
        self.front = front
        self.outbox = outbox
        self.jobs = 0
        self.ended_at = Millis(0)
        """By the clock that its process read; now when 0."""

    async def scan(self, *files: tuple[str, bytes], code: int = 0, service: str = "scan") -> tuple[int, Path]:
        """A job of the service ends and leaves these; returns its id and its output."""
        self.jobs += 1
        key = job_key(self.jobs)
        job_id = await self.host.create(service=service, key=key)
        await self.host.start(job_id, key=key)
        await self.host.runner.started(self.jobs)
        control, spec = list(self.host.runner.specs.items())[-1]
        output = spec.job_directory / "output"
        for name, content in files:
            (output / name).parent.mkdir(exist_ok=True)
            (output / name).write_bytes(content)
        exit_ = replace(ended(code), ended_at=self.ended_at or self.host.clock.now())
        await self.host.runner.finish(control, exit_)
        await self.host.until(job_id, JobStatus.COMPLETED if code == 0 else JobStatus.FAILED)
        return job_id, output

    async def deliver(self) -> None:
        """Try all that is due."""
        for one in await hand_ins.due(self.host.store, self.host.clock.steady()):
            await self.outbox.hand_in(one)

    async def sent(self) -> list[HandIn]:
        """Newest first."""
        return list(await hand_ins.page(self.host.store, before=0, limit=100, state=None))


@pytest.fixture
async def scanner(store: Store, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Scanner]:
    for name in ("data", "collector"):
        (tmp_path / name).mkdir(mode=0o700)
    desk = Desk(tmp_path / "collector", clock)
    await desk.start()
    desk.mesh.members[EXECUTOR] = frozenset({Grant.GRANT_OPERATE})
    front, server = Front(desk), aio.server()  # type: ignore[abstract]
    scans_pb2_grpc.add_ScanServiceServicer_to_server(front, server)
    channel = aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()

    class Wire:
        def channel(self, peer_id: str) -> aio.Channel:
            assert peer_id == desk.me.peer_id
            return channel

    identity = identity_from_seed(bytes([1]) * 32)
    host = Host(store, clock, tmp_path / "data")
    wire: Any = Wire()
    outbox = Outbox(store, clock, EXECUTOR, Signer(identity, clock), wire, tmp_path / "data")
    host.completed = outbox.completed
    wish = {"to": desk.me.peer_id, "format": "naabu", "files": ["*.jsonl", "more/*"]}
    program = {"kind": "SERVICE_KIND_PROCESS", "argv": ["/bin/true"]}
    await host.catalog.sync([{"name": "scan", **program, "hand_in": wish}, {"name": "other", **program}])
    host.run()
    yield Scanner(host, desk, front, outbox)
    await host.stop()
    await channel.close()
    await server.stop(None)
    await desk.store.close()


async def test_a_scan_is_signed_by_the_peer_that_ran_it(scanner: Scanner) -> None:
    job_id, _ = await scanner.scan(("a.jsonl", lines(3)), ("notes.txt", b"no scan"), ("more/b", lines(2)))
    first, second = reversed(await scanner.sent())
    assert (first.path, second.path, first.state, first.service) == ("a.jsonl", "more/b", HandInState.WAITING, "scan")
    await scanner.deliver()
    job = await scanner.desk.job(1)
    assert (job.scanner, job.submitted_by, job.format, job.vantage) == (
        *(EXECUTOR, scanner.desk.caller.peer_id),
        *("naabu", EXECUTOR),
    )
    assert job.scan_id == f"job-{scanner.host.store.store_id}-{job_id}-1"
    assert job.scanned_at == (await scanner.host.job(job_id)).ended_at
    await scanner.desk.work()
    assert (await scanner.desk.job(1)).hosts == 3 and (await scanner.desk.job(2)).hosts == 2
    assert [(one.state, one.ingest_job_id, one.reason) for one in reversed(await scanner.sent())] == [
        (HandInState.HANDED_IN, 1, ""),
        (HandInState.HANDED_IN, 2, ""),
    ]
    with pytest.raises(PeerdError):
        await scanner.desk.job(3)


async def test_the_end_of_a_job_counts_unless_its_clock_was_never_set(scanner: Scanner) -> None:
    for ended_at, expected in (
        (scanner.host.clock.now() - 5000, scanner.host.clock.now() - 5000),
        (2, scanner.host.clock.now()),
        (scanner.host.clock.now() + 90_000, scanner.host.clock.now()),
    ):
        scanner.ended_at = Millis(ended_at)
        await scanner.scan(("a.jsonl", lines(1)))
        assert (await scanner.sent())[0].scanned_at == expected
    await scanner.deliver()
    assert {one.state for one in await scanner.sent()} == {HandInState.HANDED_IN}


async def test_only_what_has_ended_well_of_a_service_whose_owner_says_so(scanner: Scanner) -> None:
    await scanner.scan(("a.jsonl", lines(1)), code=1)
    await scanner.scan(("a.jsonl", lines(1)), service="other")
    assert await scanner.sent() == []
    job_id, output = await scanner.scan(("a.jsonl", lines(1)))
    again = replace(await scanner.host.job(job_id), id=99, reused_id=job_id)  # its files were handed in by the first
    file = JobFile(path="output/a.jsonl", size=1)
    await scanner.host.store.write(lambda tx: scanner.outbox.completed(tx, again, [file], output.parent))
    assert [one.job_execution_id for one in await scanner.sent()] == [job_id]


async def test_it_waits_for_a_collector_that_is_away_and_keeps_the_file_until_then(scanner: Scanner) -> None:
    scanner.front.refusal = PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "away")
    job_id, output = await scanner.scan(("a.jsonl", lines(2)))
    host = scanner.host
    await host.store.write(lambda tx: tx.execute("UPDATE job_executions SET released_at = 1"))
    for _ in range(3):
        await scanner.deliver()
        (one,) = await scanner.sent()
        assert (one.state, one.reason, one.message) == (HandInState.WAITING, "not_trusted_or_unreachable", "away")
        assert one.next_action and one.next_attempt_at > host.clock.steady()
        host.pass_time(DAY)
        assert await host.jobs.retention.collect(Wanted(older_than_ms=0)) == [] and output.is_dir()
    assert one.attempts == 3
    scanner.front.refusal = None
    await scanner.deliver()
    assert (await scanner.sent())[0].state is HandInState.HANDED_IN
    await scanner.desk.work()
    assert (await scanner.desk.job()).hosts == 2
    (gone,) = await host.jobs.retention.collect(Wanted(older_than_ms=0))
    assert gone.job_execution_id == job_id and not output.exists()


async def test_what_waits_for_one_that_is_away_is_tried_one_at_a_time_and_at_once_when_it_is_back(
    scanner: Scanner,
) -> None:
    scanner.front.refusal = PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "away")
    await scanner.scan(*((f"{n}.jsonl", lines(n)) for n in range(1, 6)))
    running = asyncio.ensure_future(scanner.outbox.run())
    try:
        async with asyncio.timeout(30):
            while not any(one.attempts for one in await scanner.sent()):
                await asyncio.sleep(0.01)
            assert sum(one.attempts for one in await scanner.sent()) == 1
            assert {one.reason for one in await scanner.sent()} == {"not_trusted_or_unreachable"}
            assert await hand_ins.due(scanner.host.store, scanner.host.clock.steady()) == []
            scanner.front.refusal = None
            await scanner.outbox.peer_online(scanner.desk.me.peer_id)
            while {one.state for one in await scanner.sent()} != {HandInState.HANDED_IN}:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert await scanner.desk.rows_of("ingest_jobs") == 5


async def test_an_answer_that_is_lost_doubles_nothing(scanner: Scanner) -> None:
    scanner.front.lose_answer = True
    await scanner.scan(("a.jsonl", lines(2)))
    for _ in range(3):
        await scanner.deliver()
        scanner.host.pass_time(DAY)
    assert (await scanner.sent())[0].state is HandInState.WAITING
    scanner.front.lose_answer = False
    await scanner.deliver()
    (one,) = await scanner.sent()
    assert (one.state, one.ingest_job_id) == (HandInState.HANDED_IN, 1)
    assert await scanner.desk.rows_of("ingest_jobs") == 1
    await scanner.outbox.hand_in(one)  # as a daemon does that died before it recorded the answer
    assert await scanner.desk.rows_of("ingest_jobs") == 1


async def test_a_large_scan_is_streamed(scanner: Scanner) -> None:
    raw = lines(40_000, 2)
    assert len(raw) > 2 * 1024**2
    await scanner.scan(("a.jsonl", raw))
    await scanner.deliver()
    assert scanner.front.streams == 1
    await scanner.desk.work()
    assert (await scanner.desk.job()).hosts == 40_000


async def test_a_grant_that_is_missing_may_be_given(scanner: Scanner) -> None:
    scanner.desk.mesh.members[EXECUTOR] = frozenset()
    await scanner.scan(("a.jsonl", lines(1)))
    await scanner.deliver()
    (one,) = await scanner.sent()
    assert (one.state, one.reason) == (HandInState.WAITING, "permission_denied")
    scanner.desk.mesh.members[EXECUTOR] = frozenset({Grant.GRANT_OPERATE})
    scanner.host.pass_time(10)
    await scanner.deliver()
    assert (await scanner.sent())[0].state is HandInState.HANDED_IN


async def test_what_cannot_be_handed_in_is_said_and_not_tried_for_ever(scanner: Scanner) -> None:
    await scanner.scan(("notes.txt", b""))
    _, output = await scanner.scan(("a.jsonl", lines(1)))
    (output / "a.jsonl").unlink()
    _, output = await scanner.scan(("a.jsonl", lines(1)))
    (output / "a.jsonl").unlink()
    (output / "a.jsonl").symlink_to(scanner.host.data_dir.parent / "peerd.db")  # nothing that is no file of the job
    await scanner.scan(("a.jsonl", b""))
    await scanner.deliver()
    empty, link, gone, none = await scanner.sent()
    assert {one.state for one in (none, gone, empty)} == {HandInState.REFUSED}
    assert (none.reason, gone.reason, empty.reason) == ("no_files_match", "files_removed", "invalid_statement")
    assert link.reason == "disk_failed" and "cannot be read" in link.message
    scanner.host.pass_time(GIVE_UP_MS / 1000 + 1)
    await scanner.deliver()
    assert {one.state for one in await scanner.sent()} == {HandInState.REFUSED}
    assert await scanner.desk.rows_of("ingest_jobs") == 0
    await scanner.host.store.write(lambda tx: tx.execute("UPDATE job_executions SET released_at = 1"))
    assert len(await scanner.host.jobs.retention.find(Wanted(older_than_ms=0))) == 4, "nothing holds them any more"


async def test_the_loop_delivers_by_itself_and_begins_with_what_was_left(scanner: Scanner) -> None:
    await scanner.scan(("a.jsonl", lines(1)))
    running = asyncio.ensure_future(scanner.outbox.run())
    try:
        async with asyncio.timeout(30):
            while (await scanner.sent())[0].state is not HandInState.HANDED_IN:
                await asyncio.sleep(0.01)
            await scanner.scan(("a.jsonl", lines(2)))
            while (await scanner.sent())[0].state is not HandInState.HANDED_IN:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_store_that_takes_nothing_does_not_send_the_same_scan_again_beside_itself(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: while one hand-in could not be written down, those of other peers were begun anew every few seconds,
    each beside the ones before."""
    await scanner.scan(("a.jsonl", lines(1)), ("b.jsonl", lines(2)))
    other = identity_from_seed(bytes([9]) * 32).peer_id
    await scanner.host.store.write(
        lambda tx: tx.execute("UPDATE scan_hand_ins SET to_peer_id = ? WHERE path = 'a.jsonl'", (other,))
    )
    sent: list[str] = []
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def send(one: HandIn) -> scans_pb2.IngestJob:
        sent.append(one.path)
        if one.to_peer_id == other:
            await arrived.wait()
            raise PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "away")
        arrived.set()
        await go_on.wait()
        return scans_pb2.IngestJob(ingest_job_id=1)

    def full(tx: object, one: HandIn, error: PeerdError) -> None:
        raise PeerdError(Reason.DISK_LOW, "the disk is full")

    monkeypatch.setattr(scanner.outbox, "_send", send)
    monkeypatch.setattr(scanner.outbox, "_trouble", full)
    running = asyncio.ensure_future(scanner.outbox.run())
    try:
        await arrived.wait()
        for _ in range(20):
            scanner.host.pass_time(10)
            await asyncio.sleep(0.01)
        assert sorted(sent) == ["a.jsonl", "b.jsonl"]
        go_on.set()
        async with asyncio.timeout(60):
            while sent.count("a.jsonl") < 3:
                scanner.host.pass_time(10)
                await asyncio.sleep(0.01)
        assert sent.count("b.jsonl") == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_store_that_another_program_locks_does_not_end_the_loop(
    scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it ended the daemon."""
    await scanner.scan(("a.jsonl", lines(1)))
    host, hand_in, failed = scanner.host, scanner.outbox.hand_in, asyncio.Event()

    async def watched(one: HandIn) -> bool:
        try:
            return await hand_in(one)
        except sqlite3.OperationalError:
            failed.set()
            raise

    monkeypatch.setattr(scanner.outbox, "hand_in", watched)
    await host.store.write(lambda tx: tx.execute("PRAGMA busy_timeout = 0"))
    with closing(sqlite3.connect(tmp_path / "peerd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        running = asyncio.ensure_future(scanner.outbox.run())
        try:
            async with asyncio.timeout(60):
                await failed.wait()
                other.execute("ROLLBACK")
                while (await scanner.sent())[0].state is not HandInState.HANDED_IN and not running.done():
                    host.pass_time(10)
                    await asyncio.sleep(0.01)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert await scanner.desk.rows_of("ingest_jobs") == 1
