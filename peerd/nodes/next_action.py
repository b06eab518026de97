"""THE decision: (organization, node, request, usage, now) -> what happens and what is answered. Pure.

The order of the checks is the source's: the organization's UUID, that it exists, that it is active, the node, the
protocol, the state. What the policy forbids of the target and the level is checked before there is a node, so that a
request for what may not be scanned leaves nothing behind; what passes with time (cool-down, budget, scans at once) is
checked last. Every text that the source has is here, word for word.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum

from peerd.clock import Millis, to_datetime
from peerd.nodes.allowing import forbidden
from peerd.nodes.model import Node, NodeEvent, NodeStatus, Organization, Policy, Usage
from peerd.nodes.targets import ParsedTarget, parse_target

RUN_DISCOVERY = "run-discovery"
RUN_SCAN = "run-scan"
WAIT = "wait"

READY = "ready_to_scan"
DISCOVERY_STARTED = "discovery_started"


class OrgProblem(StrEnum):
    """Why there is no organization to act for."""

    MISSING = "Organization ID is required for target scanning"
    NO_UUID = "Invalid organization ID format - must be a valid UUID"
    UNKNOWN = "Organisation not found"


INACTIVE = "Organisation is not active"
NEEDS_DISCOVERY = "Protocol not provided and node requires discovery"
INCOMPLETE = "Node discovery incomplete - no protocol identified"
NODE_ID_FORMAT = "Invalid node ID format"
NODE_NOT_FOUND = "Node not found"
WILL_RESCAN = "Node previously scanned - will rescan"
WILL_RETRY = "Node in error state - will retry"
SCAN_UNDER_WAY = "a scan of this node is under way"
DISCOVERY_UNDER_WAY = "a discovery of this node is under way"


@dataclass(frozen=True, kw_only=True)
class ScanRequest:
    """What is asked for."""

    target: ParsedTarget | None
    target_problem: str = ""
    """Why there is no target."""
    protocol: str = ""
    level: int = 1
    new_node_id: str = ""
    """Of the node, if one is made."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the caller is told; ``None`` is null, and what is empty is left out."""

    error: str | None = None
    next_action: str | None = None
    node_id: str = ""
    org_id: str = ""
    status: str = ""
    protocol: str = ""
    note: str = ""
    run_id: int = 0
    workflow_execution_id: int = 0

    @property
    def success(self) -> bool:
        """Whether it was not refused."""
        return self.error is None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done, in this order: make the node, apply the events, start the run."""

    answer: Answer
    create: bool = False
    events: tuple[tuple[NodeEvent, str], ...] = field(default=())
    """With a detail each."""
    protocol: str = ""
    """Which the node has from now on; empty: as it is."""
    start: bool = False


def decide_scan(
    organization: Organization | OrgProblem,
    node: Node | None,
    request: ScanRequest,
    usage: Usage,
    known: Collection[str],
    now: Millis,
) -> Decision:
    """On a request to scan a target. ``known``: the names of all protocols."""
    if refused := _no_organization(organization):
        return refused
    assert isinstance(organization, Organization)  # noqa: S101 - else it was refused
    policy = organization.policy
    if request.target is None:
        return _refuse(request.target_problem)
    if problem := forbidden(request.target, policy) or level_problem(request.level, policy):
        return _refuse(problem)
    given = request.protocol.strip().lower()
    if given and given not in known:
        return _refuse(f"Protocol '{request.protocol}' not found")
    if given and policy.allowed_protocols and given not in policy.allowed_protocols:
        return _refuse(f"Protocol '{given}' is not allowed by the organization's policy")
    decision = _by_state(organization, node, request, given, known)
    if node is not None and usage.of_node is not None:
        return _under_way(decision, usage)
    if not decision.start:
        return decision
    if refusal := _not_now(decision, node, policy, usage, now):
        return refusal
    return decision


def _no_organization(organization: Organization | OrgProblem) -> Decision | None:
    if isinstance(organization, OrgProblem):
        return _refuse(organization.value)
    return None if organization.active else _refuse(INACTIVE)


def level_problem(level: int, policy: Policy) -> str:
    """Why that level is not scanned at; empty if it may be."""
    if level not in (1, 2, 3):
        return f"Invalid scan level {level}. Must be 1, 2, or 3"
    if level > policy.max_level:
        return f"Scan level {level} is above {policy.max_level}, the highest that the organization's policy allows"
    if level == 3 and not policy.permission_reference:
        return "Scan level 3 needs the organization's written permission in its policy"
    return ""


def _by_state(
    organization: Organization, node: Node | None, request: ScanRequest, given: str, known: Collection[str]
) -> Decision:
    node_id = node.node_id if node is not None else request.new_node_id
    create = node is None
    events: tuple[tuple[NodeEvent, str], ...] = ((NodeEvent.CREATED, ""),) if create else ()
    status = NodeStatus.NEW if node is None else node.status
    has = node.protocol if node is not None else ""
    lost = bool(has) and has not in known
    notes = []
    if not has or lost:
        if not given:
            error = INCOMPLETE if lost or status is NodeStatus.DISCOVERED else NEEDS_DISCOVERY
            answer = Answer(error=error, next_action=RUN_DISCOVERY, node_id=node_id, org_id=organization.org_id)
            return Decision(answer=answer, create=create, events=events)
        events = (*events, (NodeEvent.PROTOCOL_GIVEN, given))
    elif given and given != has:
        notes.append(f"protocol '{given}' ignored: the node was discovered as '{has}'")
    protocol = has if has and not lost else given
    if organization.policy.allowed_protocols and protocol not in organization.policy.allowed_protocols:
        return _refuse(f"Protocol '{protocol}' is not allowed by the organization's policy")
    if status is NodeStatus.SCANNED:
        notes.insert(0, WILL_RESCAN)
    elif status is NodeStatus.ERROR:
        notes.insert(0, WILL_RETRY)
    answer = Answer(status=READY, node_id=node_id, org_id=organization.org_id, protocol=protocol, note="; ".join(notes))
    return Decision(answer=answer, create=create, events=events, protocol=protocol, start=True)


def _under_way(decision: Decision, usage: Usage) -> Decision:
    """The same run for whoever asks while it runs; nothing is started twice."""
    assert usage.of_node is not None  # noqa: S101 - the caller looked
    run = usage.of_node
    answer = replace(
        decision.answer,
        note=SCAN_UNDER_WAY if run.kind == "scan" else DISCOVERY_UNDER_WAY,
        run_id=run.run_id,
        workflow_execution_id=run.workflow_execution_id,
    )
    if run.kind != "scan" and answer.success:
        answer = replace(answer, error=f"{DISCOVERY_UNDER_WAY.capitalize()}", next_action=WAIT, status="", note="")
    return Decision(answer=answer)


def _not_now(decision: Decision, node: Node | None, policy: Policy, usage: Usage, now: Millis) -> Decision | None:
    ends = cool_down_ends(node, policy, now)
    if ends > now:
        assert node is not None and node.scanned_at is not None  # noqa: S101 - else nothing cools down
        error = f"Node was scanned at {_moment(node.scanned_at)}; its cool-down ends at {_moment(ends)}"
    elif not (error := used_up(policy, usage)):
        return None
    answer = replace(decision.answer, error=error, next_action=WAIT, status="", protocol="", note="")
    return replace(decision, answer=answer, start=False)


def cool_down_ends(node: Node | None, policy: Policy, now: Millis) -> Millis:
    """When a node may be scanned again; 0 for one that was not, or that far ahead by a clock that was wrong."""
    if node is None or node.scanned_at is None or node.scanned_at > now + policy.cool_down_ms:
        return Millis(0)
    return Millis(node.scanned_at + policy.cool_down_ms)


def used_up(policy: Policy, usage: Usage) -> str:
    """Why nothing more may be started now, if so."""
    if usage.last_day >= policy.daily_budget:
        return f"The organization's budget of {policy.daily_budget} discoveries and scans in 24 hours is used up"
    if usage.running >= policy.max_concurrent:
        return f"{usage.running} discoveries and scans of the organization are under way, as many as its policy allows"
    return ""


def budget_left(policy: Policy, usage: Usage) -> int:
    """Discoveries and scans that may still begin."""
    return max(0, policy.daily_budget - usage.last_day)


def decide_discovery(
    organization: Organization | OrgProblem,
    node: Node | None,
    host: ParsedTarget | None,
    usage: Usage,
    *,
    problem: str = "",
) -> Decision:
    """On a request to discover a node. ``problem``: what is wrong with its id or the host, which comes first."""
    if refused := _no_organization(organization):
        return refused
    assert isinstance(organization, Organization)  # noqa: S101 - else it was refused
    if problem:
        return _refuse(problem)
    if node is None or node.org_id != organization.org_id:
        return _refuse(NODE_NOT_FOUND)
    if host is not None and (host.host != node.host or host.port not in (None, node.port)):
        return _refuse(f"Host '{host.text}' is not the target of this node, which is '{node.target}'")
    if not_allowed := forbidden(parse_target(node.target), organization.policy):
        return _refuse(not_allowed)
    answer = Answer(status=DISCOVERY_STARTED, node_id=node.node_id, org_id=node.org_id)
    run = usage.of_node
    if run is not None:
        if run.kind == "scan":
            return _refuse(f"{SCAN_UNDER_WAY.capitalize()}", next_action=WAIT)
        answer = replace(
            answer, note=DISCOVERY_UNDER_WAY, run_id=run.run_id, workflow_execution_id=run.workflow_execution_id
        )
        return Decision(answer=answer)
    if not_now := used_up(organization.policy, usage):
        return _refuse(not_now, next_action=WAIT)
    return Decision(answer=answer, start=True)


def _refuse(error: str, *, next_action: str | None = None) -> Decision:
    return Decision(answer=Answer(error=error, next_action=next_action))


def _moment(millis: int) -> str:
    return to_datetime(millis).strftime("%Y-%m-%d %H:%M:%S UTC")
