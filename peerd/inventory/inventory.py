"""The questions, as users ask them: texts in, values out."""

from __future__ import annotations

from dataclasses import dataclass

from peerd.clock import Clock
from peerd.errors import PeerdError, Reason, Violation
from peerd.inventory.addresses import normalise_address
from peerd.inventory.facts import HostFacts, Line
from peerd.inventory.fields import Expression, parse_filter
from peerd.inventory.graph import Graph, Node
from peerd.inventory.keys import key_of
from peerd.inventory.lists import Lists, Question
from peerd.inventory.splits import View, views_of
from peerd.store.beside import Reads

MAX_DEPTH = 3
PORTS = 100
"""Of one page, where nothing else is asked for."""
_SHOWN_RELATIONS = 100
"""Other hosts of one answer."""


@dataclass(frozen=True, kw_only=True)
class Around:
    """A host with what is around it."""

    host: HostFacts
    ports: tuple[Line, ...] = ()
    views: tuple[tuple[View, Line], ...] = ()
    related: tuple[tuple[str, str], ...] = ()
    """(address, through which node); on the first page."""
    token: str = ""
    """Where its next ports begin."""


class Inventory:
    """Answers of one store."""

    def __init__(self, store: Reads, clock: Clock) -> None:
        self.store = store
        self.lists = Lists(store)
        self.graph = Graph(store)
        self._clock = clock

    def where(self, text: str) -> Expression | None:
        """A filter; None for an empty text. Raises INVALID_EXPRESSION."""
        return parse_filter(text, self._clock.now()) if text.strip() else None

    def question(self, where: str, at: int | None = None) -> Question:
        """Raises INVALID_EXPRESSION."""
        return Question(where=self.where(where), at=at)

    async def around(
        self, address: str, *, depth: int, at: int | None = None, size: int = PORTS, token: str = ""
    ) -> Around:
        """With a page of its ports. Raises INVALID_ARGUMENT, INVALID_PAGE_TOKEN or NOT_FOUND."""
        normal = normalise_address(address)
        if normal is None:
            message = f"{address[:100]!r} is no address"
            raise PeerdError(Reason.INVALID_ARGUMENT, message, violations=[Violation(field="address", message=message)])
        host = await self.lists.host(key_of(normal))
        if host is None or (at is not None and host.first_seen > at):
            raise PeerdError(
                Reason.NOT_FOUND,
                f"nothing is known of host {normal}",
                next_action="'peerctl hosts list' shows what is; 'peerctl scans list' what was ingested",
            )
        if depth < 1:
            return Around(host=host)
        page = await self.lists.ports_of(host.host_id, at, size=size, token=token)
        ports = tuple(page.items)
        if depth < MAX_DEPTH:
            return Around(host=host, ports=ports, token=page.token)
        by_port = {line.port.port_id: line for line in ports if line.port is not None}
        seen = await views_of(self.store, list(by_port))  # of all at once: a host may have thousands
        views = tuple((view, line) for port, line in by_port.items() for view in seen.get(port, ()))
        related = () if token else await self._related(host)
        return Around(host=host, ports=ports, views=views, related=related, token=page.token)

    async def _related(self, host: HostFacts) -> tuple[tuple[str, str], ...]:
        """Other hosts with the same certificate or name, as they are now."""
        certificates = await self.lists.certificates_of(host.host_id, limit=_SHOWN_RELATIONS)
        nodes = [Node("certificate", sha256) for sha256 in certificates]
        nodes += [Node("hostname", name) for name in host.hostnames[:_SHOWN_RELATIONS]]
        found: list[tuple[str, str]] = []
        for node in nodes:
            if len(found) >= _SHOWN_RELATIONS:
                break
            for edge in await self.graph.neighbours(node, limit=_SHOWN_RELATIONS):
                address = edge.left.name if edge.left.kind == "host" else edge.left.name.rsplit("/", 2)[0]
                if address != host.address and (address, str(node)) not in found:
                    found.append((address, str(node)))
        return tuple(found[:_SHOWN_RELATIONS])
