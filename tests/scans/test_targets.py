"""What a port scan may dial."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from peerd.errors import PeerdError, Reason
from peerd.scans.targets import Guard, Targets

NAMES = {
    "db.example.org": ["192.0.2.7", "2001:db8::7"],
    "one.example.org": ["192.0.2.9"],
    "localhost": ["127.0.0.1", "::1"],
    "rebound.example.org": ["192.0.2.7", "127.0.0.1"],
    "cloud.example.org": ["169.254.169.254"],
    "mapped.example.org": ["::ffff:192.0.2.7"],
    "mapped-loopback.example.org": ["::ffff:127.0.0.1"],
    "zoned.example.org": ["fe80::1%eth0"],
    "empty.example.org": [],
}
DOCUMENTATION = ("192.0.2.0/24", "2001:db8::/32")
EVERYTHING = ("0.0.0.0/0", "::/0")


def resolve(name: str) -> Sequence[str]:
    if name not in NAMES:
        raise OSError("no such name")
    return NAMES[name]


def admit(targets: Sequence[str], *allowed: str) -> Targets:
    return Guard(allowed).admit(targets, resolve)


@pytest.mark.parametrize(
    ("allowed", "targets", "v4", "v6"),
    [
        (DOCUMENTATION, ["192.0.2.7"], ["192.0.2.7"], []),
        (DOCUMENTATION, ["192.0.2.0/28"], ["192.0.2.0/28"], []),
        (DOCUMENTATION, ["192.0.2.0/24", "192.0.2.7", "192.0.2.0/28"], ["192.0.2.0/24"], []),
        (DOCUMENTATION, ["192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.7"], []),
        (DOCUMENTATION, ["db.example.org"], ["192.0.2.7"], ["2001:db8::7"]),
        (DOCUMENTATION, ["one.example.org", "mapped.example.org"], ["192.0.2.9", "192.0.2.7"], []),
        (DOCUMENTATION, ["[2001:DB8::1]", "2001:db8:0::2"], [], ["2001:db8::1", "2001:db8::2"]),
        (("::ffff:192.0.2.0/120",), ["192.0.2.7"], ["192.0.2.7"], []),
        (("127.0.0.0/8", "::1/128"), ["localhost"], ["127.0.0.1"], ["::1"]),
        (("127.0.0.1/32",), ["127.0.0.1"], ["127.0.0.1"], []),
        (("169.254.7.0/24",), ["169.254.7.1"], ["169.254.7.1"], []),
        (("2002::/16",), ["2002:c000:207::1"], [], ["2002:c000:207::1"]),
        (EVERYTHING, ["10.1.2.3", "198.51.100.0/24"], ["10.1.2.3", "198.51.100.0/24"], []),
    ],
)
def test_what_the_owner_allows_is_dialed_by_address(
    allowed: tuple[str, ...], targets: list[str], v4: list[str], v6: list[str]
) -> None:
    admitted = admit(targets, *allowed)
    assert (admitted.of_version(4), admitted.of_version(6)) == (v4, v6)


@pytest.mark.parametrize(
    ("allowed", "target"),
    [
        ((), "192.0.2.7"),
        ((), "127.0.0.1"),
        (DOCUMENTATION, "198.51.100.1"),
        (DOCUMENTATION, "192.0.2.0/23"),
        (DOCUMENTATION, "localhost"),
        (DOCUMENTATION, "rebound.example.org"),
        (EVERYTHING, "127.0.0.1"),
        (EVERYTHING, "127.255.0.0/16"),
        (EVERYTHING, "::1"),
        (EVERYTHING, "localhost"),
        (EVERYTHING, "mapped-loopback.example.org"),
        (EVERYTHING, "::ffff:127.0.0.1"),
        (EVERYTHING, "::ffff:7f00:1"),
        (EVERYTHING, "::127.0.0.1"),
        (EVERYTHING, "64:ff9b::7f00:1"),
        (EVERYTHING, "64:ff9b::a9fe:a9fe"),
        (EVERYTHING, "2002:7f00:1::"),
        (EVERYTHING, "169.254.1.1"),
        (EVERYTHING, "fe80::1"),
        (EVERYTHING, "zoned.example.org"),
        (EVERYTHING, "169.254.169.254"),
        (EVERYTHING, "cloud.example.org"),
        (EVERYTHING, "::ffff:169.254.169.254"),
        (EVERYTHING, "224.0.0.1"),
        (EVERYTHING, "ff02::1"),
        (EVERYTHING, "255.255.255.255"),
        (EVERYTHING, "0.0.0.0"),
        (EVERYTHING, "::"),
        (EVERYTHING, "0.0.0.0/0"),
        (EVERYTHING, "::/0"),
        (("100.64.0.0/10",), "100.100.100.0/24"),
        (("fd00::/8",), "fd00:ec2::/112"),
        (("127.0.0.0/8",), "::1"),
        (("127.0.0.0/8", "169.254.0.0/16"), "169.254.169.254"),
        (("169.254.169.254/32",), "169.254.169.254"),
        (("224.0.0.0/4",), "224.0.0.1"),
    ],
)
def test_what_the_owner_does_not_allow_is_refused(allowed: tuple[str, ...], target: str) -> None:
    with pytest.raises(PeerdError) as caught:
        admit(["192.0.2.7", target] if allowed == DOCUMENTATION else [target], *allowed)
    assert caught.value.reason is Reason.TARGET_NOT_ALLOWED


@pytest.mark.parametrize(
    "target",
    [
        "",
        " ",
        "-iL",
        "--script=x",
        "-oN/etc/passwd",
        "192.0.2.1;id",
        "192.0.2.1 -sU",
        "$(id)",
        "192.0.2.1-9",
        "192.0.2.*",
        "192.0.2.1/33",
        "192.0.2.1/24",
        "3221225991",
        "0300.0.2.7",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "1.2.3.4.5",
        "fe80::1%eth0",
        "http://192.0.2.7/",
        "192.0.2.7:80",
        "nowhere.example.org",
        "empty.example.org",
        "a..b",
        "x" * 300,
        "bücher.example",
        "a\nb",
        "192.0.2.7\0",
    ],
)
def test_what_is_neither_address_nor_network_nor_name_is_refused(target: str) -> None:
    with pytest.raises(PeerdError) as caught:
        admit([target], *EVERYTHING, "127.0.0.0/8")
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_name_is_resolved_once_and_dialed_by_what_was_judged() -> None:
    asked: list[str] = []

    def turning(name: str) -> Sequence[str]:
        asked.append(name)
        return ["192.0.2.7"] if len(asked) == 1 else ["127.0.0.1"]

    assert Guard(DOCUMENTATION).admit(["db.example.org"], turning).of_version(4) == ["192.0.2.7"]
    assert asked == ["db.example.org"]


def test_a_scan_has_an_end() -> None:
    admit(["10.0.0.0/16"], "10.0.0.0/8")
    for targets in (["10.0.0.0/15"], ["10.0.0.0/16", "10.1.0.1"], ["2001:db8::/64"], [], ["10.0.0.1"] * 257):
        with pytest.raises(PeerdError) as caught:
            admit(targets, "10.0.0.0/8", "2001:db8::/32")
        assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("network", ["", "everything", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0-10.0.0.9"])
def test_a_network_that_is_none_is_refused_with_the_configuration(network: str) -> None:
    with pytest.raises(PeerdError) as caught:
        Guard([network])
    assert caught.value.reason is Reason.INVALID_CONFIG
