"""What comes home from a prober is checked, and never believed beyond what was asked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peerd.errors import PeerdError, Reason
from peerd.nodes.message_json import request_from_json, result_from_json, to_json
from peerd.nodes.messages import (
    Connect,
    FailureReason,
    Finding,
    Kind,
    Outcome,
    Permission,
    ProbeRequest,
    ProbeResult,
    Recognition,
    Risk,
    ScanReport,
    Severity,
    Special,
    Target,
)
from peerd.nodes.model import TRANSITIONS, NodeEvent, NodeStatus, Policy, after
from peerd.nodes.runs import Run
from peerd.nodes.verdict import judge

KNOWN = frozenset({"sui", "filecoin"})
POLICY = Policy()
DISCOVERY = Run(
    run_id=1, node_id="n", org_id="o", kind=Kind.DISCOVER, protocol="", level=0, workflow_execution_id=1, job="j",
    longest_seconds=105, caller="a",
)  # fmt: skip
SCAN = replace(DISCOVERY, kind=Kind.SCAN, protocol="sui", level=1)
BOTH = replace(SCAN, protocol="")
SUI = Recognition(protocol="sui", confidence=0.9, version="1.60.0", port=9000, evidence=("said so",))
REPORT = ScanReport(protocol="sui", level=1, score=70, risk=Risk.MEDIUM, version="1.60.0")
FOUND = ProbeResult(kind=Kind.DISCOVER, outcome=Outcome.OK, recognitions=(SUI,))
SCANNED = ProbeResult(kind=Kind.SCAN, outcome=Outcome.OK, scan=REPORT, recognitions=(SUI,))


def on(run: Run, result: ProbeResult | bytes, policy: Policy = POLICY) -> tuple[bool, tuple[NodeEvent, ...], str, str]:
    document = result if isinstance(result, bytes) else to_json(result).encode()
    verdict = judge(run, document, policy, KNOWN)
    return verdict.ok, verdict.events, verdict.reason, verdict.message


def test_a_discovery_names_the_surest_protocol_that_is_known_and_allowed() -> None:
    assert on(DISCOVERY, FOUND) == (True, (NodeEvent.DISCOVERED,), "", "")
    alien = replace(FOUND, recognitions=(replace(SUI, protocol="alien"), SUI))
    assert judge(DISCOVERY, to_json(alien).encode(), POLICY, KNOWN).protocol == "sui"
    refused = on(DISCOVERY, FOUND, Policy(allowed_protocols=frozenset({"filecoin"})))
    assert refused[1:3] == ((NodeEvent.DISCOVERY_FAILED,), "protocol_refused")
    assert refused[3].startswith("Discovery succeeded but node update failed: ")


@pytest.mark.parametrize(
    ("result", "reason", "message"),
    [
        (replace(FOUND, recognitions=()), "not_recognised", "No protocol identified during discovery"),
        (
            ProbeResult(kind=Kind.DISCOVER, outcome=Outcome.FAILED, reason=FailureReason.NOT_RECOGNISED, message="x"),
            "not_recognised",
            "No protocol identified during discovery",
        ),
        (
            ProbeResult(kind=Kind.DISCOVER, outcome=Outcome.FAILED, reason=FailureReason.DNS_FAILED, message="no such"),
            "dns_failed",
            "DNS resolution failed: no such",
        ),
        (
            ProbeResult(
                kind=Kind.DISCOVER,
                outcome=Outcome.FAILED,
                reason=FailureReason.DNS_FAILED,
                message="DNS resolution failed: no such",
            ),
            "dns_failed",
            "DNS resolution failed: no such",
        ),
        (
            ProbeResult(kind=Kind.DISCOVER, outcome=Outcome.FAILED, reason=FailureReason.NOT_ALLOWED, message="no"),
            "not_allowed",
            "no",
        ),
    ],
)
def test_a_discovery_without_a_protocol_is_an_error_in_the_words_of_the_source(
    result: ProbeResult, reason: str, message: str
) -> None:
    assert on(DISCOVERY, result) == (False, (NodeEvent.DISCOVERY_FAILED,), reason, message)


def test_a_scan_is_of_the_protocol_that_was_asked_for() -> None:
    assert on(SCAN, SCANNED) == (True, (NodeEvent.SCANNED,), "", "")
    other = replace(SCANNED, scan=replace(REPORT, protocol="filecoin"))
    assert on(SCAN, other)[1:3] == ((NodeEvent.SCAN_FAILED,), "bad_result")
    assert on(SCAN, replace(SCANNED, scan=None))[2] == "bad_result"


def test_a_scan_that_discovers_first_does_both() -> None:
    assert on(BOTH, SCANNED)[1] == (NodeEvent.DISCOVERED, NodeEvent.SCANNED)
    assert on(BOTH, replace(SCANNED, recognitions=()))[1:3] == ((NodeEvent.SCAN_FAILED,), "protocol_refused")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind":"discover","outcome":"ok","seconds":NaN}',
        b'{"kind":"discover","outcome":"ok","unknown":1}',
        b'{"kind":"discover","outcome":"fine"}',
        b'{"kind":"scan","outcome":"ok"}',
        b'{"kind":"discover","outcome":"ok","recognitions":{}}',
        b'{"kind":"discover","outcome":"ok","recognitions":[{"protocol":"sui","confidence":2}]}',
        b'{"kind":"discover","outcome":"ok","recognitions":[{"protocol":"sui","confidence":"1"}]}',
        b'{"kind":"discover","outcome":"ok","recognitions":[{"protocol":"sui"}]}',
        to_json(FOUND).encode() + b" " * 5 * 1024**2,
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_prober(document: bytes) -> None:
    ok, events, reason, message = on(DISCOVERY, document)
    assert (ok, events, reason) == (False, (NodeEvent.DISCOVERY_FAILED,), "bad_result")
    assert len(message) <= 500


@pytest.mark.parametrize("score", [-1, 101, 10**30])
def test_a_score_is_between_0_and_100(score: int) -> None:
    assert on(SCAN, replace(SCANNED, scan=replace(REPORT, score=score)))[2] == "bad_result"


def test_requests_and_results_survive_the_way() -> None:
    request = ProbeRequest(
        kind=Kind.SCAN,
        target=Target(host="example.com", port=9000),
        protocol="sui",
        level=3,
        allowed_networks=("127.0.0.0/8",),
        allow_special=(Special.LOOPBACK,),
        permission=Permission(by="somebody", reference="contract $1"),
    )
    assert request_from_json(to_json(request)) == request
    finding = Finding(id="x", severity=Severity.LOW, title="t", points=3)
    full = replace(
        SCANNED,
        scan=replace(REPORT, findings=(finding,), health={"peers": "12"}),
        connects=(Connect(address="127.0.0.1", port=9000),),
    )
    assert result_from_json(to_json(full)) == full
    assert json.loads(to_json(full))["scan"]["health"] == {"peers": "12"}


def test_every_status_has_its_moves_and_no_others() -> None:
    with pytest.raises(PeerdError) as refused:
        after(NodeStatus.NEW, NodeEvent.SCANNED)
    assert refused.value.reason is Reason.ILLEGAL_TRANSITION
    for status in NodeStatus:
        assert after(status, NodeEvent.DISCOVERED) is NodeStatus.DISCOVERED
        assert after(status, NodeEvent.SCAN_FAILED) is NodeStatus.ERROR
        assert after(status, NodeEvent.DISCOVERY_FAILED) is NodeStatus.ERROR
        assert (status, NodeEvent.CREATED) not in TRANSITIONS


@pytest.mark.parametrize(
    "document",
    [
        b'{"kind": "discover", "outcome": "failed", "message": "\\ud800"}',
        b'{"kind": "discover", "outcome": "ok", "recognitions": [{"protocol": "sui", "confidence": 1, "port": 99999}]}',
        b'{"kind": "discover", "outcome": "ok", "connects": [{"address": "10.0.0.1", "port": -1}]}',
        b'{"kind": "discover", "outcome": "ok", "scan": {"protocol": "sui", "level": 1, "score": 1, "risk": "LOW",'
        b' "ports": [{"number": 65536}]}}',
    ],
)
def test_what_the_store_or_a_message_cannot_hold_is_refused_before_it_gets_there(document: bytes) -> None:
    assert on(DISCOVERY, document)[:3] == (False, (NodeEvent.DISCOVERY_FAILED,), "bad_result")


@pytest.mark.parametrize(
    ("host", "address", "because"),
    [
        ("10.0.0.1", "10.0.0.2", "was sent to 10.0.0.1"),
        ("node.example", "192.0.2.1", "not in a network"),
        ("node.example", "10.0.0.9", "blocked"),
        ("node.example", "127.0.0.1", "loopback"),
        ("node.example", "here", "'here' as an address"),
    ],
)
def test_what_a_prober_says_of_other_addresses_is_not_taken_for_what_was_asked(
    host: str, address: str, because: str
) -> None:
    policy = Policy(allowed_networks=("10.0.0.0/8", "127.0.0.0/8"), blocked_hosts=("10.0.0.9",))
    run = replace(SCAN, host=host)
    for result in (
        replace(SCANNED, addresses=(address,)),
        replace(SCANNED, connects=(Connect(address=address, port=9000),)),
    ):
        ok, _, reason, message = on(run, result, policy)
        assert (ok, reason) == (False, "bad_result")
        assert because in message
    assert on(run, replace(SCANNED, addresses=("::ffff:10.0.0.1",)), policy)[0]
