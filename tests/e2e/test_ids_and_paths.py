"""The id example of the source document, and files exactly where the path rule says, on every kind of edge."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from .fleet import Daemon, Fleet
from .workflow import Run, definition, job, start, tree


def rows(daemon: Daemon, sql: str, *params: Any) -> list[sqlite3.Row]:
    """Look into a daemon's store from outside."""
    connection = sqlite3.connect(f"file:{daemon.data / 'peerd.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(sql, params).fetchall()
    finally:
        connection.close()


def assert_ids_agree(fleet: Fleet, run: Run) -> None:
    """C's workflow_jobs carry the executors' ids, and the executors' job_executions carry C's."""
    orchestrator = run.orchestrator
    for row in rows(orchestrator, "SELECT * FROM workflow_jobs WHERE workflow_execution_id = ?", run.id):
        executor = next(d for d in fleet.daemons.values() if d.peer_id == row["executor_peer_id"])
        (theirs,) = rows(executor, "SELECT * FROM job_executions WHERE id = ?", row["remote_job_execution_id"])
        assert theirs["workflow_job_id"] == row["id"]
        assert theirs["orchestrator_peer_id"] == orchestrator.peer_id
        assert theirs["workflow_execution_id"] == run.id


@pytest.mark.parametrize(
    ("first", "second"), [("a", "b"), ("c", "b"), ("a", "c"), ("c", "c"), ("a", "a")], ids=lambda name: str(name)
)
def test_the_id_example_with_every_mix_of_local_and_remote(fleet: Fleet, first: str, second: str) -> None:
    run = start(
        fleet,
        "c",
        definition("ids", job("data", first), job("work", second, ["data"]), deliver=["work"]),
    )
    assert run.wait() == "COMPLETED"
    assert_ids_agree(fleet, run)
    assert (run.directory("data") / "output" / "data.txt").read_text() == "made by data\n"
    assert (run.directory("work") / "input" / "data.txt").read_text() == "made by data\n"
    assert tree(run.home) == {"work.txt": "made by work\n", "seen/input/data.txt": "made by data\n"}


def test_multi_hop(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition("hops", job("one", "a"), job("two", "b", ["one"]), job("three", "c", ["two"]), deliver=["three"]),
    )
    assert run.wait() == "COMPLETED"
    assert_ids_agree(fleet, run)
    assert set(tree(run.home)) == {"three.txt", "seen/input/two.txt", "seen/input/seen/input/one.txt"}


def test_one_producer_feeds_two_consumers_and_two_producers_feed_one(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition(
            "diamond",
            job("top", "a"),
            job("left", "b", ["top"]),
            job("right", "c", ["top"]),
            job("bottom", "a", ["left", "right"]),
            deliver=["bottom"],
        ),
    )
    assert run.wait() == "COMPLETED"
    assert_ids_agree(fleet, run)
    for node in ("left", "right"):
        assert (run.directory(node) / "input" / "top.txt").exists()
        assert (run.directory("bottom") / "input" / node / f"{node}.txt").exists()


def test_stdout_becomes_stdin_in_the_order_of_the_edges(fleet: Fleet) -> None:
    edges = [{"from": "y.stdout", "into": "stdin"}, {"from": "x.stdout", "into": "stdin"}]
    run = start(fleet, "c", definition("pipe", job("x", "a"), job("y", "b"), job("cat", "c", edges), deliver=["cat"]))
    assert run.wait() == "COMPLETED"
    assert (run.home / "cat.stdin").read_text() == "y was here\nx was here\n"
    assert (run.directory("cat") / "input" / "y" / "stdout.txt").exists()


def test_output_lands_in_a_mount_and_a_mount_can_be_sent_on(fleet: Fleet) -> None:
    run = start(
        fleet,
        "c",
        definition(
            "mounts",
            job("make", "a"),
            job("use", "b", [{"from": "make", "into": "mounts/app"}], params={"into": "mounts/out"}),
            deliver=["use.mounts/out"],
        ),
    )
    assert run.wait() == "COMPLETED"
    assert (run.directory("use") / "mounts" / "app" / "make.txt").read_text() == "made by make\n"
    assert (run.home / "seen" / "mounts" / "app" / "make.txt").exists()


def test_a_package_travels_with_the_definition(fleet: Fleet) -> None:
    files = [{"path": "conf/settings.txt", "text": "brought along\n"}]
    run = start(fleet, "c", definition("package", job("use", "b", package=files), deliver=["use"]))
    assert run.wait() == "COMPLETED"
    assert (run.directory("use") / "package" / "conf" / "settings.txt").read_text() == "brought along\n"
    assert (run.home / "seen" / "package" / "conf" / "settings.txt").exists()


def test_two_orchestrators_with_the_same_numbers_never_touch_each_other(fleet: Fleet) -> None:
    runs = [
        start(
            fleet,
            who,
            definition(
                "same", job(f"{who}-made", "b"), job(f"{who}-used", "b", [f"{who}-made"]), deliver=[f"{who}-used"]
            ),
        )
        for who in ("a", "b", "c")
    ]
    for run in runs:
        assert run.wait() == "COMPLETED"
        assert_ids_agree(fleet, run)
        who = run.orchestrator.name
        assert set(tree(run.home)) == {f"{who}-used.txt", f"seen/input/{who}-made.txt"}
    shared = {int(entry["workflow_job_id"]) for entry in runs[0].jobs().values()} & {
        int(entry["workflow_job_id"]) for entry in runs[1].jobs().values()
    }
    assert shared, "the test means nothing unless both use the same workflow job numbers"
