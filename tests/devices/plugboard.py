"""Ports for tests, without hardware: what is plugged in, what it prints, and who opened it, over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from peerd.clock import FakeClock
from peerd.config import DevicesConfig
from peerd.devices import onboarding, repository
from peerd.devices.devices import Devices
from peerd.devices.model import Device, Miner, Port
from peerd.store import Store
from peerd.v1 import devices_pb2


class Plugboard:
    """Some ports and the daemon's devices on them."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.present: list[Port] = []
        self.open: dict[str, tuple[Callable[[bytes], None], asyncio.Future[str]]] = {}
        self.opened = 0
        self._plugs = 0
        self.devices = Devices(DevicesConfig(watch=("10c4",)), store, clock, opens=self._opens)
        self.devices._udev.present = lambda: list(self.present)  # type: ignore[method-assign]
        self.task = asyncio.ensure_future(self.devices.run())

    @asynccontextmanager
    async def _opens(self, path: str, receive: Callable[[bytes], None], *, reset: bool) -> AsyncIterator[Any]:
        assert path not in self.open, "two have it open"
        gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.open[path] = receive, gone
        self.opened += 1
        try:
            yield gone
        finally:
            del self.open[path]

    def plug(self, number: int) -> str:
        """A device; returns its path."""
        self._plugs += 1
        path = f"/dev/ttyUSB{number}"
        port = Port(path=path, usb_path=f"1-{number}", vendor_id="10c4", serial=f"SN-{number}", token=f"t{self._plugs}")
        self.present.append(port)
        self.devices._wake.set()
        return path

    def pull(self, path: str) -> None:
        """Unplug it: reading fails at once, and udev says so."""
        self.present = [port for port in self.present if port.path != path]
        if path in self.open:
            self.open[path][1].set_result("pulled out")
        self.devices._wake.set()

    def say(self, path: str, data: bytes) -> None:
        """It prints."""
        self.open[path][0](data)

    async def at(self, path: str) -> Device | Miner | None:
        return await self.store.write(lambda tx: repository.occupant(tx, path))

    async def miner(self, name: str) -> Miner:
        found = await self.store.write(lambda tx: repository.find_miner(tx, name))
        assert found is not None
        return found

    async def onboard(self, path: str, name: str) -> None:
        request = devices_pb2.OnboardDeviceRequest(device=path, name=name, currency="BTC")
        await self.store.write(lambda tx: onboarding.onboard(tx, request, taken=""))
        self.devices.named(path)

    async def until(self, condition: Callable[[], Any], what: str, *, step: float = 0.05) -> Any:
        """Let time pass until it holds; what it gave. Threads of a busy machine get ten seconds more than the clock."""
        for turn in range(1100):
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            if turn < 600:
                self.clock.advance(step)
            await asyncio.sleep(0.002 if turn < 600 else 0.02)
        raise AssertionError(f"it never came: {what}")

    async def stop(self) -> None:
        """As the daemon ends."""
        self.task.cancel()
        await asyncio.wait({self.task})
