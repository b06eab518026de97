"""Where a port scan may go: only into networks that the owner of the scanning machine allows. By default into none.

Names are resolved once, every address is judged, and the addresses are what is dialed: a name that points elsewhere a
moment later changes nothing. Some addresses are never dialed, whatever is allowed; some others only where a network
of their own kind is allowed, so that ``0.0.0.0/0`` opens neither loopback nor link-local addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from peerd.errors import PeerdError, Reason

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str], Sequence[str]]
"""All addresses of a name, as texts; OSError if it has none."""

MAX_TARGETS = 256
MAX_ADDRESSES = 65_536
"""Of all targets of one scan together: a /16."""
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_-]{1,63})*\.?")


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_NEVER: tuple[tuple[str, tuple[Network, ...]], ...] = (
    (
        "where clouds tell machines their secrets",
        _networks("169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "fd00:ec2::254/128"),
    ),
    ("a multicast address", _networks("224.0.0.0/4", "ff00::/8")),
    ("an address of no machine", _networks("0.0.0.0/8", "240.0.0.0/4", "::/128")),
)
_ONLY_BY_NAME: tuple[tuple[str, tuple[Network, ...]], ...] = (
    ("a loopback address", _networks("127.0.0.0/8", "::1/128")),
    ("a link-local address", _networks("169.254.0.0/16", "fe80::/10")),
    # An IPv4 address inside an IPv6 one: who lets 2000::/3 be scanned does not mean what lies behind a translator.
    ("an IPv4 address in disguise", _networks("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")),
)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What may be dialed."""

    networks: tuple[Network, ...]
    """Addresses are networks of one. Merged, so that none is dialed twice."""

    def count(self, version: int) -> int:
        """How many addresses of one version of IP."""
        return sum(network.num_addresses for network in self.networks if network.version == version)

    def of_version(self, version: int) -> list[str]:
        """As arguments: addresses plain, networks with their length."""
        chosen = (network for network in self.networks if network.version == version)
        return [str(network[0]) if network.num_addresses == 1 else str(network) for network in chosen]


class Guard:
    """The owner's word on where to."""

    def __init__(self, allowed_networks: Iterable[str]) -> None:
        """Raises INVALID_CONFIG for what is no network."""
        self._allowed = tuple(parse_allowed(text) for text in allowed_networks)

    def admit(self, targets: Sequence[str], resolve: Resolve) -> Targets:
        """What the targets mean, if all of it may be dialed. Raises INVALID_ARGUMENT or TARGET_NOT_ALLOWED."""
        if not targets or len(targets) > MAX_TARGETS:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"give 1 to {MAX_TARGETS} targets")
        admitted: list[Network] = []
        for target in targets:
            for network in _meaning(target, resolve):
                problem = self.problem(network)
                if problem:
                    shown = target if target == str(network[0]) else f"{target} ({network})"
                    raise PeerdError(Reason.TARGET_NOT_ALLOWED, f"{shown} is {problem}")
                admitted.append(network)
        merged = _merged(admitted)
        if sum(network.num_addresses for network in merged) > MAX_ADDRESSES:
            raise PeerdError(Reason.INVALID_ARGUMENT, f"these are more than {MAX_ADDRESSES} addresses")
        return Targets(networks=merged)

    def problem(self, network: Network) -> str:
        """Why something in it must not be dialed; empty if nothing speaks against it."""
        for what, ranges in _NEVER:
            if any(_overlaps(network, each) for each in ranges):
                return f"{what}: never dialed"
        within = [each for each in self._allowed if _contains(each, network)]
        if not within:
            return "in no network that the owner of this machine allows"
        for what, ranges in _ONLY_BY_NAME:
            for each in ranges:
                if _overlaps(network, each) and not any(_contains(each, allowed) for allowed in within):
                    return f"{what}, which the owner of this machine does not allow by itself"
        return ""


def parse_allowed(text: str) -> Network:
    """A network as an owner writes it. Raises INVALID_CONFIG."""
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        raise PeerdError(
            Reason.INVALID_CONFIG, f"[scans] allowed_networks: {text!r} is no network ({error})"
        ) from error
    return _unmapped(network)


def _meaning(target: str, resolve: Resolve) -> list[Network]:
    """The networks that a target stands for: one, or one for each address of a name."""
    text = target.strip()
    if "%" in text:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{target!r}: a zone means something on one machine only")
    plain = text.removeprefix("[").removesuffix("]") if text.startswith("[") else text
    try:
        return [_unmapped(ip_network(plain))]
    except ValueError as error:
        if "/" in text or not _NAME.fullmatch(text) or not any(character.isalpha() for character in _last(text)):
            raise PeerdError(
                Reason.INVALID_ARGUMENT, f"{target!r} is neither an address, nor a network, nor a name"
            ) from error
    try:
        found = [_address(address) for address in resolve(text)]
    except OSError as error:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{target!r} has no address that can be found: {error}") from error
    if not found:
        raise PeerdError(Reason.INVALID_ARGUMENT, f"{target!r} has no address")
    return [_unmapped(ip_network(address)) for address in found]


def _last(name: str) -> str:
    """The last label of a name: one of digits alone would be an address in a spelling of its own (127.1, 0x7f.1)."""
    label = name.removesuffix(".").rpartition(".")[2]
    return "" if label.lower().startswith("0x") else label


def _address(text: str) -> Address:
    return ip_address(text.partition("%")[0])


def _unmapped(network: Network) -> Network:
    """An IPv4 network that is written as IPv6 is the IPv4 network."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network[0].ipv4_mapped is not None:
        return ip_network(f"{network[0].ipv4_mapped}/{network.prefixlen - 96}")
    return network


def _contains(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def _overlaps(one: Network, other: Network) -> bool:
    return _contains(one, other) or _contains(other, one)


def _merged(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Without those that others contain, in their order."""
    found = list(dict.fromkeys(networks))
    return tuple(each for each in found if not any(other != each and _contains(other, each) for other in found))
