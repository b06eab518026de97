"""What systemd hears, on a real socket."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator

import pytest

from peerd.clock import SystemClock
from peerd.daemon.notify import Notifier


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    folder = tempfile.mkdtemp(prefix="pn-", dir="/tmp")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"{folder}/notify")
        made.settimeout(5)
        yield made
    shutil.rmtree(folder)


def test_ready_and_stopping_are_told(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("listens on x")
    assert manager.recv(1000) == b"READY=1\nSTATUS=listens on x"
    notifier.stopping(10)
    assert manager.recv(1000) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000"


def test_an_abstract_socket_is_reached_and_none_is_no_error() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"\0peerd-test-{os.getpid()}")
        made.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@peerd-test-{os.getpid()}"}).alive()
        assert made.recv(1000) == b"WATCHDOG=1"
    Notifier({}).ready("nobody listens")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).alive()


async def test_signs_of_life_come_only_while_all_is_well(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "60000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environ)
    asked = 0

    async def well() -> bool:
        nonlocal asked
        asked += 1
        return asked <= 2

    watching = asyncio.ensure_future(notifier.watch(SystemClock(), well))
    async with asyncio.timeout(30):
        while asked < 5:
            await asyncio.sleep(0.01)
    watching.cancel()
    manager.setblocking(False)
    assert manager.recv(100) == manager.recv(100) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        manager.recv(100)


async def test_what_cannot_be_found_out_is_no_sign_of_life(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000"})
    asked = 0

    async def gone() -> bool:
        nonlocal asked
        asked += 1
        raise OSError("the data directory is gone")

    watching = asyncio.ensure_future(notifier.watch(SystemClock(), gone))
    async with asyncio.timeout(30):
        while asked < 3:
            await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_seconds == 0
