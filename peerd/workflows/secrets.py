"""Who may start a workflow whose jobs use secrets.

Executors give secrets to orchestrators that their owners trust. Every operator of the mesh may run workflows on any
peer, which then orders their jobs in its own name: so a peer that others trust with secrets orders such jobs only for
whoever sits at it, and never for a caller from elsewhere.
"""

from __future__ import annotations

from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2


def uses_secrets(definition: workflows_pb2.WorkflowDefinition) -> bool:
    """Whether any of its jobs does."""
    return any(job.secrets or job.secret_files for job in definition.jobs)


def check_unattended(definition: workflows_pb2.WorkflowDefinition) -> None:
    """Return if it may run with nobody at this machine, as by a schedule. Raises SECRET_NOT_ALLOWED.

    Whoever stored the definition or the schedule may have been a caller from elsewhere.
    """
    if uses_secrets(definition):
        raise PeerdError(
            Reason.SECRET_NOT_ALLOWED,
            "its jobs use secrets, and such a workflow runs by no schedule",
            next_action="run it over this machine's own socket",
        )


def check_requester(definition: workflows_pb2.WorkflowDefinition, caller: str, own_peer_id: str) -> None:
    """Return if this peer may run the definition for the caller, a peer id. Raises SECRET_NOT_ALLOWED."""
    if caller != own_peer_id and uses_secrets(definition):
        raise PeerdError(
            Reason.SECRET_NOT_ALLOWED,
            "its jobs use secrets, and such a workflow is run for nobody but the operator of this machine itself",
            next_action="run it over this machine's own socket, or run it on your own machine",
        )
