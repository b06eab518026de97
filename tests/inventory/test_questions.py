"""Filters, pages, moments, splits, graphs, what watchers see, retention and enrichment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from peerd.clock import Millis
from peerd.config import InventoryConfig
from peerd.errors import PeerdError, Reason
from peerd.filters import And, Not, Or
from peerd.inventory import changes, lists
from peerd.inventory.enrichment import Enrichment
from peerd.inventory.fields import FIELDS, Comparison, parse_filter
from peerd.inventory.graph import parse_node
from peerd.inventory.model import Certificate
from peerd.inventory.retention import forget_changes, thin
from peerd.inventory.scopes import parse_scope
from peerd.inventory.servicer import InventoryServicer
from peerd.inventory.splits import splits
from peerd.inventory.upkeep import InventoryUpkeep
from peerd.inventory.versions import version_key
from peerd.v1 import inventory_pb2

from .book import DAY, T0, Book, record, shown

OLD = Certificate(sha256="aa" * 32, common_name="old.example", issuer="CN=ca", not_after=Millis(T0 + DAY))
NEW = Certificate(sha256="bb" * 32, subject_alternative_names=("new.example", "www.new.example"))


async def fill(book: Book) -> None:
    """A little of everything."""
    await book.scan(
        T0,
        record("10.0.0.1", 443, service="https", product="nginx", version="1.18.0", certificate=OLD),
        record("10.0.0.1", 22, service="ssh", product="OpenSSH", version="9.6p1", hostnames=("gate.example",)),
        record(
            "10.0.0.2", 8080, service="http", product="nginx", version="1.9.3", hostnames=("a.b.example", "x[1].test")
        ),
        record("10.0.0.3", 23, "closed", os="Linux 6.1", mac="00:aa:bb:cc:dd:ee"),
        record("10.1.0.1", 443, service="https", certificate=NEW),
        record("10.0.0.4"),
        tool="nmap",
        organization="acme",
    )
    await book.scan(
        T0 + DAY,
        record("2001:db8::1", 53, "open|filtered", transport="udp"),
        record("10.0.0.1", 443, "filtered"),
        scanner="key-b",
        vantage="outside",
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("port=443", "10.0.0.1:443 10.1.0.1:443"),
        ("port>=443 AND port<9000", "10.0.0.1:443 10.0.0.2:8080 10.1.0.1:443"),
        ("network=10.0.0.0/24 AND state=open", "10.0.0.1:22 10.0.0.1:443 10.0.0.2:8080"),
        ("network=2001:db8::/32", "2001:db8::1:53"),
        ("address=2001:0db8:0::1", "2001:db8::1:53"),
        ("address=::ffff:10.0.0.3", "10.0.0.3:23"),
        ("address!=10.0.0.1 AND network=10.0.0.0/24", "10.0.0.2:8080 10.0.0.3:23"),
        ("product~NGINX", "10.0.0.1:443 10.0.0.2:8080"),
        ("product=nginx AND version<1.10", "10.0.0.2:8080"),
        ("version>=1.10 AND product=nginx", "10.0.0.1:443"),
        ("version>9.6 AND version<9.7", "10.0.0.1:22"),
        ("product!=nginx", "10.0.0.1:22 10.1.0.1:443"),
        ("NOT product=nginx AND network=10.0.0.0/24", "10.0.0.1:22 10.0.0.3:23"),
        ("hostname=*.example", "10.0.0.1:22 10.0.0.1:443 10.0.0.2:8080"),
        ('hostname="x[1].*"', "10.0.0.2:8080"),
        ("hostname=gate.exampl?", "10.0.0.1:22 10.0.0.1:443"),
        ("transport=udp AND state=open|filtered", "2001:db8::1:53"),
        ("cn=old.example OR san=www.*", "10.0.0.1:443 10.1.0.1:443"),
        ("expires<2099-01-01", "10.0.0.1:443"),
        ("issuer~ca AND sha256=" + "aa" * 32, "10.0.0.1:443"),
        ("organization=acme AND port=443", "10.0.0.1:443 10.1.0.1:443"),
        ("scanner=key-b", "10.0.0.1:443 2001:db8::1:53"),
        ("os~linux AND mac=00:aa:*", "10.0.0.3:23"),
        ("asn=1 OR country=CH", ""),
        ("NOT asn=1 AND port=22", "10.0.0.1:22"),
        ("state!=open", "10.0.0.3:23 2001:db8::1:53"),
        ("first_seen>2027-01-15T08:30:00Z", "2001:db8::1:53"),
        ("last_seen>29d AND port=443", ""),
        ("last_seen>30d AND port=443", "10.0.0.1:443"),
    ],
)
async def test_what_a_filter_means(book: Book, where: str, expected: str) -> None:
    await fill(book)
    lines = await book.lines(where)
    assert " ".join(f"{line.host.address}:{line.port.number}" for line in lines if line.port) == expected
    everything = await book.lines()
    expression = parse_filter(where, book.clock.now())
    assert [shown(line) for line in everything if expression.holds(line)] == [shown(line) for line in lines]
    assert [shown(line) for line in await book.lines(where, book.clock.now())] == [shown(line) for line in lines]


@pytest.mark.parametrize(
    ("where", "column", "says"),
    [
        ("prot=443", 1, "port"),
        ("port~44", 5, "takes"),
        ("port=http", 6, "number"),
        ("port=65536", 6, "65535"),
        ("network=10.0.0.0/33", 9, "network"),
        ("address=example", 9, "address"),
        ("state=opened", 7, "one of"),
        ("seen>yesterday", 6, "time"),
        ("version>=???", 10, "version"),
        ("nginx", 1, "NAME=VALUE"),
        ("port=443 AND", 13, "name"),
    ],
)
def test_a_mistake_in_a_filter_is_named(where: str, column: int, says: str) -> None:
    with pytest.raises(PeerdError) as caught:
        parse_filter(where, T0)
    assert caught.value.reason is Reason.INVALID_EXPRESSION
    assert caught.value.message.startswith(f"column {column}: ") and says in caught.value.message, caught.value.message
    assert "inventory.md" in caught.value.next_action


VALUES = {
    "address": ["10.0.0.1", "2001:db8::1"],
    "network": ["10.0.0.0/24", "0.0.0.0/0", "2001:db8::/64"],
    "port": ["22", "443"],
    "transport": ["tcp", "udp"],
    "state": ["open", "closed", "not_shown"],
    "version": ["1.10", "9.6"],
    "expires": ["2027-01-01", "2099-01-01"],
    "asn": ["1"],
    "first_seen": ["2027-01-15T08:30:00Z"],
    "last_seen": ["2027-01-15T08:30:00Z"],
    "seen": ["2027-01-16T08:30:00Z"],
}
WORDS = [
    "",
    "nginx",
    "n*x",
    "?ginx",
    "x[1].test",
    "example",
    "*.example",
    "acme",
    "key-a",
    "key-b",
    "ssh",
    "CN=ca",
    "%",
]


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(FIELDS)))
    sign = draw(st.sampled_from(FIELDS[name].operators))
    return f'{name}{sign}"{draw(st.sampled_from(VALUES.get(name, WORDS)))}"'


filters = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda text: f"NOT ({text})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda texts: f"({' AND '.join(texts)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda texts: f"({' OR '.join(texts)})"),
    ),
    max_leaves=5,
)


async def test_the_store_and_the_matcher_mean_the_same(book: Book) -> None:
    await fill(book)
    everything = await book.lines()
    tried: list[str] = []

    @given(filters)
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def collect(text: str) -> None:
        tried.append(text)

    collect()
    for text in tried:
        if len(text) > 900:
            continue
        expression = parse_filter(text, T0)
        assert str(parse_filter(str(expression), T0)) == str(expression)
        expected = [shown(line) for line in everything if expression.holds(line)]
        assert await book.ports(text) == expected, text
    assert any(isinstance(parse_filter(text, T0), And | Or | Not) for text in tried)
    assert any(isinstance(parse_filter(text, T0), Comparison) for text in tried)


async def test_values_are_never_part_of_the_statement(book: Book) -> None:
    await fill(book)
    assert await book.ports("""product="x' OR 1=1 --" """) == []
    assert await book.ports("""hostname="*' OR ''='" OR san="x'); DROP TABLE inventory_ports; --" """) == []
    assert len(await book.ports()) == 6


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_pages_join_to_the_whole(book: Book, size: int) -> None:
    await fill(book)
    for at in (None, T0 + 2 * DAY):
        assert await book.ports(size=size, at=at) == await book.ports()
        assert await book.hosts(size=size, at=at) == await book.hosts()
        assert await book.ports("port=443", size=size, at=at) == await book.ports("port=443")
    page = await book.inventory.lists.services(book.inventory.question(""), size=size, token="")
    names, found = [service.name for service, _ in page.items], page
    while found.token:
        found = await book.inventory.lists.services(book.inventory.question(""), size=size, token=found.token)
        names += [service.name for service, _ in found.items]
    assert names == ["https", "ssh", "http", "https"]
    certificates = await book.inventory.lists.certificates(book.inventory.question("cn=old.*"), size=9, token="")
    assert [(one.sha256, ports) for one, ports in certificates.items] == [("aa" * 32, 1)]
    for token in ("x", "00-1", "zz" * 16 + "-0", "00" * 16 + "-999999"):
        with pytest.raises(PeerdError) as caught:
            await book.inventory.lists.ports(book.inventory.question(""), size=1, token=token)
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


async def test_hosts_by_their_ports_or_by_themselves(book: Book) -> None:
    await fill(book)
    assert await book.hosts("port=443") == ["10.0.0.1", "10.1.0.1"]
    assert await book.hosts("NOT state=open AND network=10.0.0.0/24") == ["10.0.0.3", "10.0.0.4"]
    assert await book.hosts("port=443 AND port=22") == [], "of one port"


async def test_as_it_was(book: Book) -> None:
    await fill(book)
    await book.scan(T0 + 3 * DAY, record("10.0.0.2", 8081, product="caddy"), tool="nmap", organization="acme")
    assert await book.ports("address=10.0.0.2", T0) == ["10.0.0.2/tcp/8080 open"]
    assert await book.ports("address=10.0.0.2") == ["10.0.0.2/tcp/8080 not_shown", "10.0.0.2/tcp/8081 open"]
    assert await book.ports("address=10.0.0.2", T0 - 1) == []
    assert await book.hosts("", T0) == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.1.0.1"]
    assert await book.diff(T0, T0 + 5 * DAY) == [
        "disappeared 10.0.0.2/tcp/8080 not_shown (not_shown)",
        "appeared 10.0.0.2/tcp/8081 open",
        "appeared 2001:db8::1/udp/53 open|filtered",
    ]
    assert await book.diff(T0, T0 + 5 * DAY, where="port=8081", size=1) == ["appeared 10.0.0.2/tcp/8081 open"]
    with pytest.raises(PeerdError):
        await book.diff(T0 + 1, T0)


async def test_another_version_or_certificate_is_a_change(book: Book) -> None:
    await book.scan(T0, record("10.0.0.1", 443, product="nginx", version="1.18.0", certificate=OLD), tool="nmap")
    await book.scan(T0 + 1, record("10.0.0.1", 443))
    assert await book.diff(T0, T0 + 1) == [], "what a scan does not say is no change"
    assert await book.diff_jobs(1, 2) == []
    await book.scan(T0 + 2, record("10.0.0.1", 443, product="nginx", version="1.20.0"), tool="nmap")
    await book.scan(T0 + 3, record("10.0.0.1", 443, certificate=NEW), tool="nmap")
    assert await book.diff(T0, T0 + 2) == ["changed 10.0.0.1/tcp/443 open"]
    assert await book.diff(T0 + 2, T0 + 3) == ["changed 10.0.0.1/tcp/443 open"]
    assert await book.diff_jobs(1, 3) == ["changed 10.0.0.1/tcp/443 open"]


async def test_views_that_differ_are_listed(book: Book) -> None:
    await fill(book)
    page = await splits(book.store, where=None, size=9, token="")
    (one,) = page.items
    assert shown(one.line) == "10.0.0.1/tcp/443 open"
    assert [(view.scanner, view.vantage, view.state, view.scan_id) for view in one.views] == [
        ("key-b", "outside", "filtered", 2),
        ("key-a", "", "open", 1),
    ]
    assert not (await splits(book.store, where=book.inventory.where("port=22"), size=9, token="")).items


async def test_walking_the_graph(book: Book) -> None:
    await fill(book)
    await book.scan(T0 + DAY, record("10.9.0.1", 8443, certificate=OLD))
    edges = await book.inventory.graph.neighbours(parse_node("10.0.0.1"), limit=100)
    assert [f"{edge.relation} {edge.right}" for edge in edges] == [
        "in_network network:10.0.0.0/24",
        "named hostname:gate.example",
        "of_organization organization:acme",
        "has port:10.0.0.1/tcp/22",
        "has port:10.0.0.1/tcp/443",
    ]
    path = await book.inventory.graph.path(parse_node("host:10.0.0.1"), parse_node("host:10.9.0.1"), depth=0)
    assert [edge.relation for edge in path.edges] == ["has", "shows", "shows", "has"] and path.complete
    short = await book.inventory.graph.path(parse_node("host:10.0.0.1"), parse_node("host:10.9.0.1"), depth=3)
    assert not short.found and short.edges == ()
    assert len(await book.inventory.graph.neighbours(parse_node("network:10.0.0.7/24"), limit=2)) == 2
    wrongs = ["", "x:y", "host:", "port:10.0.0.1/tcp", "asn:x", "network:x", "network:10.0.0.0/8"]
    wrongs += [
        f"port:10.0.0.1/tcp/{65536 + 443}",
        "port:10.0.0.1/tcp/-1",
        f"asn:{2**63}",
        f"service:{10**30}",
        "asn:-1",
    ]
    for wrong in wrongs:
        with pytest.raises(PeerdError) as caught:
            parse_node(wrong)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
    with pytest.raises(PeerdError) as caught:
        await book.inventory.graph.neighbours(parse_node("host:10.7.7.7"), limit=2)
    assert caught.value.reason is Reason.NOT_FOUND
    around = await book.inventory.around("10.0.0.1", depth=3)
    assert around.related == (("10.9.0.1", f"certificate:{'aa' * 32}"),)
    assert [view.state for view, _ in around.views] == ["open", "filtered", "open"]


async def test_a_host_with_many_ports_is_not_asked_of_port_by_port(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    await book.scan(T0, *(record("10.0.0.1", number) for number in range(1, 400)))
    asked: list[str] = []
    real = book.inventory.store.all

    async def counted(sql: str, *params: Any) -> Any:
        asked.append(sql)
        return await real(sql, *params)

    monkeypatch.setattr(book.inventory.store, "all", counted)
    around = await book.inventory.around("10.0.0.1", depth=3, size=1000)
    assert len(around.ports) == len(around.views) == 399 and len(asked) < 30 and not around.token


async def test_a_host_is_shown_page_by_page_and_a_page_is_bounded(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Certificate(sha256="ab" * 32)
    await book.scan(
        T0, *(record("10.0.0.1", number) for number in range(1, 250)), record("10.0.0.1", 9, transport="udp")
    )
    await book.scan(T0 + DAY, record("10.0.0.1", 240, certificate=shared), record("10.0.0.2", 1, certificate=shared))
    for at, count in ((None, 250), (T0 + 1, 250), (T0 - 1, 0)):
        pages, token = [], ""
        while True:
            try:
                page = await book.inventory.around("10.0.0.1", depth=3, size=40, at=at, token=token)
            except PeerdError as error:
                assert count == 0 and error.reason is Reason.NOT_FOUND
                break
            assert len(page.ports) <= 40
            assert bool(page.related) == (not token), "what is related is said once, whatever page its ports are on"
            pages.append(page)
            token = page.token
            if not token:
                break
        found = [(line.port.transport, line.port.number) for page in pages for line in page.ports if line.port]
        assert len(found) == len(set(found)) == count and found == sorted(found)
        assert len(pages) == (7 if count else 0)
    # Much that was said of few ports: a page ends before that is too much, with one port at least.
    monkeypatch.setattr(lists, "OBSERVATIONS_READ", 6)
    for day in range(2, 6):
        await book.scan(T0 + day * DAY, record("10.0.0.3", 1), record("10.0.0.3", 2), vantage=str(day))
    first = await book.inventory.around("10.0.0.3", depth=3)
    assert [view.state for view, _ in first.views] == ["open"] * 4 and len(first.ports) == 1 and first.token
    second = await book.inventory.around("10.0.0.3", depth=3, token=first.token)
    assert [line.port.number for line in second.ports if line.port] == [2] and not second.token
    for wrong in ("x", "-1", "9" * 18):
        with pytest.raises(PeerdError) as caught:
            await book.inventory.around("10.0.0.3", depth=1, token=wrong)
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


async def test_changes_are_seen_once_and_from_anywhere(book: Book) -> None:
    assert await changes.newest(book.store) == 0
    await fill(book)
    found = await changes.changes_after(book.store, 0, limit=100)
    assert [f"{one.kind.name} {one.host.address} {one.number}" for one in found] == [
        "APPEARED 10.0.0.1 443",
        "APPEARED 10.0.0.1 22",
        "APPEARED 10.0.0.2 8080",
        "APPEARED 10.1.0.1 443",
        "APPEARED 2001:db8::1 53",
    ]
    last = await changes.newest(book.store)
    assert [one.change_id for one in await changes.changes_after(book.store, last - 2, limit=9)] == [last - 1, last]
    await changes.check_token(book.store, last)
    with pytest.raises(PeerdError) as caught:
        await changes.check_token(book.store, last + 1)
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
    assert not await book.store.write(lambda tx: forget_changes(tx, kept=2))
    assert len(await changes.changes_after(book.store, 0, limit=100)) == 2
    with pytest.raises(PeerdError) as caught:
        await changes.check_token(book.store, 1)
    assert caught.value.reason is Reason.STALE


async def test_a_watch_that_reads_too_slowly_is_told_what_it_missed(book: Book) -> None:
    await fill(book)
    servicer = InventoryServicer(book.inventory, book.clock)
    watch = servicer.WatchInventory(inventory_pb2.WatchInventoryRequest(after=1), None)
    assert (await anext(watch)).change_id == 2
    while (await anext(watch)).change_id < await changes.newest(book.store):
        pass
    ports = [record("10.0.0.1", number) for number in range(9000, 9009)]
    await book.scan(T0 + 40 * DAY, *ports, scanner="key-z")
    await book.store.write(lambda tx: forget_changes(tx, kept=2))
    waiting = asyncio.ensure_future(anext(watch))
    while not waiting.done():
        await asyncio.sleep(0.01)
        book.clock.advance(1)
    with pytest.raises(PeerdError) as caught:
        waiting.result()
    assert caught.value.reason is Reason.STALE


async def test_a_watch_that_asks_is_told_where_it_begins(book: Book) -> None:
    await fill(book)
    servicer = InventoryServicer(book.inventory, book.clock)
    newest = await changes.newest(book.store)
    for request, begin in (
        (inventory_pb2.WatchInventoryRequest(tell_begin=True), newest),
        (inventory_pb2.WatchInventoryRequest(after=1, tell_begin=True), 1),
    ):
        watch = servicer.WatchInventory(request, None)
        assert await anext(watch) == inventory_pb2.WatchInventoryResponse(change_id=begin)
        waiting = asyncio.ensure_future(anext(watch))
        if begin == newest:
            await book.scan(T0 + 41 * DAY, record("10.0.0.1", 9100), scanner="key-z")
        while not waiting.done():
            await asyncio.sleep(0.01)
            book.clock.advance(1)
        assert waiting.result().change_id == begin + 1 and waiting.result().kind


async def test_old_sightings_of_hosts_are_thinned_and_the_series_goes_on(book: Book) -> None:
    """They would be one for each host and scan for ever."""
    both = (record("10.0.0.1", 80), record("10.0.0.2"))
    for day in range(10):
        await book.scan(T0 + day * DAY, *(both[:1] if day in (4, 5, 6) else both), scope="10.0.0.0/24")
    await book.scan(T0 + 8 * DAY + 5, record("10.0.0.2", 1), scope="10.0.0.0/24", whole=False)  # it failed half-way
    at = T0 + 100 * DAY
    assert await book.store.write(lambda tx: thin(tx, before=at, after_host=0)) == 2
    rows = await book.store.all("SELECT host_id, scan_id FROM inventory_sightings ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [(1, 1), (1, 10), *((2, job) for job in (1, 4, 5, 7, 8, 10, 11))]
    await book.scan(at, record("10.0.0.2"), scope="10.0.0.0/24")
    assert await book.ports("address=10.0.0.1") == ["10.0.0.1/tcp/80 not_shown"]


async def test_old_observations_are_thinned_and_answers_stay(book: Book) -> None:
    for day in range(10):
        both = (record("10.0.0.1", 80), record("10.0.0.1", 443))
        await book.scan(T0 + day * DAY, *(both[:1] if day in (4, 5) else both))
    moments = [T0 + day * DAY for day in range(11)]
    before = [await book.ports(at=at) for at in moments], [await book.diff(T0, at) for at in moments]
    assert len(await book.store.all("SELECT 1 FROM inventory_observations")) == 19
    assert await book.store.write(lambda tx: thin(tx, before=T0 + 8 * DAY, after_host=0)) == 1
    assert await book.store.write(lambda tx: thin(tx, before=T0 + 8 * DAY, after_host=1)) is None
    left = [tuple(row) for row in await book.store.all("SELECT port_id & 65535, scan_id FROM inventory_observations")]
    assert sorted(left) == [(80, 1), (80, 9), (80, 10), *((443, job) for job in (1, 4, 5, 7, 9, 10))]
    assert ([await book.ports(at=at) for at in moments], [await book.diff(T0, at) for at in moments]) == before
    with pytest.raises(PeerdError) as caught:
        await book.diff_jobs(2, 10)
    assert caught.value.reason is Reason.FILES_REMOVED
    await book.scan(T0 + 11 * DAY, record("10.0.0.1", 443))
    assert await book.ports("state=not_shown") == ["10.0.0.1/tcp/80 not_shown"], "the series is known as before"


def mmdb(path: Path, networks: dict[str, dict[str, Any]]) -> str:
    """A database of these networks."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="test", languages=["en"], int_type="u32")
    for network, content in networks.items():
        writer.insert_network(IPSet([network]), content)
    writer.to_db_file(str(path))
    return str(path)


async def test_databases_say_system_and_country(book: Book, tmp_path: Path) -> None:
    await fill(book)
    asn = mmdb(
        tmp_path / "asn.mmdb",
        {"10.0.0.0/24": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}},
    )
    country = mmdb(tmp_path / "country.mmdb", {"10.0.0.0/8": {"country": {"iso_code": "CH"}}})
    enrichment = Enrichment(book.store, asn_database=asn, country_database=country)
    await enrichment.keep_up()
    assert await book.hosts("asn=AS64500") == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert await book.hosts("country=CH AND NOT asn=64500") == ["10.1.0.1"]
    await book.scan(T0 + DAY, record("10.0.0.77", 80))
    await enrichment.keep_up()
    assert await book.hosts("asn=64500 AND port=80") == ["10.0.0.77"]
    edges = await book.inventory.graph.neighbours(parse_node("asn:64500"), limit=9)
    assert len(edges) == 5
    enrichment.close()
    nothing = Enrichment(book.store, asn_database="", country_database="")
    assert not nothing.configured
    await nothing.keep_up()
    for wrong in (str(tmp_path / "none.mmdb"), __file__):
        with pytest.raises(PeerdError) as caught:
            Enrichment(book.store, asn_database=wrong, country_database="")
        assert caught.value.reason is Reason.INVALID_CONFIG


def test_versions_in_their_natural_order() -> None:
    order = "0.9 1.0-alpha 1.0-rc1 1.0-rc2 1.0 1.0a 1.0p1 1.0p2 1.0.1 1.2 1.9 1.10 1.10.0 2 10 2024.01.1".split()  # noqa: SIM905
    mixed = order[::-1]
    assert sorted(mixed, key=version_key) == order
    assert version_key("") == version_key("???") == ""
    assert version_key("OpenSSH 9.6p1 Debian") != "" and version_key("1.018") == version_key("1.18")


def test_scopes() -> None:
    scope = parse_scope("10.0.0.0/24,2001:db8::/64 tcp:1-1024,8080,udp:53")
    assert scope is not None
    from peerd.inventory.keys import key_of
    from peerd.inventory.model import Transport

    assert scope.has_host(key_of("10.0.0.255")) and not scope.has_host(key_of("10.0.1.0"))
    assert scope.has_host(key_of("2001:db8::5"))
    assert scope.has_port(Transport.TCP, 8080) and scope.has_port(Transport.UDP, 53)
    assert not scope.has_port(Transport.UDP, 80) and not scope.has_port(Transport.TCP, 1025)
    assert parse_scope("") is None
    for wrong in ("10.0.0.0/24 tcp:0", "10.0.0.0/24 5-3", "10.0.0.0/24 http", "x", "10.0.0.0/24 70000", "1" * 5000):
        with pytest.raises(PeerdError) as caught:
            parse_scope(wrong)
        assert caught.value.reason is Reason.INVALID_ARGUMENT


async def test_upkeep_thins_when_a_scan_has_come_of_age(book: Book) -> None:
    upkeep = InventoryUpkeep(InventoryConfig(observations_days=5), book.store)
    for day in range(4):
        await book.scan(T0 + day * DAY, record("10.0.0.1", 80))
    await upkeep.enrich()  # nothing is configured
    await upkeep.thin(T0 + 4 * DAY)
    assert len(await book.store.all("SELECT 1 FROM inventory_observations")) == 4, "none is old"
    commits = book.store.commits
    await upkeep.thin(T0 + 4 * DAY)
    assert book.store.commits - commits <= 1, "hosts are not walked when nothing came of age"
    await upkeep.thin(T0 + 30 * DAY)
    assert len(await book.store.all("SELECT 1 FROM inventory_observations")) == 2
    upkeep.close()
