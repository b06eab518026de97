"""Renewing the leases of everything that runs elsewhere, and hearing what reports did not bring.

Every executor is asked regularly about all jobs of this peer that it holds, and about those whose files are under way.
Its answer is taken like a report; a job it does not know is lost, as after a restore of its store. Only news becomes an
event: that nothing has changed is not worth a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError
from peerd.identity.peer_id import PeerId
from peerd.rpc.status import remote_errors
from peerd.v1 import jobs_pb2
from peerd.workflows import events as e
from peerd.workflows.contacts import UNREACHABLE, Contacts
from peerd.workflows.dispatch import CALL_SECONDS, Dispatcher
from peerd.workflows.model import EdgeStatus, Report, WorkflowJobStatus
from peerd.workflows.requests import job_key, read_report
from peerd.workflows.runner import Runner
from peerd.workflows.state import ExecutionState, JobState

KEYS_PER_CALL = 1000


@dataclass(frozen=True, kw_only=True)
class _Asked:
    runner: Runner
    node: str
    placement: int


class Leases:
    """Asks executors about jobs."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        contacts: Contacts,
        runners: Callable[[], Iterable[Runner]],
        clock: Clock,
        store_id: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._contacts = contacts
        self._runners = runners
        self._clock = clock
        self._store_id = store_id

    async def renew(self) -> None:
        """One round over all executors that are not away."""
        by_peer: dict[PeerId, dict[bytes, _Asked]] = {}
        keys: dict[PeerId, list[jobs_pb2.JobKey]] = {}
        for runner in self._runners():
            for peer, nodes in runner.state.by_peer.items():
                if self._contacts.is_away(peer):
                    continue
                for node in nodes:
                    job = runner.state.jobs[node]
                    if job.peer != peer or not job.remote_id or not _is_awaited(runner.state, job):
                        continue
                    key = job_key(runner.state, job, job.placement, self._store_id)
                    keys.setdefault(PeerId(peer), []).append(key)
                    asked = _Asked(runner=runner, node=node, placement=job.placement)
                    by_peer.setdefault(PeerId(peer), {})[_name(key)] = asked
        await asyncio.gather(*(self._renew(peer, keys[peer], asked) for peer, asked in by_peer.items()))

    async def probe(self, peer: PeerId) -> None:
        """Ask whether anybody is there, without renewing anything. Raises when not."""
        with remote_errors(peer):
            await self._dispatcher.stub(peer).SyncJobs(jobs_pb2.SyncJobsRequest(), timeout=CALL_SECONDS / 2)

    async def _renew(self, peer: PeerId, keys: Sequence[jobs_pb2.JobKey], asked: dict[bytes, _Asked]) -> None:
        for start in range(0, len(keys), KEYS_PER_CALL):
            request = jobs_pb2.SyncJobsRequest(keys=keys[start : start + KEYS_PER_CALL])
            try:
                with remote_errors(peer):
                    answer = await self._dispatcher.stub(peer).SyncJobs(request, timeout=CALL_SECONDS)
            except PeerdError as error:
                if error.reason in UNREACHABLE:
                    self._contacts.missed(peer)
                    return
                raise
            self._contacts.reached(peer)
            now = self._clock.now()
            for report in answer.reports:
                if (about := asked.get(_name(report.key))) is not None:
                    _tell(about, read_report(report), now)
            for key in answer.unknown:
                if (about := asked.get(_name(key))) is not None:
                    message = "its executor does not know it any more"
                    about.runner.tell(e.JobLost(node=about.node, placement=about.placement, message=message, at=now))
        for runner in {id(about.runner): about.runner for about in asked.values()}.values():
            if peer not in runner.state.heard:
                runner.tell(e.PeerHeard(peer=peer))


def _is_awaited(state: ExecutionState, job: JobState) -> bool:
    """Whether anything is still to come of it: its end, or files that it sends."""
    if not job.final:
        return True
    return job.status is WorkflowJobStatus.COMPLETED and any(
        state.edges[edge_id].status is EdgeStatus.SENDING for edge_id in job.outputs
    )


def is_news(job: JobState, placement: int, report: Report) -> bool:
    """Whether a report says what the state does not know."""
    known = job.report.revision if job.report is not None else -1
    if placement != job.placement:
        return report.status.final and placement in job.stops
    return report.revision > known


def _tell(about: _Asked, report: Report, now: Millis) -> None:
    if is_news(about.runner.state.jobs[about.node], about.placement, report):
        about.runner.tell(e.JobReported(node=about.node, placement=about.placement, report=report, at=now))


def _name(key: jobs_pb2.JobKey) -> bytes:
    return key.SerializeToString(deterministic=True)
