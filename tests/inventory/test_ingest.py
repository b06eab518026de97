"""What scans say is stored once: chunks again, duplicates, late scans, absences."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.clock import FakeClock
from peerd.errors import PeerdError, Reason
from peerd.inventory import settling
from peerd.inventory.model import Certificate
from peerd.inventory.settling import complete
from peerd.inventory.writing import Counts, apply
from peerd.store.migrate import migrate
from peerd.store.writer import Tx

from .book import DAY, T0, Book, record

TABLES = (
    "viewpoints scans hosts names services banners certificates ports sightings observations changes".split()  # noqa: SIM905
)


async def content(book: Book) -> dict[str, list[tuple[Any, ...]]]:
    """All that is stored."""
    return {table: [tuple(row) for row in await book.store.all(f"SELECT * FROM inventory_{table}")] for table in TABLES}


CERTIFICATE = Certificate(sha256="ab" * 32, common_name="a.example", subject_alternative_names=("b.example",))
SOME = (
    record("10.0.0.1", 80, service="http", product="nginx", version="1.18.0", at=T0 - 5, hostnames=("www.example",)),
    record("10.0.0.1", 443, certificate=CERTIFICATE, banner=b"hello"),
    record("10.0.0.1", 80),
    record("2001:db8::1", 53, transport="udp", state="open|filtered", os="Linux", mac="00:11:22:33:44:55"),
    record("10.0.0.2", 22, "closed"),
    record("10.0.0.3"),
    record("10.0.0.9", up=False),
)


async def test_a_host_and_a_port_are_counted_once_whatever_the_chunks(book: Book) -> None:
    job = await book.scan(T0, *SOME, *SOME, chunk=1)
    assert await book.counts(job) == Counts(hosts=4, ports=4)
    assert await book.hosts() == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1"], "one that is down is no news"
    assert await book.ports() == [
        "10.0.0.1/tcp/80 open",
        "10.0.0.1/tcp/443 open",
        "10.0.0.2/tcp/22 closed",
        "2001:db8::1/udp/53 open|filtered",
    ]
    assert await book.counts(99) == Counts(hosts=0, ports=0)


async def test_a_chunk_again_changes_nothing(book: Book) -> None:
    source = book.source()
    await book.apply(source, SOME)
    once = await content(book)
    await book.apply(source, SOME)
    assert await content(book) == once
    await book.store.write(lambda tx: complete(tx, source.ingest_job_id))
    whole = await content(book)
    await book.store.write(lambda tx: complete(tx, source.ingest_job_id))
    assert await content(book) == whole


async def test_a_second_scan_changes_nothing_but_when_it_was_seen(book: Book) -> None:
    await book.scan(T0, *SOME)
    before = await content(book)
    await book.scan(T0 + DAY, *SOME)
    after = await content(book)
    for table in ("services", "banners", "certificates", "changes"):
        assert after[table] == before[table], table
    kept = [(row[0], row[1], row[5:]) for row in before["ports"]]
    assert [(row[0], row[1], row[5:]) for row in after["ports"]] == kept
    (line,) = await book.lines("port=443")
    assert line.port is not None
    assert (line.port.first_seen, line.port.last_seen, line.port.last_open) == (T0, T0 + DAY, T0 + DAY)


async def test_what_is_said_apart_comes_together(book: Book) -> None:
    job = await book.scan(
        T0, record("10.0.0.1", 22, at=T0), record("10.0.0.1", 22, banner=b"SSH-2.0-x", at=T0 + 5), chunk=1
    )
    assert await book.counts(job) == Counts(hosts=1, ports=1)
    (line,) = await book.lines()
    assert line.port is not None and line.port.banner == b"SSH-2.0-x" and line.port.state == "open"
    await book.scan(T0 + DAY, record("10.0.0.1", 22, product="OpenSSH", service="ssh"))
    (line,) = await book.lines()
    assert line.port is not None and line.port.service is not None
    assert (line.port.service.product, line.port.banner) == ("OpenSSH", b"SSH-2.0-x")


async def test_a_record_of_the_year_2099_does_not_have_the_last_word(book: Book) -> None:
    await book.scan(T0, record("10.0.0.1", 80, at=T0 + 30_000 * DAY))
    await book.scan(T0 + DAY, record("10.0.0.1", 80, "closed"))
    assert await book.ports() == ["10.0.0.1/tcp/80 closed"]


async def test_a_record_of_a_clock_that_was_never_set_was_made_when_the_scan_was(book: Book) -> None:
    """As of a small machine without a battery: each of its scans would be older than all others."""
    await book.scan(T0, record("10.0.0.1", 80, at=5_000))
    await book.scan(T0 + DAY, record("10.0.0.1", 80, "closed", at=3_000))
    (line,) = await book.lines()
    assert line.port is not None
    assert (line.port.state, line.port.first_seen, line.port.last_seen) == ("closed", T0, T0 + DAY)


async def test_a_tool_that_lists_open_ports_only(book: Book) -> None:
    """The diff says what was stopped, whatever order the scans come in."""
    both = (record("127.0.0.1", 8001), record("127.0.0.1", 8002))
    await book.scan(T0, *both)
    await book.scan(T0 + DAY, both[0])
    assert await book.ports() == ["127.0.0.1/tcp/8001 open", "127.0.0.1/tcp/8002 not_shown"]
    assert await book.diff(T0, T0 + DAY) == ["disappeared 127.0.0.1/tcp/8002 not_shown (not_shown)"]
    assert await book.diff_jobs(1, 2) == ["disappeared 127.0.0.1/tcp/8002 not_shown (not_shown)"]
    await book.scan(T0 + 2 * DAY, *both)
    assert await book.diff(T0 + DAY, T0 + 2 * DAY) == ["appeared 127.0.0.1/tcp/8002 open"]
    assert await book.diff(T0, T0 + 2 * DAY) == []
    kinds = [(row["kind"], row["port_id"] & 65535) for row in await book.store.all("SELECT * FROM inventory_changes")]
    assert kinds == [(1, 8001), (1, 8002), (2, 8002), (1, 8002)]


async def test_a_tool_that_lists_closed_ports(book: Book) -> None:
    await book.scan(T0, record("127.0.0.1", 8001), record("127.0.0.1", 8002), tool="nmap")
    await book.scan(T0 + DAY, record("127.0.0.1", 8001), record("127.0.0.1", 8002, "closed"), tool="nmap")
    assert await book.diff(T0, T0 + DAY) == ["disappeared 127.0.0.1/tcp/8002 closed (closed)"]
    assert await book.diff_jobs(1, 2) == ["disappeared 127.0.0.1/tcp/8002 closed (closed)"]


@pytest.mark.parametrize(
    "later",
    [
        {"tool": "nmap"},
        {"vantage": "outside"},
        {"scanner": "key-b"},
        {"organization": "other"},
        {"whole": False},
        {"scope": "10.0.0.0/8 tcp:80"},
    ],
)
async def test_what_another_series_or_half_a_scan_does_not_show_is_not_gone(book: Book, later: dict[str, Any]) -> None:
    await book.scan(T0, record("10.0.0.1", 80), record("10.0.0.1", 443))
    await book.scan(T0 + DAY, record("10.0.0.1", 80), **later)
    assert await book.ports("state=not_shown") == []


async def test_a_host_or_transport_that_is_not_shown_is_not_judged(book: Book) -> None:
    await book.scan(T0, record("10.0.0.1", 80), record("10.0.0.2", 80), record("10.0.0.1", 53, transport="udp"))
    await book.scan(T0 + DAY, record("10.0.0.2", 443))
    assert await book.ports("state=not_shown") == ["10.0.0.2/tcp/80 not_shown"]


async def test_a_scope_that_is_said_judges_hosts_and_spares_other_ports(book: Book) -> None:
    scope = "10.0.0.0/24 tcp:1-1024"
    first = (record("10.0.0.1", 80), record("10.0.0.2", 80), record("10.0.0.1", 8080), record("10.0.1.1", 80))
    await book.scan(T0, *first, scope=scope)
    await book.scan(T0 + DAY, record("10.0.0.1", 22), scope=scope)
    assert await book.ports("state=not_shown") == ["10.0.0.1/tcp/80 not_shown", "10.0.0.2/tcp/80 not_shown"]
    (host,) = (await book.inventory.lists.hosts(book.inventory.question("address=10.0.0.2"), size=9, token="")).items
    assert not host.up
    with pytest.raises(PeerdError) as caught:
        await book.scan(T0, record("10.0.0.1", 80), scope="everything")
    assert caught.value.reason is Reason.INVALID_ARGUMENT and "scope" in caught.value.message


async def test_ports_that_were_not_tried_are_not_gone(book: Book) -> None:
    """As nmap says which it tried, of the hosts that it shows."""
    both = (record("10.0.0.1", 22), record("10.0.0.1", 80), record("10.0.0.2", 22))
    await book.scan(T0, *both, scope="shown tcp:1-1024")
    await book.scan(T0 + DAY, record("10.0.0.1", 22), scope="shown tcp:22")
    assert await book.ports("state=not_shown") == [], "another series"
    assert await book.diff_jobs(1, 2) == [], "it was not tried"
    await book.scan(T0 + 2 * DAY, record("10.0.0.1", 22), scope="shown tcp:1-1024")
    assert await book.ports("state=not_shown") == ["10.0.0.1/tcp/80 not_shown"], (
        "a host that is not shown is not judged"
    )
    assert await book.diff_jobs(1, 3) == ["disappeared 10.0.0.1/tcp/80 not_shown (not_shown)"]


async def test_a_host_that_is_told_as_down_within_the_scope_is_gone_with_its_ports(book: Book) -> None:
    both = (record("10.0.0.1", 80), record("10.0.0.2", 80))
    await book.scan(T0, *both, scope="10.0.0.0/24")
    await book.scan(T0 + DAY, both[0], record("10.0.0.2", up=False), scope="10.0.0.0/24")
    assert await book.ports() == ["10.0.0.1/tcp/80 open", "10.0.0.2/tcp/80 not_shown"]


async def test_a_host_stays_missed_and_comes_back(book: Book) -> None:
    """Each scan is compared with the one before it, which says of each host that it was missed, too."""
    both = (record("10.0.0.1", 80), record("10.0.0.2", 80))
    for day, shown in enumerate((both, both[:1], both[:1], both, both[:1])):
        await book.scan(T0 + day * DAY, *shown, scope="10.0.0.0/24")
    assert [len(await book.ports("state=open", at=T0 + day * DAY)) for day in range(5)] == [2, 1, 1, 2, 1]
    missed = await book.store.all("SELECT scan_id FROM inventory_sightings WHERE state = 5 ORDER BY scan_id")
    assert [row["scan_id"] for row in missed] == [2, 3, 5]


def sweep(hosts: int, first: int = 0) -> list[Any]:
    """One port of each."""
    return [record(f"10.0.{number >> 8}.{number & 255}", 80) for number in range(first, hosts)]


@pytest.mark.parametrize("scope", ["", "10.0.0.0/8 tcp:1-1024"])
async def test_a_large_scan_is_settled_in_many_transactions(book: Book, scope: str) -> None:
    """Each holds up the writer; a kill between two of them, and all of it again, changes nothing."""
    both = [record(one.address, number) for one in sweep(1200) for number in (22, 80)]
    await book.scan(T0, *both, scope=scope, chunk=1000)
    later = await book.scan(T0 + DAY, *sweep(1200), scope=scope, chunk=1000, whole=False)
    first = await book.store.write(lambda tx: complete(tx, later))
    assert first is not None and 0 < len(await book.ports("state=not_shown", size=1000)) <= settling._HOSTS
    assert await book.complete(later) > 2
    assert len(await book.ports("state=not_shown", size=1000)) == 1200
    whole = await content(book)
    await book.complete(later)
    assert await content(book) == whole


async def test_hosts_that_are_missed_are_so_in_many_transactions(book: Book) -> None:
    await book.scan(T0, *sweep(1200), scope="10.0.0.0/8", chunk=1000)
    later = await book.scan(T0 + DAY, *sweep(1), scope="10.0.0.0/8", whole=False)
    assert await book.complete(later) > 2
    assert len(await book.ports("state=not_shown", size=1000)) == 1199


@pytest.mark.parametrize("turns", ["abab", "aabb", "abba", "bbaa", "baab"])
async def test_two_scans_of_a_series_that_are_settled_at_once(
    book: Book, monkeypatch: pytest.MonkeyPatch, turns: str
) -> None:
    monkeypatch.setattr(settling, "_HOSTS", 2)
    await book.scan(T0, *sweep(6), scope="10.0.0.0/8")
    jobs = {
        "a": await book.scan(T0 + DAY, *sweep(2), scope="10.0.0.0/8", whole=False),
        "b": await book.scan(T0 + 2 * DAY, *sweep(6, 1), scope="10.0.0.0/8", whole=False),
    }
    at: dict[str, int | None] = {"a": 0, "b": 0}
    for turn in turns * 4:
        job, after = jobs[turn], at[turn]
        if after is not None:
            at[turn] = await book.store.write(lambda tx, j=job, a=after: complete(tx, j, a))  # type: ignore[misc]
    assert set(at.values()) == {None}
    assert await book.ports("state=not_shown") == ["10.0.0.0/tcp/80 not_shown"]
    assert len(await book.ports("state=open", at=T0 + DAY)) == 2
    missed = await book.store.all("SELECT scan_id, host_id FROM inventory_sightings WHERE state = 5 ORDER BY 1, 2")
    assert [tuple(row) for row in missed] == [*((jobs["a"], host) for host in (3, 4, 5, 6)), (jobs["b"], 1)]


async def test_another_scanner_that_sees_it_keeps_it_there(book: Book) -> None:
    await book.scan(T0, record("10.0.0.1", 80), scanner="key-a", vantage="inside")
    await book.scan(T0 + 5, record("10.0.0.1", 80, "filtered"), scanner="key-b", vantage="outside")
    (line,) = await book.lines()
    assert line.port is not None
    assert (line.port.state, line.port.scanners, line.scanners) == ("open", ("key-a",), ("key-a", "key-b"))
    await book.scan(T0 + DAY, record("10.0.0.1", 80), scanner="key-b", vantage="outside")
    (line,) = await book.lines()
    assert line.port is not None and line.port.scanners == ("key-a", "key-b"), "two saw it"


addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"])
some_records = st.builds(
    record,
    addresses,
    st.sampled_from([0, 22, 80]),
    st.sampled_from(["open", "closed", "filtered", "open|filtered"]),
    product=st.sampled_from(["", "nginx", "sshd"]),
    transport=st.sampled_from(["tcp", "udp"]),
)
some_scans = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.sampled_from(["key-a", "key-b"]),
        st.sampled_from(["naabu", "nmap"]),
        st.sampled_from(["", "10.0.0.0/24"]),
        st.lists(some_records, min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda scan: scan[0],
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without content."""
    path = tmp_path_factory.mktemp("empty") / "peerd.db"
    migrate(path, backup_dir=None)
    return path


def stands(empty: Path, scans: list[Any], order: list[int], chunk: int, hosts: int = 500) -> list[tuple[Any, ...]]:
    """How the ports stand after these scans came in that order."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        with closing(sqlite3.connect(empty)) as template:
            template.backup(connection)
        connection.row_factory = sqlite3.Row
        clock = FakeClock(T0)
        for number in order:
            day, scanner, tool, scope, records = scans[number]
            source = Book(None, clock).source(  # type: ignore[arg-type]
                T0 + day * DAY, job=number + 1, scanner=scanner, tool=tool, scope=scope
            )
            connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(records), chunk):
                apply(Tx(connection, clock.now()), source, records[start : start + chunk])
                apply(Tx(connection, clock.now()), source, records[start : start + chunk])
            connection.execute("COMMIT")
            after: int | None = 0
            while after is not None:
                connection.execute("BEGIN IMMEDIATE")
                with mock.patch.object(settling, "_HOSTS", hosts):
                    after = complete(Tx(connection, clock.now()), number + 1, after)
                connection.execute("COMMIT")
        rows = connection.execute(
            "SELECT h.address, p.id & 262143, p.state, p.first_seen, p.last_seen, p.last_open, s.product "
            "FROM inventory_ports p JOIN inventory_hosts h ON h.id = p.id >> 18 "
            "LEFT JOIN inventory_services s ON s.id = p.service_id ORDER BY 1, 2"
        ).fetchall()
        return [tuple(row) for row in rows]


@given(some_scans, st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_in_which_scans_come_makes_no_difference(
    empty: Path, scans: list[Any], chance: random.Random, chunk: int
) -> None:
    order = list(range(len(scans)))
    expected = stands(empty, scans, sorted(order, key=lambda number: scans[number][0]), 100)
    chance.shuffle(order)
    assert stands(empty, scans, order, chunk, hosts=1) == expected
