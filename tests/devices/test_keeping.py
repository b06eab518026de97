"""Ports and who has them, over a real store: unplugged at any time, by any trouble, nothing stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from peerd.clock import FakeClock
from peerd.devices import onboarding
from peerd.devices.console import Console
from peerd.devices.inflow import MOST_PENDING, Inflow
from peerd.devices.model import Device, Status
from peerd.devices.watch import Udev
from peerd.errors import PeerdError, Reason
from peerd.store import Store, Tx

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


async def test_a_change_of_health_that_the_store_refuses_is_written_later(
    board: Plugboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await active(board)

    async def noted() -> list[str]:
        rows = await board.store.all("SELECT event FROM device_history WHERE event LIKE 'health %' ORDER BY id")
        return [row["event"] for row in rows]

    await board.until(noted, "how it is was noted")
    before = await noted()
    full = refuses(monkeypatch, board.store)
    miner = await board.devices.known()
    was = board.devices.live(miner[1][0])
    assert was is not None

    def unwell() -> bool:
        live = board.devices.live(miner[1][0])
        return live is not None and live.health.reason != was.health.reason

    await board.until(unwell, "it says nothing, which is not well", step=1)
    board.clock.advance(10)
    await asyncio.sleep(0.05)
    assert await noted() == before
    full.clear()

    async def noted_now() -> bool:
        return len(await noted()) > len(before)

    await board.until(noted_now, "that it is unwell was noted")


async def test_a_device_that_is_ignored_as_it_is_about_to_be_looked_at_is_not_opened(
    board: Plugboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, plugged = board.store.write, list[bool]()

    async def ignored_behind_the_plug(effect: Any) -> Any:
        answer = await write(effect)
        if getattr(effect, "__name__", "") == "_plug":
            plugged.append(answer.ignored)
            if not answer.ignored:
                await write(lambda tx: onboarding.ignore(tx, str(answer.device_id), ignored=True))
                board.devices.look_again(path)
        return answer

    monkeypatch.setattr(board.store, "write", ignored_behind_the_plug)
    path = board.plug(1)
    await board.until(lambda: plugged == [False, True], "its keeper has heard that it is ignored")
    device = await board.at(path)
    assert isinstance(device, Device) and device.ignored and device.status is Status.INACTIVE
    assert board.opened == 0
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


async def retold(board: Plugboard, transcript: str, path: str) -> None:
    """What is plugged in there prints that."""
    await board.until(lambda: path in board.open, "it is listened to")
    board.say(path, whole(transcript))


async def test_a_miner_that_comes_back_with_another_pool_is_at_the_wrong_one(board: Plugboard) -> None:
    """It says its pool when it boots, to discovery; the monitor hears no more of it."""
    path = await active(board)
    board.pull(path)
    await board.until(lambda: path not in board.open, "unplugged")
    path = board.plug(1)
    await board.until(lambda: path in board.open, "it is listened to")
    board.say(path, whole("new-device").replace(b"public-pool.io", b"other-pool.io"))

    async def live() -> Any:
        return board.devices.live(await board.miner("M1"))

    await board.until(live, "it is watched")
    board.say(path, whole("already-mining"))

    async def judged() -> bool:
        return bool((await live()).health.reason == "wrong_pool")

    await board.until(judged, "it is at the wrong pool")
    assert (await live()).pool == "other-pool.io:21496"
    assert (await board.miner("M1")).pool_url == "public-pool.io:21496", "what an operator accepted stays"


async def test_a_miner_that_is_set_up_after_a_while_is_found_without_a_replug(board: Plugboard) -> None:
    path = board.plug(1)
    await retold(board, "portal", path)

    async def waits() -> bool:
        what = await board.at(path)
        return what is not None and (what.outcome, what.status) == ("portal", Status.INACTIVE)

    await board.until(waits, "it waits to be set up")
    await board.until(lambda: path in board.open, "it is listened to again")
    await board.until(lambda: path not in board.open, "it said nothing", step=1)
    await board.until(waits, "which is no news")
    found = await board.at(path)
    assert found is not None
    assert "NerdMinerAP" in found.reason
    await board.until(lambda: path in board.open, "it is listened to once more", step=1)
    board.say(path, whole("new-device"))

    async def mines() -> bool:
        what = await board.at(path)
        return what is not None and what.outcome == "mining" and "no name" in what.reason

    await board.until(mines, "it was set up and mines")


async def test_a_miner_that_sounds_like_none_is_listened_to_again(board: Plugboard) -> None:
    path = await active(board)
    board.pull(path)
    await board.until(lambda: path not in board.open, "unplugged")
    path = board.plug(1)
    await retold(board, "gps", path)  # what was left in a buffer, or a line at the wrong speed

    async def none() -> bool:
        found = await board.miner("M1")
        return (found.outcome, found.status) == ("not_a_miner", Status.INACTIVE)

    await board.until(none, "it sounds like none")
    await board.until(lambda: path in board.open, "it has a name, and is listened to again", step=0.5)
    board.say(path, whole("new-device"))

    async def mines() -> bool:
        return (await board.miner("M1")).status is Status.ACTIVE

    await board.until(mines, "Active")


async def test_no_miner_without_a_name_is_opened_again(board: Plugboard) -> None:
    path = board.plug(1)
    await retold(board, "gps", path)

    async def none() -> bool:
        what = await board.at(path)
        return what is not None and (what.outcome, what.status) == ("not_a_miner", Status.INACTIVE)

    await board.until(none, "it is none")
    opened = board.opened
    for _ in range(20):
        board.clock.advance(60)
        await asyncio.sleep(0.002)
    assert board.opened == opened


async def test_whoever_reads_never_writes_a_status(board: Plugboard) -> None:
    """A miner that is Active and does everything wrong stays the monitor's: health and readings say how it is."""
    path = await active(board)

    def forbid(tx: Tx) -> None:
        for change in ("UPDATE OF status, state ON miners", "INSERT ON device_leases", "DELETE ON device_leases"):
            name = change.split()[0]
            tx.execute(
                f"CREATE TRIGGER no_{name}_{change.split()[-1]} BEFORE {change}"
                " BEGIN SELECT RAISE(ABORT, 'readers write no status'); END"
            )

    await board.store.write(forbid)

    async def noted(health: str) -> bool:
        rows = await board.store.all("SELECT event FROM device_history WHERE miner_id NOT NULL")
        return f"health {health}" in {row["event"] for row in rows}

    said = [
        (whole("reboot"), ""),
        (whole("portal"), "portal"),
        (whole("refused"), ""),
        (b"\xff\x00" * 4000, ""),
        (b"", ""),
        (b"", "silent"),
        (whole("already-mining"), ""),
    ]
    for data, health in said:
        board.say(path, data)
        for _ in range(30):
            board.clock.advance(2)
            await asyncio.sleep(0.002)
        if health:
            await board.until(lambda health=health: noted(health), f"it is {health}")  # type: ignore[misc]

    async def read() -> bool:
        return bool(await board.store.all("SELECT 1 FROM miner_readings"))

    await board.until(read, "it was read all the time")
    assert (await board.miner("M1")).status is Status.ACTIVE
    await board.store.write(
        lambda tx: [
            tx.execute(f"DROP TRIGGER {row['name']}")
            for row in tx.all(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'no\\_%' ESCAPE '\\'"
            )
        ]
    )
