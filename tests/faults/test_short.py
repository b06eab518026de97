"""The short form of each nemesis; ``scripts/faults`` has the long ones, and any seed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.load import busier
from tests.e2e.wire import needs_namespaces
from tests.faults.clocks import needs_faketime
from tests.faults.flood import flood_of
from tests.faults.plans import PLANS
from tests.faults.run import run
from tests.faults.workload import Shape

SEED = 1
SHORT: dict[str, dict[str, Any]] = {
    "kills": {"count": 25, "workflows": 10, "spread": 15, "daemons": 3},
    "pauses": {"count": 8, "workflows": 8, "spread": 10, "daemons": 3},
    "restarts": {"count": 5, "workflows": 8, "spread": 8, "daemons": 3},
    "proxy": {"seconds": 20, "workflows": 10, "spread": 15, "daemons": 3},
    "clock": {"count": 20, "workflows": 8, "spread": 15, "daemons": 3},
    "bipartitions": {"hold": 5, "workflows": 8, "spread": 15, "daemons": 3},
    "one-way": {"hold": 5, "count": 2, "workflows": 8, "spread": 10, "daemons": 3},
    # Of so few bytes, one broken connection is many.
    "loss": {
        "seconds": 20,
        "workflows": 4,
        "spread": 5,
        "daemons": 3,
        "shape": Shape(megabytes=(1, 2)),
        "most_pushed": 2.0,
    },
}
KINDS = [
    pytest.param(
        name,
        marks=[
            *([needs_namespaces] if PLANS[name].on_a_wire else []),
            *([needs_faketime] if PLANS[name].own_clocks else []),
        ],
    )
    for name in SHORT
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_every_promise_is_kept(kind: str) -> None:
    verdict, facts = asyncio.run(run(replace(PLANS[kind], **SHORT[kind]), SEED, forked=True, patience=busier))
    assert verdict.ok, json.dumps({**facts, **verdict.as_json()}, indent=2)
    assert verdict.acknowledged == SHORT[kind]["workflows"] and verdict.effects > verdict.acknowledged
    assert facts["faults"], "nothing was broken: the test shows nothing"


@pytest.mark.timeout(900)
def test_two_thousand_executions_at_once_are_taken_and_nobody_else_is_held_up() -> None:
    report = flood_of(2000)
    report.pop("second_caller")  # how fast it is is for a machine with nothing else to do
    assert report["outcomes"] == {"accepted": 2000}, report
    assert report["acknowledged_and_lost"] == report["doubled"] == 0
