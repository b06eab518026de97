"""The decision: the words of the source, in the order of its checks, and what is decided where it says nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peerd.clock import Millis
from peerd.nodes.model import Node, NodeEvent, NodeStatus, OpenRun, Organization, Policy, Usage
from peerd.nodes.next_action import Answer, Decision, OrgProblem, ScanRequest, decide_discovery, decide_scan
from peerd.nodes.targets import parse_target

NOW = Millis(1_700_000_000_000)
HOUR = 3_600_000
ORG_ID = "11111111-1111-4111-8111-111111111111"
NODE_ID = "22222222-2222-4222-8222-222222222222"
KNOWN = frozenset({"sui", "filecoin", "generic"})
POLICY = Policy(allowed_networks=("192.168.0.0/16", "2001:db8::/32"))
ORG = Organization(org_id=ORG_ID, slug="myorg", active=True, policy=POLICY)
FREE = Usage()
REQUEST = ScanRequest(target=parse_target("192.168.1.1"), new_node_id=NODE_ID)


def node(status: NodeStatus, protocol: str = "", scanned_at: int | None = None) -> Node:
    return Node(
        node_id=NODE_ID,
        org_id=ORG_ID,
        target="192.168.1.1",
        host="192.168.1.1",
        port=None,
        status=status,
        protocol=protocol,
        scanned_at=None if scanned_at is None else Millis(scanned_at),
    )


def decide(
    organization: Organization | OrgProblem = ORG,
    present: Node | None = None,
    request: ScanRequest = REQUEST,
    usage: Usage = FREE,
) -> Decision:
    return decide_scan(organization, present, request, usage, KNOWN, NOW)


def asked(protocol: str = "", level: int = 1) -> ScanRequest:
    return replace(REQUEST, protocol=protocol, level=level)


def under(**policy: object) -> Organization:
    return replace(ORG, policy=replace(POLICY, **policy))  # type: ignore[arg-type]


NEEDS_DISCOVERY = Answer(
    error="Protocol not provided and node requires discovery",
    next_action="run-discovery",
    node_id=NODE_ID,
    org_id=ORG_ID,
)
READY = Answer(status="ready_to_scan", node_id=NODE_ID, org_id=ORG_ID, protocol="sui")


# Words and order of the source


@pytest.mark.parametrize(
    ("organization", "error"),
    [
        (OrgProblem.MISSING, "Organization ID is required for target scanning"),
        (OrgProblem.NO_UUID, "Invalid organization ID format - must be a valid UUID"),
        (OrgProblem.UNKNOWN, "Organisation not found"),
        (replace(ORG, active=False), "Organisation is not active"),
    ],
)
def test_the_organization_is_checked_first(organization: Organization | OrgProblem, error: str) -> None:
    wrong = ScanRequest(target=None, target_problem="no target", protocol="nope", level=9)
    decision = decide(organization, request=wrong)
    assert decision == Decision(answer=Answer(error=error))


def test_an_unknown_target_without_a_protocol_becomes_a_node_that_needs_discovery() -> None:
    assert decide() == Decision(answer=NEEDS_DISCOVERY, create=True, events=((NodeEvent.CREATED, ""),))


def test_a_new_node_goes_on_needing_discovery() -> None:
    assert decide(present=node(NodeStatus.NEW)) == Decision(answer=NEEDS_DISCOVERY)


def test_a_known_protocol_skips_discovery() -> None:
    decision = decide(request=asked("sui"))
    assert decision.answer == READY
    assert decision.events == ((NodeEvent.CREATED, ""), (NodeEvent.PROTOCOL_GIVEN, "sui"))
    assert (decision.create, decision.start, decision.protocol) == (True, True, "sui")
    later = decide(present=node(NodeStatus.NEW), request=asked(" SUI "))
    assert (later.answer, later.events, later.start) == (READY, ((NodeEvent.PROTOCOL_GIVEN, "sui"),), True)


def test_an_unknown_protocol_is_not_found_and_leaves_nothing_behind() -> None:
    assert decide(request=asked("Nope")) == Decision(answer=Answer(error="Protocol 'Nope' not found"))
    # It is checked for a node that has a protocol, too, although it would be ignored.
    assert (
        decide(present=node(NodeStatus.DISCOVERED, "sui"), request=asked("x")).answer.error == "Protocol 'x' not found"
    )


@pytest.mark.parametrize(
    ("status", "note"),
    [
        (NodeStatus.DISCOVERED, ""),
        (NodeStatus.SCANNED, "Node previously scanned - will rescan"),
        (NodeStatus.ERROR, "Node in error state - will retry"),
    ],
)
def test_a_node_with_a_protocol_is_ready(status: NodeStatus, note: str) -> None:
    decision = decide(present=node(status, "sui"))
    assert decision == Decision(answer=replace(READY, note=note), protocol="sui", start=True)


def test_another_protocol_for_a_discovered_node_is_ignored_and_that_is_said() -> None:
    decision = decide(present=node(NodeStatus.SCANNED, "sui"), request=asked("filecoin"))
    assert decision.answer.protocol == "sui"
    expected = "Node previously scanned - will rescan; protocol 'filecoin' ignored: the node was discovered as 'sui'"
    assert decision.answer.note == expected
    assert decision.events == ()


# What the source leaves open


def test_an_error_without_a_protocol_goes_to_discovery() -> None:
    assert decide(present=node(NodeStatus.ERROR)) == Decision(answer=NEEDS_DISCOVERY)
    given = decide(present=node(NodeStatus.ERROR), request=asked("sui"))
    assert given.answer == replace(READY, note="Node in error state - will retry")
    assert given.events == ((NodeEvent.PROTOCOL_GIVEN, "sui"),)


@pytest.mark.parametrize("protocol", ["", "taken-away"])
def test_a_discovered_node_without_a_protocol_that_is_known_is_incomplete(protocol: str) -> None:
    decision = decide(present=node(NodeStatus.DISCOVERED, protocol))
    assert decision.answer.error == "Node discovery incomplete - no protocol identified"
    assert decision.answer.next_action == "run-discovery"
    assert decide(present=node(NodeStatus.DISCOVERED, protocol), request=asked("sui")).start


@pytest.mark.parametrize("level", [0, 4, 99])
def test_a_level_is_one_two_or_three(level: int) -> None:
    assert decide(request=asked("sui", level)).answer.error == f"Invalid scan level {level}. Must be 1, 2, or 3"


def test_a_level_above_the_policy_is_refused_and_level_three_needs_permission() -> None:
    assert "above 2" in str(decide(request=asked("sui", 3)).answer.error)
    deep = under(max_level=3)
    assert "written permission" in str(decide(deep, request=asked("sui", 3)).answer.error)
    permitted = under(max_level=3, permission_by="x", permission_reference="y")
    assert decide(permitted, request=asked("sui", 3)).start


@pytest.mark.parametrize(
    ("target", "policy", "says"),
    [
        ("192.168.1.1", {"allowed_networks": ()}, "allows no network"),
        ("example.com", {"allowed_networks": ()}, "allows no network"),
        ("10.0.0.1", {}, "not in a network"),
        ("2001:db9::1", {}, "not in a network"),
        ("::ffff:10.0.0.1", {}, "not in a network"),
        ("127.0.0.1", {"allowed_networks": ("0.0.0.0/0",)}, "loopback"),
        ("::1", {"allowed_networks": ("::/0",)}, "loopback"),
        ("169.254.7.7", {"allowed_networks": ("0.0.0.0/0",)}, "link-local"),
        (
            "169.254.169.254",
            {"allowed_networks": ("0.0.0.0/0",), "allow_special": frozenset({"link-local"})},
            "metadata",
        ),
        ("fd00:ec2::254", {"allowed_networks": ("::/0",)}, "metadata"),
        ("192.168.1.1:9000", {"blocked_hosts": ("192.168.1.0/24",)}, "blocked"),
        ("192.168.1.1", {"blocked_hosts": ("192.168.1.1",)}, "blocked"),
        ("example.com", {"blocked_hosts": ("example.com",)}, "blocked"),
        ("a.b.example.com", {"blocked_hosts": (".example.com",)}, "blocked"),
        ("example.com", {"blocked_hosts": (".example.com",)}, "blocked"),
    ],
)
def test_what_may_not_be_dialed_makes_no_node(target: str, policy: dict[str, object], says: str) -> None:
    request = replace(asked("sui"), target=parse_target(target))
    decision = decide(under(**policy), request=request)
    assert says in str(decision.answer.error)
    assert (decision.answer.next_action, decision.create, decision.start) == (None, False, False)


@pytest.mark.parametrize(
    ("target", "policy"),
    [
        ("192.168.255.255", {}),
        ("2001:db8::9", {}),
        ("::ffff:192.168.0.1", {}),
        ("notexample.com", {"blocked_hosts": (".example.com",)}),
        ("www.example.com", {"blocked_hosts": ("example.com",)}),
        ("127.9.9.9", {"allowed_networks": ("127.0.0.0/8",), "allow_special": frozenset({"loopback"})}),
    ],
)
def test_what_may_be_dialed_is_scanned(target: str, policy: dict[str, object]) -> None:
    assert decide(under(**policy), request=replace(asked("sui"), target=parse_target(target))).start


def test_a_protocol_that_the_policy_does_not_allow_is_refused_given_or_discovered() -> None:
    only = under(allowed_protocols=frozenset({"filecoin"}))
    assert "not allowed" in str(decide(only, request=asked("sui")).answer.error)
    assert "not allowed" in str(decide(only, present=node(NodeStatus.DISCOVERED, "sui")).answer.error)


# What passes with time


def test_the_cool_down_counts_from_the_last_scan_that_went_well() -> None:
    recent = node(NodeStatus.SCANNED, "sui", NOW - 23 * HOUR)
    decision = decide(present=recent)
    assert (decision.answer.next_action, decision.start) == ("wait", False)
    assert "cool-down ends at 2023-11-14 23:13:20 UTC" in str(decision.answer.error)
    assert decide(present=node(NodeStatus.SCANNED, "sui", NOW - 24 * HOUR)).start
    assert decide(under(cool_down_ms=0), present=recent).start
    assert decide(present=node(NodeStatus.ERROR, "sui")).start  # what failed may be tried again at once


def test_budget_and_places_end_and_the_node_is_kept() -> None:
    spent = decide(usage=Usage(last_day=1000), request=asked("sui"))
    assert "budget of 1000" in str(spent.answer.error)
    full = decide(usage=Usage(running=10), request=asked("sui"))
    assert "10 discoveries and scans" in str(full.answer.error)
    for decision in (spent, full):
        assert (decision.answer.next_action, decision.start, decision.create) == ("wait", False, True)
        assert decision.answer.node_id == NODE_ID
    assert decide(usage=Usage(last_day=999, running=9), request=asked("sui")).start


def test_whoever_asks_while_a_scan_runs_is_told_of_it() -> None:
    usage = Usage(running=10, last_day=1000, of_node=OpenRun(run_id=7, kind="scan", workflow_execution_id=3))
    decision = decide(present=node(NodeStatus.DISCOVERED, "sui"), usage=usage)
    told = replace(READY, note="a scan of this node is under way", run_id=7, workflow_execution_id=3)
    assert decision == Decision(answer=told)


def test_a_scan_waits_for_a_discovery() -> None:
    usage = Usage(of_node=OpenRun(run_id=7, kind="discover", workflow_execution_id=3))
    waiting = decide(present=node(NodeStatus.DISCOVERED, "sui"), usage=usage)
    assert (waiting.answer.error, waiting.answer.next_action) == ("A discovery of this node is under way", "wait")
    fresh = decide(present=node(NodeStatus.NEW), usage=usage)
    assert fresh.answer == replace(
        NEEDS_DISCOVERY, note="a discovery of this node is under way", run_id=7, workflow_execution_id=3
    )


# Discovery


def test_a_discovery_is_of_the_own_node_with_its_own_host() -> None:
    present = node(NodeStatus.NEW)
    started = Decision(answer=Answer(status="discovery_started", node_id=NODE_ID, org_id=ORG_ID), start=True)
    for host in (None, parse_target("192.168.1.1"), parse_target("::ffff:192.168.1.1")):
        assert decide_discovery(ORG, present, host, FREE) == started
    other = decide_discovery(ORG, present, parse_target("192.168.1.2"), FREE)
    assert other.answer.error == "Host '192.168.1.2' is not the target of this node, which is '192.168.1.1'"
    assert decide_discovery(ORG, present, parse_target("192.168.1.1:80"), FREE).answer.error is not None
    stranger = replace(ORG, org_id="33333333-3333-4333-8333-333333333333")
    assert decide_discovery(stranger, present, None, FREE).answer.error == "Node not found"
    assert decide_discovery(ORG, None, None, FREE).answer.error == "Node not found"
    assert decide_discovery(ORG, None, None, FREE, problem="Invalid node ID format").answer.error is not None
    assert (
        decide_discovery(replace(ORG, active=False), present, None, FREE).answer.error == "Organisation is not active"
    )


def test_a_discovery_runs_once_and_within_the_policy() -> None:
    present = node(NodeStatus.NEW)
    running = Usage(of_node=OpenRun(run_id=7, kind="discover", workflow_execution_id=3))
    again = decide_discovery(ORG, present, None, running)
    assert (again.start, again.answer.success, again.answer.run_id) == (False, True, 7)
    scan = Usage(of_node=OpenRun(run_id=7, kind="scan", workflow_execution_id=3))
    assert decide_discovery(ORG, present, None, scan).answer.next_action == "wait"
    assert decide_discovery(ORG, present, None, Usage(running=10)).answer.next_action == "wait"
    blocked = under(blocked_hosts=("192.168.1.1",))
    assert "blocked" in str(decide_discovery(blocked, present, None, FREE).answer.error)
