"""Whatever the network and the machines do, the engine keeps its laws, and ends once the faults stop."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.clock import Millis
from peerd.workflows import events as e
from peerd.workflows.model import ExecutionStatus, JobSpec, JobStatus, WorkflowJobStatus
from peerd.workflows.state import JobState, durable_view

from .controls import CONDITIONS, PARAMS, PLAIN, controls, holds, upstream
from .simulation import START, World, replay, spec_of, with_map

SHAPES = {
    "single": (["a"], [], ["a"]),
    "chain": (["a", "b", "c"], [("a", "b"), ("b", "c")], ["c"]),
    "fan out": (["a", "b", "c"], [("a", "b"), ("a", "c")], ["b", "c"]),
    "fan in": (["a", "b", "c"], [("a", "c"), ("b", "c")], ["c"]),
    "diamond": (["a", "b", "c", "d"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], ["d", "a"]),
    "two islands": (["a", "b", "c"], [("a", "b")], ["b", "c"]),
    "double edge": (["a", "b"], [("a", "b"), ("a", "b")], []),
    "map": (["a", "b", "m", "z"], [("b", "m"), ("m", "z"), ("b", "z")], ["z", "m"]),
}
# In place of the first there is a map over a list that the second makes.
MAPS = {"map": ("m", "a")}

# Jobs that share one place, as instances of one job with max_parallel do.
SHARING = {"fan out": "bc", "fan in": "ab", "diamond": "bc", "two islands": "ac", "map": "m"}

ACTIONS = ["deliver"] * 6 + ["double", "lose", "work", "work", "work", "work", "tell", "tell"]
RARE = ["down", "up", "crash", "wait", "long wait", "fail", "lose job", "forget", "cancel", "late report"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    shape = draw(st.sampled_from(sorted(SHAPES)))
    names, edges, deliver = SHAPES[shape]
    sharing = SHARING.get(shape, "") if draw(st.booleans()) else ""
    drawn = draw(st.just([PLAIN] * 4) | st.lists(controls(), min_size=4, max_size=4))
    jobs = [
        JobSpec(
            node_id=name,
            workflow_job_id=10 + index,
            pinned=draw(st.booleans()),
            attempts=draw(st.integers(1, 3)),
            retry_lost=draw(st.booleans()),
            deadline_at=draw(st.sampled_from([None, None, None, Millis(START + 800)])),
            when=control.when,
            needs=control.needs(names, index),
            continue_on_failure=control.continue_on_failure,
            queue_timeout=control.queue_timeout,
            transfer_timeout=control.transfer_timeout,
            places="shared" if name in sharing and shape not in MAPS else "",
            max_parallel=1 if name in sharing else 0,
        )
        for index, (name, control) in enumerate(zip(names, drawn, strict=False))
    ]
    spec = spec_of(jobs, edges, deliver, PARAMS)
    if shape in MAPS:
        spec = with_map(spec, *MAPS[shape])
    return World(spec, ["p", "q", "r"][: draw(st.integers(1, 3))], items=draw(st.sampled_from([0, 1, 2, 3, 3, -1])))


def act(world: World, action: str, number: int) -> None:
    executors = list(world.executors.values())
    executor = executors[number % len(executors)]
    held = [(x, job) for x in executors for job in x.jobs.values() if not x.down]
    anywhere = [(x, job) for x in executors for job in x.jobs.values()]
    index = number % len(world.wire) if world.wire else 0
    match action:
        case "deliver" | "double" if world.wire:
            world.deliver(index, keep=action == "double")
        case "lose" if world.wire:
            world.lost(index=index)
        case "work" | "fail" | "lose job" if anywhere:  # a machine that is cut off works on
            where, job = anywhere[number % len(anywhere)]
            world.work(where, job, {"fail": 1, "lose job": 2}.get(action, 0))
        case "tell" if held:
            world.tell(*held[number % len(held)])
        case "late report" if held:
            where, job = held[number % len(held)]
            world.happens(e.JobReported(node=job.node, placement=job.placement, report=job.report(), at=world.now))
        case "down" | "up":
            world.set_down(executor, action == "down")
        case "crash":
            world.crash()
        case "wait":
            world.pass_time(60)
        case "long wait":
            world.pass_time(1500)
        case "forget" if held:
            # An executor forgets when an older store of it is restored: calls under way to it end with its life.
            where, job = held[number % len(held)]
            del where.jobs[job.node, job.placement]
            world.break_calls(where)
            world.happens(e.JobLost(node=job.node, placement=job.placement, message="unknown", at=world.now))
        case "cancel" if number % 4 == 0:
            world.happens(e.CancelRequested(reason="enough", at=world.now))


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    world=worlds(),
    steps=st.lists(
        st.tuples(st.sampled_from(ACTIONS * 4 + RARE), st.integers(0, 1000)),
        max_size=150,
    ),
)
def test_every_execution_keeps_the_laws_and_ends(world: World, steps: list[tuple[str, int]]) -> None:
    for action, number in steps:
        act(world, action, number)
    world.settle()
    assert durable_view(replay(world.spec, world.log)) == durable_view(world.state)
    check_truth(world)


def check_truth(world: World) -> None:
    """What the orchestrator says at the end is what the executors hold."""
    for node, job in world.state.jobs.items():
        held = world.executors[job.peer].jobs.get((node, job.placement)) if job.peer else None
        if job.status is WorkflowJobStatus.COMPLETED:
            assert held is None or held.status is JobStatus.COMPLETED
        elif held is not None:
            assert held.status.final, f"{node} still lives on {job.peer}"
        check_gate(world, job)
    statuses = [job.status for job in world.state.jobs.values()]
    match world.state.status:
        case ExecutionStatus.COMPLETED:
            assert not any(job.failed_for_good for job in world.state.jobs.values())
            assert WorkflowJobStatus.CANCELLED not in statuses
            home = [x for x in world.state.edges.values() if x.brought_home]
            for edge in home:
                done = world.state.jobs[edge.spec.source].status is WorkflowJobStatus.COMPLETED
                assert (edge.status.value == "delivered") == done
        case ExecutionStatus.FAILED:
            assert any(job.failed_for_good for job in world.state.jobs.values())
            assert not world.state.cancel
        case _:
            assert world.state.cancel


def check_gate(world: World, job: JobState) -> None:
    """Whoever has conditions ran exactly if they held."""
    spec = job.spec
    if world.state.cancel or job.reason in ("timeout", "refused", "transfer", "map"):
        return
    if spec.instance_of:
        assert world.state.jobs[spec.instance_of].status is WorkflowJobStatus.COMPLETED
        return
    above = [world.state.jobs[name] for name in upstream(world.state, spec)]
    ends = [(one.status, one.spec.continue_on_failure) for one in above]
    ran = job.reason != "upstream_failed" and job.status is not WorkflowJobStatus.SKIPPED
    if spec.when or spec.needs or job.gated:
        assert ran == holds(spec.when, ends), (spec, ends)
    if job.status is WorkflowJobStatus.SKIPPED:
        assert CONDITIONS[spec.when] is False or job.reason == "when"


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    steps=st.lists(st.tuples(st.sampled_from([*ACTIONS, "crash"]), st.integers(0, 1000)), max_size=150),
)
def test_without_lost_machines_every_job_runs_exactly_once(shape: str, steps: list[tuple[str, int]]) -> None:
    spec = spec_of(*SHAPES[shape])
    world = World(with_map(spec, *MAPS[shape]) if shape in MAPS else spec, ["p", "q"], items=3)
    for action, number in steps:
        act(world, action, number)
    world.settle()
    assert world.state.status is ExecutionStatus.COMPLETED
    runs = dict.fromkeys(world.state.jobs, 0)
    for executor in world.executors.values():
        for (node, _), job in executor.jobs.items():
            runs[node] += job.runs
    assert runs == {node: int(job.spec.mapped is None) for node, job in world.state.jobs.items()}
