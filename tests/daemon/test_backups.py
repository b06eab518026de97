"""Backups made by the clock: when one is due, and how many stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from peerd.backups.backups import Backups
from peerd.clock import FakeClock
from peerd.config import StoreConfig
from peerd.disk import NOTHING_KEPT, Reserve
from peerd.errors import PeerdError, Reason
from peerd.identity.key import create_identity
from peerd.store import Store, open_store

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
