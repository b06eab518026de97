"""What people do with schedules, and what storing a definition does: each is part of one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable

from peerd.errors import PeerdError, Reason, Violation
from peerd.schedules import repository
from peerd.schedules.catching_up import all_missed
from peerd.schedules.firing import Firings
from peerd.schedules.model import Cause, Firing, Origin, Schedule
from peerd.store import Tx
from peerd.v1 import schedules_pb2, workflows_pb2
from peerd.workflows.automation import schedule_problems, with_defaults
from peerd.workflows.problems import format_path
from peerd.workflows.repository import WorkflowVersion, get_workflow, stored_version

MAX_SCHEDULES = 1000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_MAX_REASON = 500


class Schedules:
    """Changes schedules."""

    def __init__(self, firings: Firings) -> None:
        self._firings = firings
        self._wake: Callable[[], None] = lambda: None

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call this when a change is durable."""
        self._wake = wake

    def stored(self, tx: Tx, version: WorkflowVersion) -> None:
        """A definition was stored: what it says of its schedule counts from now on. Raises ALREADY_EXISTS."""
        existing = repository.find_named(tx, version.name)
        if version.definition.HasField("schedule"):
            self._put(
                tx,
                existing,
                version,
                version.definition.schedule,
                name=version.name,
                origin=Origin.DEFINITION,
                pinned=version.version,
            )
        elif existing is not None and existing.origin is Origin.DEFINITION:
            self._delete(tx, existing)

    def put(self, tx: Tx, request: schedules_pb2.PutScheduleRequest) -> Schedule:
        """Make one, or change it. Raises INVALID_ARGUMENT, INVALID_NAME, NOT_FOUND, ALREADY_EXISTS, QUOTA_EXCEEDED."""
        found = get_workflow(tx, request.workflow)
        version = stored_version(tx, found.workflow_id, request.workflow_version, name=request.workflow)
        name = request.name or version.name
        if not _NAME.fullmatch(name):
            raise PeerdError(Reason.INVALID_NAME, f"{name[:80]!r} is no name of a schedule")
        params = frozenset(version.definition.params) | frozenset(version.definition.parameters)
        problems = list(schedule_problems(request.definition, ("definition",), params))
        if problems:
            violations = [Violation(field=format_path(each.path), message=each.message) for each in problems]
            raise PeerdError(
                Reason.INVALID_ARGUMENT,
                f"{violations[0].field}: {violations[0].message}",
                next_action=problems[0].next_action or None,
                violations=violations,
            )
        existing = repository.find_named(tx, name)
        return self._put(
            tx,
            existing,
            version,
            request.definition,
            name=name,
            origin=Origin.REQUEST,
            pinned=request.workflow_version,
        )

    def pause(self, tx: Tx, name: str, reason: str) -> Schedule:
        """Fire nothing until it is resumed. Raises NOT_FOUND."""
        schedule = repository.get(tx, name)
        if len(reason) > _MAX_REASON or not reason.isprintable():
            raise PeerdError(Reason.INVALID_ARGUMENT, f"a reason has at most {_MAX_REASON} printable characters")
        if schedule.paused_at is None:
            repository.update(tx, schedule.schedule_id, {"paused_at": tx.now, "pause_reason": reason})
        elif reason:
            repository.update(tx, schedule.schedule_id, {"pause_reason": reason})
        return self._changed(tx, schedule)

    def resume(self, tx: Tx, name: str, *, skip_missed: bool) -> Schedule:
        """Go on, also from a clock that was set back. Raises NOT_FOUND."""
        schedule = repository.get(tx, name)
        columns: dict[str, object] = {"paused_at": None, "pause_reason": ""}
        if schedule.paused_at is not None:
            columns |= {"pause_began": schedule.paused_at, "pause_ended": tx.now}
        if skip_missed:
            columns["skip_until"] = tx.now
        decided_until = min(schedule.decided_until, tx.now)
        columns |= {"decided_until": decided_until, "next_at": schedule.next_start(decided_until)}
        repository.update(tx, schedule.schedule_id, columns)
        return self._changed(tx, schedule)

    def trigger(self, tx: Tx, name: str, who: str) -> Firing:
        """One run now, under the overlap rule. Raises NOT_FOUND, STORE_CORRUPT."""
        schedule = repository.get(tx, name)
        if schedule.damage:
            raise PeerdError(Reason.STORE_CORRUPT, f"schedule {schedule.name}: {schedule.damage}")
        started_by = f"schedule {schedule.name}, triggered by {who}"
        firing = self._firings.fire(tx, schedule, None, Cause.TRIGGER, started_by)
        assert firing is not None  # noqa: S101 - only planned times can have been decided on
        repository.prune(tx, schedule.schedule_id)
        return firing

    def delete(self, tx: Tx, name: str) -> None:
        """End it. Raises NOT_FOUND."""
        self._delete(tx, repository.get(tx, name))

    def _put(
        self,
        tx: Tx,
        existing: Schedule | None,
        version: WorkflowVersion,
        definition: workflows_pb2.ScheduleDefinition,
        *,
        name: str,
        origin: Origin,
        pinned: int,
    ) -> Schedule:
        whole = with_defaults(definition)
        columns: dict[str, object] = {
            "workflow_id": version.workflow_id,
            "workflow_name": version.name,
            "workflow_version": pinned,
            "definition": whole.SerializeToString(deterministic=True),
            "changed_at": tx.now,
        }
        if existing is None:
            if repository.count(tx) >= MAX_SCHEDULES:
                action = "delete some first: 'peerctl schedules delete NAME'"
                raise PeerdError(Reason.QUOTA_EXCEEDED, f"there are {MAX_SCHEDULES} schedules", next_action=action)
            columns |= {"name": name, "origin": origin.value, "created_at": tx.now, "decided_until": tx.now}
            if whole.paused:
                columns |= {"paused_at": tx.now, "pause_reason": "made so"}
            schedule_id = repository.insert(tx, columns)
        else:
            _check_origin(existing, origin)
            schedule_id = existing.schedule_id
            columns |= self._retimed(tx, existing, whole)
            if whole.paused != existing.definition.paused:
                columns |= {"paused_at": tx.now if whole.paused else None, "pause_reason": "changed so"}
                if not whole.paused and existing.paused_at is not None:
                    columns |= {"pause_began": existing.paused_at, "pause_ended": tx.now, "pause_reason": ""}
            repository.update(tx, schedule_id, columns)
        schedule = repository.find(tx, schedule_id)
        assert schedule is not None  # noqa: S101 - just written
        repository.update(tx, schedule_id, {"next_at": schedule.next_start(schedule.decided_until)})
        return self._changed(tx, schedule)

    def _retimed(self, tx: Tx, existing: Schedule, whole: workflows_pb2.ScheduleDefinition) -> dict[str, object]:
        """What a change of its times means: what was planned before it and has not begun is missed."""
        before = existing.definition
        if (before.cron, before.timezone, before.jitter) == (whole.cron, whole.timezone, whole.jitter):
            return {}
        message = f"the schedule was changed from {before.cron!r} {before.timezone} before it could begin"
        repository.add_missed(tx, existing.schedule_id, all_missed(existing, tx.now, reason="changed", message=message))
        repository.prune(tx, existing.schedule_id)
        return {"decided_until": tx.now}

    def _delete(self, tx: Tx, schedule: Schedule) -> None:
        repository.delete(tx, schedule.schedule_id)
        tx.on_commit(self._wake)

    def _changed(self, tx: Tx, schedule: Schedule) -> Schedule:
        tx.on_commit(self._wake)
        return repository.find(tx, schedule.schedule_id) or schedule


def _check_origin(existing: Schedule, origin: Origin) -> None:
    if existing.origin is origin:
        return
    if existing.origin is Origin.DEFINITION:
        message = f"schedule {existing.name} comes from the definition of workflow {existing.workflow_name}"
        action = "change it there and store it ('peerctl workflows put FILE'), or choose another name"
    else:
        message = f"there is a schedule {existing.name} already, which no definition made"
        action = f"delete it first: 'peerctl schedules delete {existing.name}'"
    raise PeerdError(Reason.ALREADY_EXISTS, message, next_action=action)
