"""The wire side of schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from peerd.clock import Clock
from peerd.rpc.caller import current_caller
from peerd.rpc.paging import page_size, page_start
from peerd.schedules import repository
from peerd.schedules.model import Schedule
from peerd.schedules.schedules import Schedules
from peerd.schedules.wire import to_firing, to_message
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import schedules_pb2, schedules_pb2_grpc

_PAGE = 100
_NEXT = 5
_MOST_NEXT = 1000
_NEWEST = 2**62

M = TypeVar("M", bound=Message)


class ScheduleServicer(schedules_pb2_grpc.ScheduleServiceServicer):
    """peerd.v1.ScheduleService."""

    def __init__(self, store: Store, clock: Clock, schedules: Schedules, name_of: Callable[[str], str]) -> None:
        self._store = store
        self._clock = clock
        self._schedules = schedules
        self._name_of = name_of

    async def PutSchedule(
        self, request: schedules_pb2.PutScheduleRequest, context: Any
    ) -> schedules_pb2.PutScheduleResponse:
        def effect(tx: Tx) -> schedules_pb2.PutScheduleResponse:
            return schedules_pb2.PutScheduleResponse(schedule=self._short(tx, self._schedules.put(tx, request)))

        return await self._once(request, schedules_pb2.PutScheduleResponse, effect)

    async def GetSchedule(
        self, request: schedules_pb2.GetScheduleRequest, context: Any
    ) -> schedules_pb2.GetScheduleResponse:
        schedule = await repository.read(self._store, request.schedule)
        shown = await self._whole(schedule, min(request.next_count or _NEXT, _MOST_NEXT))
        return schedules_pb2.GetScheduleResponse(schedule=shown)

    async def ListSchedules(
        self, request: schedules_pb2.ListSchedulesRequest, context: Any
    ) -> schedules_pb2.ListSchedulesResponse:
        size = page_size(request.page_size, default=_PAGE)
        found = await repository.page(self._store, after=page_start(request.page_token), limit=size + 1)
        return schedules_pb2.ListSchedulesResponse(
            schedules=[await self._whole(schedule, 1) for schedule in found[:size]],
            next_page_token=str(found[size - 1].schedule_id) if len(found) > size else "",
        )

    async def DeleteSchedule(
        self, request: schedules_pb2.DeleteScheduleRequest, context: Any
    ) -> schedules_pb2.DeleteScheduleResponse:
        def effect(tx: Tx) -> schedules_pb2.DeleteScheduleResponse:
            self._schedules.delete(tx, request.schedule)
            return schedules_pb2.DeleteScheduleResponse()

        return await self._once(request, schedules_pb2.DeleteScheduleResponse, effect)

    async def PauseSchedule(
        self, request: schedules_pb2.PauseScheduleRequest, context: Any
    ) -> schedules_pb2.PauseScheduleResponse:
        def effect(tx: Tx) -> schedules_pb2.PauseScheduleResponse:
            schedule = self._schedules.pause(tx, request.schedule, request.reason)
            return schedules_pb2.PauseScheduleResponse(schedule=self._short(tx, schedule))

        return await self._once(request, schedules_pb2.PauseScheduleResponse, effect)

    async def ResumeSchedule(
        self, request: schedules_pb2.ResumeScheduleRequest, context: Any
    ) -> schedules_pb2.ResumeScheduleResponse:
        def effect(tx: Tx) -> schedules_pb2.ResumeScheduleResponse:
            schedule = self._schedules.resume(tx, request.schedule, skip_missed=request.skip_missed)
            return schedules_pb2.ResumeScheduleResponse(schedule=self._short(tx, schedule))

        return await self._once(request, schedules_pb2.ResumeScheduleResponse, effect)

    async def TriggerSchedule(
        self, request: schedules_pb2.TriggerScheduleRequest, context: Any
    ) -> schedules_pb2.TriggerScheduleResponse:
        who = self._name_of(current_caller().peer_id)

        def effect(tx: Tx) -> schedules_pb2.TriggerScheduleResponse:
            firing = self._schedules.trigger(tx, request.schedule, who)
            schedule = repository.get(tx, request.schedule)
            return schedules_pb2.TriggerScheduleResponse(firing=to_firing(schedule, firing, ahead=tx.steady - tx.now))

        return await self._once(request, schedules_pb2.TriggerScheduleResponse, effect)

    async def ListFirings(
        self, request: schedules_pb2.ListFiringsRequest, context: Any
    ) -> schedules_pb2.ListFiringsResponse:
        schedule = await repository.read(self._store, request.schedule)
        size = page_size(request.page_size, default=_PAGE)
        before = page_start(request.page_token) or _NEWEST
        found = await repository.firings(self._store, schedule.schedule_id, before=before, limit=size + 1)
        return schedules_pb2.ListFiringsResponse(
            firings=[to_firing(schedule, firing, ahead=self._ahead()) for firing in found[:size]],
            next_page_token=str(found[size - 1].firing_id) if len(found) > size else "",
        )

    def _ahead(self) -> int:
        return self._clock.steady() - self._clock.now()

    def _short(self, tx: Tx, schedule: Schedule) -> schedules_pb2.Schedule:
        return to_message(schedule, now=tx.now, next_count=1)

    async def _whole(self, schedule: Schedule, next_count: int) -> schedules_pb2.Schedule:
        newest = await repository.firings(self._store, schedule.schedule_id, before=_NEWEST, limit=1)
        waiting = await repository.count_waiting(self._store, schedule.schedule_id)
        return to_message(
            schedule,
            now=self._clock.now(),
            next_count=next_count,
            last=to_firing(schedule, newest[0], ahead=self._ahead()) if newest else None,
            waiting=waiting,
        )

    async def _once(self, request: Any, answer_type: type[M], effect: Callable[[Tx], M]) -> M:
        caller = current_caller().peer_id
        return await self._store.write(
            lambda tx: once(
                tx,
                caller=caller,
                request_id=request.request_id,
                request=request,
                answer_type=answer_type,
                effect=lambda: effect(tx),
            )
        )
