"""Ports and who has them, over a real store: unplugged at any time, by any trouble, nothing stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.devices.console import Console
from peerd.devices.inflow import MOST_PENDING, Inflow
from peerd.devices.model import Status
from peerd.devices.watch import Udev
from peerd.errors import PeerdError, Reason
from peerd.store import Store

from .console import whole
from .noise import KINDS, measure
from .plugboard import Plugboard

SIDE_BY_SIDE = 64


@pytest.fixture
async def board(store: Store, clock: FakeClock) -> AsyncIterator[Plugboard]:
    made = Plugboard(store, clock)
    yield made
    await made.stop()


async def active(board: Plugboard, number: int = 1, name: str = "M1") -> str:
    """A miner that is watched; returns its path."""
    path = board.plug(number)
    await board.until(lambda: path in board.open, "it is listened to")
    board.say(path, whole("new-device"))
    await board.until(lambda: path not in board.open, "discovery is done with it")
    await board.onboard(path, name)
    await board.until(lambda: path in board.open, "it is listened to again")
    board.say(path, whole("already-mining"))

    async def watched() -> bool:
        return (await board.miner(name)).status is Status.ACTIVE and path in board.open

    await board.until(watched, "it is Active")
    return path


def refuses(monkeypatch: pytest.MonkeyPatch, store: Store) -> list[bool]:
    """A store on a full disk, for as long as the list is not empty."""
    full, write = [True], store.write

    async def refused(effect: Any) -> Any:
        if full:
            raise PeerdError(Reason.DISK_LOW, "the disk is full")
        return await write(effect)

    monkeypatch.setattr(store, "write", refused)
    return full


async def test_an_unplug_that_the_store_refuses_is_written_later(
    board: Plugboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await active(board)
    full = refuses(monkeypatch, board.store)
    board.pull(path)
    await board.until(lambda: path not in board.open, "the port is closed all the same")
    board.clock.advance(10)
    await asyncio.sleep(0.05)
    full.clear()

    async def inactive() -> bool:
        return (await board.miner("M1")).status is Status.INACTIVE

    await board.until(inactive, "it is Inactive")
    assert not await board.store.all("SELECT * FROM device_leases")


async def test_a_store_that_refuses_at_the_start_does_not_end_the_daemon(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = refuses(monkeypatch, store)
    board = Plugboard(store, clock)
    path = board.plug(1)
    board.clock.advance(1)
    await asyncio.sleep(0.05)
    assert not board.task.done()
    assert not board.open, "nothing is opened while nobody can write down whose it is"
    full.clear()
    await board.until(lambda: path in board.open, "it is listened to")
    await board.stop()


async def test_without_events_devices_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pyudev = pytest.importorskip("pyudev")

    def refused(_: Any) -> None:
        raise OSError("netlink is not for you")

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", refused)
    udev = Udev()
    udev.start(lambda: None)
    udev.present()
    udev.stop()


async def test_whoever_follows_a_console_that_has_ended_is_not_left_waiting() -> None:
    console = Console()
    console.add("one")
    console.end()
    async with asyncio.timeout(5):
        assert [line async for line in console.read(follow=True)] == ["one"]


def every_byte(content: bytes) -> list[int]:
    return list(range(len(content)))


def around_line_ends(content: bytes) -> list[int]:
    """Only a line that is complete can change anything: the bytes before, at and after its end stand for all others."""
    ends = [at for at, byte in enumerate(content) if byte in b"\r\n"]
    return sorted({at + near for at in ends for near in (-1, 0, 1)})


@pytest.mark.parametrize(("name", "stops"), [("reboot", every_byte), ("new-device", around_line_ends)])
async def test_an_unplug_at_any_byte_leaves_nobody_as_the_owner(
    board: Plugboard, name: str, stops: Callable[[bytes], list[int]]
) -> None:
    """Of a port with a real keeper and a real store; many ports at a time, one byte more at each."""
    content = whole(name)
    wanted = stops(content)
    while wanted:
        some, wanted = wanted[:SIDE_BY_SIDE], wanted[SIDE_BY_SIDE:]
        paths = {board.plug(number): stop for number, stop in enumerate(some)}
        await board.until(lambda paths=paths: paths.keys() <= board.open.keys(), "all are listened to")  # type: ignore[misc]
        for path, stop in paths.items():
            board.say(path, content[:stop])
        board.clock.advance(0.2)
        await asyncio.sleep(0.005)
        for path in paths:
            board.pull(path)
        await board.until(lambda: not board.open and not board.devices._keepers, "all are closed")
    rows = await board.store.all("SELECT status, state, dev_path FROM unconfigured_devices")
    assert {tuple(row) for row in rows} == {("inactive", "Not Connected", None)}
    assert not await board.store.all("SELECT * FROM device_leases")
    assert len(rows) == SIDE_BY_SIDE, "each is known again"


async def test_what_comes_faster_than_it_can_be_looked_at_is_dropped_and_that_is_known(clock: FakeClock) -> None:
    inflow, gone, wake = Inflow(clock), asyncio.get_running_loop().create_future(), asyncio.Event()
    inflow.receive(b"x" * (MOST_PENDING - 1))
    assert len(await inflow.next(gone, None, wake)) == MOST_PENDING - 1
    assert not inflow.lost()
    for _ in range(3):
        inflow.receive(b"y" * MOST_PENDING * 4)
    assert await inflow.next(gone, None, wake) == b"y" * MOST_PENDING, "one turn of the loop stays short"
    assert inflow.lost()
    assert not inflow.lost()


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_each_kind_takes_no_memory(kind: str) -> None:
    """The short form of scripts/noise."""
    measured = measure(kind, 0.5)
    assert measured.grown_kib < 4096
    assert measured.megabytes_a_cpu_second > 0.02, "twice what a line at 115200 baud brings"
