"""Ports of which viewpoints say different things: one sees it, another one does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peerd.inventory import reading
from peerd.inventory.facts import Line
from peerd.inventory.fields import Expression
from peerd.inventory.judging import Observation, latest
from peerd.inventory.keys import PORT_MASK, host_of
from peerd.inventory.lists import HOSTS_LOOKED_AT, Page, read_token, write_token
from peerd.inventory.states import THERE, State
from peerd.store.beside import Reads


@dataclass(frozen=True, kw_only=True)
class View:
    """The last statement of one viewpoint."""

    scanner: str
    vantage: str
    state: str
    seen_at: int
    scan_id: int
    tool: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """One port, with all views of it."""

    line: Line
    views: tuple[View, ...]


async def views_of(store: Reads, ports: Sequence[int]) -> dict[int, tuple[View, ...]]:
    """All views of some ports, the newest first."""
    return await _views(store, await reading.observations_of(store, ports))


async def splits(store: Reads, *, where: Expression | None, size: int, token: str) -> Page[Split]:
    """A page may be short, or empty, and still have a token."""
    after, local = read_token(token)
    hosts = await store.all(
        "SELECT id, key FROM inventory_hosts WHERE key >= ? ORDER BY key LIMIT ?", (after, HOSTS_LOOKED_AT)
    )
    said = {
        port: observations
        for port, observations in (await reading.observations_of_hosts(store, [row["id"] for row in hosts])).items()
        if len({view.state in THERE for view in latest(observations).values()}) > 1
    }
    lines, views = await reading.lines_of(store, said), await _views(store, said)
    keys = {row["id"]: row["key"] for row in hosts}
    items: list[Split] = []
    for key, port in sorted((keys[host_of(port)], port) for port in lines):
        if key == after and port & PORT_MASK <= local:
            continue
        if where is None or where.holds(lines[port]):
            items.append(Split(line=lines[port], views=views[port]))
            if len(items) == size:
                return Page(items=items, token=write_token(key, port & PORT_MASK))
    more = len(hosts) == HOSTS_LOOKED_AT
    return Page(items=items, token=write_token(hosts[-1]["key"], PORT_MASK) if more else "")


async def _views(store: Reads, said: Mapping[int, list[Observation]]) -> dict[int, tuple[View, ...]]:
    last = {port: latest(observations).values() for port, observations in said.items()}
    scans = {
        row["id"]: row
        for row in await store.all(
            "SELECT s.id, s.tool, v.scanner, v.vantage FROM inventory_scans s "
            "JOIN inventory_viewpoints v ON v.id = s.viewpoint_id WHERE s.id IN (SELECT value FROM json_each(?))",
            (reading.to_json(one.scan_id for views in last.values() for one in views),),
        )
    }
    return {
        port: tuple(
            View(
                scanner=scans[one.scan_id]["scanner"],
                vantage=scans[one.scan_id]["vantage"],
                state=State(one.state).word,
                seen_at=one.seen_at,
                scan_id=one.scan_id,
                tool=scans[one.scan_id]["tool"],
            )
            for one in sorted(views, reverse=True)
        )
        for port, views in last.items()
    }
