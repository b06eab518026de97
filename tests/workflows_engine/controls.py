"""Conditional jobs for the simulations: drawn by Hypothesis, and judged by a table that knows nothing of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from peerd.workflows.edges import LOCAL_PEER
from peerd.workflows.model import JobSpec, WorkflowJobStatus
from peerd.workflows.state import ExecutionState

PARAMS = {"mode": "full"}
# What stands in `when` -> whether it asks how jobs ended.
CONDITIONS: Mapping[str, bool] = {
    "": False,
    "params.mode == 'full'": False,
    "params.mode != 'full'": False,
    "success()": True,
    "failure()": True,
    "always()": True,
    "!failure()": True,
}
_W = WorkflowJobStatus


@dataclass(frozen=True, kw_only=True)
class Control:
    """Of one job."""

    when: str = ""
    # It needs the job that stands before it.
    needs_last: bool = False
    continue_on_failure: bool = False
    queue_timeout: int | None = None
    transfer_timeout: int | None = None

    def needs(self, names: Sequence[str], index: int) -> tuple[str, ...]:
        return (names[index - 1],) if self.needs_last and index else ()


PLAIN = Control()


def controls() -> st.SearchStrategy[Control]:
    """Of a job in an execution that has any."""
    limits = st.sampled_from([None, None, None, 500, 3000])
    return st.builds(
        Control,
        when=st.sampled_from(list(CONDITIONS)),
        needs_last=st.booleans(),
        continue_on_failure=st.booleans(),
        queue_timeout=limits,
        transfer_timeout=limits,
    )


def upstream(state: ExecutionState, job: JobSpec) -> set[str]:
    """Those it builds on; of a map, also all its instances."""
    if job.instance_of:
        return upstream(state, state.jobs[job.instance_of].spec)
    maps = [one.mapped for one in state.spec.jobs if one.mapped is not None]
    edges = [*state.spec.edges, *(edge for mapped in maps for edge in mapped.edges)]
    found = {*job.needs, *(x.source for x in edges if x.destination == job.node_id and x.source != LOCAL_PEER)}
    if job.mapped is not None:
        found.add(job.mapped.list_source)
    return found | {name for name, one in state.jobs.items() if one.spec.instance_of in found - {""}}


def holds(when: str, ends: Iterable[tuple[WorkflowJobStatus, bool]]) -> bool:
    """Whether a job may run, by its condition and the (status, failure allowed) of those it builds on."""
    listed = list(ends)
    failure = (_W.FAILED, False) in listed
    success = all(status is _W.COMPLETED or (status is _W.FAILED and allowed) for status, allowed in listed)
    return {
        "": success,
        "params.mode == 'full'": success,
        "params.mode != 'full'": False,
        "success()": success,
        "failure()": failure,
        "always()": True,
        "!failure()": not failure,
    }[when]
