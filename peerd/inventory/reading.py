"""What lists show: lines of the inventory, complete with names, services, certificates and who saw them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from peerd.inventory.details import HOSTNAME, MAC, ORGANIZATION, SYSTEM
from peerd.inventory.facts import CertificateFacts, HostFacts, Line, PortFacts, ServiceFacts
from peerd.inventory.judging import Observation, Standing, latest, standing
from peerd.inventory.keys import PORT_BITS, host_of, number_of, transport_of
from peerd.inventory.revising import OBSERVATIONS
from peerd.inventory.states import State
from peerd.store.beside import Reads

THERE = (int(State.OPEN), int(State.OPEN_OR_FILTERED))


async def hosts_by_id(store: Reads, ids: Iterable[int]) -> dict[int, HostFacts]:
    """Complete hosts."""
    asked = json.dumps(sorted(set(ids)))
    rows = await store.all("SELECT * FROM inventory_hosts WHERE id IN (SELECT value FROM json_each(?))", (asked,))
    names: dict[tuple[int, int], list[str]] = {}
    for row in await store.all(
        "SELECT host_id, kind, value FROM inventory_names WHERE host_id IN (SELECT value FROM json_each(?))", (asked,)
    ):
        names.setdefault((row["host_id"], row["kind"]), []).append(row["value"])
    opened = await store.all(
        "SELECT j.value AS id, count(p.id) AS n FROM json_each(?) j JOIN inventory_ports p "
        f"ON p.id >= j.value << {PORT_BITS} AND p.id < (j.value + 1) << {PORT_BITS} "
        "WHERE p.state IN (?, ?) GROUP BY j.value",
        (asked, *THERE),
    )
    counted = {row["id"]: row["n"] for row in opened}
    return {row["id"]: _host(row, names, counted.get(row["id"], 0)) for row in rows}


def _host(row: sqlite3.Row, names: Mapping[tuple[int, int], Sequence[str]], open_ports: int) -> HostFacts:
    number = row["id"]
    return HostFacts(
        host_id=number,
        key=row["key"],
        address=row["address"],
        up=bool(row["up"]),
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        asn=row["asn"],
        as_name=row["as_name"],
        country=row["country"],
        hostnames=tuple(names.get((number, HOSTNAME), ())),
        macs=tuple(names.get((number, MAC), ())),
        systems=tuple(names.get((number, SYSTEM), ())),
        organizations=tuple(names.get((number, ORGANIZATION), ())),
        open_ports=open_ports,
    )


async def observations_of(store: Reads, ports: Sequence[int]) -> dict[int, list[Observation]]:
    """All that was said of these ports."""
    found: dict[int, list[Observation]] = {}
    for row in await store.all(
        f"{OBSERVATIONS} WHERE o.port_id IN (SELECT value FROM json_each(?))", (json.dumps(list(ports)),)
    ):
        found.setdefault(row[0], []).append(Observation(*row[1:]))
    return found


async def observations_of_hosts(store: Reads, hosts: Sequence[int]) -> dict[int, list[Observation]]:
    """All that was said of the ports of these hosts."""
    found: dict[int, list[Observation]] = {}
    for row in await store.all(
        "SELECT o.port_id, o.seen_at, o.scan_id, s.viewpoint_id, o.state, o.service_id, o.banner_id, o.certificate_id "
        "FROM json_each(?) j CROSS JOIN inventory_observations o "
        f"ON o.port_id >= j.value << {PORT_BITS} AND o.port_id < (j.value + 1) << {PORT_BITS} "
        "JOIN inventory_scans s ON s.id = o.scan_id",
        (json.dumps(list(hosts)),),
    ):
        found.setdefault(row[0], []).append(Observation(*row[1:]))
    return found


async def scanners(store: Reads) -> dict[int, str]:
    """By viewpoint."""
    return {row["id"]: row["scanner"] for row in await store.all("SELECT id, scanner FROM inventory_viewpoints")}


async def lines_of(store: Reads, said: Mapping[int, Sequence[Observation]], at: int | None = None) -> dict[int, Line]:
    """Complete lines of ports of which that was said, as they stood at a moment; those unknown then are not in it."""
    stood = {port: now for port, one in said.items() if (now := standing(one, at)) is not None}
    hosts = await hosts_by_id(store, (host_of(port) for port in stood))
    services = await services_by_id(store, (one.service_id for one in stood.values()))
    certificates = await certificates_by_id(store, (one.certificate_id for one in stood.values()))
    banners = await _banners(store, (one.banner_id for one in stood.values()))
    who = await scanners(store)
    found: dict[int, Line] = {}
    for port, one in stood.items():
        views = latest(said[port], at).values()
        agree = {who[view.viewpoint] for view in views if (view.state in THERE) == one.there}
        facts = PortFacts(
            port_id=port,
            transport=transport_of(port),
            number=number_of(port),
            state=State(one.state).word,
            first_seen=one.first_seen,
            last_seen=one.last_seen,
            last_open=one.last_open,
            service=services.get(one.service_id or 0),
            certificate=certificates.get(one.certificate_id or 0),
            banner=banners.get(one.banner_id or 0, b""),
            scanners=tuple(sorted(agree)),
        )
        everybody = {who[view.viewpoint] for view in said[port] if at is None or view.seen_at <= at}
        found[port] = Line(host=hosts[host_of(port)], port=facts, scanners=tuple(sorted(everybody)))
    return found


async def services_by_id(store: Reads, ids: Iterable[int | None]) -> dict[int, ServiceFacts]:
    """Those that are there."""
    rows = await store.all(
        "SELECT * FROM inventory_services WHERE id IN (SELECT value FROM json_each(?))", (to_json(ids),)
    )
    return {row["id"]: to_service(row) for row in rows}


def to_service(row: sqlite3.Row) -> ServiceFacts:
    """Of a row of the table."""
    return ServiceFacts(
        service_id=row["id"],
        name=row["name"],
        product=row["product"],
        version=row["version"],
        version_key=row["version_key"],
        extra=row["extra"],
        cpes=tuple(json.loads(row["cpes"])),
        tls=bool(row["tls"]),
        confidence=row["confidence"],
    )


async def certificates_by_id(store: Reads, ids: Iterable[int | None]) -> dict[int, CertificateFacts]:
    """Those that are there."""
    rows = await store.all(
        "SELECT * FROM inventory_certificates WHERE id IN (SELECT value FROM json_each(?))", (to_json(ids),)
    )
    return {row["id"]: to_certificate(row) for row in rows}


def to_certificate(row: sqlite3.Row) -> CertificateFacts:
    """Of a row of the table."""
    return CertificateFacts(
        certificate_id=row["id"],
        sha256=row["sha256"],
        common_name=row["common_name"],
        names=tuple(json.loads(row["names"])),
        issuer=row["issuer"],
        not_before=row["not_before"],
        not_after=row["not_after"],
    )


async def _banners(store: Reads, ids: Iterable[int | None]) -> dict[int, bytes]:
    rows = await store.all(
        "SELECT id, sample FROM inventory_banners WHERE id IN (SELECT value FROM json_each(?))", (to_json(ids),)
    )
    return {row["id"]: row["sample"] for row in rows}


def to_json(ids: Iterable[int | None]) -> str:
    """A list for json_each()."""
    return json.dumps(sorted({one for one in ids if one is not None}))


def there(one: Standing | None) -> bool:
    """Whether it was known and there."""
    return one is not None and one.there
