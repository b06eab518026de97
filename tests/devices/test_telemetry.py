"""Readings: minutes are added up, become hours, and go; what the monitor hears of a miner."""

from __future__ import annotations

from peerd.clock import FakeClock
from peerd.config import DevicesConfig
from peerd.devices import onboarding, repository, telemetry
from peerd.devices.model import Port
from peerd.devices.status_lines import Reading
from peerd.devices.watching import RATE_SECONDS, Watcher, Window
from peerd.store import Store, Tx
from peerd.v1 import devices_pb2

HOUR = 3_600_000
CONFIG = DevicesConfig(detail_hours=2, history_days=1)


def made(tx: Tx) -> int:
    device_id = repository.add_device(tx, Port(path="/dev/ttyUSB0", serial="S1"))
    request = devices_pb2.OnboardDeviceRequest(device=str(device_id), name="M1", currency="BTC")
    return onboarding.onboard(tx, request, taken="").miner_id


async def test_minutes_become_hours_once_and_hours_go(store: Store, clock: FakeClock) -> None:
    miner = await store.write(made)
    hours = 0
    for minute in range(5 * 60):
        window = Window(rates=[minute % 60, 60.0], newest=Reading(shares=minute))
        await store.write(lambda tx, window=window: telemetry.record(tx, miner, window))  # type: ignore[misc]
        clock.advance(60)
    for _ in range(2):
        await store.write(lambda tx: telemetry.down_sample(tx, CONFIG, tx.now))
        rows = await telemetry.page(store, miner, telemetry.HOUR, before=2**60, limit=100)
        assert hours in (0, len(rows)), "twice is once"
        hours = len(rows)
    assert hours in (3, 4)
    whole = rows[1]
    assert (whole["samples"], whole["hash_rate_min_khs"], whole["hash_rate_max_khs"]) == (120, 0, 60)
    assert abs(whole["hash_rate_khs"] - (29.5 + 60) / 2) < 0.01
    minutes = await telemetry.page(store, miner, telemetry.MINUTE, before=2**60, limit=1000)
    assert 2 * 60 <= len(minutes) <= 3 * 60
    clock.advance(40 * 3600)
    await store.write(lambda tx: telemetry.down_sample(tx, CONFIG, tx.now))
    await store.write(lambda tx: telemetry.down_sample(tx, CONFIG, tx.now))
    assert not await telemetry.page(store, miner, telemetry.HOUR, before=2**60, limit=100)


async def test_what_comes_twice_in_a_minute_is_one_row(store: Store) -> None:
    miner = await store.write(made)
    for rate in (10.0, 30.0):
        window = Window(rates=[rate], newest=Reading(shares=int(rate)))
        await store.write(lambda tx, window=window: telemetry.record(tx, miner, window))  # type: ignore[misc]
    (row,) = await telemetry.page(store, miner, telemetry.MINUTE, before=2**60, limit=10)
    assert (row["samples"], row["hash_rate_khs"], row["shares"]) == (2, 20, 30)
    assert (row["hash_rate_min_khs"], row["hash_rate_max_khs"]) == (10, 30)


def test_the_monitor_hears_boots_pools_and_refusals() -> None:
    watcher = Watcher(0, pool="a:1", wallet="w")
    watcher.line(">>> Completed 1 share(s), 10 Khashes, avg. hashrate 5.00 KH/s", 1)
    assert watcher.health(2).reason == "ok"
    for at in (10, 20, 30):
        watcher.line("ESP-ROM:esp32s3-20210327", at)
        watcher.line("NerdMiner v2 starting......", at)
        watcher.line("[WORKER] Started. Running (Stratum) on core 1", at)
    assert watcher.health(31).reason == "rebooting"
    watcher = Watcher(0, pool="a:1", wallet="w")
    watcher.line("PoolString: b", 1)
    watcher.line("portNumber: 2", 1)
    assert watcher.health(2).reason == "wrong_pool"
    watcher = Watcher(0)
    watcher.line("ERROR: 24 | reason: Unauthorized worker", 1)
    assert watcher.health(2).reason == "refused"
    watcher.line("  Receiving: ERROR: 24 | reason: from the pool", 3)
    watcher.line("Entered Configuration Mode", 4)
    assert watcher.health(5).reason == "portal"


async def test_a_minute_without_a_hash_rate_has_none(store: Store, clock: FakeClock) -> None:
    miner = await store.write(made)
    for shares in (1, 2):
        window = Window(newest=Reading(shares=shares))
        await store.write(lambda tx, window=window: telemetry.record(tx, miner, window))  # type: ignore[misc]
    rows = await telemetry.page(store, miner, telemetry.MINUTE, before=2**60, limit=9)
    assert [(row["shares"], row["hash_rate_khs"]) for row in rows] == [(2, None)]


def test_a_hash_rate_that_was_said_long_ago_is_none() -> None:
    watcher = Watcher(0)
    watcher.line(">>> Completed 3 share(s), 9 Khashes, avg. hashrate 55.00 KH/s", 10)
    assert watcher.reading_at(10 + RATE_SECONDS).hash_rate_khs == 55
    assert watcher.reading_at(11 + RATE_SECONDS).hash_rate_khs is None
    assert watcher.reading_at(11 + RATE_SECONDS).shares == 3


async def test_devices_without_a_name_are_not_kept_for_ever(store: Store, clock: FakeClock) -> None:
    def seen(tx: Tx, number: int) -> int:
        path = f"/dev/ttyUSB{number}"
        device_id = repository.add_device(tx, Port(path=path, serial=f"S{number}"))
        if number:
            repository.unplug(tx, path)
        return device_id

    kept = [await store.write(lambda tx, number=number: seen(tx, number)) for number in (0, 1)]  # type: ignore[misc]
    await store.write(lambda tx: onboarding.ignore(tx, str(kept[1]), ignored=True))
    clock.advance(60)
    for number in range(2, repository.KEPT_DEVICES + 5):
        await store.write(lambda tx, number=number: seen(tx, number))  # type: ignore[misc]
        clock.advance(1)

    await store.write(lambda tx: repository.forget_unseen(tx, before=0))
    left = await store.write(repository.devices)
    assert len(left) == repository.KEPT_DEVICES + 1
    assert left[-1].port.serial == f"S{repository.KEPT_DEVICES + 4}", "the newest are kept"

    await store.write(lambda tx: repository.forget_unseen(tx, before=tx.now))
    assert [device.device_id for device in await store.write(repository.devices)] == kept, "plugged in, and ignored"


async def test_the_history_of_miners_that_take_turns_is_bounded_for_each(store: Store, clock: FakeClock) -> None:
    miner = await store.write(made)

    def write(tx: Tx) -> None:
        for number in range(2 * (repository.KEPT_EVENTS + 100)):
            repository.note(tx, miner_id=miner if number % 2 else None, event="e", detail=str(number))

    await store.write(write)
    await store.write(repository.forget_events)

    rows = await store.all("SELECT miner_id, count(*), max(id) FROM device_history GROUP BY miner_id")
    assert [(row[0], row[1]) for row in rows] == [(None, repository.KEPT_EVENTS), (miner, repository.KEPT_EVENTS)]
    last = await store.one("SELECT detail FROM device_history ORDER BY id DESC LIMIT 1")
    assert last is not None
    assert last["detail"] == str(2 * repository.KEPT_EVENTS + 199)


async def test_a_torn_line_of_one_miner_keeps_no_other_from_being_recorded(store: Store) -> None:
    def two(tx: Tx) -> list[int]:
        ids = []
        for number in (1, 2):
            device_id = repository.add_device(tx, Port(path=f"/dev/ttyUSB{number}", serial=f"S{number}"))
            request = devices_pb2.OnboardDeviceRequest(device=str(device_id), name=f"M{number}", currency="BTC")
            ids.append(onboarding.onboard(tx, request, taken="").miner_id)
        return ids

    torn, well = await store.write(two)
    windows = {}
    for miner, last in ((torn, ">>> 32Bit shares: 12E>>> Temperature: 51"), (well, ">>> 32Bit shares: 12")):
        watcher = Watcher(0)
        watcher.line(">>> Completed 1 share(s), 10 Khashes, avg. hashrate 5.00 KH/s", 1)
        watcher.line(last, 2)
        windows[miner] = watcher.window()
    await store.write(lambda tx: telemetry.record_all(tx, windows, tx.now))
    for miner, shares in ((torn, 1), (well, 12)):
        (row,) = await telemetry.page(store, miner, telemetry.MINUTE, before=2**60, limit=10)
        assert row["shares"] == shares
