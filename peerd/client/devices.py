"""USB-serial miners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property

from grpc import aio

from peerd.client.calls import PAGE_SIZE, Calls, new_request_id
from peerd.v1 import devices_pb2, devices_pb2_grpc

_TAIL_SECONDS = 86_400.0
"""Longest reading along."""


class DeviceCalls(Calls):
    """The calls about devices and miners."""

    @cached_property
    def _devices(self) -> devices_pb2_grpc.DeviceServiceAsyncStub:
        return devices_pb2_grpc.DeviceServiceStub(self._channel)

    async def devices(self, *, limit: int | None = None) -> list[devices_pb2.Device]:
        """Devices of this peer, and the miners of all."""
        request = devices_pb2.ListDevicesRequest(page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._devices.ListDevices, request, lambda page: page.devices, limit)

    async def device(self, device: str) -> devices_pb2.Device:
        """One, by id, path or name; a miner also when another peer holds it."""
        return (await self._call(self._devices.GetDevice, devices_pb2.GetDeviceRequest(device=device))).device

    async def flock(self) -> devices_pb2.GetFlockResponse:
        """Totals of all miners."""
        return await self._call(self._devices.GetFlock, devices_pb2.GetFlockRequest())

    async def onboard_device(
        self,
        device: str,
        *,
        name: str = "",
        currency: str = "",
        chipset: str = "",
        location_notes: str = "",
        known: str = "",
    ) -> devices_pb2.Device:
        """Give a device a name; ``known``: it is that miner."""
        request = devices_pb2.OnboardDeviceRequest(
            request_id=new_request_id(),
            device=device,
            name=name,
            currency=currency,
            chipset=chipset,
            location_notes=location_notes,
            known=known,
        )
        return (await self._call(self._devices.OnboardDevice, request)).device

    async def ignore_device(self, device: str, *, undo: bool = False) -> devices_pb2.Device:
        """Leave it alone, or no longer."""
        request = devices_pb2.IgnoreDeviceRequest(request_id=new_request_id(), device=device, undo=undo)
        return (await self._call(self._devices.IgnoreDevice, request)).device

    async def forget_device(self, device: str) -> None:
        """Take its name from a miner, or forget a device."""
        request = devices_pb2.ForgetDeviceRequest(request_id=new_request_id(), device=device)
        await self._call(self._devices.ForgetDevice, request)

    async def update_miner(
        self,
        device: str,
        *,
        name: str | None = None,
        currency: str | None = None,
        chipset: str | None = None,
        location_notes: str | None = None,
        accept_pool: bool = False,
    ) -> devices_pb2.Device:
        """Change what an operator said of it."""
        request = devices_pb2.UpdateMinerRequest(
            request_id=new_request_id(),
            device=device,
            name=name,
            currency=currency,
            chipset=chipset,
            location_notes=location_notes,
            accept_pool=accept_pool,
        )
        return (await self._call(self._devices.UpdateMiner, request)).device

    async def reset_device(self, device: str) -> devices_pb2.Device:
        """Let it boot anew, and look at it from the start."""
        request = devices_pb2.ResetDeviceRequest(request_id=new_request_id(), device=device)
        return (await self._call(self._devices.ResetDevice, request)).device

    async def tail_device(self, device: str, *, follow: bool = False) -> AsyncIterator[str]:
        """The lines of its console, from whichever peer holds it."""
        request = devices_pb2.TailDeviceRequest(device=device, follow=follow)
        call = self._devices.TailDevice(
            request, timeout=_TAIL_SECONDS if follow else self._timeout, metadata=self._metadata
        )
        try:
            async for answer in call:
                yield answer.line
        except aio.AioRpcError as exc:
            raise self._error(exc) from exc
        finally:
            call.cancel()

    async def device_readings(
        self, device: str, *, resolution: int = 60, limit: int | None = None
    ) -> list[devices_pb2.MinerReading]:
        """How a miner mined, newest first."""
        request = devices_pb2.ListReadingsRequest(
            device=device, page_size=min(limit or PAGE_SIZE, PAGE_SIZE), resolution_seconds=resolution
        )
        return await self._all(self._devices.ListReadings, request, lambda page: page.readings, limit)

    async def device_history(self, device: str, *, limit: int | None = None) -> list[devices_pb2.DeviceEvent]:
        """What happened to it, newest first."""
        request = devices_pb2.ListDeviceHistoryRequest(device=device, page_size=min(limit or PAGE_SIZE, PAGE_SIZE))
        return await self._all(self._devices.ListDeviceHistory, request, lambda page: page.events, limit)
