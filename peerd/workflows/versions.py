"""The version of the language that a definition is written in.

A definition without one is of version 1. Whatever a later version changes, what an older one means stays: it is read,
stored and run by the rules of its own version, so that what was stored years ago still runs and has the same digest.
"""

from __future__ import annotations

from peerd.v1 import workflows_pb2
from peerd.workflows.problems import Problem, ProblemReason

FIRST = 1
LATEST = 1


def version_of(definition: workflows_pb2.WorkflowDefinition) -> int:
    """The version it is written in."""
    return definition.api_version or FIRST


def too_new(definition: workflows_pb2.WorkflowDefinition) -> Problem | None:
    """What to say of a definition for a later peerd; its other flaws say nothing, as its rules are not known here."""
    if version_of(definition) <= LATEST:
        return None
    message = f"it is written in version {definition.api_version} of the language; this peerd knows up to {LATEST}"
    return Problem(reason=ProblemReason.DEFINITION_TOO_NEW, message=message, path=("api_version",))
