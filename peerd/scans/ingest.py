"""Processes scans: each step is one transaction, and what it has done stands in it.

mark as processing; then, again and again, some of the reader's items go into the inventory together with how many were
stored so far; then what the whole scan says of each host, some hosts at a time; then complete with counts. A kill
between or within any two of them repeats at most what was never committed: the reader gives the same items in the same
order, so those that are stored are passed over. What may pass, such as a full disk, is tried again; what cannot, such
as a file that is no scan, fails with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import structlog

from peerd import metrics
from peerd.clock import DAY_MS, Clock, Millis
from peerd.config import ScansConfig
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.inventory.model import Record, Source
from peerd.loops import sleep_or_wake
from peerd.scans import repository
from peerd.scans.changes import Changes
from peerd.scans.collaborators import Inventory, Reader, Reading, Skipped
from peerd.scans.data import open_data
from peerd.scans.model import IngestJob, IngestState, SkippedLine
from peerd.scans.statement import FIRST_MS, MAX_AHEAD_MS
from peerd.scans.told import Told
from peerd.store import Store, Tx
from peerd.uninterrupted import uninterrupted

CHUNK = 1000
"""Items of one transaction: others wait for it, and its sync costs about as much as its rows."""
WORKERS = 2
"""Scans at a time, so that a large one does not keep small ones waiting."""
MAX_ATTEMPTS = 20
"""Starts without getting on: after so many, what kills the daemon each time is this scan."""
GIVE_UP_MS = DAY_MS
FAULTS = 5
"""Tries after a fault of ours, which may be one that passes."""
_FIRST_PAUSE_MS = 1_000
_LONGEST_PAUSE_MS = 300_000
_LOOK_SECONDS = 60.0
_EXCERPT = 200

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Chunk:
    records: list[Record]
    skipped: list[Skipped]
    error: PeerdError | None = None
    """Why the scan cannot be read any further: what was read before counts."""

    def __len__(self) -> int:
        return len(self.records) + len(self.skipped)


class Ingest:
    """Works on what is pending, oldest first."""

    def __init__(
        self,
        store: Store,
        store_path: Path,
        clock: Clock,
        config: ScansConfig,
        changes: Changes,
        *,
        inventory: Inventory,
        reader: Reader,
    ) -> None:
        self._store = store
        self._store_path = store_path
        self._clock = clock
        self._config = config
        self._changes = changes
        self._inventory = inventory
        self._reader = reader
        self._wakes = [asyncio.Event() for _ in range(WORKERS)]
        self._taken: set[int] = set()
        changes.on_work(self._wake)

    async def run(self) -> None:
        """Until cancelled. Begins with what an earlier daemon left."""
        async with asyncio.TaskGroup() as workers:
            for wake in self._wakes:
                workers.create_task(self._work(wake))

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def _work(self, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            try:
                job = await self._take()
                if job is not None:
                    await self.process(job)
                    continue
                pause = await self._pause()
            except PeerdError as error:  # the store takes nothing now
                _log.warning("scans.not_processed", reason=error.reason.text, message=error.message)
                pause = 5.0
            except Exception:  # noqa: BLE001 - such as a store that another program locks: the daemon must not end of it
                _log.exception("scans.not_processed")
                pause = 5.0
            await sleep_or_wake(self._clock, pause, wake)

    async def _take(self) -> IngestJob | None:
        """The oldest that nobody works on."""
        found = await repository.due(self._store, self._clock.steady(), limit=WORKERS + 1)
        return next((job for job in found if job.ingest_job_id not in self._taken), None)

    async def _pause(self) -> float:
        """Seconds until one that failed is to be tried again."""
        due = await repository.next_due(self._store, self._taken)
        later = _LOOK_SECONDS if due is None else (due - self._clock.steady()) / 1000
        return min(_LOOK_SECONDS, max(0.05, later))

    async def process(self, job: IngestJob) -> None:
        """Go on with it, to its end or to where it has to wait."""
        self._taken.add(job.ingest_job_id)
        try:
            await self._go_on(job)
        except PeerdError as error:
            await self._write("trouble", lambda tx, e=error: self._trouble(tx, job, e))  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - whatever a scan does to us, it must not stop the others
            _log.exception("scans.crashed", ingest_job_id=job.ingest_job_id)
            fault = PeerdError(Reason.INTERNAL, "processing the scan failed inside the daemon")
            await self._write("trouble", lambda tx: self._trouble(tx, job, fault))
        finally:
            self._taken.discard(job.ingest_job_id)

    async def _go_on(self, job: IngestJob) -> None:
        began = await self._write("processing", lambda tx: self._begin(tx, job))
        if began is None or began.state.final:
            return
        if began.scan_data_id is None:
            raise PeerdError(Reason.SCAN_DATA_REMOVED, "the bytes of the scan are not kept any more")
        present: IngestJob | None = began
        with closing(open_data(self._store_path, began.scan_data_id)) as stream:
            reading = await uninterrupted(asyncio.to_thread(self._reader, stream, began.format))
            items = self._read(reading, began)
            while present is not None:
                chunk = await uninterrupted(asyncio.to_thread(_next_chunk, items))
                if not len(chunk):
                    if chunk.error is not None:
                        raise chunk.error
                    break
                source = source_of(present, reading.told(), chunk.records)
                present = await self._write("chunk", lambda tx, s=source, p=present, c=chunk: self._keep(tx, s, p, c))  # type: ignore[misc]
                if present is not None and chunk.error is not None:
                    raise chunk.error
        if present is None:
            return
        after = 0 if reading.told().whole else None
        while after is not None:
            after = await self._write("settle", lambda tx, a=after: self._settle(tx, began, a))  # type: ignore[misc]
        await self._write("complete", lambda tx: self._complete(tx, began))

    def _read(self, reading: Reading, job: IngestJob) -> Iterator[Record | Skipped]:
        """The items that are not stored yet, within the bounds of one scan."""
        until = self._clock.monotonic() + self._config.max_seconds
        for index, item in enumerate(reading):
            if index >= self._config.max_records:
                most = self._config.max_records
                raise PeerdError(Reason.TOO_LARGE, f"the scan has more than {most} records", next_action="split it")
            if index % CHUNK == 0 and self._clock.monotonic() > until:
                seconds = self._config.max_seconds
                raise PeerdError(Reason.TOO_LARGE, f"the scan takes more than {seconds:g} s", next_action="split it")
            if index >= job.items:
                yield item

    # Each of these is a transaction

    async def _write(self, step: str, function: Callable[[Tx], T]) -> T:
        """Run it between its two failpoints; where it fails or has to wait, there are others."""

        def write(tx: Tx) -> T:
            result = function(tx)
            if step != "trouble":
                failpoint(f"scans.{step}.before_commit")
            return result

        result = await self._store.write(write)
        if isinstance(result, IngestJob) and result.state is IngestState.FAILED:
            failpoint("scans.failed.after_commit")
        else:
            failpoint("scans.postponed.after_commit" if step == "trouble" else f"scans.{step}.after_commit")
        return result

    def _begin(self, tx: Tx, job: IngestJob) -> IngestJob | None:
        present = repository.get(tx, job.ingest_job_id)
        if present.state.final:
            return None
        if present.attempts >= MAX_ATTEMPTS:
            error = PeerdError(
                Reason.INGEST_STUCK, f"processing began {present.attempts} times without getting on; given up"
            )
            return self._fail(tx, present, error)
        return self._moved(tx, present, IngestState.PROCESSING, attempts=present.attempts + 1)

    def _keep(self, tx: Tx, source: Source, job: IngestJob, chunk: _Chunk) -> IngestJob | None:
        """None if it was cancelled meanwhile, or began anew."""
        present = repository.get(tx, job.ingest_job_id)
        if present.state is not IngestState.PROCESSING or present.items != job.items:
            return None
        if chunk.records:
            self._inventory.apply(tx, source, chunk.records)
        repository.add_skipped(
            tx,
            present,
            (
                SkippedLine(
                    number=present.skipped + index,
                    line=skipped.line,
                    reason=skipped.reason,
                    excerpt=skipped.excerpt[:_EXCERPT],
                )
                for index, skipped in enumerate(chunk.skipped, start=1)
            ),
        )
        records, lines = len(chunk.records), len(chunk.skipped)

        def count() -> None:
            metrics.scan_records.inc(records)
            metrics.scan_skipped.inc(lines)

        tx.on_commit(count)
        return self._moved(
            tx,
            present,
            IngestState.PROCESSING,
            items=present.items + len(chunk),
            records=present.records + records,
            skipped=present.skipped + lines,
            attempts=1,
            next_attempt_at=0,
            failing_since=0,
            reason="",
            message="",
            next_action="",
            scanned_at=source.scanned_at,
        )

    def _settle(self, tx: Tx, job: IngestJob, after: int) -> int | None:
        """Where to go on; None at the end, and if it was cancelled meanwhile."""
        present = repository.get(tx, job.ingest_job_id)
        if present.state is not IngestState.PROCESSING or not present.records:
            return None
        return self._inventory.complete(tx, present.ingest_job_id, after)

    def _complete(self, tx: Tx, job: IngestJob) -> IngestJob | None:
        present = repository.get(tx, job.ingest_job_id)
        if present.state is not IngestState.PROCESSING:
            return None
        if not present.records:
            lines = f"; {present.skipped} were skipped" if present.skipped else ""
            error = PeerdError(
                Reason.NO_VALID_HOSTS,
                f"no valid hosts found in scan data{lines}",
                next_action=f"see why: 'peerctl scans show {present.ingest_job_id} --skipped'",
            )
            return self._fail(tx, present, error)
        counts = self._inventory.counts(tx, present.ingest_job_id)
        return self._end(
            tx,
            present,
            IngestState.COMPLETED,
            hosts=counts.hosts,
            ports=counts.ports,
            reason="",
            message="",
            next_action="",
        )

    def _trouble(self, tx: Tx, job: IngestJob, error: PeerdError) -> IngestJob | None:
        """Try again later, or never."""
        present = repository.get(tx, job.ingest_job_id)
        if present.state.final or present.items < job.items:
            return None
        since = present.failing_since or tx.steady
        fault = error.reason is Reason.INTERNAL
        hopeless = present.attempts >= FAULTS if fault else not error.retryable or tx.steady - since >= GIVE_UP_MS
        if hopeless:
            return self._fail(tx, present, error)
        pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS << min(present.attempts, 12))
        moved = self._moved(
            tx,
            present,
            present.state,
            attempts=present.attempts if fault else min(present.attempts, MAX_ATTEMPTS - 1),
            next_attempt_at=tx.steady + pause,
            failing_since=since,
            reason=error.reason.text,
            message=error.message,
            next_action=error.next_action,
        )
        failpoint("scans.postponed.before_commit")
        return moved

    def _fail(self, tx: Tx, job: IngestJob, error: PeerdError) -> IngestJob:
        failed = self._end(
            tx,
            job,
            IngestState.FAILED,
            reason=error.reason.text,
            message=error.message,
            next_action=error.next_action,
        )
        failpoint("scans.failed.before_commit")
        return failed

    def _end(self, tx: Tx, job: IngestJob, state: IngestState, **columns: object) -> IngestJob:
        tx.on_commit(lambda: metrics.ingest_jobs_finished.labels(state.value).inc())
        return self._moved(tx, job, state, **columns)

    def _moved(self, tx: Tx, job: IngestJob, state: IngestState, **columns: object) -> IngestJob:
        tx.on_commit(lambda: self._changes.tell(job.ingest_job_id))
        return repository.move(tx, job, state, **columns)


def made_at(job: IngestJob, told: Told, first: Sequence[Record]) -> Millis:
    """When the scan was made: as stated, as the file says it began, or the earliest time of its first records.

    Decided before anything is stored, and kept in the job then. What lies before the year 2000, or after the signature,
    is nonsense; without anything else it counts when it was signed.
    """
    if job.time_stated or job.items:
        return job.scanned_at
    said = [told.started_at, *sorted(one.seen_at for one in first if one.seen_at is not None)]
    latest = job.issued_at + MAX_AHEAD_MS
    return next((at for at in said if at is not None and FIRST_MS <= at <= latest), job.issued_at)


def source_of(job: IngestJob, told: Told, first: Sequence[Record] = ()) -> Source:
    """What all records of a scan have in common: as its statement says, and where it says nothing, as the file does."""
    return Source(
        ingest_job_id=job.ingest_job_id,
        scan_id=job.scan_id,
        scanner=job.scanner,
        vantage=job.vantage,
        tool=job.tool or told.tool,
        tool_version=job.tool_version or (told.tool_version if job.tool in ("", told.tool) else ""),
        organization=job.organization,
        scope=job.scope or told.scope,
        scanned_at=made_at(job, told, first),
        ended_at=None if job.time_stated else job.issued_at,
    )


def _next_chunk(items: Iterator[Record | Skipped]) -> _Chunk:
    records, skipped = list[Record](), list[Skipped]()
    try:
        for item in islice(items, CHUNK):
            if isinstance(item, Record):
                records.append(item)
            else:
                skipped.append(item)
    except PeerdError as error:
        return _Chunk(records, skipped, error)
    return _Chunk(records, skipped)
