"""Numbers for what is stored: addresses as 16 bytes that sort, ports as numbers that hold their host."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from peerd.inventory.model import Transport

_V4 = b"\0" * 10 + b"\xff\xff"
TRANSPORTS = (Transport.TCP, Transport.UDP, Transport.SCTP)
CODES: dict[Transport, int] = {transport: code for code, transport in enumerate(TRANSPORTS, 1)}
PORT_BITS = 18
"""Of a port's id: 16 for the number, two for the transport. What is above is the host's id."""
PORT_MASK = (1 << PORT_BITS) - 1


def key_of(address: str) -> bytes:
    """16 bytes, IPv4 as in ::ffff:0:0/96, so that a network is a range of keys."""
    return inet_pton(AF_INET6, address) if ":" in address else _V4 + inet_pton(AF_INET, address)


def address_of(key: bytes) -> str:
    """The address of a key, in its one spelling."""
    return str(IPv4Address(key[12:])) if key.startswith(_V4) else str(IPv6Address(key))


def network_range(text: str) -> tuple[bytes, bytes]:
    """The first and last key of a network or of one address. Raises ValueError."""
    network = ip_network(text.strip(), strict=False)
    if isinstance(network, IPv6Network):
        return network.network_address.packed, network.broadcast_address.packed
    return _V4 + network.network_address.packed, _V4 + network.broadcast_address.packed


def network_around(key: bytes) -> str:
    """The network that an address is counted to: /24 of IPv4, /64 of IPv6."""
    if key.startswith(_V4):
        return str(ip_network((int.from_bytes(key[12:]) & ~0xFF, 24)))
    return str(IPv6Network((int.from_bytes(key) & ~((1 << 64) - 1), 64)))


def port_id(host_id: int, transport: Transport, number: int) -> int:
    """The id of a host's port."""
    return host_id << PORT_BITS | CODES[transport] << 16 | number


def host_of(port: int) -> int:
    """The id of the host that a port belongs to."""
    return port >> PORT_BITS


def transport_of(port: int) -> Transport:
    """What a port's id says of its transport."""
    return TRANSPORTS[(port >> 16 & 3) - 1]


def number_of(port: int) -> int:
    """The port's number; 0 for the host itself."""
    return port & 0xFFFF
