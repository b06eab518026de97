"""Walking what hangs together: hosts, ports, services, certificates, host names, networks, organizations, systems.

A node is written ``kind:name``: ``host:192.0.2.7``, ``port:192.0.2.7/tcp/443``, ``service:12``, ``certificate:SHA256``,
``hostname:www.example.com``, ``network:192.0.2.0/24`` (/64 of IPv6), ``organization:acme``, ``asn:64500``. Walks are
bounded: a service that ten thousand ports run has ten thousand neighbours.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from peerd.errors import PeerdError, Reason
from peerd.inventory.addresses import normalise_address
from peerd.inventory.details import HOSTNAME, ORGANIZATION
from peerd.inventory.keys import (
    CODES,
    PORT_BITS,
    address_of,
    key_of,
    network_around,
    network_range,
    number_of,
    transport_of,
)
from peerd.inventory.model import Transport
from peerd.store.beside import Reads

_MAX_PORT = 65535
_MAX_ID = 2**63 - 1
MAX_NEIGHBOURS = 1000
MAX_DEPTH = 8
MAX_NODES = 20_000
"""Looked at for one path."""
KINDS = ("host", "port", "service", "certificate", "hostname", "network", "organization", "asn")


@dataclass(frozen=True, order=True, slots=True)
class Node:
    """One of them."""

    kind: str
    name: str
    label: str = field(default="", compare=False)
    """What people call it, where that is something else."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Edge:
    """From the left to the right: a host has a port, a port runs a service."""

    left: Node
    relation: str
    right: Node


@dataclass(frozen=True, kw_only=True)
class Path:
    """How two nodes hang together, if they do as far as was looked."""

    edges: tuple[Edge, ...]
    found: bool
    looked_at: int
    complete: bool
    """Whether everything within the depth was looked at."""


def parse_node(text: str) -> Node:
    """Raises INVALID_ARGUMENT."""
    kind, _, name = text.strip().partition(":")
    if kind not in KINDS and normalise_address(text) is not None:
        kind, name = "host", text.strip()
    try:
        if kind not in KINDS or not name:
            raise ValueError
        if kind == "host":
            name = _address(name)
        elif kind == "port":
            address, transport, number = name.rsplit("/", 2)
            name = f"{_address(address)}/{Transport(transport).value}/{_number(number, _MAX_PORT)}"
        elif kind == "network":
            low, high = network_range(name)
            name = network_around(low)
            if network_around(high) != name:
                raise ValueError
        elif kind in ("service", "asn"):
            name = str(_number(name.upper().removeprefix("AS"), _MAX_ID))
        elif kind in ("certificate", "hostname"):
            name = name.lower()
    except ValueError:
        raise PeerdError(
            Reason.INVALID_ARGUMENT,
            f"{text[:100]!r} names no node",
            next_action="write kind:name, such as host:192.0.2.7, port:192.0.2.7/tcp/443 or network:192.0.2.0/24 "
            f"(/64 of IPv6, no wider); kinds: {', '.join(KINDS)}",
        ) from None
    return Node(kind, name)


def _number(text: str, most: int) -> int:
    """A port's id holds its number in 16 bits: a larger one would name another port."""
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError
    return number


class Graph:
    """Answers of the store."""

    def __init__(self, store: Reads) -> None:
        self._store = store

    async def neighbours(self, node: Node, *, limit: int) -> list[Edge]:
        """Edges of a node, at most so many. Raises NOT_FOUND for one that is not there."""
        edges = await self._edges(node, min(max(limit, 1), MAX_NEIGHBOURS))
        if not edges:
            raise PeerdError(
                Reason.NOT_FOUND, f"there is no {node}", next_action="find one with 'peerctl hosts list --where ...'"
            )
        return edges

    async def path(self, begin: Node, end: Node, *, depth: int) -> Path:
        """A shortest path, looked for from the begin in widening circles."""
        depth = min(depth or MAX_DEPTH, MAX_DEPTH)
        came: dict[Node, Edge | None] = {begin: None}
        circle, complete = [begin], True
        for _ in range(depth):
            if end in came or not circle:
                break
            outer: list[Node] = []
            for node in circle:
                if len(came) > MAX_NODES:
                    complete = False
                    break
                edges = await self._edges(node, MAX_NEIGHBOURS)
                complete = complete and len(edges) < MAX_NEIGHBOURS
                for edge in edges:
                    other = edge.right if edge.left == node else edge.left
                    if other not in came:
                        came[other] = edge
                        outer.append(other)
                if end in came:
                    break
            circle = outer
        return Path(edges=_back(came, begin, end), found=end in came, looked_at=len(came), complete=complete)

    async def _edges(self, node: Node, limit: int) -> list[Edge]:
        match node.kind:
            case "host":
                return await self._of_host(node, limit)
            case "port":
                return await self._of_port(node)
            case "service" | "certificate":
                return await self._of_detail(node, limit)
            case "network":
                low, high = network_range(node.name)
                rows = await self._store.all(
                    "SELECT key FROM inventory_hosts WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?", (low, high, limit)
                )
                return [Edge(_host(row), "in_network", node) for row in rows]
            case "asn":
                rows = await self._store.all(
                    "SELECT key FROM inventory_hosts WHERE asn = ? ORDER BY key LIMIT ?", (int(node.name), limit)
                )
                return [Edge(_host(row), "in_asn", node) for row in rows]
            case _:
                kind = HOSTNAME if node.kind == "hostname" else ORGANIZATION
                rows = await self._store.all(
                    "SELECT h.key FROM inventory_names n JOIN inventory_hosts h ON h.id = n.host_id "
                    "WHERE n.kind = ? AND n.value = ? ORDER BY h.key LIMIT ?",
                    (kind, node.name, limit),
                )
                relation = "named" if node.kind == "hostname" else "of_organization"
                return [Edge(_host(row), relation, node) for row in rows]

    async def _of_host(self, node: Node, limit: int) -> list[Edge]:
        key = key_of(node.name)
        host = await self._store.one("SELECT id, asn, as_name FROM inventory_hosts WHERE key = ?", (key,))
        if host is None:
            return []
        edges = [Edge(node, "in_network", Node("network", network_around(key)))]
        if host["asn"] is not None:
            edges.append(Edge(node, "in_asn", Node("asn", str(host["asn"]), host["as_name"] or "")))
        for row in await self._store.all(
            "SELECT kind, value FROM inventory_names WHERE host_id = ? AND kind IN (?, ?) ORDER BY kind, value LIMIT ?",
            (host["id"], HOSTNAME, ORGANIZATION, limit),
        ):
            named = row["kind"] == HOSTNAME
            other = Node("hostname" if named else "organization", row["value"])
            edges.append(Edge(node, "named" if named else "of_organization", other))
        low, high = host["id"] << PORT_BITS, (host["id"] + 1) << PORT_BITS
        for row in await self._store.all(
            "SELECT id FROM inventory_ports WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (low, high, limit)
        ):
            edges.append(Edge(node, "has", _port(node.name, row["id"])))
        return edges[:limit]

    async def _of_port(self, node: Node) -> list[Edge]:
        address, transport, number = node.name.rsplit("/", 2)
        row = await self._store.one(
            "SELECT s.id AS service, s.name, s.product, s.version, c.sha256, c.common_name "
            f"FROM inventory_hosts h JOIN inventory_ports p ON p.id = (h.id << {PORT_BITS} | ?) "
            "LEFT JOIN inventory_services s ON s.id = p.service_id "
            "LEFT JOIN inventory_certificates c ON c.id = p.certificate_id WHERE h.key = ?",
            (CODES[Transport(transport)] << 16 | int(number), key_of(address)),
        )
        if row is None:
            return []
        edges = [Edge(Node("host", address), "has", node)]
        if row["service"] is not None:
            label = " ".join(part for part in (row["name"], row["product"], row["version"]) if part)
            edges.append(Edge(node, "runs", Node("service", str(row["service"]), label)))
        if row["sha256"] is not None:
            edges.append(Edge(node, "shows", Node("certificate", row["sha256"], row["common_name"])))
        return edges

    async def _of_detail(self, node: Node, limit: int) -> list[Edge]:
        column, relation, value = "p.service_id = ?", "runs", node.name
        if node.kind == "certificate":
            column, relation = "p.certificate_id = (SELECT id FROM inventory_certificates WHERE sha256 = ?)", "shows"
        rows = await self._store.all(
            f"SELECT p.id, h.key FROM inventory_ports p JOIN inventory_hosts h ON h.id = p.id >> {PORT_BITS} "
            f"WHERE {column} ORDER BY p.id LIMIT ?",
            (int(value) if node.kind == "service" else value, limit),
        )
        return [Edge(_port(address_of(row["key"]), row["id"]), relation, node) for row in rows]


def _back(came: dict[Node, Edge | None], begin: Node, end: Node) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    node = end
    while node != begin and (edge := came.get(node)) is not None:
        edges.append(edge)
        node = edge.left if edge.right == node else edge.right
    return tuple(reversed(edges))


def _host(row: sqlite3.Row) -> Node:
    return Node("host", address_of(row["key"]))


def _port(address: str, port: int) -> Node:
    return Node("port", f"{address}/{transport_of(port).value}/{number_of(port)}")


def _address(text: str) -> str:
    address = normalise_address(text)
    if address is None:
        raise ValueError(text)
    return address
