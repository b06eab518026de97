"""The wire side of devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from peerd.devices import onboarding, repository, telemetry
from peerd.devices.cards import Cards, Elsewhere
from peerd.devices.devices import Devices
from peerd.devices.directory import Directory
from peerd.devices.flock import totals
from peerd.devices.model import Device, Miner
from peerd.devices.moving import hand_over
from peerd.devices.wire import event_message, row_message
from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.rpc.caller import current_caller
from peerd.rpc.channels import Channels
from peerd.rpc.paging import page_size, page_start
from peerd.rpc.status import remote_errors
from peerd.store import Store, Tx
from peerd.store.requests import once
from peerd.v1 import devices_pb2, devices_pb2_grpc

_PAGE = 100
_NEWEST = 2**62

M = TypeVar("M", bound=Message)


class DeviceServicer(devices_pb2_grpc.DeviceServiceServicer):
    """peerd.v1.DeviceService."""

    def __init__(
        self,
        store: Store,
        devices: Devices,
        directory: Directory,
        cards: Cards,
        channels: Channels,
        name_of: Callable[[str], str],
    ) -> None:
        self._store = store
        self._devices = devices
        self._directory = directory
        self._cards = cards
        self._channels = channels
        self._name_of = name_of

    # -- Reads

    async def ListDevices(
        self, request: devices_pb2.ListDevicesRequest, context: Any
    ) -> devices_pb2.ListDevicesResponse:
        size, start = page_size(request.page_size, default=_PAGE), page_start(request.page_token)
        found = await self._directory.everything()
        return devices_pb2.ListDevicesResponse(
            devices=found[start : start + size],
            next_page_token=str(start + size) if len(found) > start + size else "",
        )

    async def GetDevice(self, request: devices_pb2.GetDeviceRequest, context: Any) -> devices_pb2.GetDeviceResponse:
        what = await repository.read(self._store, request.device)
        if what is not None and (isinstance(what, Device) or self._directory.ours(what)):
            return devices_pb2.GetDeviceResponse(device=self._directory.message(what))
        elsewhere = self._cards.find(request.device)
        if elsewhere is None:
            raise repository.no_such_device(request.device)
        return devices_pb2.GetDeviceResponse(device=self._directory.card_message(elsewhere))

    async def GetFlock(self, request: devices_pb2.GetFlockRequest, context: Any) -> devices_pb2.GetFlockResponse:
        return totals(await self._directory.everything())

    async def ListReadings(
        self, request: devices_pb2.ListReadingsRequest, context: Any
    ) -> devices_pb2.ListReadingsResponse:
        what = await self._here(request.device)
        if not isinstance(what, Miner):
            raise PeerdError(Reason.ILLEGAL_TRANSITION, f"device {request.device} is not onboarded and has no readings")
        resolution = request.resolution_seconds or telemetry.MINUTE
        if resolution not in (telemetry.MINUTE, telemetry.HOUR):
            raise PeerdError(Reason.INVALID_ARGUMENT, f"readings are kept by 60 and 3600 seconds, not by {resolution}")
        size, before = page_size(request.page_size, default=_PAGE), page_start(request.page_token) or _NEWEST
        rows = await telemetry.page(self._store, what.miner_id, resolution, before=before, limit=size + 1)
        return devices_pb2.ListReadingsResponse(
            readings=[row_message(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1]["at"]) if len(rows) > size else "",
        )

    async def ListDeviceHistory(
        self, request: devices_pb2.ListDeviceHistoryRequest, context: Any
    ) -> devices_pb2.ListDeviceHistoryResponse:
        what = await self._here(request.device)
        size, before = page_size(request.page_size, default=_PAGE), page_start(request.page_token) or _NEWEST
        rows = await repository.events(self._store, what, before=before, limit=size + 1)
        return devices_pb2.ListDeviceHistoryResponse(
            events=[event_message(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1]["id"]) if len(rows) > size else "",
        )

    async def TailDevice(
        self, request: devices_pb2.TailDeviceRequest, context: Any
    ) -> AsyncIterator[devices_pb2.TailDeviceResponse]:
        what = await repository.read(self._store, request.device)
        if what is None or (isinstance(what, Miner) and not self._directory.ours(what)):
            elsewhere = self._cards.find(request.device)
            if elsewhere is None or elsewhere.peer_id == current_caller().peer_id:  # it asks us since it has it not
                raise repository.no_such_device(request.device)
            async for answer in self._pipe(elsewhere, request):
                yield answer
            return
        keeper = self._devices.keeper(what.port.path)
        if keeper is None:
            raise PeerdError(Reason.DEVICE_GONE, f"{request.device[:80]} is not plugged in")
        async for line in keeper.console.read(follow=request.follow):
            yield devices_pb2.TailDeviceResponse(line=line)

    async def _pipe(
        self, elsewhere: Elsewhere, request: devices_pb2.TailDeviceRequest
    ) -> AsyncIterator[devices_pb2.TailDeviceResponse]:
        peer = elsewhere.peer_id
        stub: devices_pb2_grpc.DeviceServiceAsyncStub = devices_pb2_grpc.DeviceServiceStub(self._channels.channel(peer))
        with remote_errors(peer):
            call = stub.TailDevice(request, timeout=None if request.follow else 30.0)
            try:
                async for answer in call:
                    yield answer
            finally:
                call.cancel()

    # -- Changes

    async def OnboardDevice(
        self, request: devices_pb2.OnboardDeviceRequest, context: Any
    ) -> devices_pb2.OnboardDeviceResponse:
        def effect(tx: Tx) -> devices_pb2.OnboardDeviceResponse:
            miner = onboarding.onboard(tx, request, taken=self._taken(request.name))
            tx.on_commit(lambda: self._devices.named(miner.port.path))
            return devices_pb2.OnboardDeviceResponse(device=self._directory.message(miner))

        answer = await self._once(request, devices_pb2.OnboardDeviceResponse, effect)
        failpoint("devices.onboard.after_commit")
        return answer

    async def IgnoreDevice(
        self, request: devices_pb2.IgnoreDeviceRequest, context: Any
    ) -> devices_pb2.IgnoreDeviceResponse:
        def effect(tx: Tx) -> devices_pb2.IgnoreDeviceResponse:
            device = onboarding.ignore(tx, request.device, ignored=not request.undo)
            tx.on_commit(lambda: self._devices.look_again(device.port.path))
            return devices_pb2.IgnoreDeviceResponse(device=self._directory.message(device))

        return await self._once(request, devices_pb2.IgnoreDeviceResponse, effect)

    async def ForgetDevice(
        self, request: devices_pb2.ForgetDeviceRequest, context: Any
    ) -> devices_pb2.ForgetDeviceResponse:
        def effect(tx: Tx) -> devices_pb2.ForgetDeviceResponse:
            path = onboarding.forget(tx, request.device)
            tx.on_commit(lambda: self._devices.look_again(path))
            return devices_pb2.ForgetDeviceResponse()

        return await self._once(request, devices_pb2.ForgetDeviceResponse, effect)

    async def UpdateMiner(
        self, request: devices_pb2.UpdateMinerRequest, context: Any
    ) -> devices_pb2.UpdateMinerResponse:
        what = await self._here(request.device)
        live = self._devices.live(what) if isinstance(what, Miner) else None
        said = (live.pool, live.wallet) if live is not None else ("", "")

        def effect(tx: Tx) -> devices_pb2.UpdateMinerResponse:
            miner = onboarding.update(tx, request, taken=self._taken(request.name), said=said)
            tx.on_commit(lambda: self._devices.expect(miner))
            return devices_pb2.UpdateMinerResponse(device=self._directory.message(miner))

        return await self._once(request, devices_pb2.UpdateMinerResponse, effect)

    async def ResetDevice(
        self, request: devices_pb2.ResetDeviceRequest, context: Any
    ) -> devices_pb2.ResetDeviceResponse:
        def effect(tx: Tx) -> devices_pb2.ResetDeviceResponse:
            what = repository.get_any(tx, request.device)
            if not what.plugged:
                raise PeerdError(Reason.DEVICE_GONE, f"{request.device[:80]} is not plugged in")
            if isinstance(what, Device) and what.ignored:
                raise PeerdError(
                    Reason.ILLEGAL_TRANSITION,
                    f"device {what.device_id} is ignored",
                    next_action=f"peerctl devices ignore {what.device_id} --undo",
                )
            tx.on_commit(lambda: self._devices.look_again(what.port.path, reset=True))
            return devices_pb2.ResetDeviceResponse(device=self._directory.message(what))

        return await self._once(request, devices_pb2.ResetDeviceResponse, effect)

    async def HandOverMiner(
        self, request: devices_pb2.HandOverMinerRequest, context: Any
    ) -> devices_pb2.HandOverMinerResponse:
        caller = current_caller().peer_id

        def effect(tx: Tx) -> devices_pb2.HandOverMinerResponse:
            miner = hand_over(tx, request.name, caller)
            rows = tx.all("SELECT * FROM device_history WHERE miner_id = ? ORDER BY id", (miner.miner_id,))
            answer = devices_pb2.HandOverMinerResponse(
                device=self._directory.message(miner), history=[event_message(row) for row in rows]
            )
            tx.on_commit(self._devices.changed)
            return answer

        return await self._once(request, devices_pb2.HandOverMinerResponse, effect)

    # -- Inside

    async def _here(self, text: str) -> Device | Miner:
        what = await repository.read(self._store, text)
        if what is not None:
            return what
        elsewhere = self._cards.find(text)
        if elsewhere is None:
            raise repository.no_such_device(text)
        name = self._name_of(elsewhere.peer_id)
        raise PeerdError(
            Reason.NOT_FOUND, f"{text[:80]} is at peer {name}", next_action=f"ask there: 'peerctl --peer {name} ...'"
        )

    def _taken(self, name: str) -> str:
        elsewhere = self._cards.find(name) if name else None
        return self._name_of(elsewhere.peer_id) if elsewhere is not None else ""

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
