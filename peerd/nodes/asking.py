"""What people ask of nodes: scan, discover, sweep. Each decides, writes and starts in one transaction.

So of requests at the same time the first makes the node and starts the run, and the others are told of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import replace

from peerd.errors import PeerdError, Reason
from peerd.failpoints import failpoint
from peerd.nodes import repository, runs
from peerd.nodes.definition import Probe, least_batch
from peerd.nodes.messages import Kind
from peerd.nodes.model import NodeEvent, Organization
from peerd.nodes.next_action import (
    INACTIVE,
    NODE_ID_FORMAT,
    NODE_NOT_FOUND,
    WAIT,
    Answer,
    Decision,
    OrgProblem,
    ScanRequest,
    budget_left,
    decide_discovery,
    decide_scan,
    level_problem,
)
from peerd.nodes.organizations import Actor, Organizations, is_uuid
from peerd.nodes.starting import Starter, placement
from peerd.nodes.sweeping import Selection, chosen, lanes_left, room
from peerd.nodes.targets import ParsedTarget, parse_target
from peerd.store import Tx
from peerd.v1 import nodes_pb2, workflows_pb2

MOST_NODES = 100_000
"""Of one organization; none is ever removed."""


class Asking:
    """Inside the caller's transaction."""

    def __init__(
        self,
        organizations: Organizations,
        starter: Starter,
        known: Collection[str],
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._organizations = organizations
        self._starter = starter
        self._known = known
        self._new_id = new_id

    def scan(self, tx: Tx, request: nodes_pb2.ScanNodeRequest, actor: Actor) -> Answer:
        """Scan a target, or say what has to happen first. Raises OVERLOADED, DISK_LOW, INVALID_DEFINITION."""
        organization = self._organizations.acting(tx, request.org, actor)
        target, problem = _read(request.target)
        asked = ScanRequest(
            target=target,
            target_problem=problem,
            protocol=request.protocol,
            level=request.level or 1,
            new_node_id=self._new_id(),
        )
        node, usage = None, runs.usage(tx, "")
        if isinstance(organization, Organization) and target is not None:
            node = repository.find_by_target(tx, organization.org_id, target.text)
            usage = runs.usage(tx, organization.org_id, node.node_id if node is not None else "")
        decision = decide_scan(organization, node, asked, usage, self._known, tx.now)
        if isinstance(organization, OrgProblem):
            return decision.answer
        if decision.create:
            assert target is not None  # noqa: S101 - nothing is made without one
            if repository.count_nodes(tx, organization.org_id) >= MOST_NODES:
                raise PeerdError(
                    Reason.OVERLOADED,
                    f"{organization.slug} has {MOST_NODES} nodes already, as many as an organization may have",
                    next_action="use another organization for more",
                )
            node = repository.create_node(
                tx, node_id=asked.new_node_id, org_id=organization.org_id, target=target, caller=actor.name
            )
        for event, detail in decision.events:
            if event is not NodeEvent.CREATED:
                assert node is not None  # noqa: S101 - it was there or was made
                columns = {"protocol": decision.protocol, "version": ""}
                node = repository.change_node(
                    tx, node.node_id, event, caller=actor.name, detail=detail, columns=columns
                )
        if not decision.start:
            return decision.answer
        assert node is not None  # noqa: S101 - nothing is started without one
        probe = Probe(node=node, kind=Kind.SCAN, protocol=decision.protocol, level=asked.level)
        return self._start(tx, decision, organization, probe, request.on, actor)

    def discover(self, tx: Tx, request: nodes_pb2.DiscoverNodeRequest, actor: Actor) -> Answer:
        """Find out which protocol a node speaks. Raises OVERLOADED, DISK_LOW, INVALID_DEFINITION."""
        node = repository.find_by_id(tx, request.node_id) if is_uuid(request.node_id) else None
        problem = "" if is_uuid(request.node_id) else NODE_ID_FORMAT
        host: ParsedTarget | None = None
        if request.host and not problem:
            host, problem = _read(request.host)
        if not request.org:
            # Whoever may act for the node's organization need not name it; nobody else learns that there is a node.
            owner = self._organizations.acting(tx, node.org_id, actor) if node is not None else OrgProblem.MISSING
            if isinstance(owner, OrgProblem):
                return Answer(error=problem or NODE_NOT_FOUND)
            organization: Organization | OrgProblem = owner
        else:
            organization = self._organizations.acting(tx, request.org, actor)
        usage = runs.usage(tx, node.org_id if node is not None else "", node.node_id if node is not None else "")
        decision = decide_discovery(organization, node, host, usage, problem=problem)
        if not decision.start:
            return decision.answer
        assert node is not None and isinstance(organization, Organization)  # noqa: S101 - else it was refused
        return self._start(tx, decision, organization, Probe(node=node, kind=Kind.DISCOVER), request.on, actor)

    def _start(
        self,
        tx: Tx,
        decision: Decision,
        organization: Organization,
        probe: Probe,
        on: workflows_pb2.Placement,
        actor: Actor,
    ) -> Answer:
        where = placement(on, self._policy(tx, organization))
        execution_id, run_id = self._starter.start(tx, organization, [probe], where, caller=actor.name)
        failpoint("nodes.start.before_commit")
        return replace(decision.answer, run_id=run_id, workflow_execution_id=execution_id)

    def sweep(self, tx: Tx, request: nodes_pb2.SweepNodesRequest, actor: Actor) -> tuple[int, Answer]:
        """Discover and scan what is due; the sweep's id, 0 if there is none. Raises OVERLOADED, DISK_LOW."""
        organization = self._organizations.acting(tx, request.org, actor)
        if isinstance(organization, OrgProblem):
            return 0, Answer(error=organization.value)
        if not organization.active:
            return 0, Answer(error=INACTIVE)
        protocol, level = request.protocol.strip().lower(), request.level or 1
        if problem := level_problem(level, organization.policy):
            return 0, Answer(error=problem)
        if protocol and protocol not in self._known:
            return 0, Answer(error=f"Protocol '{request.protocol}' not found")
        cool_down = organization.policy.cool_down_ms
        usage = runs.usage(tx, organization.org_id)
        lanes, error = lanes_left(organization.policy, usage)
        if error:
            return 0, Answer(error=error, next_action=WAIT)
        due = repository.count_due(tx, organization.org_id, protocol=protocol, now=tx.now, cool_down_ms=cool_down)
        selection = Selection(
            limit=request.limit,
            budget=budget_left(organization.policy, usage),
            room=room(organization.policy, least_batch(lanes, level)),
        )
        nodes = repository.due_nodes(tx, organization.org_id, protocol=protocol, now=tx.now, cool_down_ms=cool_down)
        probes = chosen(nodes, organization.policy, level, self._known, most=selection.most)
        if not probes:
            error = "No node is due" if not due else selection.why(due, 0)
            return 0, Answer(error=error, next_action=WAIT)
        where = placement(request.on, self._policy(tx, organization))
        _, sweep_id = self._starter.start(
            tx,
            organization,
            probes,
            where,
            caller=actor.name,
            lanes=lanes,
            left_out=(due - len(probes), selection.why(due, len(probes))),
        )
        failpoint("nodes.start.before_commit")
        return sweep_id, Answer(org_id=organization.org_id)

    def _policy(self, tx: Tx, organization: Organization) -> nodes_pb2.OrganizationPolicy:
        row = repository.find_organization(tx, organization.org_id)
        assert row is not None  # noqa: S101 - it was there in this transaction
        return repository.stored_policy(row)


def _read(text: str) -> tuple[ParsedTarget | None, str]:
    """A target, or what is wrong with it."""
    try:
        return parse_target(text), ""
    except PeerdError as error:
        return None, error.message[:1].upper() + error.message[1:]
