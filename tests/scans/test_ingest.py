"""What becomes of an ingest job: its states, its steps, what stops it, and that nothing counts twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peerd import trees
from peerd.clock import FakeClock, Millis
from peerd.config import ScansConfig
from peerd.datadir import DataDir
from peerd.disk import NOTHING_KEPT
from peerd.errors import PeerdError, Reason
from peerd.inventory.model import Port, Record
from peerd.scans import ingest, repository
from peerd.scans.model import MAX_SKIPPED, TRANSITIONS, IngestState, may_become
from peerd.scans.told import Told
from peerd.space.usage import measure_usage
from peerd.v1 import scans_pb2

from .desk import Desk, lines, until

LEGAL = {
    ("pending", "processing"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "cancelled"),
    ("failed", "pending"),
    ("cancelled", "pending"),
}


@pytest.mark.parametrize(("present", "wanted"), list(itertools.product(IngestState, IngestState)))
async def test_every_change_of_state_goes_by_the_table(desk: Desk, present: IngestState, wanted: IngestState) -> None:
    await desk.submit(lines(1))
    await desk.store.write(lambda tx: tx.execute("UPDATE ingest_jobs SET state = ?", (present.value,)))
    job = await desk.job()
    legal = wanted is present or (present.value, wanted.value) in LEGAL
    assert may_become(present, wanted) is legal
    if legal:
        moved = await desk.store.write(lambda tx: repository.move(tx, job, wanted, message="changed"))
        assert (moved.state, moved.message) == (wanted, "changed")
        if wanted is not present:
            assert (moved.completed_at is not None) is wanted.final
    else:
        with pytest.raises(PeerdError) as caught:
            await desk.store.write(lambda tx: repository.move(tx, job, wanted, message="changed"))
        assert caught.value.reason is Reason.ILLEGAL_TRANSITION
        assert await desk.job() == job


def test_nothing_else_writes_a_state() -> None:
    """Every write goes through the guarded function: no other SQL of the program names the column in a SET."""
    assert {state: sorted(s.value for s in after) for state, after in TRANSITIONS.items() if not after} == {
        IngestState.COMPLETED: []
    }
    package = Path(repository.__file__).parents[1]
    found = [
        (path.name, match[0])
        for path in package.rglob("*.py")
        for match in re.finditer(r"UPDATE ingest_jobs SET [^\"]*", path.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == [
        ("repository.py", "UPDATE ingest_jobs SET scan_data_id = NULL WHERE id = ?"),
        ("repository.py", "UPDATE ingest_jobs SET {names} WHERE id = ?"),
    ]


async def test_a_scan_goes_through_all_its_states_and_is_watched(desk: Desk) -> None:
    await desk.submit(lines(700, 3))  # more than two chunks
    watching = desk.scans.servicer.WatchIngestJob(scans_pb2.WatchIngestJobRequest(ingest_job_id=1), None)
    first = await anext(watching)
    assert first.job.state == scans_pb2.INGEST_STATE_PENDING
    working = asyncio.create_task(desk.scans.ingest.run())
    try:
        seen = [first, *[update async for update in watching]]
    finally:
        working.cancel()
        await asyncio.wait([working])
    records = [update.job.records for update in seen]
    assert records == sorted(records) and records[-1] == 2100
    last = seen[-1].job
    assert (last.state, last.hosts, last.ports) == (scans_pb2.INGEST_STATE_COMPLETED, 700, 2100)
    assert desk.rows.applied == 3


async def test_what_cannot_be_used_is_skipped_counted_and_listed(desk: Desk) -> None:
    raw = b"".join(b"nonsense %d\n" % number + lines(1, 1, network=number % 200 + 1) for number in range(1500))
    await desk.submit(raw)
    await desk.work()
    job = await desk.job()
    assert (job.state, job.records, job.skipped, job.hosts) == (IngestState.COMPLETED, 1500, 1500, 200)
    request = scans_pb2.ListSkippedRecordsRequest(ingest_job_id=1, page_size=700)
    first = await desk.call("ListSkippedRecords", request)
    request.page_token = first.next_page_token
    second = await desk.call("ListSkippedRecords", request)
    assert (len(first.records), len(second.records), second.next_page_token) == (700, MAX_SKIPPED - 700, "")
    assert (first.records[1].line, first.records[1].reason, first.records[1].excerpt) == (3, "malformed", "nonsense 1")


async def test_a_scan_without_any_valid_host_fails_with_that_reason(desk: Desk) -> None:
    await desk.submit(b"one\ntwo\n")
    await desk.work()
    job = await desk.job()
    assert (job.state, job.reason, job.skipped) == (IngestState.FAILED, "no_valid_hosts", 2)
    assert job.message.startswith("no valid hosts found in scan data") and job.next_action and job.completed_at


async def test_what_cannot_pass_fails_at_once_and_is_processed_again_only_by_an_operator(desk: Desk) -> None:
    await desk.submit(lines(600) + b"!\n")
    await desk.work()
    failed = await desk.job()
    assert (failed.state, failed.reason) == (IngestState.FAILED, "invalid_argument")
    assert failed.records == 1200  # what was whole before it stays
    await desk.work()
    assert await desk.job() == failed
    request = scans_pb2.RetryIngestJobRequest(request_id="again", ingest_job_id=1)
    again = await desk.call("RetryIngestJob", request)
    assert (again.job.state, again.job.records, again.job.reason) == (scans_pb2.INGEST_STATE_PENDING, 0, "")
    await desk.work()
    assert (await desk.job()).records == 1200
    assert await desk.call("RetryIngestJob", request) == again  # answered, not done again
    assert (await desk.job()).state is IngestState.FAILED


async def test_what_may_pass_is_tried_again_ever_later_and_given_up_after_a_day(desk: Desk) -> None:
    full: list[Exception] = [PeerdError(Reason.DISK_LOW, "no room") for _ in range(500)]
    desk.rows.errors = list(full)
    await desk.submit(lines(3))
    pauses = []
    while (job := await desk.job()).state is not IngestState.FAILED:
        await desk.work()
        job = await desk.job()
        if job.state is IngestState.PROCESSING:
            assert (job.reason, job.records) == ("disk_low", 0) and job.next_action
            pauses.append((job.next_attempt_at - desk.clock.steady()) / 1000)
            desk.clock.advance(pauses[-1])
    assert pauses[:4] == [2, 4, 8, 16] and max(pauses) == 300
    assert 86_400 <= sum(pauses) < 87_000
    assert await desk.seen() == []
    desk.rows.errors = full[:2]
    await desk.call("RetryIngestJob", scans_pb2.RetryIngestJobRequest(ingest_job_id=1))
    for _ in range(3):
        await desk.work()
        desk.clock.advance(300)
    job = await desk.job()
    assert (job.state, job.hosts, job.reason, job.message) == (IngestState.COMPLETED, 3, "", "")


async def test_a_fault_of_ours_is_tried_a_few_times_and_then_said(desk: Desk) -> None:
    desk.rows.errors = [RuntimeError("a bug") for _ in range(100)]
    await desk.submit(lines(3))
    for _ in range(20):
        await desk.work()
        desk.clock.advance(300)
    job = await desk.job()
    assert (job.state, job.reason, job.attempts) == (IngestState.FAILED, "internal", ingest.FAULTS)


async def test_a_scan_that_kills_the_daemon_each_time_is_given_up(desk: Desk) -> None:
    await desk.submit(lines(3))
    for _ in range(ingest.MAX_ATTEMPTS):
        job = await desk.job()
        began = await desk.store.write(lambda tx, j=job: desk.scans.ingest._begin(tx, j))  # type: ignore[misc]
        assert began is not None and began.state is IngestState.PROCESSING
        await desk.restart()
    await desk.work()
    job = await desk.job()
    assert (job.state, job.reason) == (IngestState.FAILED, "ingest_stuck")


async def test_work_goes_on_behind_what_is_stored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(b"bad\n" + lines(1, 1, network=number % 250 + 1) for number in range(1600))
    await desk.submit(raw)
    chunks: list[str] = []
    real = desk.scans.ingest._write

    async def write(step: str, function: Any) -> Any:
        if step == "chunk" and len(chunks) == 2:
            raise asyncio.CancelledError  # as a kill between two chunks
        chunks.extend([step] * (step == "chunk"))
        return await real(step, function)

    monkeypatch.setattr(desk.scans.ingest, "_write", write)
    with pytest.raises(asyncio.CancelledError):
        await desk.scans.ingest.process(await desk.job())
    await desk.restart()
    assert (await desk.job()).items == 2000
    desk.rows.applied = 0
    await desk.work()
    job = await desk.job()
    assert (job.state, job.records, job.skipped, job.hosts, job.ports) == (IngestState.COMPLETED, 1600, 1600, 250, 250)
    assert desk.rows.applied == 2  # 1,200 items were left
    assert await desk.rows_of("ingest_skipped") == MAX_SKIPPED


async def test_a_job_is_cancelled_while_it_waits_and_while_it_is_processed(desk: Desk) -> None:
    await desk.submit(lines(3))
    request = scans_pb2.CancelIngestJobRequest(request_id="c", ingest_job_id=1, reason="wrong file")
    answer = await desk.call("CancelIngestJob", request)
    assert answer.job.state == scans_pb2.INGEST_STATE_CANCELLED and "wrong file" in answer.job.message
    assert await desk.call("CancelIngestJob", request) == answer
    await desk.work()
    assert (await desk.job()).state is IngestState.CANCELLED and await desk.seen() == []

    await desk.submit(lines(4000), scan_id="two", request_id="x")
    working = asyncio.create_task(desk.scans.ingest.run())
    try:
        await until(lambda: _some(desk))
        stopped = await desk.call("CancelIngestJob", scans_pb2.CancelIngestJobRequest(ingest_job_id=2))
        stored = len(await desk.seen())
        assert 0 < stored < 8000 and stopped.job.state == scans_pb2.INGEST_STATE_CANCELLED
        await desk.call("RetryIngestJob", scans_pb2.RetryIngestJobRequest(ingest_job_id=2))
        await until(lambda: _ended(desk, 2))
    finally:
        working.cancel()
        await asyncio.wait([working])
    job = await desk.job(2)
    assert (job.state, job.records, job.hosts, job.ports) == (IngestState.COMPLETED, 8000, 4000, 8000)
    with pytest.raises(PeerdError) as late:
        await desk.call("CancelIngestJob", scans_pb2.CancelIngestJobRequest(ingest_job_id=2))
    assert late.value.reason is Reason.ILLEGAL_TRANSITION
    with pytest.raises(PeerdError) as nobody:
        await desk.call("CancelIngestJob", scans_pb2.CancelIngestJobRequest(ingest_job_id=9))
    assert nobody.value.reason is Reason.NOT_FOUND


async def test_what_a_whole_scan_says_is_worked_out_in_steps_and_after_a_kill_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.rows.steps = 3
    await desk.submit(lines(3))
    real = desk.scans.ingest._write

    async def write(step: str, function: Any) -> Any:
        if step == "settle" and len(desk.rows.completed) == 2:
            raise asyncio.CancelledError  # as a kill between two steps
        return await real(step, function)

    monkeypatch.setattr(desk.scans.ingest, "_write", write)
    with pytest.raises(asyncio.CancelledError):
        await desk.scans.ingest.process(await desk.job())
    await desk.restart()
    assert (await desk.job()).state is IngestState.PROCESSING
    await desk.work()
    assert (await desk.job()).state is IngestState.COMPLETED
    assert desk.rows.completed == [(1, 0), (1, 1), (1, 0), (1, 1), (1, 2)]


async def test_nothing_is_worked_out_of_a_scan_that_was_cancelled_meanwhile(desk: Desk) -> None:
    desk.rows.steps = 1000
    await desk.submit(lines(3))
    working = asyncio.create_task(desk.work())

    async def begun() -> bool:
        return len(desk.rows.completed) > 1

    await until(begun)
    await desk.call("CancelIngestJob", scans_pb2.CancelIngestJobRequest(ingest_job_id=1))
    await working
    assert (await desk.job()).state is IngestState.CANCELLED and len(desk.rows.completed) < 1000


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, ("nmap", "7.93", "shown tcp:22")),
        ({"tool": "nmap"}, ("nmap", "7.93", "shown tcp:22")),
        ({"tool": "other"}, ("other", "", "shown tcp:22")),
        ({"tool_version": "9", "scope": "10.0.0.0/8"}, ("nmap", "9", "10.0.0.0/8")),
    ],
)
async def test_what_the_statement_leaves_out_the_file_says(
    desk: Desk, stated: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    desk.told = Told(tool="nmap", tool_version="7.93", scope="shown tcp:22")
    await desk.submit(lines(3), **stated)
    await desk.work()
    (source,) = desk.rows.sources
    assert (source.tool, source.tool_version, source.scope) == expected


async def test_a_file_that_ends_in_the_middle_says_nothing_of_what_it_does_not_show(desk: Desk) -> None:
    desk.told = Told(whole=False)
    await desk.submit(lines(3))
    await desk.work()
    job = await desk.job()
    assert (job.state, job.hosts, desk.rows.completed) == (IngestState.COMPLETED, 3, [])


def timed(*times: int | None) -> bytes:
    """A record for each, of which some say when they were made."""
    said = [{"ip": f"10.0.{n // 250}.{n % 250}", "port": 1, "at": at} for n, at in enumerate(times)]
    return b"".join(json.dumps(one).encode() + b"\n" for one in said)


@pytest.mark.parametrize("kind", ["started", "first", "started_wrong", "future", "unset", "none", "stated"])
async def test_when_a_scan_was_made_is_what_its_file_says_unless_that_is_nonsense(desk: Desk, kind: str) -> None:
    now = desk.clock.now()
    began, seen, later = now - 3 * 86_400_000, now - 2 * 86_400_000, now - 86_400_000
    future, unset = now + 86_400_000, 86_400_000
    started, times, expected = {
        "started": (began, (seen, later), began),
        "first": (None, (None, later, seen), seen),
        "started_wrong": (future, (seen,), seen),
        "future": (future, (future,), now),
        "unset": (unset, (unset, None), now),
        "none": (None, (None,), now),
        "stated": (began, (seen,), later),
    }[kind]
    desk.told = Told(started_at=Millis(started) if started is not None else None)
    fields: dict[str, Any] = {"scanned_at": later} if kind == "stated" else {}
    await desk.submit(timed(*times), **fields)
    desk.clock.advance(3600)  # it had to wait
    await desk.work()
    assert (await desk.job()).scanned_at == expected
    (source,) = desk.rows.sources
    assert (source.scanned_at, source.ended_at) == (expected, None if kind == "stated" else now)


async def test_when_a_scan_was_made_is_decided_once(desk: Desk) -> None:
    """Not anew by each chunk, after a kill, or for a repeat."""
    now = desk.clock.now()
    times = [now - 5000] + [None] * (ingest.CHUNK - 1) + [now - 9000] * 5
    raw = timed(*times)
    await desk.submit(raw)
    desk.rows.errors = [ValueError("once")]
    await desk.scans.ingest.process(await desk.job())
    assert (await desk.job()).scanned_at == now, "nothing is stored yet"
    desk.clock.advance(10)
    desk.rows.sources.clear()
    begun = await desk.store.write(lambda tx: desk.scans.ingest._begin(tx, repository.get(tx, 1)))
    assert begun is not None
    chunk = ingest._Chunk([Record(address="10.0.0.0", seen_at=Millis(now - 5000), port=Port(number=1))], [])
    source = ingest.source_of(begun, Told(), chunk.records)
    await desk.store.write(lambda tx: desk.scans.ingest._keep(tx, source, begun, chunk))
    await desk.restart()
    await desk.work()
    assert {one.scanned_at for one in desk.rows.sources} == {now - 5000} and len(desk.rows.sources) == 3
    assert (await desk.job()).scanned_at == now - 5000
    assert (await desk.submit(raw, nonce=b"another, sixteen")).repeated


async def test_a_chunk_of_an_earlier_run_is_not_stored(desk: Desk) -> None:
    await desk.submit(lines(600))
    begun = await desk.store.write(lambda tx: desk.scans.ingest._begin(tx, repository.get(tx, 1)))
    assert begun is not None
    chunk = ingest._Chunk([Record(address="10.9.9.9", port=Port(number=1))], [])
    source = ingest.source_of(begun, Told())
    kept = await desk.store.write(lambda tx: desk.scans.ingest._keep(tx, source, begun, chunk))
    assert kept is not None and kept.items == 1
    assert await desk.store.write(lambda tx: desk.scans.ingest._keep(tx, source, begun, chunk)) is None
    assert (await desk.job()).records == 1


async def _some(desk: Desk) -> bool:
    return (await desk.job(2)).items > 0


async def _ended(desk: Desk, number: int) -> bool:
    return (await desk.job(number)).state.final


async def test_the_bytes_go_when_they_are_not_needed_and_what_was_learned_stays(desk: Desk) -> None:
    await desk.submit(lines(3) + b"bad\n")
    await desk.submit(b"bad\n", scan_id="bad")
    await desk.work()
    desk.clock.advance(8 * 86_400)
    await desk.submit(lines(2), scan_id="new")
    await desk.scans.prune(desk.clock.now())
    assert [(await desk.job(number)).scan_data_id for number in (1, 2, 3)] == [None, None, 3]
    with pytest.raises(PeerdError) as caught:
        await desk.call("RetryIngestJob", scans_pb2.RetryIngestJobRequest(ingest_job_id=2))
    assert caught.value.reason is Reason.SCAN_DATA_REMOVED
    assert await desk.rows_of("ingest_skipped") == 2
    desk.clock.advance(100 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("ingest_skipped") == 0 and (await desk.job(1)).hosts == 3


async def test_a_job_that_is_long_over_is_forgotten_and_its_envelope_is_still_refused(desk: Desk) -> None:
    """Rows would be ever more; what was learned stays, and nothing that was signed then counts again."""
    raw = lines(2) + b"bad\n"
    envelope = desk.sealed(raw)
    await desk.hand_in(envelope, raw)
    await desk.work()
    await desk.submit(lines(1), scan_id="waits")
    for days in (8, 391):
        desk.clock.advance(days * 86_400)
        await desk.scans.prune(desk.clock.now())
    assert (await desk.hand_in(envelope, raw)).repeated, "known as long as that"
    desk.clock.advance(2 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("ingest_jobs") == 1 and (await desk.job(2)).state is IngestState.PENDING
    assert await desk.rows_of("ingest_skipped") == 0 and len(await desk.seen()) == 4
    with pytest.raises(PeerdError) as caught:
        await desk.hand_in(envelope, raw)
    assert caught.value.reason is Reason.STATEMENT_EXPIRED
    answer = await desk.submit(lines(1), issued_at=desk.clock.now())
    assert answer.job.ingest_job_id == 3, "no id is given twice"


async def test_the_bytes_in_the_store_are_told(desk: Desk) -> None:
    assert await desk.scans.data_bytes() == 0
    await desk.submit(lines(1000))
    taken = await desk.scans.data_bytes()
    assert 0 < taken < len(lines(1000)), "compressed"
    usage = measure_usage(DataDir(desk.path.parent), NOTHING_KEPT, taken)
    assert usage.areas["scans"] == min(taken, trees.measure(desk.path))
    assert usage.areas["store"] + usage.areas["scans"] == trees.measure(desk.path), "counted once"


async def test_pruning_goes_on_until_all_of_it_is_gone(desk: Desk) -> None:
    for number in range(120):
        await desk.submit(b"bad\n" + lines(1), scan_id=f"s{number}")
    await desk.work()
    desk.clock.advance(8 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("scan_pieces") == 0 and await desk.rows_of("ingest_skipped") == 120
    desk.clock.advance(90 * 86_400)
    await desk.scans.prune(desk.clock.now())
    assert await desk.rows_of("ingest_skipped") == 0 and await desk.rows_of("ingest_jobs") == 120


async def test_a_damaged_piece_fails_its_job_and_no_other(desk: Desk) -> None:
    await desk.submit(lines(3))
    await desk.submit(lines(3), scan_id="two")
    with sqlite3.connect(desk.path) as other:
        other.execute("UPDATE scan_pieces SET content = x'00' WHERE scan_data_id = 1")
    other.close()
    await desk.work()
    assert ((await desk.job(1)).reason, (await desk.job(2)).state) == ("store_corrupt", IngestState.COMPLETED)


async def test_a_scan_with_too_many_records_fails(tmp_path: Path, clock: FakeClock) -> None:
    desk = Desk(tmp_path, clock, ScansConfig(max_records=1500))
    await desk.start()
    try:
        await desk.submit(lines(2000))
        await desk.work()
        job = await desk.job()
        assert (job.state, job.reason) == (IngestState.FAILED, "too_large") and "1500" in job.message
    finally:
        await desk.store.close()


async def test_jobs_are_listed_in_pages_by_state_and_scanner(desk: Desk) -> None:
    for number in range(5):
        await desk.submit(lines(1) if number else b"bad\n", scan_id=f"s{number}")
    await desk.work()

    async def listed(**fields: object) -> list[int]:
        request = scans_pb2.ListIngestJobsRequest(page_size=2, **fields)  # type: ignore[arg-type]
        found = []
        while True:
            page = await desk.call("ListIngestJobs", request)
            found += [job.ingest_job_id for job in page.jobs]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert await listed() == [5, 4, 3, 2, 1]
    assert await listed(oldest_first=True) == [1, 2, 3, 4, 5]
    assert await listed(state=scans_pb2.INGEST_STATE_FAILED) == [1]
    assert await listed(scanner=desk.me.peer_id) == [5, 4, 3, 2, 1]


async def test_a_store_that_another_program_locks_does_not_end_the_workers(desk: Desk) -> None:
    """Regression: it ended the daemon."""
    await desk.submit(lines(3))
    await desk.store.write(lambda tx: tx.execute("PRAGMA busy_timeout = 0"))
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        running = asyncio.ensure_future(desk.scans.ingest.run())
        try:
            async with asyncio.timeout(60):
                while not running.done() and len(desk.clock._sleepers) < ingest.WORKERS:
                    await asyncio.sleep(0.01)
                other.execute("ROLLBACK")
                while not running.done() and (await desk.job()).state.value != "completed":
                    desk.clock.advance(10)
                    await asyncio.sleep(0.01)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert (await desk.job()).hosts == 3
