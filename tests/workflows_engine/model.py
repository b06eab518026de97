"""What is true, kept apart from peerd: what was wished, what ran where, which files went where. And what follows.

It sees effects and files as they happen in the simulated world, and the events an orchestrator has written, and knows
nothing of how the engine keeps its state. Small, so that one reading shows that it is right.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from peerd.jobs.model import Job
from peerd.workflows import events as e
from peerd.workflows.explain import explain, explain_execution
from peerd.workflows.model import ExecutionStatus, JobStatus, Report, WorkflowJobStatus
from peerd.workflows.state import JobState

from .controls import CONDITIONS, holds, upstream
from .orchestration import Orchestration
from .parcels import Manifest
from .simulation import TIMING

Name = tuple[str, str]
"""(orchestrator, node) of a job: each orchestrator has one execution."""

SHOWN = {
    JobStatus.CREATED: WorkflowJobStatus.PLACED,
    JobStatus.WAITING_INPUTS: WorkflowJobStatus.WAITING_INPUTS,
    JobStatus.READY: WorkflowJobStatus.WAITING_INPUTS,
    JobStatus.RUNNING: WorkflowJobStatus.RUNNING,
}
ENDED = (WorkflowJobStatus.COMPLETED, WorkflowJobStatus.FAILED, WorkflowJobStatus.CANCELLED)


@dataclass(kw_only=True)
class Effect:
    """A process that was started."""

    name: Name
    placement: int
    executor: str
    job_id: int
    attempt: int
    stop_policy: bool
    how: str = "running"
    # Its daemon was away meanwhile, so nobody could stop it in time.
    excused: bool = False


@dataclass
class Model:
    """Knows it all."""

    executions: dict[str, Orchestration] = field(default_factory=dict)
    effects: dict[tuple[str, int], Effect] = field(default_factory=dict)
    # (executor, job execution id) -> the end that its executor has committed.
    ends: dict[tuple[str, int], Job] = field(default_factory=dict)
    # (orchestrator, edge, receiver, job execution id there) -> what arrived.
    arrived: dict[tuple[str, int, str, int], Manifest] = field(default_factory=dict)
    # When a request of its orchestrator last renewed a placement's lease; where one came that nobody waited for.
    contacts: dict[tuple[str, str, int], int] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    # Whether any machine ever refused to take a job.
    refusals: bool = False
    # What the orchestrators have written down.
    cancelled: set[str] = field(default_factory=set)
    overdue: set[Name] = field(default_factory=set)
    placed: dict[Name, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    started: set[tuple[str, str, int]] = field(default_factory=set)
    # The newest each placement has told while it was the present one.
    told: dict[tuple[str, str, int], Report] = field(default_factory=dict)
    finals: dict[Name, WorkflowJobStatus] = field(default_factory=dict)
    verdicts: dict[str, ExecutionStatus] = field(default_factory=dict)

    # What the world shows

    def began(self, executor: str, job: Job, attempt_id: int, inputs: dict[int, Manifest]) -> None:
        name, placement = (job.key.orchestrator, job.node_id), job.key.placement
        spec = self.executions[name[0]].state.jobs[job.node_id].spec
        assert (*name, placement) in self.started, f"{name} runs, and nobody has sent a start"
        assert self.placed[name][placement] == executor, f"{name} runs where it was not placed"
        before = [effect for effect in self.effects.values() if effect.name == name]
        for other in before:
            if other.placement == placement:
                assert other.how in ("fail", "vanished"), f"{name} runs again, which was {other.how}"
                assert job.attempt <= spec.attempts
                assert other.how == "fail" or spec.retry_lost
            else:
                assert spec.retry_lost, f"{name} runs in placement {other.placement} and {placement}"
                if other.stop_policy and other.how == "running" and other.placement < placement:
                    assert other.excused, f"{name} runs twice at once: also in placement {other.placement}"
        assert len({placement, *(effect.placement for effect in before)}) <= spec.attempts
        self._check_gate(name)
        self._check_places(name)
        self._check_inputs(executor, job, inputs)
        self.effects[executor, attempt_id] = Effect(
            name=name,
            placement=placement,
            executor=executor,
            job_id=job.id,
            attempt=job.attempt,
            stop_policy=job.stop_without_lease,
        )

    def _check_inputs(self, executor: str, job: Job, inputs: dict[int, Manifest]) -> None:
        orchestrator = job.key.orchestrator
        execution = self.executions[orchestrator]
        # What comes from a job that ended without files is not waited for.
        incoming = [
            x
            for x in [edge.spec for edge in execution.state.edges.values()]
            if x.destination == job.node_id and not execution.state.jobs[x.source].gives_nothing
        ]
        assert set(inputs) == {edge.edge_id for edge in incoming}, f"{job.node_id} runs with {inputs}"
        for edge in incoming:
            manifest = inputs[edge.edge_id]
            assert self.arrived[orchestrator, edge.edge_id, executor, job.id] == manifest
            assert self._made_by(manifest) == (orchestrator, edge.source), "files of another job"

    def _check_gate(self, name: Name) -> None:
        """A job with conditions runs when all it builds on has ended, and they hold."""
        execution = self.executions[name[0]]
        spec = execution.state.jobs[name[1]].spec
        above = [execution.state.jobs[node] for node in upstream(execution.state, spec)]
        if spec.instance_of:
            assert self.finals[name[0], spec.instance_of] is WorkflowJobStatus.COMPLETED, f"{name} runs without a list"
            return
        if not (spec.when or spec.needs or any(other.spec.continue_on_failure for other in above)):
            return
        assert all((name[0], other.spec.node_id) in self.finals for other in above), f"{name} runs too early"
        assert holds(spec.when, [(other.status, other.spec.continue_on_failure) for other in above])

    def _check_places(self, name: Name) -> None:
        """Of the jobs that share places, no more run than there are; those that were given up do not count."""
        jobs = self.executions[name[0]].state.jobs
        spec = jobs[name[1]].spec
        if not spec.places:
            return
        sharing = [
            x.name
            for x in self.effects.values()
            if x.name[0] == name[0] and x.name != name and x.how == "running"
            and jobs[x.name[1]].spec.places == spec.places
            and not jobs[x.name[1]].final and jobs[x.name[1]].placement == x.placement
        ]  # fmt: skip
        assert len(sharing) < spec.max_parallel, f"{name} runs beside {sharing}"

    def _made_by(self, manifest: Manifest) -> Name:
        """Whose files they are; only a job that ended well has any."""
        maker = next(x for x in self.effects.values() if (x.executor, x.job_id, x.attempt) == manifest)
        assert maker.how == "ok"
        return maker.name

    def ended(self, executor: str, attempt_id: int, how: str) -> None:
        effect = self.effects[executor, attempt_id]
        assert effect.how == "running"
        effect.how = how

    def recorded(self, executor: str, job: Job) -> None:
        assert (executor, job.id) not in self.ends, "an end that was committed is the end"
        self.ends[executor, job.id] = job

    def contacted(self, executor: str, job: Job, now: int) -> None:
        if executor not in self.late:
            self.contacts[job.key.orchestrator, job.node_id, job.key.placement] = now

    def renewed_late(self, executor: str) -> None:
        """A lease was renewed there by a request that nobody waited for any more: no orchestrator can know."""
        self.late.add(executor)
        self.excuse(executor)

    def excuse(self, executor: str) -> None:
        """Its daemon does nothing for a while."""
        for effect in self.effects.values():
            effect.excused |= effect.executor == executor

    def arrives(self, orchestrator: str, edge: int, receiver: str, job_id: int, manifest: Manifest) -> None:
        self._made_by(manifest)
        if job_id == 0:
            assert (orchestrator, edge, receiver, 0) not in self.arrived or (
                self.arrived[orchestrator, edge, receiver, 0][:2] != manifest[:2]
            ), "delivered twice"
        self.arrived[orchestrator, edge, receiver, job_id] = manifest

    # What is written down

    def written(self, execution: Orchestration, event: e.Event) -> None:
        """Before the engine applies it."""
        home = execution.home.name
        match event:
            case e.CancelRequested():
                self.cancelled |= {home} - self.verdicts.keys()  # what is over is not cancelled
            case e.DeadlinePassed(node=node):
                self.overdue.add((home, node))
            case e.TimedOut(node=node, limit=limit):
                allowed = getattr(execution.state.jobs[node].spec, limit)
                assert event.at >= execution.spec.created_at + allowed, f"{home} {node}: {limit} is early"
                self.overdue.add((home, node))
            case e.JobPlaced(node=node, placement=placement, peer=peer):
                known = self.placed[home, node]
                if (home, node) not in self.finals and home not in self.cancelled and placement == len(known) + 1:
                    self._check_lease(execution, node, placement - 1, event.at)
                    known[placement] = peer
            case e.JobStartSent(node=node, placement=placement) if not execution.state.jobs[node].hold:
                self.started.add((home, node, placement))
            case (
                e.JobReported(node=node, placement=placement, report=report)
                | e.JobStopped(node=node, placement=placement, report=report)
            ):
                known_report = self.told.get((home, node, placement))
                newer = known_report is None or report.revision > known_report.revision
                if newer and placement == len(self.placed[home, node]) and (home, node) not in self.finals:
                    self.told[home, node, placement] = report

    def _check_lease(self, execution: Orchestration, node: str, left: int, now: int) -> None:
        """A job that may run leaves its peer only once that has no lease any more, or has said that it is over."""
        name = (execution.home.name, node)
        if (*name, left) in self.started and execution.state.jobs[node].peer:
            contact = self.contacts.get((*name, left), 0)
            assert now >= contact + TIMING.lease, f"{name} leaves a peer that holds its lease"

    # What must be so now

    def check(self, execution: Orchestration) -> None:
        state, home = execution.state, execution.home.name
        for node, job in state.jobs.items():
            self._check_job(execution, job, (home, node))
        if home in self.verdicts:
            assert state.status is self.verdicts[home], "an execution that has ended has ended"
        if state.status.final:
            self.verdicts[home] = state.status
            assert all(job.final for job in state.jobs.values())
        else:
            assert explain_execution(state, str).message
        assert (state.cancel is not None) == (home in self.cancelled)
        statuses = {job.status for job in state.jobs.values()}
        match state.status:
            case ExecutionStatus.COMPLETED:
                assert statuses <= set(ENDED) | {WorkflowJobStatus.SKIPPED}
                assert not any(job.failed_for_good for job in state.jobs.values())
                assert WorkflowJobStatus.CANCELLED not in statuses
                self._check_deliveries(execution)
            case ExecutionStatus.CANCELLED:
                assert home in self.cancelled
            case ExecutionStatus.FAILED:
                assert home not in self.cancelled
                assert state.home_failed or any(job.failed_for_good for job in state.jobs.values())
            case _:
                pass

    def _check_job(self, execution: Orchestration, job: JobState, name: Name) -> None:
        if name in self.finals:
            assert job.status is self.finals[name], f"{name} was {self.finals[name]} and is {job.status}"
        assert job.since >= execution.spec.created_at
        assert job.placement == len(self.placed[name])
        assert job.peer in ("", self.placed[name].get(job.placement))
        if not job.final:
            said = explain(execution.state, job, str)
            assert said.reason and said.message, f"{name} waits and does not say why"
            told = self.told.get((*name, job.placement)) if job.peer else None
            if told is not None:
                assert SHOWN.get(told.status) is job.status, f"{name} told {told.status} and is shown {job.status}"
            return
        end = self.ends.get((job.peer, job.remote_id))
        if name not in self.finals:
            self._check_end(execution, job, name, end)
        self.finals[name] = job.status

    def _check_end(self, execution: Orchestration, job: JobState, name: Name, end: Job | None) -> None:
        """A job ends for a reason that is true."""
        truth = end.status.value if end is not None else ""
        above = [execution.state.jobs[x] for x in upstream(execution.state, job.spec)]
        match job.status, job.reason:
            case WorkflowJobStatus.COMPLETED, _ if job.spec.mapped is not None:
                assert self._items(execution, name[1]) == max(0, execution.items), f"{name} has other instances"
            case _, "map":
                made = execution.state.jobs[job.spec.mapped.list_source] if job.spec.mapped is not None else None
                assert made is not None and (made.gives_nothing or execution.items < 0)
            case WorkflowJobStatus.COMPLETED, _:
                assert truth == "completed", f"{name} is completed, and on {job.peer} it is {truth or 'not over'}"
            case WorkflowJobStatus.CANCELLED, _:
                assert name[0] in self.cancelled
                assert not any(x.how == "running" and not x.excused for x in self._present(job, name))
            case WorkflowJobStatus.FAILED, "timeout":
                assert name in self.overdue
            case _, "exit":
                assert truth == "failed"
            case _, "lost":
                assert job.placement and not any(x.how == "running" for x in self._present(job, name))
            case _, "upstream_failed":
                assert any(other.failed_for_good for other in above)
            case WorkflowJobStatus.SKIPPED, "upstream_skipped":
                assert any(other.status is WorkflowJobStatus.SKIPPED for other in above)
                assert not CONDITIONS[job.spec.when] and not self._present(job, name)
            case WorkflowJobStatus.SKIPPED, "when":
                assert not holds(job.spec.when, [(x.status, x.spec.continue_on_failure) for x in above])
                assert job.spec.when and not self._present(job, name)
            case _, "refused":
                assert self.refusals, f"{name} was refused, and nobody refuses anything: {job.message}"
            case _, "transfer":
                # Its executor had ended it before it started, and its producer's word of that came first; or its
                # producer's executor takes no new interfaces.
                assert truth == "failed" or self.refusals, f"{name} failed for {job.message}, and is {truth}"
                assert not self._present(job, name)
            case _, reason:
                raise AssertionError(f"{name} failed for {reason!r}: {job.message}")

    @staticmethod
    def _items(execution: Orchestration, node: str) -> int:
        return sum(job.spec.instance_of == node for job in execution.state.jobs.values())

    def _present(self, job: JobState, name: Name) -> list[Effect]:
        return [x for x in self.effects.values() if x.name == name and x.placement == job.placement]

    def _check_deliveries(self, execution: Orchestration) -> None:
        home = execution.home.name
        for edge in [one.spec for one in execution.state.edges.values() if one.brought_home]:
            if not execution.state.jobs[edge.source].gives_nothing:
                job = execution.state.jobs[edge.source]
                assert self.arrived[home, edge.edge_id, home, 0][:2] == (job.peer, job.remote_id), "a stale result"
