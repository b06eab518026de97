"""What is wrong with a schedule or a group of a definition is found, at its place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import read_definition


def problems(**more: Any) -> list[tuple[str, str]]:
    content = {"name": "w", "params": {"p": "x"}, "jobs": [{"name": "a", "service": "s"}], **more}
    reading = read_definition(workflows_pb2.DefinitionSource(text=yaml.safe_dump(content)))
    assert all(problem.message and problem.to_proto().next_action for problem in reading.problems)
    return [(problem.reason.text, problem.to_proto().field) for problem in reading.problems]


def test_whole_ones_are_sound() -> None:
    schedule = {
        "cron": "30 2 * * mon-fri",
        "timezone": "Europe/Zurich",
        "overlap": "cancel_previous",
        "catch_up": "all",
        "catch_up_limit": 100,
        "paused": True,
        "params": {"p": "${schedule.date} ${schedule.time} ${HOME}"},
        "jitter": "1h",
    }
    assert problems(schedule=schedule, concurrency={"group": "g-${params.p}", "limit": 3, "on_conflict": "skip"}) == []
    assert problems(schedule={"cron": "* * * * *"}, concurrency={"group": "g"}) == []


@pytest.mark.parametrize(
    ("wrong", "reason", "field"),
    [
        ({"cron": ""}, "missing", "schedule.cron"),
        ({"cron": "0 25 * * *"}, "bad_value", "schedule.cron"),
        ({"timezone": "Mars/Base"}, "bad_value", "schedule.timezone"),
        ({"overlap": "queu"}, "bad_choice", "schedule.overlap"),
        ({"catch_up": "some"}, "bad_choice", "schedule.catch_up"),
        ({"catch_up": "all", "catch_up_limit": 101}, "out_of_range", "schedule.catch_up_limit"),
        ({"catch_up": "all", "catch_up_limit": 0}, "out_of_range", "schedule.catch_up_limit"),
        ({"catch_up_limit": 3}, "bad_value", "schedule.catch_up_limit"),
        ({"jitter": "soon"}, "bad_duration", "schedule.jitter"),
        ({"jitter": "25h"}, "out_of_range", "schedule.jitter"),
        ({"params": {"q": "1"}}, "unknown_param", "schedule.params.q"),
        ({"params": {"p": "a\0b"}}, "bad_value", "schedule.params.p"),
        ({"params": {"p": "${schedule.now}"}}, "bad_param_reference", "schedule.params.p"),
        ({"params": {"p": "${schedule.time"}}, "bad_param_reference", "schedule.params.p"),
        ({"at": "noon"}, "unknown_field", "schedule.at"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_found(wrong: dict[str, Any], reason: str, field: str) -> None:
    assert problems(schedule={"cron": "0 2 * * *", **wrong}) == [(reason, field)]


@pytest.mark.parametrize(
    ("wrong", "reason", "field"),
    [
        ({"group": ""}, "missing", "concurrency.group"),
        ({"group": " g"}, "bad_value", "concurrency.group"),
        ({"group": "x" * 256}, "bad_value", "concurrency.group"),
        ({"group": "${params.q}"}, "unknown_param", "concurrency.group"),
        ({"group": "${params.}"}, "bad_param_reference", "concurrency.group"),
        ({"limit": 0}, "out_of_range", "concurrency.limit"),
        ({"limit": 1001}, "out_of_range", "concurrency.limit"),
        ({"on_conflict": "wait"}, "bad_choice", "concurrency.on_conflict"),
    ],
)
def test_what_is_wrong_with_a_group_is_found(wrong: dict[str, Any], reason: str, field: str) -> None:
    assert problems(concurrency={"group": "g", **wrong}) == [(reason, field)]
