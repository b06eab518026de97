"""Who waits for whose end. Pure, and from the specification alone.

A job is *gated* when it has ``needs``, ``when`` or a map, when something it builds on may fail without failing it, or
when something it builds on is gated itself. A gated job is given to a peer only once all it builds on has ended and its
gate has opened (:mod:`peerd.workflows.gates`); any other is placed at once and waits for its files where it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.model import ExecutionSpec


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """By job, the jobs that it needs or takes files from; and the gated jobs, with those who wait for each end."""

    of: Mapping[str, tuple[str, ...]]
    gated: frozenset[str]
    waiting: Mapping[str, tuple[str, ...]]


def upstream_of(spec: ExecutionSpec) -> Upstream:
    """Read it once for an execution."""
    found: dict[str, dict[str, None]] = {job.node_id: dict.fromkeys(job.needs) for job in spec.jobs}
    maps = [(job.node_id, job.mapped) for job in spec.jobs if job.mapped is not None]
    for edge in itertools.chain(spec.edges, *(mapped.edges for _, mapped in maps)):
        if LOCAL_PEER not in (edge.source, edge.destination):
            found[edge.destination][edge.source] = None
    for node, mapped in maps:
        found[node][mapped.list_source] = None
    following: dict[str, list[str]] = {job.node_id: [] for job in spec.jobs}
    for node, sources in found.items():
        for source in sources:
            following[source].append(node)
    todo = [job.node_id for job in spec.jobs if job.needs or job.when or job.mapped is not None]
    todo += [node for job in spec.jobs if job.continue_on_failure for node in following[job.node_id]]
    gated: set[str] = set()
    while todo:
        node = todo.pop()
        if node not in gated:
            gated.add(node)
            todo += following[node]
    return Upstream(
        of={node: tuple(sources) for node, sources in found.items()},
        gated=frozenset(gated),
        waiting={node: tuple(name for name in names if name in gated) for node, names in following.items()},
    )
