"""Streams that last go on over restarts of the daemon, however many, and give up on one that stays away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from peerd.client import Client
from peerd.client.calls import STOOD_SECONDS
from peerd.errors import PeerdError, Reason
from peerd.v1 import inventory_pb2, workflows_pb2
from tests.cli.fake_daemon import FakeDaemon

LOGS, INVENTORY = "WorkflowService.ReadLogs", "InventoryService.WatchInventory"
SAID = {
    LOGS: workflows_pb2.ReadLogsResponse(data=b"said"),
    INVENTORY: inventory_pb2.WatchInventoryResponse(change_id=8, kind=inventory_pb2.INVENTORY_CHANGE_KIND_APPEARED),
}
STREAMS: dict[str, Callable[[Client], AsyncIterator[Any]]] = {
    LOGS: lambda peerd: peerd.logs(7, "talk", follow=True),
    INVENTORY: lambda peerd: peerd.watch_inventory(after=7),
}


class Quiet:
    """A daemon whose streams say nothing until they may."""

    def __init__(self, socket: Path, method: str) -> None:
        self._socket = socket
        self._method = method
        self.asked = threading.Semaphore(0)
        self.requests: list[Any] = []
        self.begin: inventory_pb2.WatchInventoryResponse | None = None
        """What a watch is told when it asks where it begins."""
        self.may_say = False
        self.start()

    def start(self) -> None:
        """Listen."""
        self._daemon = FakeDaemon(self._socket)
        self._daemon.on(self._method, self._answer)
        self._daemon.start()

    def stop(self) -> None:
        """As if it was killed."""
        self._daemon.stop()

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        over = threading.Event()
        context.add_callback(over.set)
        self.requests.append(request)
        if self.begin is not None and request.tell_begin:
            yield self.begin
        self.asked.release()
        if self.may_say:
            yield SAID[self._method]
        over.wait()


@pytest.fixture
async def passes() -> Callable[[float], None]:
    """Lets so many seconds pass, as the event loop sees it."""
    loop: Any = asyncio.get_running_loop()
    time, shift = loop.time, [0.0]
    loop.time = lambda: time() + shift[0]

    def passed(seconds: float) -> None:
        shift[0] += seconds

    return passed


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_that_says_nothing_goes_on_over_one_restart_after_the_other(
    tmp_path: Path, method: str, passes: Callable[[float], None]
) -> None:
    daemon = Quiet(tmp_path / "d.sock", method)
    try:
        async with Client(socket=tmp_path / "d.sock") as peerd:
            said = asyncio.ensure_future(anext(STREAMS[method](peerd)))
            for number in range(3):
                assert await asyncio.to_thread(daemon.asked.acquire, timeout=30), f"stream {number} was begun"
                passes(max(100.0, STOOD_SECONDS + 1))
                daemon.may_say = number == 1
                await asyncio.to_thread(daemon.stop)
                daemon.start()
                if daemon.may_say:
                    break
            assert await said == SAID[method]
    finally:
        daemon.stop()


async def test_a_watch_that_was_told_of_nothing_yet_goes_on_where_it_began(tmp_path: Path) -> None:
    daemon = Quiet(tmp_path / "d.sock", INVENTORY)
    daemon.begin = inventory_pb2.WatchInventoryResponse(change_id=7)
    try:
        async with Client(socket=tmp_path / "d.sock") as peerd:
            watch: Any = peerd.watch_inventory()
            said = asyncio.ensure_future(anext(watch))
            async with asyncio.timeout(30):
                while watch.ag_frame.f_locals.get("after") != 7:  # it has heard that, and says nothing of it
                    await asyncio.sleep(0.01)
            daemon.may_say = True
            await asyncio.to_thread(daemon.stop)
            daemon.start()
            assert await said == SAID[INVENTORY]
        assert [(request.HasField("after"), request.after) for request in daemon.requests] == [(False, 0), (True, 7)]
    finally:
        daemon.stop()


@pytest.mark.parametrize("method", STREAMS)
async def test_a_daemon_that_stays_away_is_given_up(
    tmp_path: Path, method: str, passes: Callable[[float], None]
) -> None:
    daemon = Quiet(tmp_path / "d.sock", method)
    async with Client(socket=tmp_path / "d.sock") as peerd:
        said = asyncio.ensure_future(anext(STREAMS[method](peerd)))
        assert await asyncio.to_thread(daemon.asked.acquire, timeout=30)
        await asyncio.to_thread(daemon.stop)
        while not said.done():
            passes(STOOD_SECONDS / 2)  # less than a stream needs to count as one that stood
            await asyncio.sleep(0.05)
        with pytest.raises(PeerdError) as caught:
            await said
    assert caught.value.reason is Reason.DAEMON_NOT_REACHABLE
