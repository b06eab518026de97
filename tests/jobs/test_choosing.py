"""Which ready jobs start: nothing over-committed, order by priority, shares between orchestrators, nobody starved."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.clock import Millis
from peerd.jobs.choosing import Capacity, Choice, Running, Turn, Waiting, choose
from peerd.jobs.model import Resources

NOW = Millis(1_000_000)
FOUR = Capacity(slots=8, resources=Resources(cpus=4, memory_bytes=1000, disk_bytes=1000, gpus=1))


def wants(number: int, orchestrator: str = "a", *, cpus: float = 1, priority: int = 0, **more: object) -> Waiting:
    fields = {"service_id": None, "since": NOW, "needs": Resources(cpus=cpus), **more}
    return Waiting(id=number, orchestrator=orchestrator, priority=priority, **fields)  # type: ignore[arg-type]


def runs(
    orchestrator: str = "a", *, cpus: float = 1, since: int = NOW - 1000, service_id: int | None = None
) -> Running:
    return Running(orchestrator=orchestrator, service_id=service_id, needs=Resources(cpus=cpus), since=Millis(since))


def pick(
    running: list[Running], ready: list[Waiting], capacity: Capacity = FOUR, turns: dict[str, Turn] | None = None
) -> Choice:
    return choose(running, ready, capacity, turns=turns or {}, now=NOW)


def test_the_oldest_first_and_only_what_fits_with_the_reason_of_the_rest() -> None:
    choice = pick([runs(cpus=2)], [wants(3), wants(1), wants(2)])
    assert choice.start == (1, 2)
    assert choice.waits[3].reason == "cpus"
    assert choice.waits[3].message == "waits for 1 cpus: 4 of 4 are taken"


def test_a_higher_priority_comes_first_whoever_ordered_it() -> None:
    choice = pick([], [wants(1), wants(2, "b", priority=5), wants(3, priority=-1), wants(4, priority=100)])
    assert choice.start == (4, 2, 1, 3)


def test_within_a_priority_the_smaller_share_comes_first_then_the_turn() -> None:
    ready = [wants(number, "a" if number < 50 else "b") for number in (1, 2, 3, 51, 52, 53)]
    assert pick([], ready).start == (1, 51, 2, 52)
    assert pick([runs("a", cpus=2)], ready).start == (51, 52)
    turns = {"a": Turn(number=9, at=NOW), "b": Turn(number=8, at=NOW)}
    one = replace(FOUR, slots=1)
    assert pick([], ready, one, turns).start == (51,)


def test_with_one_place_to_run_they_take_turns_over_restarts() -> None:
    ready = {number: wants(number, "a" if number <= 10 else "b") for number in range(1, 21)}
    turns: dict[str, Turn] = {}
    order = []
    for number in range(1, 21):
        (started,) = pick([], list(ready.values()), replace(FOUR, slots=1), turns).start
        turns[ready.pop(started).orchestrator] = Turn(number=number, at=NOW)
        order.append(started)
    assert order == [number for pair in zip(range(1, 11), range(11, 21), strict=True) for number in pair]


def test_a_large_job_is_not_starved_by_small_ones() -> None:
    large = wants(1, cpus=4)
    choice = pick([runs("b")], [large, wants(2, "b"), wants(3, "b", cpus=0)])
    assert choice.start == (3,), "what takes nothing that it needs may start"
    assert choice.waits[1].reason == "cpus"
    assert (choice.waits[2].reason, choice.waits[2].message) == (
        "reserved", "waits behind job execution 1, which waits for 4 cpus",
    )  # fmt: skip
    beside = pick(
        [runs("b")], [replace(large, needs=Resources(cpus=3.5)), wants(2, "b", cpus=0.5), wants(3, "b", cpus=0.5)]
    )
    assert beside.start == (2,), "what leaves it its room may start, and no more"


def test_a_job_larger_than_what_the_machine_has_now_keeps_nobody_waiting() -> None:
    choice = pick([], [wants(1, needs=Resources(disk_bytes=5000)), wants(2)])
    assert choice.start == (2,)
    assert choice.waits[1].reason == "disk"


def test_a_service_runs_no_more_than_it_may_and_keeps_no_other_waiting() -> None:
    ready = [wants(number, service_id=7, max_concurrent=2) for number in (1, 2)] + [wants(3, service_id=8)]
    choice = pick([runs(service_id=7)], ready)
    assert choice.start == (1, 3)
    assert choice.waits[2].reason == "service_limit"


def test_an_orchestrator_without_a_start_for_a_minute_comes_before_every_priority() -> None:
    high = [wants(number, priority=100) for number in range(1, 9)]
    low = wants(9, "b", priority=-100, since=NOW - 60_000)
    assert pick([], [*high, low]).start == (9, 1, 2, 3)
    assert 9 not in pick([], [*high, replace(low, since=Millis(NOW - 59_999))]).start
    lately = {"b": Turn(number=1, at=Millis(NOW - 10))}
    assert 9 not in pick([], [*high, low], turns=lately).start
    assert 9 not in pick([runs("b")], [*high, low]).start


def test_tenths_of_a_cpu_add_up() -> None:
    ready = [wants(number, cpus=0.1) for number in range(1, 12)]
    assert len(pick([], ready, Capacity(slots=20, resources=Resources(cpus=1))).start) == 10


amounts = st.builds(
    Resources,
    cpus=st.sampled_from([0, 0.1, 0.5, 1, 2, 4]),
    memory_bytes=st.sampled_from([0, 1, 100, 1000]),
    disk_bytes=st.sampled_from([0, 10, 1000, 2000]),
    gpus=st.integers(0, 2),
)
waiting = st.builds(
    Waiting,
    id=st.integers(1, 10_000),
    orchestrator=st.sampled_from("abc"),
    service_id=st.none() | st.integers(1, 2),
    needs=amounts,
    priority=st.integers(-100, 100),
    since=st.integers(0, NOW),
    max_concurrent=st.integers(0, 3),
)
small = st.builds(Resources, cpus=st.sampled_from([0, 0.1, 1]), memory_bytes=st.sampled_from([0, 100]))
working = st.builds(
    Running,
    orchestrator=st.sampled_from("abc"),
    service_id=st.none() | st.integers(1, 2),
    needs=small,
    since=st.integers(0, NOW),
)


@given(st.lists(working, max_size=4), st.lists(waiting, max_size=30, unique_by=lambda job: job.id), st.integers(1, 10))
def test_nothing_is_over_committed_and_everybody_gets_an_answer(
    running: list[Running], ready: list[Waiting], slots: int
) -> None:
    capacity = replace(FOUR, slots=slots)
    choice = pick(running, ready, capacity)
    by_id = {job.id: job for job in ready}
    started = [by_id[number] for number in choice.start]
    assert set(choice.start) | set(choice.waits) == set(by_id)
    assert not set(choice.start) & set(choice.waits)
    assert len(running) + len(started) <= max(slots, len(running))
    for field in ("cpus", "memory_bytes", "disk_bytes", "gpus"):
        before = sum(getattr(job.needs, field) for job in running)
        after = before + sum(getattr(job.needs, field) for job in started)
        assert after <= max(before, getattr(capacity.resources, field)) + 1e-9
    everything: list[Running | Waiting] = [*running, *started]
    counts = Counter(job.service_id for job in everything)
    for job in started:
        assert (
            not job.service_id
            or not job.max_concurrent
            or counts[job.service_id]
            <= max(other.max_concurrent or 1000 for other in started if other.service_id == job.service_id)
        )
    assert pick(running, list(reversed(ready)), capacity) == choice, "the order of rows does not matter"


@settings(max_examples=60)
@given(st.data())
def test_whatever_comes_no_job_that_fits_the_machine_waits_for_ever(data: st.DataObject) -> None:
    """Others order small jobs of the highest priority without end; one large job of the lowest comes to run."""
    needs = data.draw(st.builds(Resources, cpus=st.integers(1, 4), memory_bytes=st.sampled_from([0, 500, 1000])))
    lasts = st.integers(1, 5)
    large = wants(1, "victim", needs=needs, priority=-100, since=Millis(0))
    ready = [large]
    turns: dict[str, Turn] = {}
    ends: list[tuple[int, Running]] = []
    now, number = 0, 1
    for _ in range(60):
        now += 10_000
        ends = [(until, job) for until, job in ends if until > now]
        for orchestrator in "ab":
            for _ in range(4):
                number += 1
                ready.append(wants(number, orchestrator, needs=data.draw(small), priority=100, since=Millis(now)))
        choice = choose([job for _, job in ends], ready, FOUR, turns=turns, now=Millis(now))
        if 1 in choice.start:
            return
        for each in [job for job in ready if job.id in choice.start]:
            turns[each.orchestrator] = Turn(number=each.id, at=Millis(now))
            begun = Running(orchestrator=each.orchestrator, service_id=None, needs=each.needs, since=Millis(now))
            ends.append((now + 10_000 * data.draw(lasts), begun))
            ready.remove(each)
    raise AssertionError(f"{large} was starved")
