"""Which addresses may be dialed: only those that both sides allow, whatever a name resolves to. Pure.

The sides are the organization whose node it is and the owner of the machine that probes. An address has to be in a
network of each; neither may block it; loopback and link-local have to be named by both, too. Never dialed are
multicast, unspecified and reserved addresses, the metadata services of clouds, and IPv6 addresses that carry an IPv4
address in them (6to4, Teredo, NAT64, IPv4-compatible), because they lead somewhere else than they seem to. An IPv4
address that is mapped into IPv6 is judged and dialed as the IPv4 address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from peerd.nodes.messages import Special

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_NEVER: tuple[tuple[str, tuple[Network, ...]], ...] = (
    # Addresses at which AWS, Google, Azure, Oracle and Alibaba serve a machine's credentials.
    (
        "a metadata service",
        _networks(
            *("169.254.169.253/32", "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32"),
            *("100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"),
            *("fd00:ec2::/32", "fd20:ce::254/128"),
        ),
    ),
    ("an unspecified address", _networks("0.0.0.0/8", "::/128")),
    ("a multicast address", _networks("224.0.0.0/4", "ff00::/8")),
    ("a reserved address", _networks("240.0.0.0/4", "192.0.0.0/29", "100::/64")),
    (
        "an IPv6 address with an IPv4 address in it",
        _networks("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48"),
    ),
)
_SPECIAL: tuple[tuple[Special, tuple[Network, ...]], ...] = (
    (Special.LOOPBACK, _networks("127.0.0.0/8", "::1/128")),
    (Special.LINK_LOCAL, _networks("169.254.0.0/16", "fe80::/10")),
)
_COMPATIBLE = IPv6Network("::/96")


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side allows. Nothing unless it says so."""

    who: str
    """As it stands in messages, such as ``the organization``."""
    networks: tuple[Network, ...] = ()
    blocked_networks: tuple[Network, ...] = ()
    blocked_names: tuple[str, ...] = ()
    """Lower case without the last dot; one that begins with a dot blocks that name and all below it."""
    special: frozenset[Special] = frozenset()


def side(who: str, allowed: Sequence[str], blocked: Sequence[str], special: Sequence[Special]) -> Side:
    """A side from texts. Raises ValueError that names the text which is no network."""
    blocked_networks: list[Network] = []
    blocked_names: list[str] = []
    for text in blocked:
        try:
            blocked_networks.append(ip_network(text, strict=False))
        except ValueError:
            blocked_names.append(text.lower().removesuffix("."))
    networks = []
    for text in allowed:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ValueError(f"allowed network of {who}: {error}") from error
    return Side(
        who=who,
        networks=tuple(networks),
        blocked_networks=tuple(blocked_networks),
        blocked_names=tuple(blocked_names),
        special=frozenset(special),
    )


def plain(text: str) -> Address:
    """An address from its text, with an IPv4 address mapped into IPv6 unwrapped. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Judges names and addresses by all sides."""

    sides: tuple[Side, ...]

    def host_refusal(self, host: str) -> str | None:
        """Why nothing of that name may be dialed; None if the name itself is not the reason."""
        name = host.lower().removesuffix(".")
        for one in self.sides:
            for blocked in one.blocked_names:
                if name == blocked.removeprefix(".") or (blocked.startswith(".") and name.endswith(blocked)):
                    return f"{one.who} blocks {blocked}"
        return None

    def refusal(self, address: Address) -> str | None:
        """Why an address may not be dialed; None if it may."""
        if not self.sides:
            return "nobody allows anything"
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                return f"{address} has a zone, which means something on one machine only"
            if address.ipv4_mapped is not None:
                return self.refusal(address.ipv4_mapped)
        for what, networks in _NEVER:
            if _within(address, networks):
                return f"{address} is {what}: never dialed"
        for kind, networks in _SPECIAL:
            if _within(address, networks):
                for one in self.sides:
                    if kind not in one.special:
                        return f"{address} is a {kind} address, which {one.who} does not allow"
        if address in _COMPATIBLE and not address.is_loopback:
            return f"{address} is an IPv6 address with an IPv4 address in it: never dialed"
        for one in self.sides:
            if _within(address, one.blocked_networks):
                return f"{one.who} blocks {address}"
            if not _within(address, one.networks):
                return f"{address} is in no network that {one.who} allows"
        return None


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
