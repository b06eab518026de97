"""Services, banners and certificates that nothing points at any more go; everything else stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from peerd.config import InventoryConfig
from peerd.inventory import orphans
from peerd.inventory.model import Certificate, Record
from peerd.inventory.orphans import sweep
from peerd.inventory.retention import forget_changes
from peerd.inventory.upkeep import InventoryUpkeep

from .book import DAY, T0, Book, record


def said(version: int, ports: int = 3, *, first: int = 1) -> Sequence[Record]:
    """Of some ports, each with a service, a banner and a certificate of its own."""
    return [
        record(
            "10.0.0.1",
            number,
            product="nginx",
            version=f"{version}.{number}",
            banner=b"%d %d" % (version, number),
            certificate=Certificate(sha256=f"{version * 1000 + number:064x}"),
        )
        for number in range(first, first + ports)
    ]


TABLES = ("services", "banners", "certificates")


async def counted(book: Book) -> tuple[int, ...]:
    return tuple([(await book.store.all(f"SELECT count(*) FROM inventory_{name}"))[0][0] for name in TABLES])


async def forget_all_changes(book: Book) -> None:
    await book.store.write(lambda tx: forget_changes(tx, kept=0))


async def noted(book: Book) -> int:
    return int((await book.store.all("SELECT count(*) FROM inventory_dropped"))[0][0])


async def test_what_one_scan_said_first_and_then_otherwise_goes(book: Book) -> None:
    source = book.source(T0)
    for version in range(1, 6):
        await book.apply(source, said(version))  # chunks of one scan: of each port the last word is kept
    assert await counted(book) == (15, 15, 15)
    # Watchers may still ask for the changes, and these speak of services and certificates, not of banners.
    assert await sweep(book.store) == 12
    assert await counted(book) == (15, 3, 15)
    assert await sweep(book.store) == 0 and await noted(book) == 24
    await forget_all_changes(book)
    before = await book.lines()
    assert await sweep(book.store) == 24
    assert await counted(book) == (3, 3, 3) and await noted(book) == 0
    assert await book.lines() == before
    # The same may be said again.
    await book.apply(book.source(T0 + DAY), said(1))
    assert await counted(book) == (6, 6, 6)


async def test_what_came_late_and_never_counted_goes_too(book: Book) -> None:
    source = book.source(T0)
    await book.apply(source, [record("10.0.0.1", 1, product="nginx", banner=b"new", at=T0 + 5)])
    await book.apply(source, [record("10.0.0.1", 1, product="apache", banner=b"old", at=T0 + 1)])
    assert await counted(book) == (2, 2, 0)
    assert await sweep(book.store) == 2
    assert await counted(book) == (1, 1, 0)
    assert [line.port.banner for line in await book.lines("product=nginx") if line.port] == [b"new"]


async def test_what_earlier_scans_said_stays_as_long_as_they_do(book: Book) -> None:
    await book.scan(T0, *said(1))
    await book.scan(T0 + DAY, *said(2))
    await forget_all_changes(book)
    await book.store.write(
        lambda tx: tx.execute("INSERT INTO inventory_dropped (kind, id) SELECT 1, id FROM inventory_services")
    )
    assert await sweep(book.store) == 0
    assert await noted(book) == 0, "they are in use: nothing is left to look at"
    assert {line.port.service.version for line in await book.lines(at=T0 + 1) if line.port and line.port.service} == {
        *("1.1", "1.2", "1.3")
    }


async def test_it_looks_at_some_each_time_and_reads_in_pieces(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "OBSERVATIONS", 2)
    source = book.source(T0)
    for version in range(1, 4):
        await book.apply(source, said(version))
    await book.scan(T0 + DAY, *said(7, 5, first=3))  # of which one port is the same, and says what it said before
    await book.scan(T0 + DAY, *said(2, 1), *said(1, 1, first=2))
    await forget_all_changes(book)
    removed = [await sweep(book.store, limit=4) for _ in range(8)]
    assert sum(removed) == 18 - 6 and max(removed) <= 4, "two of each are said by the last scan"
    assert await counted(book) == (10, 10, 10) and await noted(book) == 0


@pytest.mark.parametrize("again", ["said", "dropped"])
async def test_what_is_pointed_at_again_meanwhile_stays(
    book: Book, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    source = book.source(T0)
    await book.apply(source, said(1))
    await book.apply(source, said(2))
    await forget_all_changes(book)
    look = orphans._pointed_at

    async def look_and_say_again(*args: Any) -> set[tuple[int, int]]:
        found = await look(*args)
        later = book.source(T0 + DAY)
        await book.apply(later, said(1))
        if again == "dropped":  # and let go of once more: the next sweep is to see to it
            await book.apply(later, said(3))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(orphans, "_pointed_at", look_and_say_again)
        assert await sweep(book.store) == 0
    assert await counted(book) == ((6, 6, 6) if again == "said" else (9, 9, 9))
    assert len(await book.lines("product=nginx AND version=1.1")) == int(again == "said")
    await forget_all_changes(book)
    assert await sweep(book.store) == (0 if again == "said" else 9)


async def test_upkeep_sweeps(book: Book) -> None:
    source = book.source(T0)
    await book.apply(source, said(1))
    await book.apply(source, said(2))
    upkeep = InventoryUpkeep(InventoryConfig(), book.store)
    await upkeep.thin(T0)
    assert (await counted(book))[1] == 3
    upkeep.close()
