"""The parameters of a workflow as a table: what may be given to ``peerctl workflows run --param``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerd.cli.output import print_table

if TYPE_CHECKING:
    from peerd.v1 import workflows_pb2


def print_parameters(definition: workflows_pb2.WorkflowDefinition) -> None:
    """One row for each, with or without a type; nothing when there are none."""
    rows = [(name, "text", default, "", "") for name, default in definition.params.items()]
    rows += [
        (name, parameter.type or "text", _default(parameter), _allowed(parameter), parameter.description)
        for name, parameter in definition.parameters.items()
    ]
    if rows:
        print_table(("PARAMETER", "TYPE", "DEFAULT", "ALLOWED", "DESCRIPTION"), sorted(rows), empty="")


def _default(parameter: workflows_pb2.ParameterDefinition) -> str:
    return "(required)" if parameter.required else parameter.default


def _allowed(parameter: workflows_pb2.ParameterDefinition) -> str:
    parts = []
    if parameter.choices:
        parts.append(", ".join(parameter.choices))
    if parameter.min or parameter.max:
        parts.append(f"{parameter.min}..{parameter.max}")
    if parameter.pattern:
        parts.append(f"matches {parameter.pattern}")
    return "; ".join(parts)
