"""What a rerun will be: which jobs run, which are reused and sent again, and what is refused. Pure.

A map is run again as a whole: its instances are known to the execution that read its list, and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peerd.errors import PeerdError, Reason, Violation
from peerd.v1 import workflows_pb2
from peerd.workflows.matrix import expanded, is_index
from peerd.workflows.model import ExecutionStatus
from peerd.workflows.params import run_params
from peerd.workflows.reuse import Rerun, Reused, named_jobs, run_again, sent_again, touched_by

if TYPE_CHECKING:
    from peerd.workflows.repository import WorkflowVersion


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The execution that is run again."""

    execution_id: int
    version: WorkflowVersion
    params: Mapping[str, str]
    completed: Mapping[str, Reused]
    unfinished: frozenset[str]
    status: ExecutionStatus


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the new execution will be."""

    version: WorkflowVersion
    params: Mapping[str, str]
    rerun: Rerun
    # Of the reused jobs, those whose files must still be there.
    sent_again: Mapping[str, Reused]


def plan_rerun(origin: Origin, request: workflows_pb2.RerunExecutionRequest) -> Plan:
    """Blocking: a definition of ten thousand jobs takes a second. Raises INVALID_ARGUMENT."""
    definition = origin.version.definition
    params = run_params(definition, {**origin.params, **request.params})
    whole = not request.from_jobs and not request.failed
    plain = expanded(definition)
    reused: dict[str, Reused] = {}
    if not whole:
        seeds, unknown = named_jobs(definition, plain, request.from_jobs)
        if unknown:
            mapped, _, number = unknown[0].rpartition(".")
            if is_index(number) and any(job.name == mapped and job.HasField("map") for job in plain.jobs):
                raise _refused(
                    "from_jobs",
                    f"{unknown[0]!r} is an instance of a map, which runs again as a whole",
                    f"run all of them again: --from {mapped}",
                )
            raise _refused(
                "from_jobs",
                f"the workflow has no job {unknown[0][:80]!r}",
                f"'peerctl executions show {origin.execution_id}' lists its jobs",
            )
        names = {job.name for job in plain.jobs}
        # A map has completed only when its instances have, which are not among these.
        half = {name.rpartition(".")[0] for name in origin.unfinished - names}
        again = run_again(plain, (origin.completed.keys() & names) - half, seeds)
        if not again and origin.status is ExecutionStatus.COMPLETED:
            raise _refused("failed", "every job completed", "name the job to run again from: --from JOB")
        reused = {node: one for node, one in origin.completed.items() if node in names - again}
        for job in plain.jobs:
            if job.name in reused and touched_by(job, origin.params, params):
                raise _refused(
                    "params",
                    f"job {job.name!r} uses a parameter that is changed, and would not be run again",
                    f"run it again from there, too: --from {job.name}",
                )
    sent = sent_again(plain, reused.keys())
    for job in plain.jobs:
        if job.name in sent and job.HasField("map"):
            raise _refused(
                "from_jobs",
                f"job {job.name!r} has a map, and what its instances made is not sent again",
                f"run it again from there, too: --from {job.name}",
            )
    return Plan(
        version=origin.version,
        params=params,
        rerun=Rerun(of=origin.execution_id, reused=reused),
        sent_again={node: one for node, one in reused.items() if node in sent},
    )


def _refused(field: str, message: str, next_action: str) -> PeerdError:
    return PeerdError(
        Reason.INVALID_ARGUMENT,
        message,
        next_action=next_action,
        violations=[Violation(field=field, message=message)],
    )
