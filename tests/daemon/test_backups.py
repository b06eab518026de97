"""Backups made by the clock: when one is due, and how many stay. And by request, though who asked goes away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peerd.backups import backups as module
from peerd.backups.backups import Backups
from peerd.backups.servicer import BackupServicer
from peerd.clock import FakeClock
from peerd.config import StoreConfig
from peerd.disk import NOTHING_KEPT, Reserve
from peerd.errors import PeerdError, Reason
from peerd.identity.key import create_identity
from peerd.identity.peer_id import PeerId
from peerd.rpc.caller import ALL_GRANTS, Caller, current
from peerd.store import Store, open_store
from peerd.store.restore import staged_path
from peerd.v1 import backup_pb2

HOUR = 3600.0


@dataclass
class Copies:
    """Backups of a store, at a time of the test's own."""

    backups: Backups
    clock: FakeClock
    store: Store

    def names(self) -> list[str]:
        return sorted(path.name for path in self.backups.folder.iterdir())


@pytest.fixture
async def copies(tmp_path: Path) -> AsyncIterator[Copies]:
    clock = FakeClock()
    store = await open_store(tmp_path / "peerd.db", clock)
    self_id = create_identity(tmp_path / "identity.key").peer_id
    config = StoreConfig(backup_hours=24, backups_kept=3)
    made = Backups(config, store, tmp_path / "peerd.db", self_id, clock, reserve=NOTHING_KEPT)
    made.folder.mkdir()
    yield Copies(made, clock, store)
    await store.close()


async def test_one_is_made_each_day_and_only_so_many_of_them_stay(copies: Copies) -> None:
    mine = await copies.backups.create(None)
    seen: list[str] = []
    for _ in range(24 * 6):
        await copies.backups.keep_up()
        seen += [name for name in copies.names() if name not in seen and name.startswith("auto-")]
        copies.clock.advance(HOUR)
    assert len(seen) == 6
    assert copies.names() == [*sorted(seen)[-3:], mine.path.name], "what an operator made is kept"


async def test_a_backup_from_a_time_when_the_clock_was_wrong_holds_up_none(copies: Copies) -> None:
    copies.clock.advance(365 * 24 * HOUR)
    await copies.backups.keep_up()
    copies.clock._now -= 365 * 24 * 3_600_000
    await copies.backups.keep_up()
    await copies.backups.keep_up()
    assert len(copies.names()) == 2


async def test_none_is_made_into_the_reserve(copies: Copies) -> None:
    copies.backups._reserve = Reserve(min_free_fraction=1)
    with pytest.raises(PeerdError) as caught:
        await copies.backups.keep_up()
    assert caught.value.reason is Reason.DISK_LOW
    assert copies.names() == []
    assert (await copies.backups.create(None)).size > 0, "an operator may"


async def test_what_a_killed_one_left_is_removed(copies: Copies) -> None:
    left = copies.backups.folder / f".auto-x.db.{'0' * 32}.tmp"
    left.write_bytes(b"half")
    await copies.backups.keep_up()
    assert not left.exists()


class Slow:
    """A step in a thread that takes until it is told to go on."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self._step = step
        self._go_on = threading.Event()
        self.begun = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.begun += 1
        assert self._go_on.wait(60)
        return self._step(*arguments, **named)

    async def under_way(self) -> None:
        async with asyncio.timeout(60):
            while not self.begun:
                await asyncio.sleep(0.005)

    def go_on(self) -> None:
        self._go_on.set()


def slow(monkeypatch: pytest.MonkeyPatch, name: str) -> Slow:
    step = Slow(getattr(module, name))
    monkeypatch.setattr(module, name, step)
    return step


async def turns() -> None:
    """As many as whoever wants to begin beside another needs."""
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_a_restore_that_nobody_waits_for_any_more_disturbs_no_other_and_takes_nothing(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the next one began beside it, in the same file, and failed as if the backup were none."""
    file = (await copies.backups.create(None)).path
    prepare = slow(monkeypatch, "prepare")
    ended: list[str] = []

    def restore(name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(
            copies.backups.restore(
                file, allow_other_identity=False, then=lambda tx, _: None, end=lambda: ended.append(name)
            )
        )

    first = restore("first")
    await prepare.under_way()
    first.cancel()
    second = restore("second")
    await turns()
    assert prepare.begun == 1, "a thread cannot be interrupted: the next one waits for it"
    second.cancel()
    prepare.go_on()
    assert [type(one) for one in await asyncio.gather(first, second, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    left = [path.name for path in copies.backups.folder.parent.iterdir() if "restore" in path.name]
    assert (left, ended) == ([], []), "a copy as large as the store"
    await copies.store.write(lambda tx: tx.execute("UPDATE meta SET value = value"))
    await restore("third")
    assert ended == ["third"] and staged_path(copies.backups.folder.parent / "peerd.db").exists()


async def test_a_backup_goes_on_though_who_asked_goes_away_and_who_asks_again_gets_it(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: of a large store each try made another copy beside the one before, and none was ever answered."""
    create = slow(monkeypatch, "create_backup")
    servicer = BackupServicer(copies.backups, copies.store, restart=lambda: None)
    current.set(Caller(peer_id=PeerId("me"), grants=ALL_GRANTS, local=True))
    request = backup_pb2.CreateBackupRequest(request_id="one", path=str(copies.backups.folder / "mine.db"))
    first = asyncio.create_task(servicer.CreateBackup(request, None))
    await create.under_way()
    first.cancel()
    second = asyncio.create_task(servicer.CreateBackup(request, None))
    keeping_up = asyncio.create_task(copies.backups.keep_up())
    await turns()
    unfinished = copies.backups.folder / f".mine.db.{'0' * 32}.tmp"
    unfinished.write_bytes(b"as that of the first would be")
    await turns()
    assert create.begun == 1 and unfinished.exists(), "what is being made is not cleared away"
    create.go_on()
    with pytest.raises(asyncio.CancelledError):
        await first
    answer = await second
    await keeping_up
    assert answer.backup.path == request.path and answer == await servicer.CreateBackup(request, None)
    assert create.begun == 2, "the other one is the daily one"
    with pytest.raises(PeerdError) as caught:
        await servicer.CreateBackup(backup_pb2.CreateBackupRequest(request_id="two", path=request.path), None)
    assert caught.value.reason is Reason.ALREADY_EXISTS
    with pytest.raises(PeerdError) as caught:
        await servicer.CreateBackup(backup_pb2.CreateBackupRequest(request_id="one", path="/elsewhere.db"), None)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_place_that_cannot_be_looked_at_is_refused_and_no_fault_of_ours(copies: Copies, tmp_path: Path) -> None:
    # As a directory is that the daemon's user may not enter; the one that runs tests may enter all.
    place = tmp_path / ("x" * 300) / "b.db"
    with pytest.raises(PeerdError) as refused:
        await copies.backups.create(place)
    assert refused.value.reason is Reason.INVALID_BACKUP and "too long" in refused.value.message
    with pytest.raises(PeerdError) as refused:
        await copies.backups.restore(
            place, allow_other_identity=False, then=lambda tx, found: None, end=lambda: pytest.fail("it goes on")
        )
    assert refused.value.reason is Reason.INVALID_BACKUP and "too long" in refused.value.message
