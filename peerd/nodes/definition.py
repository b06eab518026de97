"""Discoveries and scans as a workflow: one job for each node, whose result comes home. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peerd.nodes.messages import Kind, Permission, ProbeRequest, Special, Target, to_json
from peerd.nodes.model import Node, Organization
from peerd.v1 import workflows_pb2

SERVICE = "node-prober"
"""What peers offer whose owner lets them probe; see peerd.nodes.offering."""
WORKFLOW = "node-probes"
RESULT_FILE = "result.json"
REPORT_FILE = "report.md"

_DEADLINE_SECONDS = {0: 45, 1: 60, 2: 180, 3: 240}
"""By level; 0 is a discovery."""
_MARGIN_SECONDS = 60
"""For the program to start and end, beside its own deadline."""
_QUEUE_SECONDS = 300
"""For a peer to take it, or a busy one to begin."""


def longest_seconds(level: int) -> int:
    """After so long a job that began has ended, or nothing more is to be expected of it; 0 is a discovery."""
    return _DEADLINE_SECONDS[level] + _MARGIN_SECONDS


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One node that is to be probed."""

    node: Node
    kind: Kind
    protocol: str = ""
    level: int = 0

    @property
    def job(self) -> str:
        """Name of its job."""
        return f"{self.kind}-{self.node.node_id}"


def request_for(organization: Organization, probe: Probe) -> ProbeRequest:
    """What the prober is told."""
    policy = organization.policy
    permission = None
    if policy.permission_reference:
        permission = Permission(by=policy.permission_by, reference=policy.permission_reference)
    return ProbeRequest(
        kind=probe.kind,
        target=Target(host=probe.node.host, port=probe.node.port),
        protocol=probe.protocol,
        level=probe.level or 1,
        allowed_protocols=tuple(sorted(policy.allowed_protocols)),
        allowed_networks=policy.allowed_networks,
        blocked_hosts=policy.blocked_hosts,
        allow_special=tuple(Special(word) for word in sorted(policy.allow_special)),
        deadline_seconds=float(_DEADLINE_SECONDS[probe.level]),
        permission=permission,
        node_id=probe.node.node_id,
        org_id=organization.org_id,
    )


def definition_for(
    organization: Organization, probes: Sequence[Probe], on: workflows_pb2.Placement, *, lanes: int
) -> workflows_pb2.WorkflowDefinition:
    """One execution for all of them, at most ``lanes`` at once: each job begins when the one so many before it ended.

    A job that fails keeps nobody else: its node becomes an error with the reason.
    """
    definition = workflows_pb2.WorkflowDefinition(name=WORKFLOW)
    for index, probe in enumerate(probes):
        job = definition.jobs.add(
            name=probe.job,
            description=f"{probe.kind} {probe.node.target}",
            service=SERVICE,
            timeout=f"{longest_seconds(probe.level)}s",
            queue_timeout=f"{_QUEUE_SECONDS}s",
            # Kept here and not by the executor, which may be gone for good: those before it in its lane count, too.
            deadline=f"{_QUEUE_SECONDS + (index // lanes + 1) * longest_seconds(probe.level)}s",
            continue_on_failure=len(probes) > 1,
        )
        job.params["request"] = _plain(to_json(request_for(organization, probe)))
        job.on.CopyFrom(on)
        if index >= lanes:
            job.needs.append(probes[index - lanes].job)
            job.when = "always()"
        # A job is its own folder below the delivery directory.
        definition.deliver.add(**{"from": probe.job, "to": probe.job})
    return definition


def _plain(text: str) -> str:
    """JSON that no one takes for a reference to a parameter, which begins with a dollar sign."""
    return text.replace("$", "\\u0024")
