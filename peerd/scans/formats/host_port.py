"""Lines such as ``192.0.2.1:80``, ``[2001:db8::1]:53/udp``; ``#`` begins a comment. Names are not resolved."""

from __future__ import annotations

import re
from collections.abc import Iterable

from peerd.inventory.model import Port, Record
from peerd.scans.formats.items import SkipReason
from peerd.scans.formats.values import TRANSPORTS, address_reader

LINE = re.compile(r"(?:\[([^\s\[\]]{2,80})\]|([^\s\[\]:/#]{1,253})):([0-9]{1,9})(?:/([A-Za-z]{1,8}))?(?:\s+#.*)?")


class HostPortReader:
    """What reads one line."""

    def __init__(self) -> None:
        self._address_of = address_reader()

    def __call__(self, line: str) -> Iterable[Record | SkipReason]:
        if line.startswith("#"):
            return ()
        found = LINE.fullmatch(line)
        if found is None:
            return (SkipReason.NOT_HOST_PORT,)
        bracketed, plain, digits, protocol = found.groups()
        address = self._address_of(bracketed or plain)
        if address is None:
            return (SkipReason.NO_ADDRESS if plain and not plain[-1].isdigit() else SkipReason.INVALID_ADDRESS,)
        number = int(digits)
        if not 1 <= number <= 65535:
            return (SkipReason.INVALID_PORT,)
        transport = TRANSPORTS.get(protocol.lower() if protocol else "tcp")
        if transport is None:
            return (SkipReason.INVALID_PROTOCOL,)
        return (Record(address=address, port=Port(number=number, transport=transport)),)
