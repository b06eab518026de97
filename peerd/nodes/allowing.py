"""What a policy says of a target before anybody dials: names as they stand, addresses against networks. Pure.

A name says nothing of its addresses: those are checked where they are resolved, on the peer that probes, each before it
is dialed. So this is the early refusal, not the guard.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from peerd.nodes.messages import Special
from peerd.nodes.model import Policy
from peerd.nodes.targets import Address, ParsedTarget, parse_address

Network = IPv4Network | IPv6Network

METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "169.254.170.2"})
"""Where clouds tell machines their secrets; never dialed."""


def forbidden(target: ParsedTarget, policy: Policy) -> str:
    """Why the target may not be dialed; empty if nothing speaks against it yet."""
    if blocked(target, policy.blocked_hosts):
        return f"Target '{target.text}' is blocked by the organization's policy"
    if not policy.allowed_networks:
        return "The organization's policy allows no network"
    address = target.address
    if address is None:
        return ""
    if str(address) in METADATA:
        return f"Target '{target.text}' is a metadata service, which is never dialed"
    special = special_kind(address)
    if special is not None and special not in policy.allow_special:
        return f"Target '{target.text}' is a {special} address, which the organization's policy does not allow"
    if not any(_contains(network, address) for network in map(parse_network, policy.allowed_networks)):
        return f"Target '{target.text}' is not in a network that the organization's policy allows"
    return ""


def blocked(target: ParsedTarget, hosts: tuple[str, ...]) -> bool:
    """Whether one of the names, addresses and networks is the target or contains it."""
    for entry in hosts:
        network = parse_network(entry)
        if network is not None:
            if target.address is not None and _contains(network, target.address):
                return True
        elif entry.startswith("."):
            if target.host == entry[1:] or target.host.endswith(entry):
                return True
        elif target.host == entry:
            return True
    return False


def special_kind(address: Address) -> Special | None:
    """Of an address that needs to be allowed by name."""
    if address.is_loopback:
        return Special.LOOPBACK
    return Special.LINK_LOCAL if address.is_link_local else None


@lru_cache(maxsize=8192)
def parse_network(text: str) -> Network | None:
    """A network, or an address as the network of it alone; None for what is neither."""
    address = parse_address(text)
    if address is not None:
        return ip_network(str(address))
    try:
        return ip_network(text)
    except ValueError:
        return None


def _contains(network: Network | None, address: Address) -> bool:
    return network is not None and network.version == address.version and address in network
