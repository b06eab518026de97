"""One request of a prober: what is checked, discovered or scanned, and the result that says so.

Whatever is wrong with the request or the target is a result with a reason; an exception is a fault of ours.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerd.clock import Clock
from peerd.errors import PeerdError
from peerd.nodes.messages import (
    FailureReason,
    Kind,
    Outcome,
    Owner,
    ProbeRequest,
    ProbeResult,
)
from peerd.nodes.probing.dialer import MAX_AT_ONCE, Connector, Dialer, NotAllowedError, Resolver
from peerd.nodes.probing.discovery import Discovery
from peerd.nodes.probing.guard import Address, Guard, side
from peerd.nodes.probing.recognition import recognise
from peerd.nodes.probing.survey import PortSeen, Survey
from peerd.nodes.protocols import GENERIC, Protocol, Protocols, load_protocols
from peerd.nodes.scanning.certificates import certificate_findings
from peerd.nodes.scanning.scan import Scan, Scope

MAX_DEADLINE_SECONDS = 3600.0
LEAST_PER_SECOND = 0.1
"""Connects."""
_MAX_NOTES = 200
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")


class _Failure(Exception):  # noqa: N818 - an outcome, not an error
    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What of the machine a prober uses; tests give others."""

    clock: Clock
    resolver: Resolver | None = None
    connector: Connector | None = None
    nmap: str | None = None
    """Path of nmap; looked for when None, not used when empty."""
    share: int = 1
    """How many such requests the program does at once: what one may do in a second, and hold open, they share."""


async def probe(request: ProbeRequest, owner: Owner, outside: Outside) -> ProbeResult:
    """Do what is asked; whatever goes wrong with the target is a result."""
    run = _Run(request, owner, outside)
    began = outside.clock.monotonic()
    try:
        result = await run.result()
    except _Failure as failure:
        result = run.failed(failure)
    return dataclasses.replace(result, seconds=round(outside.clock.monotonic() - began, 3))


class _Run:
    """One request on its way."""

    def __init__(self, request: ProbeRequest, owner: Owner, outside: Outside) -> None:
        self._request = request
        self._owner = owner
        self._outside = outside
        self._ends_at = 0.0
        self._addresses: tuple[Address, ...] = ()
        self._survey: Survey | None = None
        self._dialer: Dialer | None = None

    async def result(self) -> ProbeResult:
        """What came of it. Raises _Failure."""
        request = self._request
        _check(request, self._owner)
        self._ends_at = self._outside.clock.monotonic() + request.deadline_seconds
        protocols = self._protocols()
        scanned = self._scanned(protocols)
        dialer = self._dialer = self._make_dialer()
        try:
            async with asyncio.timeout(self._left):
                self._addresses = await dialer.addresses(request.target.host)
        except NotAllowedError as error:
            raise _Failure(FailureReason.NOT_ALLOWED, f"not allowed: {error}") from error
        except TimeoutError as error:
            message = f"{request.target.host} was not resolved within {request.deadline_seconds:g} s"
            raise _Failure(FailureReason.DEADLINE, message) from error
        except PeerdError as error:
            raise _Failure(FailureReason.DNS_FAILED, f"DNS resolution failed: {error.message}") from error
        if scanned is not None:
            return await self._scan(protocols, scanned, dialer, Survey(dialer, request.target.host))
        discovery, result = await self._discover(protocols, dialer)
        if request.kind is Kind.DISCOVER:
            return result
        surest = protocols.find(result.recognitions[0].protocol)
        if surest is None:
            raise _Failure(FailureReason.INTERNAL, "a protocol was recognised that is not known")
        scan = await self._scan(protocols, surest, dialer, discovery.survey)
        return dataclasses.replace(scan, recognitions=result.recognitions)

    def failed(self, failure: _Failure) -> ProbeResult:
        """A result that says why there is nothing to say."""
        return self._result(Outcome.FAILED, reason=failure.reason, message=failure.message)

    def _result(self, outcome: Outcome, *, reason: FailureReason | None = None, message: str = "") -> ProbeResult:
        return ProbeResult(
            kind=self._request.kind,
            outcome=outcome,
            reason=reason,
            message=message,
            addresses=tuple(str(address) for address in self._addresses),
            connects=tuple(self._dialer.connects) if self._dialer is not None else (),
            notes=self._survey.notes[:_MAX_NOTES] if self._survey is not None else (),
        )

    @property
    def _left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._ends_at - self._outside.clock.monotonic())

    def _protocols(self) -> Protocols:
        directory = self._owner.protocols_directory
        try:
            return load_protocols(Path(directory) if directory else None)
        except PeerdError as error:
            raise _Failure(FailureReason.INTERNAL, error.message) from error

    def _scanned(self, protocols: Protocols) -> Protocol | None:
        """The protocol that a scan names; None if it is to be discovered."""
        if self._request.kind is not Kind.SCAN or not self._request.protocol:
            return None
        protocol = protocols.find(self._request.protocol)
        if protocol is None:
            message = f"this peer does not know the protocol {self._request.protocol!r}"
            raise _Failure(FailureReason.UNKNOWN_PROTOCOL, message)
        return protocol

    def _make_dialer(self) -> Dialer:
        request, owner = self._request, self._owner
        try:
            sides = (
                side("the organization", request.allowed_networks, request.blocked_hosts, request.allow_special),
                side("this peer", owner.allowed_networks, owner.blocked_hosts, owner.allow_special),
            )
        except ValueError as error:
            raise _Failure(FailureReason.INVALID_REQUEST, str(error)) from error
        return Dialer(
            Guard(sides=sides),
            self._outside.clock,
            connects_per_second=self._per_second,
            at_once=MAX_AT_ONCE // self._outside.share,
            resolver=self._outside.resolver,
            connector=self._outside.connector,
        )

    @property
    def _per_second(self) -> float:
        return min(self._request.connects_per_second, self._owner.connects_per_second / self._outside.share)

    async def _discover(self, protocols: Protocols, dialer: Dialer) -> tuple[Discovery, ProbeResult]:
        request = self._request
        wanted = self._allowed(protocols)
        discovery = Discovery(wanted, dialer, request.target.host, request.target.port)
        self._survey = discovery.survey
        # Of a scan, half of the time is for the scan itself.
        await discovery.run(self._addresses, self._left if request.kind is Kind.DISCOVER else self._left / 2)
        for seen in discovery.survey.open_ports:
            for flaw in self._flaws(seen):
                discovery.survey.note(flaw)
        found = discovery.recognitions()
        if not found:
            raise self._nothing(discovery.survey, discovery.complete, discovery.tried)
        return discovery, dataclasses.replace(self._result(Outcome.OK), recognitions=found)

    def _flaws(self, seen: PortSeen) -> Iterator[str]:
        """What is wrong with the certificate of a port: noted, and no reason to leave."""
        if seen.tls is not None:
            now = self._outside.clock.now()
            for flaw in certificate_findings(seen.tls, host=self._request.target.host, port=seen.port, now=now):
                yield f"port {seen.port}: {flaw.title}{f' ({flaw.detail})' if flaw.detail else ''}"

    def _allowed(self, protocols: Protocols) -> list[Protocol]:
        names = {name.lower() for name in self._request.allowed_protocols}
        wanted = [protocol for protocol in protocols if not names or protocol.name in names]
        if not wanted:
            known = ", ".join(protocols.names())
            raise _Failure(
                FailureReason.UNKNOWN_PROTOCOL, f"this peer knows none of the allowed protocols; it knows {known}"
            )
        return wanted

    async def _scan(self, protocols: Protocols, protocol: Protocol, dialer: Dialer, survey: Survey) -> ProbeResult:
        request = self._request
        self._survey = survey
        scope = Scope(
            protocol=protocol,
            generic=protocols.find(GENERIC) if protocol.name != GENERIC else None,
            level=request.level,
            host=request.target.host,
            port=request.target.port,
            connects_per_second=self._per_second,
        )
        scan = Scan(scope, dialer, survey, self._outside.clock, nmap=self._outside.nmap)
        complete = True
        try:
            async with asyncio.timeout(self._left):
                await scan.recognise(self._addresses)
        except TimeoutError:
            complete = False
            survey.note("not everything was asked: the deadline came first")
        opened = survey.open_ports
        found = recognise([protocol], survey.answers)
        if not opened or (not found and not protocol.fallback):
            raise self._nothing(survey, complete, len(survey.ports), protocol)
        address = next(one for one in self._addresses if str(one) == opened[0].address)
        await scan.run(address, self._left)
        return dataclasses.replace(self._result(Outcome.OK), recognitions=found, scan=scan.report())

    def _nothing(self, survey: Survey, complete: bool, tried: int, protocol: Protocol | None = None) -> _Failure:
        """Why nothing was recognised."""
        opened = [str(seen.port) for seen in survey.open_ports]
        if not complete:
            message = f"nothing was recognised within {self._request.deadline_seconds:g} s"
            return _Failure(FailureReason.DEADLINE, message)
        if not opened:
            return _Failure(FailureReason.UNREACHABLE, f"nothing answers at any of the {tried} ports that were tried")
        at = f"port {', '.join(opened)}"
        if protocol is not None:
            message = f"what answers at {at} is not recognised as {protocol.display_name}"
            return _Failure(FailureReason.NOT_RECOGNISED, message)
        return _Failure(FailureReason.NOT_RECOGNISED, f"No protocol identified during discovery: {at} answers")


def _check(request: ProbeRequest, owner: Owner) -> None:
    """Raises _Failure for what no dataclass can say of itself."""

    def refuse(message: str) -> _Failure:
        return _Failure(FailureReason.INVALID_REQUEST, message)

    if not _HOST.fullmatch(request.target.host):
        raise refuse("the target's host is not 1 to 253 letters, digits, '.', '-', '_' and ':'")
    if request.target.port is not None and not 1 <= request.target.port <= 65535:
        raise refuse("the target's port is not between 1 and 65535")
    if not math.isfinite(request.deadline_seconds) or not 1 <= request.deadline_seconds <= MAX_DEADLINE_SECONDS:
        raise refuse(f"deadline_seconds is not between 1 and {MAX_DEADLINE_SECONDS:g}")
    for rate in (request.connects_per_second, owner.connects_per_second):
        if not math.isfinite(rate) or not LEAST_PER_SECOND <= rate <= 10_000:
            raise refuse(f"connects_per_second is not between {LEAST_PER_SECOND:g} and 10000")
    if request.kind is Kind.SCAN:
        if request.level not in (1, 2, 3):
            raise refuse(f"level {request.level}: must be 1, 2, or 3")
        permission = request.permission
        if request.level == 3 and (permission is None or not permission.by.strip() or not permission.reference.strip()):
            raise _Failure(
                FailureReason.PERMISSION_MISSING,
                "level 3 tries calls that only the owner should make: it needs the organization's written permission",
            )
