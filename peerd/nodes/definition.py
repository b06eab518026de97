"""Discoveries and scans as a workflow whose results come home: a job for one node, or for a batch of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from peerd.nodes.message_json import to_json
from peerd.nodes.messages import BatchNode, BatchRequest, Kind, Permission, ProbeRequest, Special, Target, Terms
from peerd.nodes.model import Node, Organization
from peerd.v1 import workflows_pb2

SERVICE = "node-prober"
"""What peers offer whose owner lets them probe; see peerd.nodes.offering."""
WORKFLOW = "node-probes"

_DEADLINE_SECONDS = {0: 45, 1: 60, 2: 180, 3: 240}
"""Of a node, by level; 0 is a discovery."""
_MARGIN_SECONDS = 60
"""For the program to start and end, beside the deadlines of its nodes."""
_QUEUE_SECONDS = 300
"""For a peer to take it, or a busy one to begin."""

_LEAST_LANES = 3
"""Jobs of a sweep at once, so that more than one peer has its share."""
_AT_ONCE = 4
"""Nodes of a job at once, where there are places for more than so many in each of the least lanes."""
_ROUNDS = {1: 4, 2: 2, 3: 2}
"""By level, how many nodes a job probes one after the other: enough that starting it costs little beside probing, and
so few that a peer which goes away takes few nodes along, and is known to have gone soon."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One node that is to be probed."""

    node: Node
    kind: Kind
    protocol: str = ""
    level: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Nodes that one job probes."""

    job: str
    """Its name."""
    probes: Sequence[Probe]
    """Of one kind and level."""
    at_once: int = 1
    after: str = ""
    """The job before it in its lane; empty for the first."""
    seconds_before: int = 0
    """The longest that those before it in its lane may take."""

    @property
    def longest_seconds(self) -> int:
        """After so long a job that began has ended, or nothing more is to be expected of it."""
        rounds = -(-len(self.probes) // self.at_once)
        return rounds * _DEADLINE_SECONDS[self.probes[0].level] + _MARGIN_SECONDS


def alone(probe: Probe) -> Batch:
    """One node in a job of its own."""
    return Batch(job=f"{probe.kind}-{probe.node.node_id}", probes=[probe])


def lanes_of(places: int) -> list[int]:
    """How many nodes each of a sweep's lanes probes at once, so that all together use the places there are."""
    lanes = max(min(places, _LEAST_LANES), -(-places // _AT_ONCE))
    return [places // lanes + (lane < places % lanes) for lane in range(lanes)]


def least_batch(places: int, level: int) -> int:
    """Nodes of the smallest batch of a large sweep."""
    return min(lanes_of(places)) * _ROUNDS[level]


def batches_of(probes: Sequence[Probe], places: int) -> Iterator[Batch]:
    """All of them, so that at most ``places`` are probed at once: each batch begins when the one before it in its lane
    ended. Few nodes make small batches, so that all lanes have work until the end."""
    lanes = lanes_of(places)
    fair = -(-len(probes) // (2 * len(lanes)))
    last: dict[int, Batch] = {}
    begin = 0
    for number, lane in enumerate(cycle(range(len(lanes))), start=1):
        if begin >= len(probes):
            return
        at_once = lanes[lane]
        size = max(at_once, min(fair, at_once * _ROUNDS[probes[begin].level]))
        before = last.get(lane)
        last[lane] = Batch(
            job=f"batch-{number}",
            probes=probes[begin : begin + size],
            at_once=at_once,
            after=before.job if before is not None else "",
            seconds_before=before.seconds_before + before.longest_seconds if before is not None else 0,
        )
        yield last[lane]
        begin += size


def request_for(organization: Organization, batch: Batch) -> ProbeRequest | BatchRequest:
    """What the prober is told."""
    policy, (first, *others) = organization.policy, batch.probes
    permission = None
    if policy.permission_reference:
        permission = Permission(by=policy.permission_by, reference=policy.permission_reference)
    terms = Terms(
        kind=first.kind,
        level=first.level or 1,
        allowed_protocols=tuple(sorted(policy.allowed_protocols)),
        allowed_networks=policy.allowed_networks,
        blocked_hosts=policy.blocked_hosts,
        allow_special=tuple(Special(word) for word in sorted(policy.allow_special)),
        deadline_seconds=float(_DEADLINE_SECONDS[first.level]),
        permission=permission,
        org_id=organization.org_id,
    )
    nodes = tuple(
        BatchNode(
            node_id=probe.node.node_id,
            target=Target(host=probe.node.host, port=probe.node.port),
            protocol=probe.protocol,
        )
        for probe in batch.probes
    )
    return BatchRequest.of(terms, nodes, at_once=batch.at_once) if others else ProbeRequest.of(terms, nodes[0])


def definition_for(
    organization: Organization, batches: Sequence[Batch], on: workflows_pb2.Placement
) -> workflows_pb2.WorkflowDefinition:
    """One execution for all of them. A job that fails keeps nobody else: its nodes become errors with the reason."""
    definition = workflows_pb2.WorkflowDefinition(name=WORKFLOW)
    for batch in batches:
        job = definition.jobs.add(
            name=batch.job,
            description=_described(batch.probes),
            service=SERVICE,
            timeout=f"{batch.longest_seconds}s",
            queue_timeout=f"{_QUEUE_SECONDS}s",
            # Kept here and not by the executor, which may be gone for good: those before it in its lane count, too.
            deadline=f"{_QUEUE_SECONDS + batch.seconds_before + batch.longest_seconds}s",
            continue_on_failure=len(batches) > 1,
        )
        job.params["request"] = _plain(to_json(request_for(organization, batch)))
        job.on.CopyFrom(on)
        if batch.after:
            job.needs.append(batch.after)
            job.when = "always()"
        # A job is its own folder below the delivery directory.
        definition.deliver.add(**{"from": batch.job, "to": batch.job})
    return definition


def _described(probes: Sequence[Probe]) -> str:
    first, last = probes[0], probes[-1]
    if first is last:
        return f"{first.kind} {first.node.target}"
    return f"{first.kind} {len(probes)} nodes, {first.node.target} to {last.node.target}"


def _plain(text: str) -> str:
    """JSON that no one takes for a reference to a parameter, which begins with a dollar sign."""
    return text.replace("$", "\\u0024")
