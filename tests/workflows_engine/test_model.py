"""T30: machines, network and time against the model of what is true; whatever happens, in whatever order.

``scripts/model --examples N --seed S`` runs the same at length.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from peerd.clock import Millis
from peerd.errors import Reason
from peerd.workflows import events as e
from peerd.workflows.model import ExecutionSpec, ExecutionStatus, JobSpec, WorkflowJobStatus
from peerd.workflows.state import ExecutionState, JobState

from .controls import PARAMS, PLAIN, Control, controls
from .fleet import NAMES, Fleet
from .simulation import START, spec_of, with_map
from .test_engine_under_faults import MAPS, SHAPES, SHARING

pytestmark = pytest.mark.timeout(300)

COUNTS = {"sequences": 0, "steps": 0}

numbers = st.integers(0, 255)
machines = st.sampled_from(NAMES)


@dataclass(frozen=True, kw_only=True)
class Order:
    """One execution to be asked for."""

    shape: str
    pins: dict[str, str]
    # By job: attempts, retried when lost, deadline after so many milliseconds (0: none).
    rules: list[tuple[int, bool, int]]
    controls: list[Control]
    stop_policy: bool
    # Jobs that could be instances of one job share one place.
    shares: bool
    # Of the list of a map.
    items: int

    def spec(self, gentle: bool) -> ExecutionSpec:
        names, edges, deliver = SHAPES[self.shape]
        sharing = SHARING.get(self.shape, "") if self.shares else ""
        jobs = [
            JobSpec(
                node_id=name,
                workflow_job_id=10 + index,
                pinned=name in self.pins,
                attempts=attempts,
                retry_lost=retry_lost,
                deadline_at=Millis(START + deadline) if deadline and not gentle else None,
                when=control.when,
                needs=control.needs(names, index),
                continue_on_failure=control.continue_on_failure,
                queue_timeout=None if gentle else control.queue_timeout,
                start_timeout=None if gentle else control.queue_timeout,
                transfer_timeout=None if gentle else control.transfer_timeout,
                places="shared" if name in sharing and self.shape not in MAPS else "",
                max_parallel=1 if name in sharing else 0,
            )
            for index, (name, (attempts, retry_lost, deadline), control) in enumerate(
                zip(names, self.rules, self.controls, strict=False)
            )
        ]
        spec = spec_of(jobs, edges, deliver, PARAMS)
        return with_map(spec, *MAPS[self.shape]) if self.shape in MAPS else spec


def orders() -> st.SearchStrategy[Order]:
    rules = st.tuples(st.sampled_from([1, 2, 3]), st.booleans(), st.sampled_from([0, 0, 0, 0, 0, 600, 4000]))
    return st.builds(
        Order,
        shape=st.sampled_from(sorted(SHAPES)),
        pins=st.dictionaries(st.sampled_from("abcd"), machines, max_size=1),
        rules=st.lists(rules, min_size=4, max_size=4),
        controls=st.just([PLAIN] * 4) | st.lists(controls(), min_size=4, max_size=4),
        stop_policy=st.booleans(),
        shares=st.booleans(),
        items=st.sampled_from([0, 1, 2, 3, 3, -1]),
    )


class Faults(RuleBasedStateMachine):
    """Everything may go wrong."""

    gentle = False

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        COUNTS["sequences"] += 1

    # What is asked for

    @initialize(orders=st.lists(orders(), min_size=1, max_size=2))
    def requested(self, orders: list[Order]) -> None:
        for home, order in zip(NAMES, orders, strict=False):
            self.fleet.request(
                home,
                order.spec(self.gentle),
                order.pins,
                stop_policy=order.stop_policy and not self.gentle,
                items=max(0, order.items) if self.gentle else order.items,
            )

    @precondition(lambda self: not self.gentle)
    @rule(number=numbers, sure=st.booleans())
    def cancel(self, number: int, sure: bool) -> None:
        execution = self.fleet.executions[number % len(self.fleet.executions)]
        if sure and not execution.home.network.hosts[execution.home.name].down:
            execution.happens(e.CancelRequested(reason="enough", at=self.fleet.network.now))

    # What goes on

    @rule(rounds=st.integers(1, 6))
    def goes_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self.fleet.flow()

    @rule(rounds=st.integers(1, 6))
    def goes_on_with_time(self, rounds: int) -> None:
        for _ in range(rounds):
            self.fleet.flow()
            self.fleet.pass_time(50)

    @rule(which=st.lists(numbers, min_size=1, max_size=5))
    def works(self, which: list[int]) -> None:
        for number in which:
            if steps := self.fleet.steps():
                steps[number % len(steps)]()

    @rule(number=numbers, how=st.sampled_from(["ok", "ok", "ok", "fail", "vanished"]))
    def exits(self, number: int, how: str) -> None:
        if running := self.fleet.running():
            executor, attempt_id = running[number % len(running)]
            executor.exits(attempt_id, "ok" if self.gentle else how)

    @rule(millis=st.sampled_from([50, 50, 250, 400]))
    def time_passes(self, millis: int) -> None:
        self.fleet.pass_time(millis)

    @precondition(lambda self: not self.gentle)
    @rule(millis=st.sampled_from([1200, 1200, 5000]))
    def much_time_passes(self, millis: int) -> None:
        self.fleet.pass_time(millis)

    # The network

    @rule(which=st.lists(numbers, min_size=1, max_size=5))
    def arrive(self, which: list[int]) -> None:
        for number in which:
            if wire := self.fleet.network.wire:
                self.fleet.deliver(number % len(wire))

    @rule(number=numbers)
    def arrives_twice(self, number: int) -> None:
        if wire := self.fleet.network.wire:
            self.fleet.deliver(number % len(wire), keep=True)

    @rule(which=st.lists(numbers, min_size=1, max_size=3), noticed=st.booleans())
    def are_lost(self, which: list[int], noticed: bool) -> None:
        for number in which:
            if wire := self.fleet.network.wire:
                self.fleet.network.lose(number % len(wire), noticed=noticed)

    @rule(rounds=st.integers(1, 4))
    def arrive_backwards(self, rounds: int) -> None:
        for _ in range(rounds):
            for index in reversed(range(len(self.fleet.network.wire))):
                self.fleet.deliver(index)
            for step in self.fleet.steps():
                step()

    @rule(number=numbers)
    def is_late(self, number: int) -> None:
        if wire := self.fleet.network.wire:
            wire.append(wire.pop(number % len(wire)))

    @rule(source=machines, to=machines, both=st.booleans())
    def is_cut(self, source: str, to: str, both: bool) -> None:
        if source != to:
            self.fleet.network.cuts |= {(source, to), (to, source)} if both else {(source, to)}

    @rule()
    def is_mended(self) -> None:
        self.fleet.network.cuts.clear()

    @rule(name=machines, millis=st.sampled_from([400, 700, 1200, 1200]), one_way=st.sampled_from(["", "to", "from"]))
    def is_cut_off_for_a_while(self, name: str, millis: int, one_way: str) -> None:
        """The others go on without it; it goes on by itself."""
        others = [other for other in NAMES if other != name]
        to, back = {(other, name) for other in others}, {(name, other) for other in others}
        cuts = {"to": to, "from": back}.get(one_way, to | back)
        self.fleet.network.cuts |= cuts
        for _ in range(0, 400 if self.gentle else millis, 100):
            self.fleet.flow()
            self.fleet.pass_time(100)
        self.fleet.network.cuts -= cuts

    # Machines

    @precondition(lambda self: not self.gentle)
    @rule(name=machines, millis=st.sampled_from([400, 1200]))
    def is_stopped_for_a_while(self, name: str, millis: int) -> None:
        """It comes back with what it knew before, and with the processes that went on."""
        self.fleet.machines[name].pause()
        for _ in range(0, millis, 100):
            self.fleet.flow()
            self.fleet.pass_time(100)
        self.fleet.machines[name].host.paused = False

    @rule(name=machines, reboot=st.booleans())
    def crashes(self, name: str, reboot: bool) -> None:
        self.fleet.machines[name].crash(reboot=reboot and not self.gentle)

    @rule(name=machines)
    def restarts(self, name: str) -> None:
        self.fleet.machines[name].restart()

    @rule(name=machines, reboot=st.booleans())
    def restarts_at_once(self, name: str, reboot: bool) -> None:
        self.fleet.machines[name].crash(reboot=reboot and not self.gentle)
        self.fleet.machines[name].restart()

    @rule(name=machines)
    def is_stopped(self, name: str) -> None:
        self.fleet.machines[name].pause()

    @rule(name=machines)
    def is_continued(self, name: str) -> None:
        self.fleet.machines[name].host.paused = False

    @precondition(lambda self: not self.gentle)
    @rule(name=machines, why=st.sampled_from([None, Reason.MAINTENANCE, Reason.ILLEGAL_INTERFACE, Reason.OVERLOADED]))
    def refuses(self, name: str, why: Reason | None) -> None:
        self.fleet.machines[name].executor.refuses = why
        self.fleet.model.refusals |= why is not None

    # What must be so

    @invariant()
    def model_and_engine_agree(self) -> None:
        COUNTS["steps"] += 1
        for execution in self.fleet.executions:
            self.fleet.model.check(execution)

    def teardown(self) -> None:
        self.fleet.settle()
        self.model_and_engine_agree()
        assert not self.fleet.running()
        for execution in self.fleet.executions:
            assert execution.state.status.final
            for node, job in execution.state.jobs.items():
                effects = [x for x in self.fleet.model.effects.values() if x.name == (execution.home.name, node)]
                well = [x for x in effects if x.how == "ok"]
                if job.status is WorkflowJobStatus.COMPLETED and job.spec.mapped is None:
                    assert sum(x.placement == job.placement for x in well) == 1
                if not job.spec.retry_lost:
                    assert len(well) <= 1, f"{node} was done {len(well)} times"


class Gentle(Faults):
    """Whatever the network and the daemons do, if no work fails and nobody cancels: done, each job exactly once."""

    gentle = True

    def teardown(self) -> None:
        super().teardown()
        for execution in self.fleet.executions:
            if any(lacks_its_list(execution.state, job) for job in execution.state.jobs.values()):
                continue
            assert execution.state.status is ExecutionStatus.COMPLETED, execution.state.error
            if not any(job.spec.retry_lost for job in execution.state.jobs.values()):
                done = [x.name for x in self.fleet.model.effects.values() if x.name[0] == execution.home.name]
                jobs = execution.state.jobs.values()
                skipped = [x for x in jobs if x.status is WorkflowJobStatus.SKIPPED or x.spec.mapped is not None]
                assert len(done) == len(set(done)) == len(execution.state.jobs) - len(skipped)


def lacks_its_list(state: ExecutionState, job: JobState) -> bool:
    """A map that is to run although the job that makes its list was skipped: ``when: always()``."""
    mapped = job.spec.mapped
    return mapped is not None and job.reason == "map" and state.jobs[mapped.list_source].gives_nothing


HOW = settings(
    max_examples=200,
    stateful_step_count=40,
    report_multiple_bugs=False,
    derandomize=True,  # the same in each run; scripts/model goes on with other seeds
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
# Always the same sequences here, so that a change is judged by itself; scripts/model looks for new ones.
TestFaults = Faults.TestCase
TestFaults.settings = settings(HOW, derandomize=True)
TestGentle = Gentle.TestCase
TestGentle.settings = settings(HOW, derandomize=True, max_examples=100)
