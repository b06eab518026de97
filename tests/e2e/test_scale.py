"""Many jobs in one execution."""

from __future__ import annotations

import time

import pytest

from .fleet import Fleet
from .workflow import definition, job, start, tree


@pytest.mark.timeout(300)
def test_two_hundred_jobs_over_three_peers_complete(fleet: Fleet) -> None:
    peers = ("a", "b", "c")
    roots = [job(f"root{number}", peers[number % 3]) for number in range(100)]
    leaves = [job(f"leaf{number}", peers[(number + 1) % 3], [f"root{number}"]) for number in range(99)]
    last = job("last", "c", [f"leaf{number}" for number in range(99)])
    begun = time.monotonic()
    run = start(fleet, "c", definition("two-hundred", *roots, *leaves, last, deliver=["last"]))
    assert run.wait(180) == "COMPLETED", run.explain()
    effects = fleet.effects_seen()
    names = [entry["name"] for entry in (*roots, *leaves, last)]
    assert {name: effects[f"done {name}"] for name in names} == dict.fromkeys(names, 1)
    assert sum(path.endswith("leaf7.txt") for path in tree(run.home)) == 1
    assert time.monotonic() - begun < 180
