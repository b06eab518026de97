"""Values -> messages: schedules and firings as people see them."""

from __future__ import annotations

from itertools import islice

from google.protobuf.timestamp_pb2 import Timestamp

from peerd.clock import Millis
from peerd.schedules.model import Firing, Origin, Schedule
from peerd.v1 import schedules_pb2

_ORIGINS = {
    Origin.DEFINITION: schedules_pb2.SCHEDULE_ORIGIN_DEFINITION,
    Origin.REQUEST: schedules_pb2.SCHEDULE_ORIGIN_REQUEST,
}


def to_message(
    schedule: Schedule, *, now: Millis, next_count: int, last: schedules_pb2.Firing | None = None, waiting: int = 0
) -> schedules_pb2.Schedule:
    """A schedule with its next planned times."""
    message = schedules_pb2.Schedule(
        schedule_id=schedule.schedule_id,
        name=schedule.name,
        origin=_ORIGINS[schedule.origin],
        workflow_id=str(schedule.workflow_id),
        workflow_name=schedule.workflow_name,
        workflow_version=schedule.workflow_version,
        definition=schedule.definition,
        created_at=_at(schedule.created_at),
        changed_at=_at(schedule.changed_at),
        paused_at=_at(schedule.paused_at),
        pause_reason=schedule.pause_reason,
        decided_until=_at(schedule.decided_until),
        last=last,
        waiting=waiting,
    )
    if schedule.plan is not None:
        later = schedule.plan.after(max(now, schedule.decided_until))
        for planned in islice(later, next_count):
            message.next.add(
                local=schedule.local(planned), planned_at=_at(planned), starts_at=_at(schedule.starts_at(planned))
            )
    message.reason, message.next_action = _why_not(schedule, now)
    return message


def to_firing(schedule: Schedule, firing: Firing, *, ahead: int) -> schedules_pb2.Firing:
    """What became of a planned time; ``ahead``: how far the steady clock is ahead of the one on the wall."""
    return schedules_pb2.Firing(
        firing_id=firing.firing_id,
        schedule_id=firing.schedule_id,
        planned_at=_at(firing.planned_at),
        local=schedule.local(firing.planned_at) if firing.planned_at is not None else "",
        cause=firing.cause.value,
        status=schedules_pb2.FiringStatus.Value(f"FIRING_STATUS_{firing.status.name}"),
        reason=firing.reason,
        message=firing.message,
        next_action=firing.next_action,
        since=_at(firing.since),
        workflow_execution_id=firing.workflow_execution_id or 0,
        attempts=firing.attempts,
        next_attempt_at=_at(None if firing.next_attempt_at is None else firing.next_attempt_at - ahead),
        missed_since=_at(firing.missed_since),
    )


def _why_not(schedule: Schedule, now: Millis) -> tuple[str, str]:
    """Why it does not run, and what to do; empty for one that does."""
    resume = f"'peerctl schedules resume {schedule.name}'"
    if schedule.damage:
        return schedule.damage, "put it again: store its definition, or 'peerctl schedules put'"
    if schedule.paused_at is not None:
        why = f": {schedule.pause_reason}" if schedule.pause_reason else ""
        return f"paused since {schedule.local(schedule.paused_at)}{why}", resume
    if schedule.decided_until > now:
        until = schedule.local(schedule.decided_until)
        return f"the clock was set back: every time up to {until} was decided on", f"wait, or start from now: {resume}"
    if schedule.next_at is None:
        return "no time is left to come", "change its cron expression"
    return "", ""


def _at(millis: int | None) -> Timestamp | None:
    if millis is None:
        return None
    timestamp = Timestamp()
    timestamp.FromMilliseconds(millis)
    return timestamp
