"""The outbox: tells each orchestrator how its jobs are until it has stored that.

It is a matter of state, not of messages: a job whose revision is above the acknowledged one is told as it is now, so
nothing piles up while an orchestrator is away, and a lost answer costs one repetition. Each orchestrator has its own
loop; one that does not answer holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.jobs.changes import Change, Changes
from peerd.jobs.decoding import to_key
from peerd.jobs.repository import JobRepository
from peerd.jobs.views import Views
from peerd.loops import Backoff
from peerd.rpc.channels import Channels
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.v1 import jobs_pb2, jobs_pb2_grpc

_log = structlog.get_logger(__name__)

BATCH = 100
_DEADLINE_SECONDS = 10.0


class Reporter:
    """Empties the outbox."""

    def __init__(self, store: Store, repository: JobRepository, views: Views, channels: Channels, clock: Clock) -> None:
        self._store = store
        self._repository = repository
        self._views = views
        self._channels = channels
        self._clock = clock
        self._woken: dict[PeerId, asyncio.Event] = {}
        self._new = asyncio.Event()

    def listen(self, changes: Changes) -> None:
        """Be woken by committed changes."""
        changes.subscribe(self._hear)

    async def run(self) -> None:
        """Until cancelled."""
        for orchestrator in await self._views.orchestrators_to_tell():
            self._wake(orchestrator)
        served: set[PeerId] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                self._new.clear()
                for orchestrator in self._woken.keys() - served:
                    served.add(orchestrator)
                    group.create_task(self._serve(orchestrator))
                await self._new.wait()

    async def _serve(self, orchestrator: PeerId) -> None:
        woken = self._woken[orchestrator]
        backoff = Backoff(0.2, 5.0)
        while True:
            await woken.wait()
            woken.clear()
            try:
                while await self.tell(orchestrator):
                    backoff.reset()
                backoff.reset()
            except PeerdError as error:
                _log.info("report.not_delivered", orchestrator=orchestrator, reason=error.reason.text)
                woken.set()
                await self._clock.sleep(backoff.next())
            except Exception:  # noqa: BLE001 - the outbox outlives any single failure; the traceback goes to the log
                _log.exception("report.failed", orchestrator=orchestrator)
                woken.set()
                await self._clock.sleep(backoff.next())

    async def tell(self, orchestrator: PeerId) -> bool:
        """Send one batch; returns whether there is more. Raises what the orchestrator answers."""
        reports = await self._views.unacknowledged(orchestrator, BATCH)
        if not reports:
            return False
        failpoint("job.report.before_send")
        stub: jobs_pb2_grpc.JobReportServiceAsyncStub = jobs_pb2_grpc.JobReportServiceStub(
            self._channels.channel(orchestrator)
        )
        with remote_errors(orchestrator):
            answer = await stub.ReportJobs(jobs_pb2.ReportJobsRequest(reports=reports), timeout=_DEADLINE_SECONDS)
        failpoint("job.report.after_send")
        await self._store.write(lambda tx: self._acknowledge(tx, orchestrator, answer.acknowledged))
        # An orchestrator that acknowledges less than it was sent is asked again later, not at once for ever.
        return len(reports) == BATCH and len(answer.acknowledged) == BATCH

    def _acknowledge(self, tx: Tx, orchestrator: PeerId, acknowledged: Sequence[jobs_pb2.AcknowledgedReport]) -> None:
        for entry in acknowledged:
            self._repository.acknowledge(tx, to_key(orchestrator, entry.key), entry.revision)

    def _hear(self, change: Change) -> None:
        self._wake(change.orchestrator)

    def _wake(self, orchestrator: PeerId) -> None:
        if orchestrator not in self._woken:
            self._woken[orchestrator] = asyncio.Event()
            self._new.set()
        self._woken[orchestrator].set()
