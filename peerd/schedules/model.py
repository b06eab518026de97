"""What a schedule is, and what becomes of its planned times."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peerd.clock import Millis
from peerd.cron import Plan
from peerd.digest import digest
from peerd.v1 import workflows_pb2
from peerd.workflows.quantities import parse_duration

LATE_AFTER_MS = 60_000
"""A planned time that nobody looked at for so long was missed."""


def jitter_of(definition: workflows_pb2.ScheduleDefinition) -> int:
    """Within how many milliseconds after a planned time its run begins. Raises ValueError for what is no duration."""
    return parse_duration(definition.jitter) if definition.jitter else 0


class Origin(Enum):
    """Who made a schedule."""

    DEFINITION = "definition"
    REQUEST = "request"


class FiringStatus(Enum):
    """What became of one planned time."""

    FIRED = "fired"
    QUEUED = "queued"  # waits for an earlier execution of the schedule to end
    RETRYING = "retrying"  # could not start for a reason that passes
    SKIPPED_OVERLAP = "skipped_overlap"
    MISSED = "missed"
    FAILED = "failed"

    @property
    def waits(self) -> bool:
        """Whether something else may become of it."""
        return self in (FiringStatus.QUEUED, FiringStatus.RETRYING)


class Cause(Enum):
    """Why there is a firing."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    TRIGGER = "trigger"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule, as it is stored."""

    schedule_id: int
    name: str
    origin: Origin
    workflow_id: int
    workflow_name: str
    workflow_version: int
    definition: workflows_pb2.ScheduleDefinition
    created_at: Millis
    changed_at: Millis
    paused_at: Millis | None
    pause_reason: str
    pause_began: int
    pause_ended: int
    skip_until: int
    decided_until: int
    next_at: int | None
    plan: Plan | None
    damage: str
    """Why there is no plan: what is stored cannot be read, or its time zone is not known any more."""

    def starts_at(self, planned: int) -> Millis:
        """When the run of a planned time begins: always the same for the same time."""
        span = jitter_of(self.definition)
        if not span:
            return Millis(planned)
        lot = int.from_bytes(digest(f"{self.name} {planned}".encode())[:8], "big")
        return Millis(planned + lot % span)

    def next_start(self, decided_until: int) -> Millis | None:
        """When the first planned time after that begins."""
        planned = self.plan.first_after(decided_until) if self.plan is not None else None
        return None if planned is None else self.starts_at(planned)

    def local(self, moment: int) -> str:
        """A moment in the zone of the schedule."""
        return self.plan.local(moment) if self.plan is not None else ""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """One planned time that was decided on, or one run that somebody triggered."""

    firing_id: int
    schedule_id: int
    planned_at: int | None
    cause: Cause
    started_by: str
    status: FiringStatus
    reason: str
    message: str
    next_action: str
    since: Millis
    workflow_execution_id: int | None
    attempts: int
    next_attempt_at: int | None
    """By the steady clock."""
    missed_since: int | None
