"""CancelJob: a durable wish, answered with the committed state, which wins over the wish.

What has no process ends in the same transaction. What has one gets the wish recorded; the executor, which hears of it
after the commit, stops the process and records the end. The answer waits for that, but not for ever.
"""

from __future__ import annotations

import asyncio

from peerd.clock import Clock
from peerd.failpoints import failpoint
from peerd.jobs.changes import Changes
from peerd.jobs.model import Job, JobKey, JobStatus, Stop
from peerd.jobs.repository import JobRepository
from peerd.store import Store, Tx
from peerd.store.audit import note

ANSWER_WITHIN_SECONDS = 2.0
"""One second of grace for the process, one for the rest; then the answer says that it is still being stopped."""


class Cancellation:
    """Takes wishes to cancel."""

    def __init__(self, store: Store, repository: JobRepository, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._repository = repository
        self._changes = changes
        self._clock = clock

    async def cancel(self, key: JobKey, message: str, *, request_id: str = "") -> Job | None:
        """The job as it is after the wish; None for a key that never came, and now never can."""
        job = await self._store.write(lambda tx: self._wish(tx, key, message, request_id))
        failpoint("job.cancel.after_commit")
        if job is None or job.status.final:
            return job
        return await self._until_final(job)

    def _wish(self, tx: Tx, key: JobKey, message: str, request_id: str) -> Job | None:
        job = self._repository.find(tx, key)
        if job is None:
            changed = not self._repository.is_buried(tx, key)
            self._repository.bury(tx, key)
        elif job.status is JobStatus.RUNNING:
            changed = job.stop is not Stop.CANCEL
            job = self._repository.wish_stop(tx, job, Stop.CANCEL, message) if changed else job
        else:
            changed = not job.status.final
            if changed:
                job = self._repository.move(tx, job, JobStatus.CANCELLED, reason="cancelled", message=message)
        if changed:
            note(tx, "CancelJob", caller=key.orchestrator, target=_named(key, job, message), request_id=request_id)
        failpoint("job.cancel.before_commit")
        return job

    async def _until_final(self, job: Job) -> Job:
        deadline = asyncio.ensure_future(self._clock.sleep(ANSWER_WITHIN_SECONDS))
        try:
            with self._changes.watching(job.id) as changed:
                while True:
                    changed.clear()
                    # Read by the writer: a plain read could be older than the change that woke us.
                    now = await self._store.write(lambda tx: self._repository.get(tx, job.id))
                    if now.status.final or deadline.done():
                        return now
                    heard = asyncio.ensure_future(changed.wait())
                    try:
                        await asyncio.wait({heard, deadline}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        heard.cancel()
        finally:
            deadline.cancel()


def _named(key: JobKey, job: Job | None, message: str) -> dict[str, object]:
    which = ("job_execution_id", job.id) if job is not None else ("workflow_job_id", key.workflow_job_id)
    return {"workflow_execution_id": key.workflow_execution_id, which[0]: which[1], "reason": message}
