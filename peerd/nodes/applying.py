"""Applies what discoveries and scans found: once for each, as its job ends, whenever this peer runs.

What is under way stands in the store, so a restart goes on where it was. The row of a run is ended in the transaction
that changes its node, and only one transaction can end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

import structlog

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.loops import run_every
from peerd.nodes import repository, runs
from peerd.nodes.ending import Ending
from peerd.nodes.homecoming import Brought, read_brought
from peerd.nodes.model import Organization
from peerd.nodes.runs import Run
from peerd.nodes.verdict import BAD_RESULT, failed, judge
from peerd.store import Store, Tx
from peerd.workflows.outcomes import JobOutcome, begun, delivery_directory, job_outcomes

_LOOK_SECONDS = 0.5
_SLACK_SECONDS = 60
"""For its result to come home."""
_NO_WORD = "the peer that it ran on went away; what it says later does not count"

_log = structlog.get_logger(__name__)


class Executions(Protocol):
    """Where the jobs are; see peerd.workflows.lifecycle."""

    def give_up(self, tx: Tx, execution_id: int, job: str, waiting: str) -> None:
        """Nothing more is expected of that job: what waits for its end goes on."""
        ...


class Applying:
    """Looks at what is under way."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        data_dir: Path,
        own_peer_id: PeerId,
        known: Collection[str],
        executions: Executions,
        ending: Ending,
    ) -> None:
        self._store = store
        self._clock = clock
        self._data_dir = data_dir
        self._own_peer_id = own_peer_id
        self._known = known
        self._executions = executions
        self._ending = ending
        self._running: dict[tuple[int, str], float] = {}
        """Since when, by a clock that nobody sets, each job has been seen to have begun."""

    async def run(self) -> None:
        """Until cancelled."""
        await run_every(self.look, seconds=_LOOK_SECONDS, clock=self._clock, name="nodes")

    async def look(self) -> None:
        """Apply what has ended."""
        by_execution = sorted(await runs.all_open(self._store), key=lambda run: run.workflow_execution_id)
        is_open = {(run.workflow_execution_id, run.job) for run in by_execution}
        self._running = {job: since for job, since in self._running.items() if job in is_open}
        for execution_id, group in groupby(by_execution, key=lambda run: run.workflow_execution_id):
            await self._apply(execution_id, list(group))

    async def _apply(self, execution_id: int, open_runs: Sequence[Run]) -> None:
        by_job: dict[str, list[Run]] = {}
        for run in open_runs:
            by_job.setdefault(run.job, []).append(run)
        ended = await job_outcomes(self._store, execution_id, by_job)
        owed = await begun(self._store, execution_id, by_job) if len(ended) < len(by_job) else {}
        now = self._clock.monotonic()
        for job, executor in owed.items():
            if job in ended:
                continue
            since = self._running.setdefault((execution_id, job), now)
            if now - since > by_job[job][0].longest_seconds + _SLACK_SECONDS:
                await _try(by_job[job][0], self._lose(by_job[job], executor))
        await asyncio.gather(*(self._end_job(by_job[job], outcome) for job, outcome in ended.items()))

    async def _end_job(self, of_job: Sequence[Run], outcome: JobOutcome) -> None:
        brought: Mapping[str, Brought] = {}
        if outcome.delivered:
            first = of_job[0]
            root = delivery_directory(self._data_dir, self._own_peer_id, first.workflow_execution_id)
            brought = await asyncio.to_thread(read_brought, root, first.job, [run.node_id for run in of_job])
        await asyncio.gather(*(_try(run, self._end(run, outcome, brought.get(run.node_id))) for run in of_job))

    async def _end(self, run: Run, outcome: JobOutcome, brought: Brought | None) -> None:
        def apply(tx: Tx) -> None:
            organization = _organization(tx, run)
            if brought is None:
                verdict = failed(run, outcome.reason, outcome.message)
            elif brought.problem:
                verdict = failed(run, BAD_RESULT, f"the prober's answer cannot be read: {brought.problem}")
            else:
                verdict = judge(run, brought.result, organization.policy, self._known)
            self._ending.end(tx, run, verdict, slug=organization.slug, executor=outcome.executor, brought=brought)
            failpoint("nodes.apply.before_commit")

        await self._store.write(apply)
        failpoint("nodes.apply.after_commit")

    async def _lose(self, of_job: Sequence[Run], executor: str) -> None:
        """The prober and its executor end a job long before: the peer that runs it has gone."""

        def lose(tx: Tx) -> None:
            first = of_job[0]
            organization = _organization(tx, first)
            for run in of_job:
                self._ending.end(tx, run, failed(run, "lost", _NO_WORD), slug=organization.slug, executor=executor)
            self._executions.give_up(tx, first.workflow_execution_id, first.job, _NO_WORD)

        await self._store.write(lose)


async def _try(run: Run, end: Awaitable[None]) -> None:
    """What cannot be ended now keeps nobody else waiting, and is tried again."""
    try:
        await end
    except PeerdError as error:
        _log.info("nodes.run_waits", run=run.run_id, reason=error.reason.text, message=error.message)
    except Exception:  # noqa: BLE001 - a mistake of ours in one must not hold up all
        _log.exception("nodes.run_not_ended", run=run.run_id, node=run.node_id)


def _organization(tx: Tx, run: Run) -> Organization:
    row = repository.find_organization(tx, run.org_id)
    assert row is not None  # noqa: S101 - organizations are never removed
    return repository.to_organization(row)
