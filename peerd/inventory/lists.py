"""Pages of hosts, ports, services and certificates that a filter holds for, now or at a moment.

Pages go by address and port, which never change, so that a page token stays good whatever is stored meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from peerd.errors import PeerdError, Reason
from peerd.filters.sql import Sql
from peerd.inventory import reading
from peerd.inventory.facts import CertificateFacts, HostFacts, Line, ServiceFacts
from peerd.inventory.fields import LINES, Expression, filter_sql
from peerd.inventory.keys import PORT_BITS, PORT_MASK, host_of
from peerd.inventory.states import BY_WORD, THERE
from peerd.store.beside import Reads

T = TypeVar("T")

HOSTS_LOOKED_AT = 500
"""For one page of the past, which no index knows; a page may be short, or empty, and still have a token."""

OBSERVATIONS_READ = 10_000
"""For one page of a host's ports, unless one port alone has more."""


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """What there is, and where the next page begins; nowhere when ``token`` is empty."""

    items: Sequence[T]
    token: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: everything when ``where`` is None; as of now when ``at`` is."""

    where: Expression | None = None
    at: int | None = None


class Lists:
    """Reads them."""

    def __init__(self, store: Reads) -> None:
        self._store = store

    async def hosts(self, question: Question, *, size: int, token: str) -> Page[HostFacts]:
        """Hosts of which some line - one of its ports, or the host itself if it has none - is as asked."""
        after, _ = read_token(token)
        if question.at is not None:
            return await self._past_hosts(question, question.at, size, after)
        where = _condition(question.where)
        rows = await self._store.all(
            f"SELECT h.id, h.key {LINES.format(join='LEFT JOIN')} WHERE h.key > ? AND {where.text} "
            "GROUP BY h.key ORDER BY h.key LIMIT ?",
            (after, *where.params, size + 1),
        )
        hosts = await reading.hosts_by_id(self._store, (row["id"] for row in rows[:size]))
        return Page(
            items=[hosts[row["id"]] for row in rows[:size]],
            token=write_token(rows[size - 1]["key"]) if len(rows) > size else "",
        )

    async def ports(self, question: Question, *, size: int, token: str) -> Page[Line]:
        """Ports that are as asked, with their hosts."""
        after, local = read_token(token)
        if question.at is not None:
            return await self._past_ports(question, question.at, size, after, local)
        where = _condition(question.where)
        rows = await self._store.all(
            f"SELECT p.id, h.key {LINES.format(join='CROSS JOIN')} WHERE h.key >= ? AND (h.key > ? OR p.id & ? > ?) "
            f"AND {where.text} ORDER BY h.key, p.id LIMIT ?",
            (after, after, PORT_MASK, local, *where.params, size + 1),
        )
        ports = [row["id"] for row in rows[:size]]
        lines = await reading.lines_of(self._store, await reading.observations_of(self._store, ports))
        return Page(
            items=[lines[port] for port in ports],
            token=write_token(rows[size - 1]["key"], ports[-1] & PORT_MASK) if len(rows) > size else "",
        )

    async def services(self, question: Question, *, size: int, token: str) -> Page[tuple[ServiceFacts, int]]:
        """What answers at ports that are as asked, with how many of them."""
        where = _condition(question.where)
        rows = await self._store.all(
            f"SELECT s.*, count(*) AS n {LINES.format(join='JOIN')} WHERE s.id > ? AND {where.text} "
            "GROUP BY s.id ORDER BY s.id LIMIT ?",
            (_number(token), *where.params, size + 1),
        )
        return Page(
            items=[(reading.to_service(row), row["n"]) for row in rows[:size]],
            token=str(rows[size - 1]["id"]) if len(rows) > size else "",
        )

    async def certificates(self, question: Question, *, size: int, token: str) -> Page[tuple[CertificateFacts, int]]:
        """Certificates at ports that are as asked, with how many of them."""
        where = _condition(question.where)
        rows = await self._store.all(
            f"SELECT c.*, count(*) AS n {LINES.format(join='JOIN')} WHERE c.id > ? AND {where.text} "
            "GROUP BY c.id ORDER BY c.id LIMIT ?",
            (_number(token), *where.params, size + 1),
        )
        return Page(
            items=[(reading.to_certificate(row), row["n"]) for row in rows[:size]],
            token=str(rows[size - 1]["id"]) if len(rows) > size else "",
        )

    async def host(self, address_key: bytes) -> HostFacts | None:
        """One host."""
        row = await self._store.one("SELECT id FROM inventory_hosts WHERE key = ?", (address_key,))
        return None if row is None else (await reading.hosts_by_id(self._store, [row["id"]]))[row["id"]]

    async def ports_of(self, host_id: int, at: int | None = None, *, size: int, token: str) -> Page[Line]:
        """Ports of a host, as they stood at a moment; a page has fewer where much was said of each."""
        first, behind = (host_id << PORT_BITS) + _local(token), (host_id + 1) << PORT_BITS
        rows = await self._store.all(
            "SELECT p.id, (SELECT count(*) FROM inventory_observations o WHERE o.port_id = p.id) AS said "
            "FROM inventory_ports p WHERE p.id > ? AND p.id < ? ORDER BY p.id LIMIT ?",
            (first, behind, size + 1),
        )
        ports, said = list[int](), 0
        for row in rows[:size]:
            said += row["said"]
            if ports and said > OBSERVATIONS_READ:
                break
            ports.append(row["id"])
        lines = await reading.lines_of(self._store, await reading.observations_of(self._store, ports), at)
        return Page(
            items=[lines[port] for port in ports if port in lines],
            token=str(ports[-1] & PORT_MASK) if len(ports) < len(rows) else "",
        )

    async def certificates_of(self, host_id: int, *, limit: int) -> list[str]:
        """SHA-256 of certificates that a host shows now."""
        rows = await self._store.all(
            "SELECT DISTINCT c.sha256 FROM inventory_ports p JOIN inventory_certificates c ON c.id = p.certificate_id "
            "WHERE p.id >= ? AND p.id < ? ORDER BY c.sha256 LIMIT ?",
            (host_id << PORT_BITS, (host_id + 1) << PORT_BITS, limit),
        )
        return [row["sha256"] for row in rows]

    async def _past_ports(self, question: Question, at: int, size: int, after: bytes, local: int) -> Page[Line]:
        hosts = await self._store.all(
            "SELECT id, key FROM inventory_hosts WHERE key >= ? AND first_seen <= ? ORDER BY key LIMIT ?",
            (after, at, HOSTS_LOOKED_AT),
        )
        said = await reading.observations_of_hosts(self._store, [row["id"] for row in hosts])
        lines = await reading.lines_of(self._store, said, at)
        by_host: dict[int, list[int]] = {}
        for port in sorted(lines):
            by_host.setdefault(host_of(port), []).append(port)
        items: list[Line] = []
        for row in hosts:
            for port in by_host.get(row["id"], ()):
                if row["key"] == after and port & PORT_MASK <= local:
                    continue
                if question.where is None or question.where.holds(lines[port]):
                    items.append(lines[port])
                    if len(items) == size:
                        return Page(items=items, token=write_token(row["key"], port & PORT_MASK))
        more = len(hosts) == HOSTS_LOOKED_AT
        return Page(items=items, token=write_token(hosts[-1]["key"], PORT_MASK) if more else "")

    async def _past_hosts(self, question: Question, at: int, size: int, after: bytes) -> Page[HostFacts]:
        rows = await self._store.all(
            "SELECT id, key FROM inventory_hosts WHERE key > ? AND first_seen <= ? ORDER BY key LIMIT ?",
            (after, at, HOSTS_LOOKED_AT),
        )
        ids = [row["id"] for row in rows]
        lines = await reading.lines_of(self._store, await reading.observations_of_hosts(self._store, ids), at)
        hosts = await reading.hosts_by_id(self._store, ids)
        by_host: dict[int, list[Line]] = {}
        for port, line in lines.items():
            by_host.setdefault(host_of(port), []).append(line)
        items: list[HostFacts] = []
        for row in rows:
            of_host = by_host.get(row["id"]) or [Line(host=hosts[row["id"]])]
            if question.where is None or any(question.where.holds(line) for line in of_host):
                items.append(_then(hosts[row["id"]], of_host))
                if len(items) == size:
                    return Page(items=items, token=write_token(row["key"]))
        return Page(items=items, token=write_token(rows[-1]["key"]) if len(rows) == HOSTS_LOOKED_AT else "")


def _then(host: HostFacts, lines: Sequence[Line]) -> HostFacts:
    """A host with what its ports said of it then."""
    ports = [line.port for line in lines if line.port is not None]
    if not ports:
        return host
    opened = sum(BY_WORD[port.state] in THERE for port in ports)
    return replace(host, open_ports=opened, last_seen=max(port.last_seen for port in ports))


def _condition(where: Expression | None) -> Sql:
    return Sql("1") if where is None else filter_sql(where)


def write_token(key: bytes, local: int = 0) -> str:
    return f"{key.hex()}-{local}"


def read_token(token: str) -> tuple[bytes, int]:
    """(key, port within its host). Raises INVALID_PAGE_TOKEN."""
    if not token:
        return b"", 0
    head, _, tail = token.partition("-")
    try:
        key, local = bytes.fromhex(head), int(tail)
    except ValueError:
        key, local = b"", -1
    if len(key) != 16 or not 0 <= local <= PORT_MASK:
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not one of ours")
    return key, local


def _local(token: str) -> int:
    """A port within its host."""
    local = _number(token)
    if local > PORT_MASK:
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not one of ours")
    return local


def _number(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not one of ours")
    return int(token)
