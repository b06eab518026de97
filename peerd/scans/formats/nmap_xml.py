"""nmap's XML (``-oX``), and masscan's, which has the same elements and fewer of them.

``nmaprun/host`` holds status, addresses, names, ports and the guess of an operating system, in this order, so that a
port becomes a record as soon as it is closed. ``hosthint`` is not a host. Ports that nmap only counts (``extraports``)
are counted in the notes. A host given up in the middle by a file that breaks off keeps the ports that were whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason
from peerd.inventory.model import Port, PortState, Record
from peerd.scans.formats.items import Item, Limits, Notes, Skipped, SkipReason
from peerd.scans.formats.nmap_port import PortReader
from peerd.scans.formats.values import (
    MAX_NAMES,
    address_reader,
    excerpt_of,
    mac_of,
    millis_of_seconds,
    name_of,
    text_of,
)
from peerd.scans.formats.xml_stream import parse_xml

_ANSWERS = (PortState.OPEN, PortState.CLOSED)
_MAX_NOTED = 16


def read_xml(blocks: Iterator[bytes], limits: Limits, notes: Notes) -> Iterator[list[Item]]:
    """The items of each block."""
    return parse_xml(blocks, limits, _Listener(notes))


@dataclass(slots=True)
class _Host:
    seen_at: Millis | None
    address: str = ""
    others: list[str] = field(default_factory=list)
    """Further addresses: hosts by themselves, of which no port was tried."""
    flaw: SkipReason = SkipReason.MISSING_FIELD
    mac: str = ""
    names: list[str] = field(default_factory=list)
    up: bool = True
    assumed: bool = False
    """nmap was told to take it for up (``-Pn``); whether it answered, its ports tell."""
    answered: bool = False
    os: str = ""
    os_of_service: str = ""
    told: bool = False


class _Listener:
    def __init__(self, notes: Notes) -> None:
        self.items: list[Item] = []
        self.text: list[str] | None = None
        self.complete = False
        self.line: Callable[[], int] = int
        self._notes = notes
        notes.whole = False
        self._address_of = address_reader()
        self._root = False
        self._host: _Host | None = None
        self._port: PortReader | None = None
        self._starts: dict[str, Callable[[_Host, dict[str, str]], None]] = {
            "status": self._status,
            "address": self._address,
            "hostname": self._hostname,
            "ports": self._ports,
            "extraports": self._extraports,
            "osmatch": self._osmatch,
        }

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """See :class:`peerd.scans.formats.xml_stream.Listener`."""
        if self._port is not None:
            self.text = [] if self._port.start(tag, attributes) else None
        elif self._host is None:
            self._outside(tag, attributes)
        elif tag == "port":
            self._port = PortReader(attributes, masscan=self._notes.tool == "masscan")
        elif handle := self._starts.get(tag):
            handle(self._host, attributes)

    def end(self, tag: str) -> None:
        """See :class:`peerd.scans.formats.xml_stream.Listener`."""
        if self._port is not None:
            if tag == "port" and self._host is not None:
                self._port_ends(self._host, self._port)
                self._port = None
            else:
                self._port.end(tag, "".join(self.text) if self.text else "")
            self.text = None
        elif tag == "host" and self._host is not None:
            self._host_ends(self._host)
            self._host = None
        elif tag == "nmaprun":
            self.complete = self._notes.whole = True

    def _outside(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._root:
            if tag != "nmaprun":
                raise PeerdError(Reason.UNKNOWN_SCAN_FORMAT, f"the XML is no scan: it begins with <{excerpt_of(tag)}>")
            self._root = True
            self._notes.tool = text_of(attributes.get("scanner"))
            self._notes.tool_version = text_of(attributes.get("version"))
            self._notes.started_at = millis_of_seconds(attributes.get("start"))
        elif tag == "host":
            seen = millis_of_seconds(attributes.get("endtime")) or millis_of_seconds(attributes.get("starttime"))
            self._host = _Host(seen)
        elif tag == "finished":
            self._notes.finished_at = millis_of_seconds(attributes.get("time"))
        elif tag == "scaninfo" and attributes.get("services") and len(self._notes.covered) < _MAX_NOTED:
            self._notes.covered.append((text_of(attributes.get("protocol")), attributes["services"][:65536]))

    def _status(self, host: _Host, attributes: dict[str, str]) -> None:
        host.up = attributes.get("state") == "up"
        host.assumed = attributes.get("reason") == "user-set"

    def _address(self, host: _Host, attributes: dict[str, str]) -> None:
        said = attributes.get("addr", "")
        if attributes.get("addrtype") == "mac":
            host.mac = mac_of(said)
            return
        address = self._address_of(said)
        if address is None:
            host.flaw = SkipReason.INVALID_ADDRESS
        elif not host.address:
            host.address = address
        elif address != host.address and len(host.others) < MAX_NAMES:
            host.others.append(address)

    def _hostname(self, host: _Host, attributes: dict[str, str]) -> None:
        name = name_of(attributes.get("name"))
        if name and name not in host.names and len(host.names) < MAX_NAMES:
            host.names.append(name)

    def _ports(self, host: _Host, attributes: dict[str, str]) -> None:
        if host.up and not host.assumed and self._notes.tool != "masscan":
            self._tell(host)

    def _extraports(self, host: _Host, attributes: dict[str, str]) -> None:
        state, count = text_of(attributes.get("state")), attributes.get("count", "")
        others = self._notes.other_ports
        if count.isascii() and count.isdigit() and len(count) <= 9 and (state in others or len(others) < _MAX_NOTED):
            others[state] = others.get(state, 0) + int(count)

    def _osmatch(self, host: _Host, attributes: dict[str, str]) -> None:
        host.os = host.os or text_of(attributes.get("name"))  # the best one stands first

    def _tell(self, host: _Host) -> None:
        """Hand out what is known of the host itself."""
        host.told = True
        if not host.address:
            self._skip(host.flaw, "a host without an address" + (f", {host.mac}" if host.mac else ""))
            return
        up = host.up and (host.answered or not host.assumed)
        self._notes.hosts_down += not up
        for address in (host.address, *host.others):
            self.items.append(
                Record(
                    address=address,
                    seen_at=host.seen_at,
                    up=up,
                    hostnames=tuple(host.names),
                    mac=host.mac,
                    os=host.os or host.os_of_service,
                )
            )

    def _port_ends(self, host: _Host, reader: PortReader) -> None:
        read = reader.result()
        if not host.address:
            return  # said once, of the host
        if isinstance(read, Port):
            answers = read.state in _ANSWERS
            host.answered = host.answered or answers
            host.os_of_service = host.os_of_service or reader.os
            name = name_of(reader.hostname)
            up = answers or (host.up and not host.assumed)
            self.items.append(
                Record(address=host.address, seen_at=host.seen_at, up=up, hostnames=(name,) if name else (), port=read)
            )
        elif read is None:  # masscan's answers to pings and ARP
            self.items.append(Record(address=host.address, seen_at=host.seen_at))
        else:
            self._skip(read, f"{host.address} {reader.shown}")

    def _host_ends(self, host: _Host) -> None:
        if not host.address or self._notes.tool != "masscan":
            if not host.told:
                self._tell(host)
            elif host.address and (host.os or host.os_of_service):
                self.items.append(
                    Record(address=host.address, seen_at=host.seen_at, os=host.os or host.os_of_service, mac=host.mac)
                )

    def _skip(self, reason: SkipReason, shown: str) -> None:
        self.items.append(Skipped(line=self.line(), reason=reason, excerpt=excerpt_of(shown)))
