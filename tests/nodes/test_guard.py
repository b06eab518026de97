"""The guard: what may be dialed, and that nothing else is, seen by a resolver and a connector that write down all."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import SystemClock
from peerd.nodes.messages import FailureReason, Kind, Owner, Permission, Special
from peerd.nodes.probing.dialer import Dialer, NotAllowedError
from peerd.nodes.probing.guard import Guard, plain, side
from tests.nodes import servers as sites
from tests.nodes.probing import LOOPBACK, OWNER, Recorder, request, run
from tests.nodes.servers import http, servers

EVERYTHING = ("0.0.0.0/0", "::/0")
ALL_SPECIAL = tuple(Special)


def guard(
    ours: Sequence[str] = EVERYTHING, theirs: Sequence[str] = EVERYTHING, special: Sequence[Special] = ()
) -> Guard:
    return Guard(sides=(side("the organization", ours, (), special), side("this peer", theirs, (), special)))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "192.168.1.1", "10.0.0.1", "2606:4700::1111", "fd12:3456::1", "::ffff:8.8.8.8"]
)
def test_ordinary_addresses_may_be_dialed_where_both_sides_allow_everything(address: str) -> None:
    assert guard().refusal(plain(address)) is None


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "169.254.1.1", "fe80::1", "::ffff:169.254.1.1"),
        *("0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255"),
        *("240.0.0.1", "2002:7f00:1::", "2001:0:4136:e378::", "64:ff9b::7f00:1", "64:ff9b:1::1", "::127.0.0.1", "::2"),
        *("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"),
        *("168.63.129.16", "fe80::1%eth0"),
    ],
)
def test_special_addresses_are_refused_even_where_all_networks_are_allowed(address: str) -> None:
    assert guard().refusal(plain(address)) is not None


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"),
        *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:a9fe:a9fe::1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
    ],
)
def test_some_addresses_are_never_dialed_whatever_both_sides_name(address: str) -> None:
    assert guard(special=ALL_SPECIAL).refusal(plain(address)) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "::ffff:127.8.8.8"])
def test_loopback_and_link_local_may_be_dialed_when_both_sides_name_them(address: str) -> None:
    assert guard(special=ALL_SPECIAL).refusal(plain(address)) is None
    one = Guard(sides=(side("a", EVERYTHING, (), ALL_SPECIAL), side("b", EVERYTHING, (), ())))
    assert "b does not allow" in str(one.refusal(plain(address)))


def test_nobody_and_nothing_allow_nothing() -> None:
    assert Guard(sides=()).refusal(plain("8.8.8.8")) is not None
    assert guard(ours=()).refusal(plain("8.8.8.8")) is not None
    assert guard(theirs=()).refusal(plain("8.8.8.8")) is not None


def test_an_address_has_to_be_in_a_network_of_both_sides() -> None:
    both = guard(ours=["10.0.0.0/8"], theirs=["10.1.0.0/16", "192.168.0.0/16"])
    assert both.refusal(plain("10.1.2.3")) is None
    assert "this peer" in str(both.refusal(plain("10.2.0.1")))
    assert "the organization" in str(both.refusal(plain("192.168.1.1")))


@pytest.mark.parametrize(
    ("blocked", "host", "refused"),
    [
        ("bad.example", "bad.example", True),
        ("bad.example", "BAD.example.", True),
        ("bad.example", "not.bad.example", False),
        (".bad.example", "very.bad.example", True),
        (".bad.example", "bad.example", True),
        (".bad.example", "notbad.example", False),
    ],
)
def test_names_are_blocked_as_written_or_with_all_below(blocked: str, host: str, refused: bool) -> None:
    one = Guard(sides=(side("a", EVERYTHING, (blocked,), ()),))
    assert (one.host_refusal(host) is not None) is refused


@pytest.mark.parametrize("blocked", ["10.1.2.3", "10.1.2.0/24", "10.1.2.3/24"])
def test_addresses_and_networks_are_blocked_whatever_allows_them(blocked: str) -> None:
    one = Guard(sides=(side("a", EVERYTHING, (blocked,), ()),))
    assert "blocks" in str(one.refusal(plain("10.1.2.3")))


@given(st.integers(0, 2**32 - 1))
def test_a_mapped_address_is_judged_as_the_address_in_it(number: int) -> None:
    four = IPv4Address(number)
    mapped = IPv6Address(f"::ffff:{four}")
    for one in (guard(), guard(special=ALL_SPECIAL), guard(ours=["10.0.0.0/8"])):
        assert (one.refusal(four) is None) == (one.refusal(mapped) is None)


# Nothing leaves that is not allowed: the host resolves to the addresses, and servers listen on the loopback ones.

FORBIDDEN: list[tuple[str, list[str]]] = [
    ("127.61.9.1", []),
    ("::1", []),
    ("node.example", ["127.61.9.1"]),
    ("node.example", ["192.0.2.1", "127.61.9.1"]),
    ("node.example", ["192.0.2.1", "169.254.169.254"]),
    ("node.example", ["::ffff:127.61.9.1"]),
    ("node.example", ["::ffff:a9fe:a9fe"]),
    ("node.example", ["64:ff9b::7f00:1"]),
    ("node.example", ["2002:7f00:1::"]),
    ("node.example", ["0.0.0.0"]),
    ("node.example", ["::"]),
    ("node.example", ["fe80::1%eth0"]),
    ("node.example", ["224.0.0.1"]),
    ("node.example", ["198.51.100.1"]),
    ("node.example", [f"192.0.2.{number}" for number in range(20)]),
    ("blocked.example", ["192.0.2.1"]),
    ("below.blocked.example", ["192.0.2.1"]),
    ("node.example", ["192.0.2.66"]),
]


@pytest.mark.parametrize(("host", "addresses"), FORBIDDEN)
@pytest.mark.parametrize("kind", list(Kind))
async def test_nothing_is_dialed_when_any_address_is_forbidden(kind: Kind, host: str, addresses: list[str]) -> None:
    recorder = Recorder(addresses)
    asked = request(
        host,
        kind=kind,
        level=3 if kind is Kind.SCAN else 1,
        permission=Permission(by="somebody", reference="somewhere"),
        protocol="sui" if kind is Kind.SCAN else "",
        allowed_networks=("192.0.2.0/24", "127.0.0.0/8", "::/0"),
        allow_special=(),
        blocked_hosts=(".blocked.example", "192.0.2.66"),
    )
    owner = Owner(allowed_networks=EVERYTHING, allow_special=ALL_SPECIAL)

    result = await run(asked, owner, recorder)

    assert result.reason is FailureReason.NOT_ALLOWED, result
    assert recorder.connected == []
    assert result.connects == ()


async def test_the_owner_of_the_machine_decides_too() -> None:
    recorder = Recorder(["127.61.9.1"])
    for owner in (
        Owner(),
        Owner(allowed_networks=("127.61.9.0/24",)),
        Owner(allow_special=(Special.LOOPBACK,)),
        Owner(allowed_networks=LOOPBACK, allow_special=(Special.LOOPBACK,), blocked_hosts=("127.61.9.1",)),
    ):
        result = await run(request("node.example"), owner, recorder)
        assert result.reason is FailureReason.NOT_ALLOWED
    assert recorder.connected == []


async def test_a_scan_of_every_level_dials_allowed_addresses_only() -> None:
    host = "127.61.9.2"
    elsewhere = sites.Page(status=302, headers={"Location": "http://127.61.9.3:8545/"})
    recorder = Recorder([host], ["127.61.9.3"])
    async with servers() as running:
        await running.start(host, 9000, http(sites.SUI))
        await running.start(host, 8080, http(lambda asked: elsewhere))
        await running.start("127.61.9.3", 8545, http(sites.ETHEREUM))
        for level in (1, 2, 3):
            asked = request(
                "node.example",
                kind=Kind.SCAN,
                level=level,
                permission=Permission(by="a", reference="b"),
                allowed_networks=("127.61.9.2/32",),
            )
            recorder = Recorder([host], ["127.61.9.3"])
            result = await run(asked, OWNER, recorder)
            assert result.scan is not None, result
            assert recorder.resolved == ["node.example"]
            assert {address for address, _ in recorder.connected} == {host}
            assert [(one.address, one.port) for one in result.connects] == recorder.connected
        assert all(address == host for address, _ in running.accepted)


async def test_a_name_without_addresses_is_said_so() -> None:
    result = await run(request("node.example"), recorder=Recorder([]))
    assert result.reason is FailureReason.DNS_FAILED
    assert result.message == "DNS resolution failed: node.example has no address"


async def test_a_resolver_that_fails_is_said_so() -> None:
    class Failing(Recorder):
        async def resolve(self, host: str) -> Sequence[str]:
            raise OSError(-2, "Name or service not known")

    result = await run(request("node.example"), recorder=Failing([]))
    assert result.reason is FailureReason.DNS_FAILED
    assert "Name or service not known" in result.message


async def test_the_guard_is_asked_before_every_dial() -> None:
    recorder = Recorder(["127.0.0.1"])
    dialer = Dialer(guard(ours=["10.0.0.0/8"]), SystemClock(), connects_per_second=10, connector=recorder.connect)
    with pytest.raises(NotAllowedError):
        async with dialer.connection(plain("127.0.0.1"), 80, 1.0):
            pass
    assert recorder.connected == []
    assert dialer.connects == []


async def test_connections_come_no_faster_than_allowed() -> None:
    async with servers() as running:
        port = await running.start("127.61.9.4", 0, http(sites.SUI))
        clock = SystemClock()
        dialer = Dialer(guard(special=ALL_SPECIAL), clock, connects_per_second=20)
        began = clock.monotonic()
        for _ in range(6):
            async with dialer.connection(plain("127.61.9.4"), port, 30.0):
                pass
        assert clock.monotonic() - began >= 5 / 20
