"""Discoveries and scans as executions of a workflow, through the orchestrator's ordinary start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from peerd.nodes import runs
from peerd.nodes.definition import Probe, alone, batches_of, definition_for
from peerd.nodes.messages import Kind
from peerd.nodes.model import Organization
from peerd.store import Tx
from peerd.v1 import nodes_pb2, workflows_pb2
from peerd.workflows.definition import accept_definition
from peerd.workflows.repository import WorkflowVersion, put_workflow

_WORDS = {Kind.DISCOVER: "discovery", Kind.SCAN: "scan"}


class Executions(Protocol):
    """What makes executions, inside a transaction; see peerd.workflows.lifecycle."""

    def start(self, tx: Tx, version: WorkflowVersion, params: Mapping[str, str], *, started_by: str) -> int:
        """Make one; returns its id. Raises OVERLOADED, DISK_LOW."""
        ...


class Starter:
    """Starts probes."""

    def __init__(self, executions: Executions) -> None:
        self._executions = executions

    def start(
        self,
        tx: Tx,
        organization: Organization,
        probes: Sequence[Probe],
        on: workflows_pb2.Placement,
        *,
        caller: str,
        lanes: int = 0,
        left_out: tuple[int, str] = (0, ""),
    ) -> tuple[int, int]:
        """One execution for all, with a run for each node, and a sweep if ``lanes`` says how many at once. Its id, and
        that of the sweep or of the only run. Raises INVALID_DEFINITION, OVERLOADED, DISK_LOW."""
        sweep = lanes > 0
        batches = list(batches_of(probes, lanes)) if sweep else [alone(probe) for probe in probes]
        definition = definition_for(organization, batches, on)
        reading = accept_definition(workflows_pb2.DefinitionSource(definition=definition))
        version = put_workflow(tx, reading, stored=False)
        what = "a sweep" if sweep else f"a {_WORDS[probes[0].kind]} of {probes[0].node.target}"
        execution_id = self._executions.start(tx, version, {}, started_by=f"{what} for {organization.slug}")
        made = 0
        if sweep:
            made = runs.add_sweep(
                tx,
                org_id=organization.org_id,
                execution_id=execution_id,
                lanes=lanes,
                left_out=left_out[0],
                reason=left_out[1],
                caller=caller,
            )
        run_ids = [
            runs.add(
                tx,
                node_id=probe.node.node_id,
                org_id=organization.org_id,
                kind=probe.kind,
                protocol=probe.protocol,
                level=probe.level,
                execution_id=execution_id,
                job=batch.job,
                longest_seconds=batch.longest_seconds,
                caller=caller,
                sweep_id=made,
            )
            for batch in batches
            for probe in batch.probes
        ]
        return execution_id, made if sweep else run_ids[-1]


def placement(asked: workflows_pb2.Placement, policy: nodes_pb2.OrganizationPolicy) -> workflows_pb2.Placement:
    """Which peers probe: what the request says, else what the policy says."""
    return asked if asked.ByteSize() else policy.on
