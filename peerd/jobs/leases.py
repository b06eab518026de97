"""Whether an orchestrator is still there: any contact renews the leases of its jobs.

A job that was created and never started ends after a while in which nobody asked for it. A started one goes on without
its orchestrator and reports later, unless its partition policy is to stop when the lease has run out.
"""

from __future__ import annotations

from collections.abc import Sequence

from peerd.clock import DAY_MS, Clock, Millis
from peerd.jobs.model import Job, JobKey, JobStatus, Stop
from peerd.jobs.repository import JobRepository, Patience, forget_tombstones, to_job
from peerd.store import Store, Tx

TOMBSTONES_KEPT_DAYS = 30
"""Far longer than a create can be on its way."""


class Leases:
    """Renews and enforces."""

    def __init__(
        self, store: Store, repository: JobRepository, clock: Clock, *, created_expires_seconds: float
    ) -> None:
        self._store = store
        self._repository = repository
        self._clock = clock
        self._patience = Patience(created_expires_ms=round(created_expires_seconds * 1000), up_since=clock.steady())
        self._tidied_at = 0

    async def sync(self, keys: Sequence[JobKey]) -> tuple[list[Job], list[JobKey]]:
        """Renew what the orchestrator asks for; returns the jobs and the keys that are unknown."""

        def renew(tx: Tx) -> tuple[list[Job], list[JobKey]]:
            jobs: list[Job] = []
            unknown: list[JobKey] = []
            for key in keys:
                self._repository.contact(tx, key)
                job = self._repository.find(tx, key)
                if job is None:
                    unknown.append(key)
                else:
                    jobs.append(job)
            return jobs, unknown

        return await self._store.write(renew)

    async def expire(self) -> None:
        """End what nobody asked for in time, and forget old tombstones. Costs no write when there is nothing to do."""
        now = self._clock.steady()
        if await self._store.one(*self._patience.query(now)) is not None:
            await self._store.write(self._expire)
        if now - self._tidied_at > DAY_MS:
            self._tidied_at = now
            await self._store.write(lambda tx: forget_tombstones(tx, Millis(tx.steady - TOMBSTONES_KEPT_DAYS * DAY_MS)))

    def _expire(self, tx: Tx) -> None:
        for job in map(to_job, tx.all(*self._patience.query(tx.steady))):
            silent = (tx.steady - job.contact_at) // 1000
            if job.status is JobStatus.CREATED:
                message = f"created, and not started within {silent} s: its orchestrator was not heard from"
                self._repository.move(tx, job, JobStatus.FAILED, reason="refused", message=message)
                continue
            message = f"stopped by its partition policy: its orchestrator was not heard from for {silent} s"
            if job.status is JobStatus.RUNNING:
                self._repository.wish_stop(tx, job, Stop.LEASE, message)
            else:
                self._repository.move(tx, job, JobStatus.FAILED, reason="lost", message=message)
