"""A scan of one host at one of three levels; each includes those below.

1. Version and TLS of the protocol, and the services that any machine may offer (the ``generic`` protocol's probes).
2. A port scan, and the protocol's own health: synchronised, peers, height.
3. Calls that strangers must not be able to make, read-only ones; only with the organization's written permission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peerd import __version__
from peerd.clock import Clock
from peerd.nodes.messages import Finding, OpenPort, ScanReport
from peerd.nodes.probing.dialer import Dialer
from peerd.nodes.probing.guard import Address
from peerd.nodes.probing.recognition import first_value, version_of
from peerd.nodes.probing.survey import BANNER, PortSeen, Survey, queries_by_port
from peerd.nodes.protocols import Probe, Protocol, Query, QueryKind
from peerd.nodes.protocols.values import shown
from peerd.nodes.scanning.certificates import certificate_findings
from peerd.nodes.scanning.port_scan import scan_ports
from peerd.nodes.scanning.ports import DANGEROUS, SERVICES
from peerd.nodes.scanning.scoring import FREE_PORTS, Rule, risk_of, score_of
from peerd.nodes.scanning.services import describe

SCANNER = f"peerd-prober {__version__}"
UNKNOWN = "unknown"
_ROOT = Query(kind=QueryKind.HTTP, path="/")
_METRICS = Query(kind=QueryKind.METRICS, path="/metrics")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is scanned, and how far."""

    protocol: Protocol
    generic: Protocol | None
    """What any machine may offer; None if this is it already."""
    level: int
    host: str
    port: int | None
    connects_per_second: float

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The ones whose probes are sent."""
        return (self.protocol,) if self.generic is None else (self.protocol, self.generic)


class Scan:
    """One scan, over what a discovery may have asked already."""

    def __init__(self, scope: Scope, dialer: Dialer, survey: Survey, clock: Clock, *, nmap: str | None = None) -> None:
        self._scope = scope
        self._dialer = dialer
        self._survey = survey
        self._clock = clock
        self._nmap = nmap

    async def recognise(self, addresses: Sequence[Address]) -> Address | None:
        """Ask what tells the protocol, at the first address with an open port; None if there is none."""
        for address in addresses:
            for protocol in self._scope.protocols:
                await self._ask(address, protocol, protocol.discovery_probes)
            if self._survey.open_ports:
                return address
        return None

    async def run(self, address: Address, seconds: float) -> None:
        """Ask what the level is about, for at most so long; what was not asked is noted."""
        scope = self._scope
        try:
            async with asyncio.timeout(seconds):
                if scope.level >= 2:
                    for protocol in scope.protocols:
                        await self._ask(address, protocol, protocol.health_probes)
                    await self._scan_ports(address, seconds * 0.7)
                if scope.level >= 3:
                    for protocol in scope.protocols:
                        await self._ask(address, protocol, protocol.sensitive_probes)
        except TimeoutError:
            self._survey.note("not everything of this level was asked: the deadline came first")

    def report(self) -> ScanReport:
        """What was found."""
        scope = self._scope
        findings = sorted(self._findings(), key=lambda one: (-one.points, one.port, one.id))
        score = score_of(findings)
        return ScanReport(
            protocol=scope.protocol.name,
            level=scope.level,
            score=score,
            risk=risk_of(score),
            version=version_of(scope.protocol, self._survey.answers),
            findings=tuple(findings),
            ports=tuple(self._port(seen) for seen in self._survey.open_ports),
            health=dict(self._health()) if scope.level >= 2 else {},
            scanner=SCANNER,
        )

    async def _ask(self, address: Address, protocol: Protocol, probes: Sequence[Probe]) -> None:
        only = self._scope.port if protocol is self._scope.protocol and not protocol.fallback else None
        await self._survey.ask(address, queries_by_port(probes, only))

    async def _scan_ports(self, address: Address, seconds: float) -> None:
        scope = self._scope
        wanted = {*SERVICES, *(port for protocol in scope.protocols for port in protocol.ports)}
        unknown = sorted(wanted - {port for _, port in self._survey.ports})
        found = await scan_ports(
            self._dialer,
            address,
            unknown,
            per_second=scope.connects_per_second,
            seconds=seconds,
            nmap=self._nmap,
        )
        for note in found.notes:
            self._survey.note(note)
        self._survey.note(f"port scan: {len(unknown)} more ports with {found.tool}, {len(found.open)} of them open")
        await self._survey.ask(address, {port: [_ROOT, _METRICS, BANNER] for port in found.open})

    def _findings(self) -> Iterator[Finding]:
        docker = self._docker_ports()
        for seen in self._survey.open_ports:
            if seen.port in docker:
                rule = Rule.DOCKER_API_TLS if seen.tls is not None else Rule.DOCKER_API_PLAIN
                yield rule.finding(port=seen.port)
            else:
                yield from self._of_port(seen)
            if seen.tls is not None:
                yield from certificate_findings(seen.tls, host=self._scope.host, port=seen.port, now=self._clock.now())
        extra = [seen for seen in self._survey.open_ports if not self._allowed(seen.port)]
        if len(extra) > FREE_PORTS:
            times = len(extra) - FREE_PORTS
            yield Rule.MANY_PORTS.finding(times=times, detail=f"{len(extra)} ports")
        if self._scope.level >= 2:
            yield from self._illnesses()
        if self._scope.level >= 3:
            yield from self._exposures()

    def _of_port(self, seen: PortSeen) -> Iterator[Finding]:
        if self._allowed(seen.port):
            return
        if seen.banner.startswith("SSH-"):
            yield Rule.SSH_OPEN.finding(port=seen.port, detail=shown(seen.banner.strip()))
        elif seen.port in DANGEROUS:
            yield Rule.DANGEROUS_PORT.finding(port=seen.port, detail=f"usually {DANGEROUS[seen.port]}")
        elif seen.http:
            page = self._metrics_page(seen)
            yield Rule.WEB_PORT.finding(port=seen.port, detail=page or seen.server)

    def _allowed(self, port: int) -> bool:
        return port in self._scope.protocol.allowed_ports or port == self._scope.port

    def _docker_ports(self) -> set[int]:
        """Where the Docker API says its version."""
        return {
            answer.port
            for answer in self._survey.answers.asked
            if answer.query.path == "/version"
            and isinstance(answer.json, dict)
            and isinstance(answer.json.get("ApiVersion"), str)
        }

    def _metrics_page(self, seen: PortSeen) -> str:
        for answer in self._survey.answers.asked:
            if (answer.address, answer.port) == (seen.address, seen.port) and answer.metrics:
                return f"{len(answer.metrics)} metrics at {answer.query.path}"
        return ""

    def _health(self) -> Iterator[tuple[str, str]]:
        for check in self._scope.protocol.health:
            values = [
                value
                for answer in self._survey.answers.to(self._scope.protocol, check.probe)
                for value in answer.values(check.expect)
            ]
            yield check.name, shown(values[0]) if values else UNKNOWN

    def _illnesses(self) -> Iterator[Finding]:
        protocol, answers = self._scope.protocol, self._survey.answers
        for check in protocol.health:
            values = [
                (answer.port, value)
                for answer in answers.to(protocol, check.probe)
                for value in answer.values(check.expect)
            ]
            if values and not any(check.expect.accepts(value) for _, value in values):
                port, value = values[0]
                yield Rule.UNHEALTHY.finding(
                    id=f"unhealthy-{check.name}",
                    severity=check.severity,
                    title=check.failed,
                    detail=f"{check.name} is {shown(value)}",
                    port=port,
                )

    def _exposures(self) -> Iterator[Finding]:
        for protocol in self._scope.protocols:
            for call in protocol.sensitive:
                found = first_value(protocol, call.probe, call.expect, self._survey.answers)
                if found is not None:
                    answer, value = found
                    asked = answer.query.method or answer.query.path
                    yield Rule.EXPOSED_METHOD.finding(
                        id=f"exposed-{call.name}",
                        severity=call.severity,
                        title=call.title,
                        detail=f"{asked} answers {shown(value)}",
                        port=answer.port,
                    )

    def _port(self, seen: PortSeen) -> OpenPort:
        return describe(seen, self._scope.protocols, self._survey.answers)
