"""The judge itself: silence is not consent, and what is not over is not done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet
from tests.faults import judge
from tests.faults.workload import Asked, Workload

Known = dict[int, str] | None


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    yield made
    made.close()


def asked(**more: object) -> Asked:
    entry = Asked(request_id="r", orchestrator="c", content={}, steps=(), delivered=(), execution_id=1)
    for name, value in more.items():
        setattr(entry, name, value)
    return entry


def waited(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, entry: Asked, answers: dict[str, list[Known]]) -> list[str]:
    """Who is not final in the end, when daemons answer this, one after the other; the last answer is repeated."""

    async def executions(daemon: object) -> Known:
        said = answers[getattr(daemon, "name")]  # noqa: B009
        return said.pop(0) if len(said) > 1 else said[0]

    monkeypatch.setattr(judge, "executions", executions)
    monkeypatch.setattr(judge, "explain", lambda daemon, entry: f"{entry.request_id} on {daemon.name}")
    workload = Workload(fleet, random.Random(1))
    workload.asked.append(entry)
    return asyncio.run(judge.until_final(fleet, workload, 0.5))[1]


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"c": [{1: "COMPLETED"}], "a": [{}]}, []),
        ({"c": [None, {1: "RUNNING"}, {1: "CANCELLED"}], "a": [{}]}, []),
        ({"c": [None], "a": [{}]}, ["c does not answer"]),
        ({"c": [{1: "FAILED"}], "a": [None]}, ["a does not answer"]),
        ({"c": [{1: "RUNNING"}], "a": [{}]}, ["r on c"]),
        ({"c": [{}], "a": [{}]}, ["r on c"]),
    ],
)
def test_it_waits_for_whoever_is_silent_and_whatever_is_unknown(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[Known]], found: list[str]
) -> None:
    assert waited(fleet, monkeypatch, asked(), answers) == found


def test_what_was_seen_final_may_be_gone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(fleet, monkeypatch, asked(ended="COMPLETED"), {"c": [{}], "a": [{}]}) == []


def test_an_execution_that_is_listed_and_not_final_is_found_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "explain", lambda daemon, entry: f"{entry.request_id} on {daemon.name}: ...")
    verdict = judge.Verdict()
    for _ in range(2):
        judge.compare(verdict, fleet, [asked()], {1: "RUNNING"}, may_fail=True)
    assert verdict.not_final == ["r on c: ..."] and not verdict.ok
