"""One firing: whether it runs now under the overlap rule, and its execution, in one transaction.

The row of a planned time is unique in the store and written together with the execution, so a kill at any moment
leaves both or neither, and nothing is ever started twice for one time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.schedules import repository
from peerd.schedules.model import Cause, Firing, FiringStatus, Schedule
from peerd.store import Tx
from peerd.workflows.automation import schedule_params
from peerd.workflows.params import run_params
from peerd.workflows.repository import WorkflowVersion, open_among, stored_version
from peerd.workflows.secrets import check_unattended

MAX_QUEUED = 100
"""Of one schedule; what would wait longer is skipped."""
TRIES = 18
"""Of a firing that cannot start for a reason that passes; their pauses take an hour, whatever the clock is set to."""
_FIRST_PAUSE_MS = 5_000
_LONGEST_PAUSE_MS = 300_000


class Executions(Protocol):
    """What makes and ends executions, inside a transaction; see peerd.workflows.lifecycle."""

    def start(self, tx: Tx, version: WorkflowVersion, params: Mapping[str, str], *, started_by: str) -> int:
        """Make one; returns its id. Raises PeerdError."""
        ...

    def cancel(self, tx: Tx, execution_id: int, reason: str) -> None:
        """Record the wish to cancel."""
        ...


class Firings:
    """Decides firings."""

    def __init__(self, executions: Executions) -> None:
        self._executions = executions

    def fire(self, tx: Tx, schedule: Schedule, planned_at: int | None, cause: Cause, started_by: str) -> Firing | None:
        """A new firing, and what becomes of it now; None if that planned time was decided on before."""
        firing = repository.add_firing(tx, schedule.schedule_id, planned_at, cause, started_by)
        if firing is None:
            return None
        self._attempt(tx, schedule, firing)
        return repository.get_firing(tx, firing.firing_id)

    def again(self, tx: Tx, schedule: Schedule) -> bool:
        """Look at those that wait, oldest first, up to the first that goes on waiting. Whether any was decided."""
        decided = False
        for firing in repository.waiting(tx, schedule.schedule_id):
            if schedule.paused_at is not None and firing.cause is not Cause.TRIGGER:
                continue
            if firing.status is FiringStatus.RETRYING and (firing.next_attempt_at or 0) > tx.steady:
                break
            if firing.status is FiringStatus.QUEUED and self._open(tx, schedule):
                break
            self._attempt(tx, schedule, firing)
            decided = True
            if repository.get_firing(tx, firing.firing_id).status.waits:
                break
        return decided

    def _attempt(self, tx: Tx, schedule: Schedule, firing: Firing) -> None:
        waiting = repository.waiting(tx, schedule.schedule_id)
        before = [other for other in waiting if other.firing_id < firing.firing_id]
        running = self._open(tx, schedule)
        match schedule.definition.overlap:
            case "allow":
                self._start(tx, schedule, firing)
            case "queue" if (running or before) and len(before) >= MAX_QUEUED:
                message = f"{len(before)} earlier ones wait already"
                repository.decide(
                    tx, firing.firing_id, FiringStatus.SKIPPED_OVERLAP, reason="queue_full", message=message
                )
            case "queue" if running or before:
                self._queue(tx, schedule, firing, running, before)
            case "cancel_previous":
                self._replace(tx, schedule, firing, before)
                for execution_id in running:
                    self._executions.cancel(tx, execution_id, f"schedule {schedule.name} begins anew")
                if running:
                    self._queue(tx, schedule, firing, running, [])
                else:
                    self._start(tx, schedule, firing)
            case "skip" if running or before:
                what = f"execution {running[0]}" if running else "an earlier firing"
                repository.decide(
                    tx,
                    firing.firing_id,
                    FiringStatus.SKIPPED_OVERLAP,
                    reason="previous_runs",
                    message=f"{what} had not ended, and overlap is skip",
                )
            case _:
                self._start(tx, schedule, firing)

    def _open(self, tx: Tx, schedule: Schedule) -> list[int]:
        """Executions of the schedule that have not ended."""
        known = repository.running(tx, schedule.schedule_id)
        still = open_among(tx, known)
        repository.ended(tx, schedule.schedule_id, [number for number in known if number not in still])
        return still

    def _queue(self, tx: Tx, schedule: Schedule, firing: Firing, running: list[int], before: list[Firing]) -> None:
        what = f"execution {running[0]} to end" if running else f"firing {before[0].firing_id}, which waits itself,"
        number = running[0] if running else None
        repository.decide(
            tx,
            firing.firing_id,
            FiringStatus.QUEUED,
            reason="previous_runs",
            message=f"waits for {what}; overlap is {schedule.definition.overlap}",
            next_action=f"nothing to do, or 'peerctl executions cancel {number}'" if number else "nothing to do",
        )

    def _replace(self, tx: Tx, schedule: Schedule, firing: Firing, before: list[Firing]) -> None:
        for other in before:
            message = f"firing {firing.firing_id} came before it could begin"
            repository.decide(tx, other.firing_id, FiringStatus.SKIPPED_OVERLAP, reason="replaced", message=message)

    def _start(self, tx: Tx, schedule: Schedule, firing: Firing) -> None:
        tx.execute("SAVEPOINT firing")
        try:
            moment = tx.now if firing.planned_at is None else firing.planned_at
            version = stored_version(tx, schedule.workflow_id, schedule.workflow_version, name=schedule.workflow_name)
            check_unattended(version.definition)
            given = schedule_params(schedule.definition.params, local=schedule.local(moment))
            params = run_params(version.definition, given)
            execution_id = self._executions.start(tx, version, params, started_by=firing.started_by)
        except PeerdError as error:
            tx.execute("ROLLBACK TO firing")
            tx.execute("RELEASE firing")
            self._failed(tx, firing, error)
        else:
            tx.execute("RELEASE firing")
            repository.decide(tx, firing.firing_id, FiringStatus.FIRED, execution_id=execution_id)

    def _failed(self, tx: Tx, firing: Firing, error: PeerdError) -> None:
        status, reason, next_attempt_at = FiringStatus.FAILED, error.reason.text, None
        message, action = error.message, error.next_action
        if error.reason is Reason.GROUP_BUSY:
            status = FiringStatus.SKIPPED_OVERLAP
        elif error.retryable:
            pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS << min(firing.attempts, 10))
            if firing.attempts + 1 < TRIES:
                status, next_attempt_at = FiringStatus.RETRYING, Millis(tx.steady + pause)
            else:
                message = f"{message}; given up after an hour"
        repository.decide(
            tx,
            firing.firing_id,
            status,
            reason=reason,
            message=message,
            next_action=action,
            next_attempt_at=next_attempt_at,
        )
