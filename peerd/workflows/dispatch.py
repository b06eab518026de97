"""Carries out commands: one call each to an executor, and the event that its answer is.

Calls to one peer wait in a line of their own, so that a slow peer holds up nobody else; a peer that does not answer
has its line dropped, since the engine asks again when it is back. A command that is waiting or on its way is not taken
twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from grpc import aio

from peerd.clock import Clock, Millis
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.identity.peer_id import PeerId
from peerd.rpc.status import remote_errors
from peerd.v1 import jobs_pb2, jobs_pb2_grpc
from peerd.workflows import events as e
from peerd.workflows.contacts import UNREACHABLE, Contacts
from peerd.workflows.decide import CancelJob, Command, CreateJob, StartJob
from peerd.workflows.requests import read_report
from peerd.workflows.runner import Order, Runner

_log = structlog.get_logger(__name__)

CALL_SECONDS = 10.0
# More at once would only wait in the executor's store.
CALLS_PER_PEER = 32
# Between asking again about a cancel that the executor has not finished, or a call it will take later.
_AGAIN_MS = 1000
_LONGEST_PAUSE_MS = 30_000

# Refusals that a little time mends: what makes the caller a member may not have reached that peer yet.
_PASSING = frozenset({Reason.NOT_A_MEMBER, Reason.NOT_AUTHENTICATED})


class Dials(Protocol):
    """Connections to peers."""

    def channel(self, peer_id: PeerId) -> aio.Channel:
        """The channel to a peer. Raises NOT_TRUSTED_OR_UNREACHABLE when no address of it is known."""
        ...


@dataclass(slots=True)
class _Line:
    waiting: deque[tuple[Runner, Order]] = field(default_factory=deque)
    workers: int = 0


class Dispatcher:
    """Sends what runners order. Lives inside the task group it is given."""

    def __init__(self, dials: Dials, contacts: Contacts, clock: Clock) -> None:
        self._dials = dials
        self._contacts = contacts
        self._clock = clock
        self._lines: dict[PeerId, _Line] = {}
        self._taken: set[tuple[int, Command]] = set()
        self._failures: dict[tuple[int, str, int], int] = {}
        self.tasks: asyncio.TaskGroup | None = None

    def perform(self, runner: Runner, orders: Sequence[Order]) -> None:
        """Put orders into the lines of their peers."""
        for order in orders:
            command = order.command
            assert isinstance(command, CreateJob | StartJob | CancelJob)  # noqa: S101 - PlaceJob stays in the runner
            if self.under_way(runner, command) or self.tasks is None:
                continue
            self._taken.add((runner.execution_id, command))
            peer = PeerId(command.peer)
            line = self._lines.setdefault(peer, _Line())
            if isinstance(command, CancelJob):
                line.waiting.appendleft((runner, order))  # nobody who cancels wants to wait behind what is cancelled
            else:
                line.waiting.append((runner, order))
            if line.workers < CALLS_PER_PEER:
                line.workers += 1
                self.tasks.create_task(self._work(peer, line))

    def under_way(self, runner: Runner, command: Command) -> bool:
        """Whether it is waiting in a line or on the wire."""
        return (runner.execution_id, command) in self._taken

    def stub(self, peer: PeerId) -> jobs_pb2_grpc.JobServiceAsyncStub:
        """The executor there, or here: one code path."""
        stub: jobs_pb2_grpc.JobServiceAsyncStub = jobs_pb2_grpc.JobServiceStub(self._dials.channel(peer))
        return stub

    async def _work(self, peer: PeerId, line: _Line) -> None:
        try:
            while line.waiting:
                runner, order = line.waiting.popleft()
                try:
                    await self._carry_out(peer, runner, order)
                finally:
                    self._taken.discard((runner.execution_id, order.command))
        finally:
            line.workers -= 1

    async def _carry_out(self, peer: PeerId, runner: Runner, order: Order) -> None:
        command = order.command
        overtaken = runner.state.cancel is not None and not isinstance(command, CancelJob)
        if self._contacts.is_away(peer) or overtaken:
            return
        attempt = (runner.execution_id, command.node, command.placement)
        try:
            events = await self._call(peer, order)
        except PeerdError as error:
            if error.reason in UNREACHABLE:
                self._contacts.missed(peer)  # when it is back, the engine looks at all its jobs again
                return
            self._contacts.reached(peer)
            runner.tell(self._refused(runner, attempt, command, error))
            return
        except Exception as error:  # noqa: BLE001 - one command that cannot be carried out must not end the others
            _log.exception("dispatch.crashed", node=command.node)
            runner.tell(self._refused(runner, attempt, command, PeerdError(Reason.OVERLOADED, type(error).__name__)))
            return
        self._failures.pop(attempt, None)
        self._contacts.reached(peer)
        for event in events:
            runner.tell(event)

    async def _call(self, peer: PeerId, order: Order) -> list[e.Event]:
        command, now = order.command, self._clock.now()
        match order.request:
            case jobs_pb2.CreateJobRequest() as request:
                failpoint("workflow.create.before_send")
                with remote_errors(peer):
                    answer = await self.stub(peer).CreateJob(request, timeout=CALL_SECONDS)
                failpoint("workflow.create.after_send")
                return [
                    e.JobCreated(
                        node=command.node,
                        placement=command.placement,
                        job_execution_id=answer.job_execution_id,
                        at=now,
                    )
                ]
            case jobs_pb2.StartJobRequest() as start:
                failpoint("workflow.start.before_send")
                with remote_errors(peer):
                    started = await self.stub(peer).StartJob(start, timeout=CALL_SECONDS)
                failpoint("workflow.start.after_send")
                taken = e.JobStarted(
                    node=command.node, placement=command.placement, generation=start.generation, at=now
                )
                return [taken, _reported(command, started.report, now)]
            case jobs_pb2.JobKey() as key:
                return await self._cancel(peer, command, key, now)
            case _:
                raise TypeError(f"no call for {command}")

    async def _cancel(self, peer: PeerId, command: Command, key: jobs_pb2.JobKey, now: Millis) -> list[e.Event]:
        assert isinstance(command, CancelJob)  # noqa: S101 - only cancels are ordered with a bare key
        failpoint("workflow.cancel.before_send")
        with remote_errors(peer):
            answer = await self.stub(peer).CancelJob(
                jobs_pb2.CancelJobRequest(key=key, reason=command.reason), timeout=CALL_SECONDS
            )
        failpoint("workflow.cancel.after_send")
        report = read_report(answer.report)
        if report.status.final:
            return [e.JobStopped(node=command.node, placement=command.placement, report=report, at=now)]
        return [
            e.JobReported(node=command.node, placement=command.placement, report=report, at=now),
            e.JobHeldUp(
                node=command.node,
                placement=command.placement,
                reason="cancelling",
                message="its executor is stopping it",
                retry_at=Millis(self._clock.steady() + _AGAIN_MS),
            ),
        ]

    def _refused(self, runner: Runner, attempt: tuple[int, str, int], command: Command, error: PeerdError) -> e.Event:
        """What a refusal means: try later, create it anew, or not here."""
        now = self._clock.now()
        movable = isinstance(command, CreateJob) and not runner.state.jobs[command.node].spec.pinned
        if isinstance(command, StartJob) and error.reason is Reason.NOT_FOUND:
            return e.JobLost(node=command.node, placement=command.placement, message=error.message, at=now)
        elsewhere = movable and error.reason.text in e.PASSING_REFUSALS
        passing = error.retryable or error.reason in _PASSING or isinstance(command, CancelJob)
        if passing and not elsewhere:
            failures = self._failures[attempt] = self._failures.get(attempt, 0) + 1
            pause = min(_LONGEST_PAUSE_MS, _AGAIN_MS << min(failures - 1, 10))
            if error.retry_after_seconds is not None:
                pause = round(error.retry_after_seconds * 1000)
            return e.JobHeldUp(
                node=command.node,
                placement=command.placement,
                reason=error.reason.text,
                message=error.message,
                next_action=error.next_action,
                retry_at=Millis(self._clock.steady() + pause),
            )
        self._failures.pop(attempt, None)
        return e.JobRefused(
            node=command.node,
            placement=command.placement,
            reason=error.reason.text,
            message=f"{error.reason.text}: {error.message}",
            at=now,
        )


def _reported(command: Command, report: jobs_pb2.JobReport, now: Millis) -> e.Event:
    return e.JobReported(node=command.node, placement=command.placement, report=read_report(report), at=now)
