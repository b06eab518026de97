"""When an organization may dial less than before: what is under way for it, and is not allowed any more, is stopped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from peerd.nodes import runs
from peerd.nodes.allowing import forbidden, parse_network
from peerd.nodes.ending import Ending
from peerd.nodes.model import Organization, Policy
from peerd.nodes.next_action import level_problem
from peerd.nodes.runs import Run
from peerd.nodes.targets import parse_target
from peerd.nodes.verdict import failed
from peerd.store import Tx
from peerd.workflows.model import WorkflowJobStatus
from peerd.workflows.outcomes import job_statuses

WITHDRAWN = "withdrawn"


class Executions(Protocol):
    """Where the jobs are; see peerd.workflows.lifecycle."""

    def give_up(self, tx: Tx, execution_id: int, job: str, waiting: str) -> None:
        """Stop that job, wherever it is; what waits for its end goes on."""
        ...


class Withdrawing:
    """Inside the transaction that changes the organization, so that nothing begins between."""

    def __init__(self, ending: Ending, executions: Executions) -> None:
        self._ending = ending
        self._executions = executions

    def review(self, tx: Tx, before: Organization, after: Organization) -> None:
        """Stop the jobs that have a node which may not be dialed any more, and of their sweeps all that has not begun:
        it carries the policy of its start."""
        if after.active and after.policy == before.policy:
            return
        by_execution: dict[int, list[Run]] = {}
        for run in runs.open_of_organization(tx, after.org_id):
            by_execution.setdefault(run.workflow_execution_id, []).append(run)
        for execution_id, open_runs in by_execution.items():
            refused = {run.run_id: why for run in open_runs if (why := refusal(run, before.policy, after))}
            if refused:
                self._withdraw(tx, execution_id, open_runs, refused, after.slug)

    def _withdraw(
        self, tx: Tx, execution_id: int, open_runs: Iterable[Run], refused: dict[int, str], slug: str
    ) -> None:
        statuses = job_statuses(tx, execution_id)
        by_job: dict[str, list[Run]] = {}
        for run in open_runs:
            by_job.setdefault(run.job, []).append(run)
        any_reason = next(iter(refused.values()))
        # Those that come last in their lanes first: a job whose predecessor ends would begin.
        for job, of_job in reversed(by_job.items()):
            status = statuses.get(job)
            begun = status is WorkflowJobStatus.RUNNING
            if status is not None and status.final:
                stopped = [run for run in of_job if run.run_id in refused]  # the others are on their way home
            elif begun and not any(run.run_id in refused for run in of_job):
                continue
            else:
                stopped = of_job
                self._executions.give_up(tx, execution_id, job, any_reason)
            for run in stopped:
                why = (
                    refused.get(run.run_id) or f"probed together with others, of which one is not allowed: {any_reason}"
                )
                self._ending.end(tx, run, failed(run, WITHDRAWN, why), slug=slug)


def refusal(run: Run, before: Policy, after: Organization) -> str:
    """Why the node of a run that began with one policy may not be dialed any more; empty if it may."""
    policy = after.policy
    if not after.active:
        return "the organization was made inactive"
    if run.level and (problem := level_problem(run.level, policy)):
        return problem
    if problem := forbidden(parse_target(run.target), policy):
        return problem
    allowed = policy.allowed_protocols
    if run.protocol:
        if allowed and run.protocol not in allowed:
            return f"Protocol '{run.protocol}' is not allowed by the organization's policy"
    elif allowed and not (before.allowed_protocols and before.allowed_protocols <= allowed):
        return "the organization's policy allows fewer protocols, and this node is discovered"
    if parse_target(run.target).address is None and _narrower(before, policy):
        return "the organization's policy allows fewer addresses, and those of a name are not known"
    return ""


def _narrower(before: Policy, after: Policy) -> bool:
    """Whether an address could be allowed by the one and not by the other."""
    if not set(before.allow_special) <= set(after.allow_special) or set(after.blocked_hosts) - set(
        before.blocked_hosts
    ):
        return True
    return not all(_within(network, after.allowed_networks) for network in before.allowed_networks)


def _within(text: str, networks: Iterable[str]) -> bool:
    inner = parse_network(text)
    for outer in map(parse_network, networks):
        if inner is not None and outer is not None and inner.version == outer.version and inner.subnet_of(outer):  # type: ignore[arg-type]
            return True
    return False
