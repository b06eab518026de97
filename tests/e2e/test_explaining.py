"""Why things are as they are, asked of real daemons: reasons of all that is open, pages of jobs, history, graphs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .fleet import Fleet, wait_for
from .workflow import Run, definition, job, start


@pytest.fixture(scope="module")
def held() -> Iterator[tuple[Fleet, Run]]:
    """make runs for long on a; use waits for it on b; far is on nobody, because c goes; late takes files of far."""
    fleet = Fleet()
    try:
        fleet.found()
        fleet["b"].stop()
        gone = ("PEER_STATUS_LEFT", "PEER_STATUS_OFFLINE")  # one that is only suspected is given jobs
        wait_for(lambda: peer_status(fleet, "b") in gone, 60, "b is seen to be away")
        files = [{"path": "x", "text": "y"}]
        content = definition(
            "held",
            job("make", "a", params={"seconds": "600"}),
            job("use", "a", [{"from": "make.output/data", "to": "d"}, {"from": "make.stdout", "into": "stdin"}]),
            job("far", "b", package=files),
            job("late", "a", ["far"]),
            deliver=["use"],
        )
        run = start(fleet, "c", content)
        wait_for(lambda: run.job_status("make") == "RUNNING", 60, "make runs")
        wait_for(lambda: run.job_status("use") == "WAITING_INPUTS", 60, "use waits for files")
        yield fleet, run
    finally:
        fleet.close()


def peer_status(fleet: Fleet, name: str) -> str:
    (status,) = [entry["status"] for entry in fleet["c"].json("peers", "list")["peers"] if entry["name"] == name]
    return str(status)


def test_everything_open_has_a_reason_a_since_and_a_next_action(held: tuple[Fleet, Run]) -> None:
    _, run = held
    view = run.view()
    assert view["reason"] and view["since"] and view["next_action"]
    for entry in view["jobs"]:
        assert entry["reason"] and entry["message"] and entry["since"] and entry["next_action"], entry
    assert len(view["edges"]) == 5
    for edge in view["edges"]:
        assert edge["reason"] and edge["message"] and edge["since"] and edge["next_action"], edge
    shown = run.orchestrator.peerctl("executions", "show", str(run.id)).stdout
    assert "output/data → use.input  waiting" in shown
    assert shown.count("waits for make to end; it is running (for ") == 2
    assert "waits for far to end; it is pending (for " in shown
    assert "package → far.package" in shown and "waits for far: waits for b" in shown
    assert shown.count("next") >= 1 + 4 + 5


def test_the_page_of_a_waiting_job(held: tuple[Fleet, Run]) -> None:
    fleet, run = held
    shown = fleet["c"].peerctl("why", f"{run.id}/use").stdout
    assert shown.startswith("use is on a, given to it 20")
    for words in (
        "state   waiting_inputs since 20",
        "waits for files of make (on a)",
        "make.output/data → use.input  waiting  0 B  (make is running, on a)",
        "use.output → Local Peer.input",
        "chosen   a",
        "refused  c",
        "job_placed: given to a",
        "job_created: its peer took it as job execution",
        "job_started",
    ):
        assert words in shown, shown
    assert fleet["c"].peerctl("why", str(run.id), "use").stdout.splitlines()[0] == shown.splitlines()[0]
    for bad in (["use"], [f"{run.id}/use", "use"], [str(run.id)]):
        assert "peerctl why 7/make" in fleet["c"].peerctl("why", *bad, code=2).stderr


def test_the_page_of_a_job_whose_peer_is_away(held: tuple[Fleet, Run]) -> None:
    fleet, run = held
    answer = fleet["c"].json("why", str(run.id), "far")
    assert answer["job"]["reason"] == "peer_away" and "bring b back" in answer["job"]["next_action"]
    shown = fleet["c"].peerctl("why", str(run.id), "far").stdout
    assert "far is on" in shown and "peer_away" in shown and "refused  b: offline" in shown


def test_events_are_listed_in_order_and_by_job(held: tuple[Fleet, Run]) -> None:
    fleet, run = held
    events: list[dict[str, Any]] = fleet["c"].json("executions", "events", str(run.id))["events"]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert events[0]["kind"] == "execution_requested"
    mine = fleet["c"].json("executions", "events", str(run.id), "--job", "make")["events"]
    assert {event["node_id"] for event in mine} == {"", "make"}
    assert [event for event in mine if event["node_id"]] == [event for event in events if event["node_id"] == "make"]
    assert "reports running" in fleet["c"].peerctl("executions", "events", str(run.id)).stdout
    assert len(fleet["c"].json("executions", "events", str(run.id), "--limit", "2")["events"]) == 2
    assert "not_found" in fleet["c"].peerctl("executions", "events", "4711", code=5).stderr


def test_graphs_of_an_execution_and_of_a_file(held: tuple[Fleet, Run]) -> None:
    fleet, run = held
    drawn = fleet["c"].peerctl("executions", "graph", str(run.id)).stdout
    assert 'n0["make<br/>running on a"]:::running' in drawn
    assert 'n1["use<br/>waiting inputs on a"]:::waiting_inputs' in drawn
    assert 'n0 -->|"output/data → input"| n1' in drawn and 'n0 -->|"stdout → stdin"| n1' in drawn
    dots = fleet["c"].peerctl("executions", "graph", str(run.id), "--format", "dot").stdout
    assert dots.startswith('digraph "held ') and 'n0 [label="make\\nrunning on a", fillcolor="#bfdcff"]' in dots
    file = fleet.folder / "file.json"
    file.write_text(json.dumps(definition("file", job("x", "a"), job("y", "a", ["x"]))))
    assert 'n0 -->|"output → input"| n1' in fleet["c"].peerctl("workflows", "graph", str(file)).stdout
    file.write_text(json.dumps(definition("file", job("y", "a", ["x"]))))
    assert "unknown_job" in fleet["c"].peerctl("workflows", "graph", str(file), code=1).stderr


def test_after_the_end_the_page_still_tells(held: tuple[Fleet, Run]) -> None:
    fleet, run = held
    fleet["c"].peerctl("executions", "cancel", str(run.id), "--reason", "enough")
    wait_for(lambda: run.job_status("use") == "CANCELLED", 60, "use is cancelled")
    shown = fleet["c"].peerctl("why", f"{run.id}/use").stdout
    assert "state   cancelled since" in shown
    assert "cancel_requested: cancel was requested: enough" in shown
    assert "make is" in shown


def test_an_edge_whose_receiver_has_no_room_says_so_and_what_to_do(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet["b"].kill()
    fleet["b"].configure("\n[jobs]\nquota_bytes_per_orchestrator = 1048576\n")
    fleet["b"].start()
    fleet.wait_until_all_see_all()
    content = definition(
        "crowded",
        job("big", "a", params={"write_mb": "2"}),
        job("small", "c", ["big"]),
        job("full", "b", [{"from": "big", "to": "one"}, {"from": "small", "to": "two"}]),
    )
    run = start(fleet, "c", content)

    def told() -> bool:
        shown = str(fleet["c"].peerctl("why", f"{run.id}/full").stdout)
        sending = [f"{job}.output → full.input  sending" for job in ("big", "small")]
        words = (*sending, "tried", "do not fit", "raise [jobs] quota_bytes_per_orchestrator")
        return all(word in shown for word in words)

    wait_for(told, 90, "the page names the quota")
    edges = {edge["source_node_id"]: edge["status"] for edge in fleet["c"].json("why", str(run.id), "full")["inputs"]}
    assert edges == {"big": "EDGE_STATUS_SENDING", "small": "EDGE_STATUS_SENDING"}
