"""What is kept of results is bounded for each node and for each organization; scores and reasons stay."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from peerd.errors import PeerdError, Reason
from peerd.nodes import keeping
from peerd.store import migrate as migrate_module
from peerd.store.migrate import migrate
from peerd.v1 import nodes_pb2
from tests.nodes.house import NETWORKS, OWN, House, calling, open_house
from tests.nodes.test_batches import SCANNED

KIB = "x" * 1024


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as found:
        policy = nodes_pb2.OrganizationPolicy()
        policy.CopyFrom(NETWORKS)
        policy.cool_down = "0s"
        await found.add("acme", policy)
        yield found


async def scanned(house: House, target: str, kibibytes: int) -> int:
    """Scan it with a report of that size; the run."""
    run = await house.scan(target, "acme", protocol="sui")
    await house.deliver(run, SCANNED, KIB * kibibytes)
    await house.applying.look()
    return run.run_id


async def kept(house: House) -> list[int]:
    """Runs whose reports are there, by the surface that shows them."""
    rows = await house.store.all("SELECT id, node_id FROM node_runs ORDER BY id")
    found = []
    for row in rows:
        request = nodes_pb2.GetNodeReportRequest(node=row["node_id"], run_id=row["id"])
        try:
            with calling(OWN):
                await house.nodes.GetNodeReport(request, None)
        except PeerdError as error:
            assert error.reason is Reason.NOT_FOUND
        else:
            found.append(row["id"])
    return found


async def counted(house: House) -> tuple[int, int]:
    """What the organization is said to keep, and what it does."""
    said = await house.store.one("SELECT kept_bytes FROM organizations")
    real = await house.store.one(
        "SELECT ifnull(sum(length(CAST(result AS BLOB)) + length(CAST(report AS BLOB))), 0) AS bytes FROM node_runs"
    )
    assert said is not None
    assert real is not None
    return said["kept_bytes"], real["bytes"]


async def test_of_a_node_the_oldest_go_and_scores_stay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "NODE_BYTES", 30 * 1024)
    for _ in range(5):
        await scanned(house, "10.0.0.1", 10)
    assert await kept(house) == [4, 5]
    with calling(OWN):
        listed = await house.nodes.ListNodeRuns(nodes_pb2.ListNodeRunsRequest(node="10.0.0.1"), None)
    assert [(run.run_id, run.score, run.risk) for run in listed.runs] == [(n, 70, "MEDIUM") for n in (5, 4, 3, 2, 1)]
    said, real = await counted(house)
    assert said == real
    assert 20 * 1024 < said < 30 * 1024


async def test_of_a_node_so_many_are_kept_and_always_the_newest_good_scan(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEPT_RESULTS", 2)
    good = await scanned(house, "10.0.0.1", 1)
    for _ in range(4):
        run = await house.discover((await house.node("10.0.0.1")).node.node_id)
        await house.deliver(run, SCANNED)  # not what was asked: an error
        await house.applying.look()
        await house.end(await house.scan("10.0.0.1", "acme"), "failed", "failed", reason="exit")
        await house.applying.look()
    assert good in await kept(house)
    for _ in range(4):
        good = await scanned(house, "10.0.0.1", 1)
    assert await kept(house) == [good - 2, good - 1, good]


async def test_of_an_organization_the_oldest_go_first_and_those_that_its_nodes_show_last(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "ORGANIZATION_BYTES", 64 * 1024)
    first, second, third = [await scanned(house, f"10.0.0.{index}", 18) for index in (1, 2, 2)]
    assert await kept(house) == [first, second, third]
    fourth = await scanned(house, "10.0.0.3", 18)
    assert await kept(house) == [first, third, fourth]  # the older of the second node, though it is not the oldest
    fifth = await scanned(house, "10.0.0.4", 18)
    assert await kept(house) == [third, fourth, fifth]
    said, real = await counted(house)
    assert said == real <= 64 * 1024
    node = (await house.node("10.0.0.1")).node
    assert (node.status, node.score.score) == (nodes_pb2.NODE_STATUS_SCANNED, 70)
    with calling(OWN), pytest.raises(PeerdError) as refused:
        await house.nodes.GetNodeReport(nodes_pb2.GetNodeReportRequest(node="10.0.0.1"), None)
    assert refused.value.reason is Reason.NOT_FOUND
    assert "scan it" in str(refused.value.next_action)


async def test_runs_that_are_forgotten_are_counted_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerd.nodes.runs.KEPT_RUNS", 1)
    await scanned(house, "10.0.0.1", 5)
    house.clock.advance(24 * 3600 + 1)
    await scanned(house, "10.0.0.1", 5)
    await scanned(house, "10.0.0.1", 5)
    rows = await house.store.all("SELECT id FROM node_runs")
    assert len(rows) == 2
    said, real = await counted(house)
    assert said == real > 0


async def test_what_an_older_store_keeps_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, all_of_them = tmp_path / "old.db", migrate_module._migrations()
    with monkeypatch.context() as past:
        past.setattr(migrate_module, "_migrations", lambda: [entry for entry in all_of_them if entry[0] < 25])
        migrate(path, backup_dir=None)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO organizations (org_id, slug, name, policy, created_at, updated_at, created_by)"
            " VALUES ('o', 'acme', 'acme', x'', 0, 0, ''), ('p', 'other', 'other', x'', 0, 0, '')"
        )
        connection.execute(
            "INSERT INTO nodes (node_id, org_id, target, host, is_ip, status, since, created_at, updated_at)"
            " VALUES ('n', 'o', 't', 't', 0, 'new', 0, 0, 0)"
        )
        connection.executemany(
            "INSERT INTO node_runs (node_id, org_id, kind, status, level, workflow_execution_id, job, started_at,"
            " caller, result, report) VALUES ('n', 'o', 'scan', ?, ?, 1, 'j', 0, '', ?, ?)",
            [("ok", 1, "\u00fc" * 10, "#" * 5), ("running", 2, "", ""), ("failed", 1, "x", "")],
        )
    migrate(path, backup_dir=None)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT kept_bytes FROM organizations ORDER BY id").fetchall() == [(26,), (0,)]
        assert connection.execute("SELECT kept_bytes, longest_seconds FROM node_runs ORDER BY id").fetchall() == [
            (25, 0),
            (0, 240),
            (1, 0),
        ]
        connection.execute("DELETE FROM node_runs WHERE id = 1")
        assert connection.execute("SELECT kept_bytes FROM organizations WHERE org_id = 'o'").fetchone() == (1,)
