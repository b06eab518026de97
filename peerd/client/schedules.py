"""Schedules: workflows that run at planned times."""

from __future__ import annotations

from functools import cached_property

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import schedules_pb2, schedules_pb2_grpc, workflows_pb2


class ScheduleCalls(Calls):
    """The calls about schedules."""

    @cached_property
    def _schedules(self) -> schedules_pb2_grpc.ScheduleServiceAsyncStub:
        return schedules_pb2_grpc.ScheduleServiceStub(self._channel)

    async def put_schedule(
        self,
        workflow: str,
        definition: workflows_pb2.ScheduleDefinition,
        *,
        name: str = "",
        version: int = 0,
    ) -> schedules_pb2.Schedule:
        """Let a stored workflow run at planned times, or change when."""
        request = schedules_pb2.PutScheduleRequest(
            request_id=new_request_id(), name=name, workflow=workflow, workflow_version=version, definition=definition
        )
        return (await self._call(self._schedules.PutSchedule, request)).schedule

    async def schedule(self, schedule: str, *, next_count: int = 0) -> schedules_pb2.Schedule:
        """One schedule by name or id, with its next planned times."""
        request = schedules_pb2.GetScheduleRequest(schedule=schedule, next_count=next_count)
        return (await self._call(self._schedules.GetSchedule, request)).schedule

    async def schedules(self) -> list[schedules_pb2.Schedule]:
        """All of them."""
        request = schedules_pb2.ListSchedulesRequest(page_size=PAGE_SIZE)
        return await self._all(self._schedules.ListSchedules, request, lambda page: page.schedules)

    async def delete_schedule(self, schedule: str) -> None:
        """End it, with what it remembers."""
        request = schedules_pb2.DeleteScheduleRequest(request_id=new_request_id(), schedule=schedule)
        await self._call(self._schedules.DeleteSchedule, request)

    async def pause_schedule(self, schedule: str, *, reason: str = "") -> schedules_pb2.Schedule:
        """Let nothing of it run until it is resumed."""
        request = schedules_pb2.PauseScheduleRequest(request_id=new_request_id(), schedule=schedule, reason=reason)
        return (await self._call(self._schedules.PauseSchedule, request)).schedule

    async def resume_schedule(self, schedule: str, *, skip_missed: bool = False) -> schedules_pb2.Schedule:
        """Go on; with ``skip_missed`` nothing of what was missed runs."""
        request = schedules_pb2.ResumeScheduleRequest(
            request_id=new_request_id(), schedule=schedule, skip_missed=skip_missed
        )
        return (await self._call(self._schedules.ResumeSchedule, request)).schedule

    async def trigger_schedule(self, schedule: str) -> schedules_pb2.Firing:
        """One run now, under the overlap rule; what became of it."""
        request = schedules_pb2.TriggerScheduleRequest(request_id=new_request_id(), schedule=schedule)
        return (await self._call(self._schedules.TriggerSchedule, request)).firing

    async def firings(self, schedule: str, *, limit: int | None = None) -> list[schedules_pb2.Firing]:
        """What became of planned times, newest first."""
        request = schedules_pb2.ListFiringsRequest(schedule=schedule, page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._schedules.ListFirings, request, lambda page: page.firings, limit)
