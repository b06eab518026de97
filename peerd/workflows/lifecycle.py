"""How executions begin and are ended here, whoever asks: a person, a schedule, a newer execution of their group."""

from __future__ import annotations

from collections.abc import Mapping

from peerd.store import Tx
from peerd.workflows import damage, repository, views
from peerd.workflows import events as e
from peerd.workflows.door import Door
from peerd.workflows.groups import enter, group_of
from peerd.workflows.model import ExecutionStatus
from peerd.workflows.orchestrator import Orchestrator
from peerd.workflows.reuse import Rerun


class Lifecycle:
    """The effects, inside the transaction of whoever asks."""

    def __init__(self, orchestrator: Orchestrator, viewer: views.Viewer, door: Door) -> None:
        self._orchestrator = orchestrator
        self._viewer = viewer
        self._door = door

    def start(
        self,
        tx: Tx,
        version: repository.WorkflowVersion,
        params: Mapping[str, str],
        *,
        keep: bool = False,
        started_by: str = "",
        rerun: Rerun | None = None,
    ) -> int:
        """Make an execution with these complete parameters; returns its id.

        Raises OVERLOADED, DISK_LOW, INVALID_ARGUMENT (its group's name), GROUP_BUSY.
        """
        self._door.check()
        group = group_of(version.definition, params)
        record = repository.create_execution(tx, version, params, keep=keep, started_by=started_by, rerun=rerun)
        execution_id = record.spec.execution_id
        if group is not None:
            turn = enter(tx, execution_id, group, cancel=lambda other, why: self.cancel(tx, other, why))
            if turn is not None:
                tx.on_commit(lambda: self._orchestrator.gate.add(execution_id, turn))
        self._orchestrator.adopt(tx, record)
        return execution_id

    def cancel(self, tx: Tx, execution_id: int, reason: str) -> None:
        """Record the wish to cancel. Raises NOT_FOUND; what is over stays as it is."""
        execution = views.execution_row(tx, self._viewer, execution_id)
        if views.is_final(execution):
            return
        if execution_id in self._orchestrator.held:
            damage.give_up(tx, execution_id, reason)
            return
        if not execution.cancel_reason:
            tx.execute(
                "UPDATE workflow_executions SET cancel_reason = ?, version = version + 1 WHERE id = ?",
                (reason, execution_id),
            )
            self._orchestrator.post(tx, execution_id, e.CancelRequested(reason=reason, at=tx.now))
        tx.on_commit(lambda: self._orchestrator.changes.notify(execution_id))

    def give_up(self, tx: Tx, execution_id: int, job: str, waiting: str) -> None:
        """Whoever started it expects nothing more of that job: it fails as if its deadline had passed, and what waits
        for its end goes on. Of a job or an execution that is over, nothing."""
        row = tx.one("SELECT status FROM workflow_executions WHERE id = ?", (execution_id,))
        if row is None or ExecutionStatus(row["status"]).final or execution_id in self._orchestrator.held:
            return
        self._orchestrator.post(tx, execution_id, e.DeadlinePassed(node=job, waiting=waiting, at=tx.now))
