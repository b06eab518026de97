"""Whether a gated job runs, is skipped or fails, once everything it builds on has ended. Pure.

The verdict becomes an event, so that it is written down before anything follows from it.
"""

from __future__ import annotations

from peerd.clock import Millis
from peerd.workflows.condition_answers import End, Facts
from peerd.workflows.conditions import parse_condition
from peerd.workflows.events import FAIL, RUN, SKIP, JobGated
from peerd.workflows.model import WorkflowJobStatus
from peerd.workflows.state import ExecutionState, JobState


def gate(state: ExecutionState, job: JobState, now: Millis) -> JobGated:
    """The verdict for a job whose upstream has ended.

    A ``when`` that asks how jobs ended decides alone. Without one, or with one about parameters only, a failure fails
    the job and a skipped job skips it, unless that failure is allowed.
    """
    node, above = job.spec.node_id, [state.jobs[name] for name in job.upstream]
    failed = next((one for one in above if one.failed_for_good), None)
    skipped = next((one for one in above if one.status is WorkflowJobStatus.SKIPPED), None)
    condition = parse_condition(job.spec.when) if job.spec.when else None
    if condition is not None:
        facts = Facts(
            params=state.spec.params,
            ends={name: _end(state.jobs[name]) for name in condition.jobs},
            success=failed is None and skipped is None,
            failure=failed is not None,
        )
        if not condition.holds(facts):
            return JobGated(node=node, verdict=SKIP, reason="when", message=f"does not hold: {condition.text}", at=now)
    if condition is None or not condition.asks_ends:
        if failed is not None:
            message = f"{failed.spec.node_id} failed: {failed.reason}"
            return JobGated(node=node, verdict=FAIL, reason="upstream_failed", message=message, at=now)
        if skipped is not None:
            message = f"{skipped.spec.node_id} was skipped: {skipped.reason}"
            return JobGated(node=node, verdict=SKIP, reason="upstream_skipped", message=message, at=now)
    mapped = job.spec.mapped
    if mapped is not None and state.jobs[mapped.list_source].gives_nothing:
        message = f"{mapped.list_source} made no list: it is {state.jobs[mapped.list_source].status.value}"
        return JobGated(node=node, verdict=FAIL, reason="map", message=message, at=now)
    return JobGated(node=node, verdict=RUN, at=now)


def _end(job: JobState) -> End:
    return End(status=job.status.value, exit_code=job.report.exit_code if job.report is not None else None)
