"""A machine whose clock is set a year ahead while it runs, and right again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.workflow import definition, job, start
from tests.faults.clocks import WallClock, needs_faketime, wall_clocks
from tests.faults.workload import home_of

pytestmark = needs_faketime

YEAR = 365 * 86_400
QUICK = "\n[retention]\ncollect_minutes = 0.01\n"


@pytest.fixture
def clocks() -> dict[str, WallClock]:
    return {}


@pytest.fixture
def fleet(clocks: dict[str, WallClock]) -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    try:
        clocks.update(wall_clocks(made))
        made.found(configure=dict.fromkeys(made.daemons, QUICK))
        yield made
    finally:
        made.close()


def folders_of_jobs(fleet: Fleet) -> list[Path]:
    return [path for daemon in fleet.daemons.values() for path in daemon.data.glob("workflows/*/*/jobs/*/*/output")]


def said_by_a_device(daemon: Daemon, *, at: int | None = None) -> int:
    """How much of it is kept, once something was said then."""
    with closing(sqlite3.connect(daemon.data / "peerd.db", timeout=30)) as store, store:
        if at is not None:
            store.execute("INSERT INTO device_history (at, event, detail) VALUES (?, 'tried', '')", (at,))
        (found,) = store.execute("SELECT count(*) FROM device_history WHERE event = 'tried'")
        return int(found[0])


@pytest.mark.timeout(500)
def test_a_clock_a_year_ahead_removes_nothing_and_all_is_well_when_it_is_right_again(
    fleet: Fleet, clocks: dict[str, WallClock]
) -> None:
    done = start(fleet, "c", definition("done", job("one", "a"), job("two", "c", ["one"]), deliver=["two"]))
    assert done.wait() == "COMPLETED", done.explain()
    before = folders_of_jobs(fleet)
    assert len(before) == 2
    assert said_by_a_device(fleet["a"], at=round(time.time() * 1000)) == 1
    for clock in clocks.values():
        clock.set(YEAR)
    for daemon in fleet.daemons.values():
        wait_for(lambda daemon=daemon: "retention.on_hold" in daemon.log.read_text(), 60, "retention waits")
    fleet["a"].kill()
    fleet["a"].start()
    fleet.wait_until_all_see_all()
    during = start(fleet, "c", definition("during", job("three", "a"), job("four", "c", ["three"])))
    assert during.wait() == "COMPLETED", during.explain()
    assert said_by_a_device(fleet["a"]) == 1, "nor did what miners said go"
    clocks["c"].set(0)
    fleet["c"].kill()
    fleet["c"].start()
    wait_for(
        lambda: (
            not any(
                peer["status"].endswith("ONLINE") and peer["peer_id"] == fleet["a"].peer_id
                for peer in fleet["c"].json("peers", "list")["peers"]
            )
        ),
        60,
        "nobody talks to whose certificate is of another year",
    )
    waiting = start(fleet, "c", definition("waiting", job("five", "a")))
    clocks["a"].set(0)
    fleet.wait_until_all_see_all(90)
    assert waiting.wait() == "COMPLETED", waiting.explain()
    assert [path for path in before if not path.exists()] == [], "nothing was removed"
    assert list(home_of(fleet["c"], done.id).rglob("two.txt")), "what came home is there"
    assert fleet.effects_seen()["done one"] == fleet.effects_seen()["done five"] == 1
    assert all("Traceback" not in daemon.log.read_text() for daemon in fleet.daemons.values())
