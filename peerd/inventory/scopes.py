"""What a scan looked at, when its submitter says so: ``10.0.0.0/24,192.0.2.7 tcp:1-1024,8080``. Pure.

Networks and addresses, then after a space, if not all ports were looked at, the ports: each a number or a range, with
``tcp:``, ``udp:`` or ``sctp:`` before those of that transport (tcp when nothing is said). The word ``shown`` in place
of networks stands for the hosts that the scan shows as up: of others nobody knows whether they were looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from peerd.errors import PeerdError, Reason
from peerd.inventory.keys import network_range
from peerd.inventory.model import Transport

MAX_LENGTH = 4096
SHOWN = "shown"
_PORTS = re.compile(r"(?:(tcp|udp|sctp):)?(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Ranges of keys, and of ports of each transport; all ports when there are none."""

    networks: tuple[tuple[bytes, bytes], ...] | None
    """None: the hosts that the scan shows."""
    ports: tuple[tuple[Transport, int, int], ...] = ()

    def has_host(self, key: bytes) -> bool:
        """Whether that address was looked at though the scan may not show it."""
        return self.networks is not None and any(low <= key <= high for low, high in self.networks)

    def has_port(self, transport: Transport, number: int) -> bool:
        """Whether that port of such an address was."""
        return not self.ports or any(one is transport and low <= number <= high for one, low, high in self.ports)


@lru_cache(maxsize=64)
def parse_scope(text: str) -> Scope | None:
    """None for an empty text. Raises INVALID_ARGUMENT."""
    if not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise _fault(f"it has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    networks, _, ports = text.strip().partition(" ")
    if networks == SHOWN:
        return Scope(networks=None, ports=_ports(ports.strip()))
    try:
        ranges = tuple(network_range(network) for network in networks.split(","))
    except ValueError as error:
        raise _fault(str(error)) from error
    return Scope(networks=ranges, ports=_ports(ports.strip()))


def _ports(text: str) -> tuple[tuple[Transport, int, int], ...]:
    found: list[tuple[Transport, int, int]] = []
    transport = Transport.TCP
    for piece in text.split(",") if text else ():
        match = _PORTS.fullmatch(piece.strip())
        if match is None:
            raise _fault(f"{piece!r} is no port and no range of ports")
        transport = Transport(match[1]) if match[1] else transport
        low = int(match[2])
        high = int(match[3] or low)
        if not 1 <= low <= high <= 65535:
            raise _fault(f"{piece!r} is not within 1 to 65535")
        found.append((transport, low, high))
    return tuple(found)


def _fault(message: str) -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        f"the scope of a scan: {message}",
        next_action="write it like '10.0.0.0/24,192.0.2.7 tcp:1-1024,8080'",
    )
