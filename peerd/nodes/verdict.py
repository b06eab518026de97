"""What a job's outcome means for its node: (run, outcome, files) -> the events that happen to it. Pure.

The files come from another machine: what they say is checked, and what they claim beyond what was asked is not
believed: a discovery names only protocols that are known and allowed here, a scan only the one that it was sent for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from peerd.nodes.allowing import forbidden
from peerd.nodes.message_json import result_from_json
from peerd.nodes.messages import FailureReason, Kind, Outcome, ProbeResult, Recognition, ScanReport
from peerd.nodes.model import NodeEvent, Policy
from peerd.nodes.runs import Run
from peerd.nodes.targets import ParsedTarget, parse_address

NO_RESULTS = "No discovery results returned"
NO_PROTOCOL = "No protocol identified during discovery"
UPDATE_FAILED = "Discovery succeeded but node update failed"
DNS_FAILED = "DNS resolution failed"
MAX_MESSAGE = 500
BAD_RESULT = "bad_result"
"""The answer is not believed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is written when a run ends."""

    ok: bool
    events: tuple[NodeEvent, ...]
    reason: str = ""
    message: str = ""
    protocol: str = ""
    version: str = ""
    scan: ScanReport | None = None


def plain(text: str, most: int = MAX_MESSAGE) -> str:
    """A text of others, for one line of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:most])


def failed(run: Run, reason: str, message: str) -> Verdict:
    """The verdict on a run of which nothing came."""
    event = NodeEvent.DISCOVERY_FAILED if run.kind is Kind.DISCOVER else NodeEvent.SCAN_FAILED
    return Verdict(ok=False, events=(event,), reason=reason, message=plain(message))


def judge(run: Run, document: bytes, policy: Policy, known: Collection[str]) -> Verdict:
    """On the result that came home."""
    try:
        result = result_from_json(document)
    except ValueError as error:
        return failed(run, BAD_RESULT, f"the prober's answer cannot be read: {error}")
    if result.kind is not run.kind:
        return failed(run, BAD_RESULT, f"the prober was asked to {run.kind} and did {result.kind}")
    if result.outcome is not Outcome.OK:
        return _refusal(run, result)
    if elsewhere := _elsewhere(run, result, policy):
        return failed(run, BAD_RESULT, elsewhere)
    return (
        _discovered(run, result, policy, known) if run.kind is Kind.DISCOVER else _scanned(run, result, policy, known)
    )


def _elsewhere(run: Run, result: ProbeResult, policy: Policy) -> str:
    """What it says of addresses that nobody asked for: it would go into the inventory as ours. Empty if nothing."""
    asked = parse_address(run.host)
    for text in dict.fromkeys((*result.addresses, *(connect.address for connect in result.connects))):
        address = parse_address(text)
        if address is None:
            return f"the prober names {text[:60]!r} as an address"
        if asked is not None and address != asked:
            return f"the prober was sent to {asked} and says it went to {address}"
        if problem := forbidden(ParsedTarget(host=str(address), port=None, address=address), policy):
            return f"the prober says it went to {address}: {problem}"
    return ""


def _refusal(run: Run, result: ProbeResult) -> Verdict:
    reason = result.reason or FailureReason.INTERNAL
    message = result.message or str(reason)
    if reason is FailureReason.DNS_FAILED:
        message = f"{DNS_FAILED}: {message.removeprefix(f'{DNS_FAILED}: ')}"
    elif reason is FailureReason.NOT_RECOGNISED and not run.protocol:
        message = NO_PROTOCOL
    return failed(run, reason, message)


def surest(result: ProbeResult, policy: Policy, known: Collection[str]) -> Recognition | None:
    """The protocol that a node has from now on: the first that is known here and allowed."""
    for found in result.recognitions:
        if found.protocol in known and (not policy.allowed_protocols or found.protocol in policy.allowed_protocols):
            return found
    return None


def _discovered(run: Run, result: ProbeResult, policy: Policy, known: Collection[str]) -> Verdict:
    if not result.recognitions:
        return failed(run, FailureReason.NOT_RECOGNISED, NO_PROTOCOL)
    found = surest(result, policy, known)
    if found is None:
        named = ", ".join(dict.fromkeys(item.protocol[:40] for item in result.recognitions[:5]))
        return failed(run, "protocol_refused", f"{UPDATE_FAILED}: {named} is not known here, or not allowed")
    return Verdict(ok=True, events=(NodeEvent.DISCOVERED,), protocol=found.protocol, version=plain(found.version))


def _scanned(run: Run, result: ProbeResult, policy: Policy, known: Collection[str]) -> Verdict:
    scan = result.scan
    if scan is None:
        return failed(run, BAD_RESULT, "the prober's answer has no scan in it")
    events: tuple[NodeEvent, ...] = (NodeEvent.SCANNED,)
    if run.protocol:
        if scan.protocol != run.protocol:
            return failed(run, BAD_RESULT, f"the prober was to scan {run.protocol} and scanned {scan.protocol[:40]!r}")
    else:
        found = surest(result, policy, known)
        if found is None or scan.protocol != found.protocol:
            return failed(run, "protocol_refused", f"{UPDATE_FAILED}: {scan.protocol[:40]!r} was not recognised")
        events = (NodeEvent.DISCOVERED, NodeEvent.SCANNED)
    return Verdict(ok=True, events=events, protocol=scan.protocol, version=plain(scan.version), scan=scan)
