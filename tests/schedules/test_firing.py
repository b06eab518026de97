"""What fires when: restarts, pauses, clocks that are set, overlap, changes. Never twice for one planned time."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

import pytest

from peerd import metrics
from peerd.errors import PeerdError, Reason
from peerd.schedules import repository
from peerd.schedules.model import FiringStatus
from peerd.schedules.wire import to_firing
from peerd.v1 import schedules_pb2, workflows_pb2

from .conftest import Make
from .machine import NEW_YORK, ZURICH, Machine, at

DAY = 86_400


async def test_a_stored_definition_fires_at_its_times_and_says_what_started_each_execution(machine: Make) -> None:
    made = await machine(at("2026-06-01 00:00", ZURICH))
    await made.put(
        "30 2 * * *", declared={"day": "", "at": ""}, params={"day": "${schedule.date}", "at": "x ${schedule.time}"}
    )
    await made.run_until(at("2026-06-03 12:00", ZURICH))
    assert await made.fired() == [f"06-0{n}T02:30:00+02:00" for n in (1, 2, 3)]
    assert await made.executions() == [f"schedule w, planned for 2026-06-0{n}T02:30:00+02:00" for n in (1, 2, 3)]
    assert made.params[2] == {"day": "2026-06-02", "at": "x 2026-06-02T02:30:00+02:00"}


@pytest.mark.parametrize(
    ("zone", "cron", "start", "end", "expected"),
    [
        # The hour that does not exist: what was planned in it comes at its end, once.
        (
            ZURICH,
            "30 2 * * *",
            "2026-03-28 12:00",
            "2026-03-30 12:00",
            ["03-29T03:00:00+02:00", "03-30T02:30:00+02:00"],
        ),
        (ZURICH, "15,45 2 * * *", "2026-03-28 12:00", "2026-03-29 12:00", ["03-29T03:00:00+02:00"]),
        (ZURICH, "0 2,3 * * *", "2026-03-28 12:00", "2026-03-29 12:00", ["03-29T03:00:00+02:00"]),
        (
            NEW_YORK,
            "30 2 * * *",
            "2026-03-07 12:00",
            "2026-03-09 12:00",
            ["03-08T03:00:00-04:00", "03-09T02:30:00-04:00"],
        ),
        # The hour that comes twice: what was planned in it comes the first time only.
        (
            ZURICH,
            "30 2 * * *",
            "2026-10-24 12:00",
            "2026-10-26 12:00",
            ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"],
        ),
        (
            NEW_YORK,
            "30 1 * * *",
            "2026-10-31 12:00",
            "2026-11-02 12:00",
            ["11-01T01:30:00-04:00", "11-02T01:30:00-05:00"],
        ),
        # With a star the real hours count: every hour there is, and no other.
        (
            ZURICH,
            "30 * * * *",
            "2026-03-29 00:45",
            "2026-03-29 04:45",
            ["03-29T01:30:00+01:00", "03-29T03:30:00+02:00", "03-29T04:30:00+02:00"],
        ),
        (
            ZURICH,
            "30 * * * *",
            "2026-10-25 00:45",
            "2026-10-25 03:45",
            ["10-25T01:30:00+02:00", "10-25T02:30:00+02:00", "10-25T02:30:00+01:00", "10-25T03:30:00+01:00"],
        ),
        (
            NEW_YORK,
            "*/30 1 * * *",
            "2026-11-01 00:45",
            "2026-11-01 03:00",
            [
                "11-01T01:00:00-04:00",
                "11-01T01:30:00-04:00",
                "11-01T01:00:00-05:00",
                "11-01T01:30:00-05:00",
            ],
        ),
        (
            ZURICH,
            "0 */2 * * *",
            "2026-03-28 23:00",
            "2026-03-29 05:00",
            ["03-29T00:00:00+01:00", "03-29T04:00:00+02:00"],
        ),
        (
            ZURICH,
            "0 */2 * * *",
            "2026-10-25 01:00",
            "2026-10-25 05:00",
            ["10-25T02:00:00+02:00", "10-25T02:00:00+01:00", "10-25T04:00:00+01:00"],
        ),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
async def test_daylight_saving_changes_are_kept_as_documented(
    machine: Make, zone: str, cron: str, start: str, end: str, expected: list[str], restarts: bool
) -> None:
    made = await machine(at(start, zone))
    await made.put(cron, zone)
    rng = random.Random(f"{cron} {zone} {start}")
    while made.clock.now() < at(end, zone):
        if restarts:
            await made.restart(down=rng.uniform(0, 50))
            await made.end_all()
        await made.run_until(min(at(end, zone), made.clock.now() + 420_000), step=30)
    assert [(local, status) for local, status in await made.seen()] == [(local, "fired") for local in expected]
    assert len(await made.executions()) == len(expected)


@pytest.mark.parametrize(
    ("catch_up", "more", "fired", "missed"),
    [
        ("none", {}, [], {"paused": 8}),
        ("last", {}, ["06-03T06:00:00+02:00"], {"paused": 7}),
        (
            "all",
            {"catch_up_limit": 3},
            [f"06-0{d}T{h}:00:00+02:00" for d, h in ((2, 18), (3, "00"), (3, "06"))],
            {"catch_up_limit": 5},
        ),
        ("all", {}, None, {}),
    ],
)
async def test_a_pause_of_two_days_is_caught_up_as_the_rule_says(
    machine: Make, catch_up: str, more: dict[str, Any], fired: list[str] | None, missed: dict[str, int]
) -> None:
    made = await machine(at("2026-06-01 07:00", ZURICH))
    await made.put("0 */6 * * *", catch_up=catch_up, overlap="queue", **more)
    await made.store.write(lambda tx: made.schedules.pause(tx, "w", "the disk is full"))
    await made.run_until(at("2026-06-02 09:00", ZURICH), step=600)
    await made.restart(down=3600)
    await made.run_until(at("2026-06-03 07:00", ZURICH), step=600)
    assert await made.seen() == []
    await made.store.write(lambda tx: made.schedules.resume(tx, "w", skip_missed=False))
    await made.run_until(at("2026-06-03 11:00", ZURICH))
    everything = [f"06-0{d}T{h:02}:00:00+02:00" for d in (1, 2, 3) for h in (0, 6, 12, 18)][2:10]
    assert [local for local, _ in await made.seen()] == everything
    assert await made.fired() == (everything if fired is None else fired)
    reasons = [firing.reason for firing in await made.firings() if firing.status is FiringStatus.MISSED]
    assert {reason: reasons.count(reason) for reason in reasons} == missed
    await made.run_until(at("2026-06-03 13:00", ZURICH))
    assert (await made.fired())[-1] == "06-03T12:00:00+02:00"


async def test_whoever_resumes_may_want_nothing_of_what_was_missed(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:00", ZURICH))
    await made.put("0 * * * *", catch_up="all")
    await made.store.write(lambda tx: made.schedules.pause(tx, "w", ""))
    await made.run_until(at("2026-06-01 10:30", ZURICH))
    await made.store.write(lambda tx: made.schedules.resume(tx, "w", skip_missed=True))
    await made.run_until(at("2026-06-01 11:30", ZURICH))
    assert [status for _, status in await made.seen()] == ["missed", "missed", "missed", "fired"]
    assert {firing.reason for firing in await made.firings()} == {"skipped", ""}


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", ["missed", "missed", "missed", "fired"]),
        ("last", ["missed", "missed", "fired", "fired"]),
        ("all", ["fired", "fired", "fired", "fired"]),
    ],
)
@pytest.mark.parametrize("forward", ["the daemon was down", "the clock was set"])
async def test_what_was_missed_while_nobody_looked_is_caught_up_as_the_rule_says(
    machine: Make, catch_up: str, expected: list[str], forward: str
) -> None:
    made = await machine(at("2026-06-01 07:30", ZURICH))
    await made.put("0 * * * *", catch_up=catch_up, overlap="allow")
    if forward == "the daemon was down":
        await made.restart(down=3 * 3600)
    else:
        made.clock.set(3 * 3600)
        await made.ticker.look()
    await made.run_until(at("2026-06-01 11:30", ZURICH))
    assert [status for _, status in await made.seen()] == expected
    assert len(await made.executions()) == expected.count("fired")


async def test_a_restart_within_the_minute_misses_nothing(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59:30"))
    await made.put("0 * * * *", "UTC", catch_up="none")
    await made.restart(down=80)
    assert await made.fired() == ["06-01T08:00:00+00:00"]
    made.clock.advance(3600 + 45)
    await made.ticker.look()
    assert [status for _, status in await made.seen()] == ["fired", "missed"]


async def test_a_clock_that_is_set_back_fires_nothing_twice(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC")
    await made.run_until(at("2026-06-01 10:30"))
    made.clock.set(-2 * 3600)
    await made.restart()
    await made.run_until(at("2026-06-01 11:30"))
    assert await made.fired() == [f"06-01T{h:02}:00:00+00:00" for h in (8, 9, 10, 11)]
    assert len(await made.executions()) == 4


async def test_after_a_clock_was_years_ahead_a_resume_starts_from_now_and_repeats_nothing(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC")
    await made.run_until(at("2026-06-01 09:30"))
    made.clock.set(3 * 365 * DAY)
    await made.ticker.look()  # many thousand were missed
    assert len(await made.seen()) <= 1002
    summary = next(firing for firing in await made.firings() if firing.missed_since is not None)
    assert (
        summary.missed_since == at("2026-06-01 10:00") and "all planned times from 2026-06-01T10:00" in summary.message
    )
    made.clock.set(-3 * 365 * DAY - 3600)
    await made.end_all()
    await made.run_until(at("2026-06-01 09:10"))
    before = len(await made.executions())
    await made.store.write(lambda tx: made.schedules.resume(tx, "w", skip_missed=False))
    await made.run_until(at("2026-06-01 10:10"))
    assert (await made.executions())[before:] == ["schedule w, planned for 2026-06-01T10:00:00+00:00"]


async def test_a_look_that_comes_late_is_in_time_for_a_minute(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("*/30 * * * *", "UTC", catch_up="none")
    made.clock.advance(30 * 60 + 60)
    await made.ticker.look()
    made.clock.advance(30 * 60 + 1)
    await made.ticker.look()
    assert [status for _, status in await made.seen()] == ["fired", "missed"]


# Overlap


async def test_skip_leaves_out_what_would_overlap(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", overlap="skip")
    await made.run_until(at("2026-06-01 09:30"), ending=False)
    await made.end(1)
    await made.run_until(at("2026-06-01 10:30"), ending=False)
    assert [status for _, status in await made.seen()] == ["fired", "skipped_overlap", "fired"]
    assert (await made.firings())[1].message == "execution 1 had not ended, and overlap is skip"


async def test_queue_runs_one_after_the_other_in_order_and_over_restarts(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", overlap="queue")
    await made.run_until(at("2026-06-01 10:30"), ending=False)
    assert [status for _, status in await made.seen()] == ["fired", "queued", "queued"]
    assert (await made.firings())[1].message.startswith("waits for execution 1 to end")
    await made.restart()
    for number in (1, 2):
        assert len(await made.executions()) == number
        await made.end(number)
        await made.ticker.look()
        await made.ticker.look()
    assert await made.executions() == [
        f"schedule w, planned for 2026-06-01T{h}:00:00+00:00" for h in ("08", "09", "10")
    ]


async def test_of_a_queue_that_is_full_the_newest_are_skipped(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("* * * * *", "UTC", overlap="queue")
    await made.run_until(at("2026-06-01 09:30"), ending=False)
    states = [status for _, status in await made.seen()]
    assert (states.count("fired"), states.count("queued")) == (1, 100)
    assert states[-1] == "skipped_overlap" and (await made.firings())[-1].reason == "queue_full"


async def test_cancel_previous_lets_the_newest_run_once_the_others_have_ended(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", overlap="cancel_previous")
    await made.run_until(at("2026-06-01 10:30"), ending=False)
    assert [status for _, status in await made.seen()] == ["fired", "skipped_overlap", "queued"]
    assert set(made.cancelled) == {1} and (await made.firings())[1].reason == "replaced"
    await made.end(1)
    await made.ticker.look()
    assert [status for _, status in await made.seen()] == ["fired", "skipped_overlap", "fired"]


async def test_allow_looks_at_nothing(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", overlap="allow")
    await made.run_until(at("2026-06-01 10:30"), ending=False)
    assert [status for _, status in await made.seen()] == ["fired"] * 3


# What keeps one from starting


async def test_what_passes_is_tried_again_and_leaves_no_rows_meanwhile(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59"))
    await made.put("0 8 * * *", "UTC")
    made.refuse = PeerdError(Reason.OVERLOADED, "too much to do")
    await made.run_until(at("2026-06-01 08:10"), step=5)
    (firing,) = await made.firings()
    assert firing.status is FiringStatus.RETRYING and firing.reason == "overloaded" and firing.next_attempt_at
    assert 3 < firing.attempts < 12 and await made.executions() == []
    await made.restart()
    made.refuse = None
    await made.run_until(at("2026-06-01 08:20"))
    assert [firing.status for firing in await made.firings()] == [FiringStatus.FIRED]
    assert len(await made.executions()) == 1


@pytest.mark.parametrize("set_by", [-18_000, 18_000])
async def test_a_clock_that_is_set_gives_nothing_up_and_keeps_nothing_waiting(machine: Make, set_by: int) -> None:
    made = await machine(at("2026-06-01 07:59"))
    await made.put("0 8 * * *", "UTC")
    made.refuse = PeerdError(Reason.OVERLOADED, "too much to do")
    await made.run_until(at("2026-06-01 08:02"), step=5)
    made.clock.set(set_by)
    for _ in range(24):
        made.clock.advance(5)
        await made.ticker.look()
    (firing,) = await made.firings()
    assert firing.status is FiringStatus.RETRYING and firing.next_attempt_at is not None
    wall = to_firing(await repository.read(made.store, "w"), firing, ahead=made.clock.steady() - made.clock.now())
    pause = (firing.next_attempt_at - made.clock.steady()) / 1000
    assert 0 < pause <= 300 and wall.next_attempt_at.ToMilliseconds() == made.clock.now() + pause * 1000
    made.refuse = None
    made.clock.advance(pause)
    await made.ticker.look()
    assert [firing.status for firing in await made.firings()] == [FiringStatus.FIRED]


async def test_what_does_not_pass_is_given_up(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59"))
    await made.put("0 8 * * *", "UTC")
    made.refuse = PeerdError(Reason.OVERLOADED, "too much to do")
    await made.run_until(at("2026-06-01 09:30"), step=30)
    (firing,) = await made.firings()
    assert firing.status is FiringStatus.FAILED and "given up" in firing.message
    made.refuse = PeerdError(Reason.INVALID_ARGUMENT, "no such thing")
    await made.run_until(at("2026-06-02 08:01"))
    assert ((await made.firings())[1].status, (await made.firings())[1].attempts) == (FiringStatus.FAILED, 1)
    made.refuse = PeerdError(Reason.GROUP_BUSY, "it waits for execution 7 of group g")
    await made.run_until(at("2026-06-03 08:01"))
    assert ((await made.firings())[2].status, (await made.firings())[2].reason) == (
        FiringStatus.SKIPPED_OVERLAP,
        "group_busy",
    )


async def test_a_workflow_that_uses_secrets_runs_by_no_schedule_whoever_stored_it(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59"))
    job = {"name": "a", "service": "s", "secrets": {"TOKEN": "token"}}
    schedule = {"cron": "0 8 * * *", "timezone": "UTC"}
    await made.store_definition({"name": "open", "schedule": schedule})
    await made.store_definition({"name": "secret", "schedule": schedule, "jobs": [job]})
    await made.run_until(at("2026-06-01 08:01"))
    (firing,) = await made.firings("secret")
    assert (firing.status, firing.reason) == (FiringStatus.FAILED, "secret_not_allowed")
    assert len(await made.executions()) == 1


async def test_a_workflow_that_is_gone_fails_and_the_other_schedules_go_on(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59"))
    await made.put("0 8 * * *", "UTC", name="gone")
    await made.put("0 8 * * *", "UTC", name="w")
    await made.store.write(lambda tx: tx.execute("DELETE FROM workflow_versions WHERE workflow_id = 1"))
    await made.run_until(at("2026-06-01 08:01"))
    (firing,) = await made.firings("gone")
    assert (firing.status, firing.reason) == (FiringStatus.FAILED, "not_found")
    assert await made.fired() == ["06-01T08:00:00+00:00"]


@pytest.mark.parametrize(
    "stored",
    [b"\xff\xff", workflows_pb2.ScheduleDefinition(cron="0 8 * * *", timezone="UTC", jitter="5n").SerializeToString()],
)
async def test_a_schedule_that_cannot_be_read_says_so_and_the_others_go_on(machine: Make, stored: bytes) -> None:
    made = await machine(at("2026-06-01 07:59"))
    await made.put("0 8 * * *", "UTC", name="broken")
    await made.put("0 8 * * *", "UTC", name="w")
    await made.store.write(
        lambda tx: tx.execute("UPDATE schedules SET definition = ? WHERE name = 'broken'", (stored,))
    )
    await made.restart()
    await made.run_until(at("2026-06-01 08:01"))
    assert await made.fired() == ["06-01T08:00:00+00:00"]
    with pytest.raises(PeerdError, match="cannot be used"):
        await made.store.write(lambda tx: made.schedules.trigger(tx, "broken", "me"))
    await made.put("0 9 * * *", "UTC", name="broken")  # storing it again mends it
    await made.run_until(at("2026-06-01 09:01"))
    assert await made.fired("broken") == ["06-01T09:00:00+00:00"]


# Changes


async def test_a_changed_expression_counts_from_the_change_on(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC")
    await made.run_until(at("2026-06-01 08:30"))
    await made.put("15 * * * *", "UTC")
    await made.run_until(at("2026-06-01 10:30"))
    assert await made.fired() == [f"06-01T{t}:00+00:00" for t in ("08:00", "09:15", "10:15")]
    await made.put("0 * * * *", "UTC")  # the first version again: what was stored last counts
    await made.run_until(at("2026-06-01 11:30"))
    assert (await made.fired())[-1] == "06-01T11:00:00+00:00"


async def test_what_was_planned_before_a_change_and_not_looked_at_is_missed(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", catch_up="all")
    made.clock.advance(2 * 3600)
    await made.put("0 0 * * *", "UTC", catch_up="all")
    await made.ticker.look()
    assert [(firing.status.value, firing.reason) for firing in await made.firings()] == [("missed", "changed")] * 2


async def test_another_rule_leaves_the_times_alone(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC")
    made.clock.advance(1800)
    await made.put("0 * * * *", "UTC", overlap="allow")
    await made.ticker.look()
    assert await made.fired() == ["06-01T08:00:00+00:00"]


async def test_a_definition_without_a_schedule_ends_it_and_one_made_by_request_stays(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC")
    request = schedules_pb2.PutScheduleRequest(
        name="mine", workflow="w", definition=workflows_pb2.ScheduleDefinition(cron="0 9 * * *")
    )
    await made.store.write(lambda tx: made.schedules.put(tx, request))
    with pytest.raises(AssertionError):  # there is none any more
        await made.store_definition({"name": "w"})
    await made.run_until(at("2026-06-01 09:30"))
    assert await made.executions() == ["schedule mine, planned for 2026-06-01T09:00:00+00:00"]
    request.name = "w"  # nor may the two be taken for each other
    await made.store.write(lambda tx: made.schedules.put(tx, request))
    with pytest.raises(PeerdError) as refused:
        await made.put("0 * * * *", "UTC")
    assert refused.value.reason is Reason.ALREADY_EXISTS


async def test_whether_it_is_paused_follows_the_definition_only_when_that_changes(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    assert (await made.put("0 * * * *", "UTC", paused=True)).paused_at
    await made.store.write(lambda tx: made.schedules.resume(tx, "w", skip_missed=False))
    assert not (await made.put("0 * * * *", "UTC", paused=True)).paused_at
    assert not (await made.put("0 * * * *", "UTC")).paused_at
    assert (await made.put("0 * * * *", "UTC", paused=True)).paused_at


async def test_a_trigger_runs_beside_the_plan_and_under_its_rules(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    await made.put("0 * * * *", "UTC", paused=True)
    first = await made.store.write(lambda tx: made.schedules.trigger(tx, "w", "me"))
    second = await made.store.write(lambda tx: made.schedules.trigger(tx, "w", "me"))
    assert (first.status, second.status) == (FiringStatus.FIRED, FiringStatus.SKIPPED_OVERLAP)
    assert await made.executions() == ["schedule w, triggered by me"]
    await made.put("0 * * * *", "UTC", paused=True, overlap="queue")
    third = await made.store.write(lambda tx: made.schedules.trigger(tx, "w", "me"))
    await made.end(1)
    await made.ticker.look()
    assert third.status is FiringStatus.QUEUED and len(await made.executions()) == 2


async def test_jitter_is_the_same_for_the_same_time_and_overtakes_nobody(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:59"))
    schedule = await made.put("* * * * *", "UTC", overlap="allow", jitter="10m")
    begins: dict[str, int] = {}
    while made.clock.now() < at("2026-06-01 09:00"):
        await made.run_until(made.clock.now() + 10_000, step=10)
        for local in await made.fired():
            begins.setdefault(local, made.clock.now())
    assert list(begins) == sorted(begins) and len(begins) > 45
    for local, seen in begins.items():
        planned = round(datetime.fromisoformat(f"2026-{local}").timestamp() * 1000)
        assert planned <= schedule.starts_at(planned) < planned + 600_000
        assert schedule.starts_at(planned) <= seen
    assert len({schedule.starts_at(p) - p for p in range(0, 6_000_000, 60_000)}) > 50


async def test_nothing_fires_twice_whatever_happens(machine: Make) -> None:
    """Clocks set to and fro, restarts, pauses, changes to another expression and back, triggers."""
    made = await machine(at("2026-03-28 20:00", ZURICH))
    rng = random.Random(3)
    crons = ("*/7 * * * *", "30 2 * * *", "0 */2 * * *")
    await made.put(crons[0], overlap="allow", catch_up="all")
    for _ in range(250):
        match rng.randint(0, 7):
            case 0:
                await made.restart(down=rng.expovariate(1 / 900))
            case 1:
                made.clock.set(rng.uniform(-5400, 5400))
            case 2:
                await made.put(rng.choice(crons), overlap="allow", catch_up=rng.choice(("none", "last", "all")))
            case 3:
                await made.store.write(lambda tx: made.schedules.pause(tx, "w", ""))
            case 4:
                await made.store.write(lambda tx: made.schedules.resume(tx, "w", skip_missed=rng.random() < 0.2))
            case _:
                await made.run_until(made.clock.now() + rng.randint(60_000, 1_800_000), step=60)
    started = await made.executions()
    assert len(started) > 50
    assert len(started) == len(set(started))
    planned = [local for local, _ in await made.seen()]
    assert len(planned) == len(set(planned))


async def test_a_look_that_was_overtaken_decides_nothing(machine: Make) -> None:
    made = await machine(at("2026-06-01 07:30"))
    old = await made.put("0 * * * *", "UTC")
    await made.run_until(at("2026-06-01 09:30"))
    before = await made.seen()
    await made.ticker._settle(old, at("2026-06-01 08:30"))
    assert await made.seen() == before
    assert (await repository.read(made.store, "w")).decided_until == at("2026-06-01 09:00")
    old = await repository.read(made.store, "w")
    made.clock.advance(3600)
    await made.put("0 * * * *", "UTC", catch_up="none")
    await made.ticker._settle(old, made.clock.now())  # by the rule it had
    assert len(await made.executions()) == 2


async def test_a_machine_with_many_schedules_looks_fast(machine: Make) -> None:
    made: Machine = await machine(at("2026-06-01 07:30"))
    for number in range(200):
        await made.put(f"{number % 60} * * * *", "UTC", name=f"w{number}")
    await made.run_until(at("2026-06-01 08:30"), step=60)
    assert len(await made.executions()) == 200


# Parameters with types, and counting


async def test_parameters_of_a_schedule_get_the_normal_form_of_their_types_or_fail_the_firing(machine: Make) -> None:
    made = await machine(at("2026-06-01 00:00"))
    parameters = {
        "count": {"type": "integer", "min": "1", "max": "9"},
        "wait": {"type": "duration", "default": "1h"},
        "dry": {"type": "boolean", "required": True},
        "day": {"type": "text", "pattern": "[0-9-]{10}"},
    }
    params = {"count": "+07", "dry": "Yes", "day": "${schedule.date}"}
    await made.store_definition(
        {"name": "w", "parameters": parameters, "schedule": {"cron": "0 1 * * *", "params": params}}
    )
    await made.run_until(at("2026-06-01 02:00"))
    assert made.params[1] == {"count": "7", "wait": "3600", "dry": "true", "day": "2026-06-01"}


async def test_firings_are_counted_by_what_became_of_them_once_each(machine: Make) -> None:
    def counted() -> dict[str, float]:
        return {
            sample.labels["status"]: sample.value
            for family in metrics.schedule_firings.collect()
            for sample in family.samples
        }

    before = counted()

    def more() -> dict[str, float]:
        return {
            status: value - before.get(status, 0)
            for status, value in counted().items()
            if value != before.get(status, 0)
        }

    made = await machine(at("2026-06-01 00:00"))
    await made.put("0 * * * *", "UTC", overlap="skip", catch_up="none")
    await made.run_until(at("2026-06-01 02:30"), ending=False)
    assert more() == {"fired": 1, "skipped_overlap": 1}
    await made.end_all()
    made.refuse = PeerdError(Reason.OVERLOADED, "full")
    await made.run_until(at("2026-06-01 03:10"))
    assert more() == {"fired": 1, "skipped_overlap": 1}, "one that is tried again is not decided"
    made.refuse = None
    await made.run_until(at("2026-06-01 03:30"))
    await made.restart(down=3 * 3600)
    made.refuse = PeerdError(Reason.INVALID_ARGUMENT, "wrong")
    await made.run_until(at("2026-06-01 07:10"))
    assert more() == {"fired": 2, "skipped_overlap": 1, "missed": 3, "failed": 1}
