"""Which nodes a sweep takes, and why it leaves others. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from peerd.nodes.allowing import forbidden
from peerd.nodes.definition import Probe
from peerd.nodes.messages import Kind
from peerd.nodes.model import Node, Policy, Usage
from peerd.nodes.targets import parse_target

MOST_NODES = 5000
"""In one sweep; more are left for the next."""
_MOST_BYTES = 16 * 1024**2
_BATCH_BYTES = 1000
"""Of a batch's request, without the hosts and networks of the policy, which each has."""
_NODE_BYTES = 500
"""Of a node in it, whose host has at most 253."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How many a sweep may take."""

    limit: int
    """As asked for; 0: none."""
    budget: int
    """What is left of the organization's."""
    room: int = MOST_NODES
    """How many one execution can hold."""

    @property
    def most(self) -> int:
        """The least of all bounds."""
        return min(self.limit or self.room, self.budget, self.room)

    def why(self, due: int, taken: int) -> str:
        """Why of those that are due some are left out; empty if none is."""
        if due <= taken:
            return ""
        if taken < self.most:
            return "the organization's policy does not allow their targets or protocols any more"
        if self.most == self.budget:
            return "the organization's budget of 24 hours is used up"
        return "no more were asked for" if self.most == self.limit else f"a sweep takes {self.room} at most"


def room(policy: Policy, batch: int) -> int:
    """How many nodes one execution can hold: each batch of so many carries the whole policy."""
    return min(MOST_NODES, _MOST_BYTES // (_NODE_BYTES + (_BATCH_BYTES + policy.length) // batch))


def lanes_left(policy: Policy, usage: Usage) -> tuple[int, str]:
    """How many nodes a sweep may probe at once, or why none: of the places that are free, all but one, which is for
    whoever scans a single node meanwhile."""
    free = policy.max_concurrent - usage.running
    lanes = free - 1 if policy.max_concurrent > 1 else free
    if lanes > 0:
        return lanes, ""
    most = f"as many as {policy.max_concurrent} may be"
    if policy.max_concurrent > 1:
        most += ", and a sweep leaves a place for single nodes"
    return 0, f"{usage.running} discoveries and scans of the organization are under way; {most}"


def chosen(nodes: Iterable[Node], policy: Policy, level: int, known: Collection[str], *, most: int) -> list[Probe]:
    """A scan for each that the policy still allows; it discovers first where no protocol is known."""
    probes: list[Probe] = []
    for node in nodes:
        if len(probes) >= most:
            break
        protocol = node.protocol if node.protocol in known else ""
        if forbidden(parse_target(node.target), policy):
            continue
        if protocol and policy.allowed_protocols and protocol not in policy.allowed_protocols:
            continue
        probes.append(Probe(node=node, kind=Kind.SCAN, protocol=protocol, level=level))
    return probes
