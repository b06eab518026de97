"""Parts of outputs between real daemons: directories, patterns, renames, and what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from peerd.transfers.selection import Selection

from .fleet import Fleet, wait_for
from .test_ids_and_paths import rows
from .workflow import Run, allow_commands, definition, job, need_bubblewrap, start, tree

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three machines that run ad-hoc commands."""
    made = Fleet()
    try:
        made.found()
        allow_commands(made)
        yield made
    finally:
        made.close()


def make(peer: str) -> dict[str, Any]:
    """A job whose output is what came with it: output/seen/package/... besides output/make.txt."""
    files = ["data/a.csv", "data/deep/b.csv", "data/deep/c.tmp", "top.csv"]
    return job("make", peer, package=[{"path": path, "text": f"{path}\n"} for path in files])


def test_the_example_runs_as_it_stands(fleet: Fleet) -> None:
    need_bubblewrap()
    answer = fleet["c"].json("workflows", "run", str(EXAMPLES / "reports.yaml"))
    run = Run(fleet, fleet["c"], int(answer["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert tree(run.home) == {
        "fruit/fruit.csv": "apples,2023\napples,2024\n",
        "newest/listing.txt": "input/about/about.txt\ninput/data/fruit.csv\ninput/data/trees.csv\n",
        **{
            f"tables/raw/{year}/{name}.csv": f"{what},{year}\n"
            for year in (2023, 2024)
            for name, what in (("fruit", "apples"), ("trees", "beech"))
        },
    }
    assert tree(run.directory("fruit") / "input") == {f"fruit-{y}.csv": f"apples,{y}\n" for y in (2023, 2024)}
    view = {(edge.get("source_path"), edge.get("bytes")) for edge in run.view()["edges"]}
    assert ("raw/2024", str(len("apples,2024\nbeech,2024\n"))) in view


def test_parts_patterns_and_names_reach_jobs_on_other_peers(fleet: Fleet) -> None:
    edges: list[str | Mapping[str, Any]] = [
        {"from": "make.output/seen/package/data", "to": "all"},
        {"from": "make", "to": "csv", "files": ["**/*.csv"], "rename": [{"from": "seen/package/*.csv", "to": "*.txt"}]},
        {"from": "make", "to": "none", "files": ["*.png"], "optional": True},
        {"from": "make.stdout", "into": "mounts/log", "rename": "what.log"},
    ]
    run = start(fleet, "c", definition("parts", make("a"), job("use", "b", edges), deliver=[{"from": "use.stdout"}]))
    assert run.wait() == "COMPLETED", run.explain()
    place = run.directory("use")
    assert set(tree(place / "input" / "all")) == {"a.csv", "deep/b.csv", "deep/c.tmp"}
    assert set(tree(place / "input" / "csv")) == {
        "top.txt", "seen/package/data/a.csv", "seen/package/data/deep/b.csv",
    }  # fmt: skip
    assert tree(place / "input" / "none") == {}
    assert tree(place / "mounts" / "log") == {"what.log": "make was here\n"}
    stored = rows(fleet["a"], "SELECT selection FROM outgoing_transfers WHERE workflow_execution_id = ?", run.id)
    assert Selection(path="seen/package/data") in [Selection.decode(row["selection"]) for row in stored]


def failed(fleet: Fleet, edge: dict[str, Any]) -> Run:
    run = start(fleet, "c", definition("missing", make("a"), job("use", "b", [{"from": "make", **edge}])))
    assert run.wait() == "FAILED"
    assert run.job_status("make") == "COMPLETED"
    return run


def test_an_edge_that_finds_nothing_says_what_is_there(fleet: Fleet) -> None:
    run = failed(fleet, {"files": ["*.png", "pictures/**"]})
    use = run.jobs()["use"]
    assert use["reason"] == "transfer"
    assert "'*.png', 'pictures/**'" in use["message"] and "'make.txt'" in use["message"]
    assert "optional: true" in use["next_action"]
    assert [edge["reason"] for edge in run.view()["edges"] if edge["source_node_id"] == "make"] == ["no_files_match"]
    assert "no file matches" in run.orchestrator.peerctl("executions", "show", str(run.id)).stdout


def test_colliding_names_are_refused_with_both(fleet: Fleet) -> None:
    run = failed(fleet, {"files": ["**/*.csv"], "rename": "one.csv"})
    message = run.jobs()["use"]["message"]
    assert "'seen/package/data/a.csv' and 'seen/package/data/deep/b.csv' would both become 'one.csv'" in message
    assert [edge["reason"] for edge in run.view()["edges"] if edge["source_node_id"] == "make"] == ["colliding_names"]


def test_a_file_whose_name_is_no_text_is_not_sent_and_holds_up_nothing_else(fleet: Fleet) -> None:
    need_bubblewrap()
    argv = ["sh", "-c", 'echo latin-1 > "output/$(printf "caf\\351")"; echo fine > output/plain']
    make = {"name": "make", "on": {"peer": "a"}, "run": {"argv": argv}}
    edges: list[str | Mapping[str, Any]] = [{"from": "make", "files": ["plain"]}, {"from": "make", "to": "all"}]
    run = start(fleet, "c", definition("odd-name", make, deliver=edges))
    assert run.wait() == "FAILED", run.explain()
    assert run.job_status("make") == "COMPLETED"
    plain, everything = run.view()["edges"]
    assert plain["status"] == "EDGE_STATUS_DELIVERED" and tree(run.home) == {"make/plain": "fine\n"}
    assert everything["reason"] == "invalid_path"
    (sent,) = rows(fleet["a"], "SELECT * FROM outgoing_transfers WHERE status = 'failed' AND edge_id = ?", 2)
    assert r"'caf\udce9' is not Unicode text" in sent["message"]


def test_what_is_wrong_is_said_with_its_place(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "name: bad\njobs:\n  - {name: a, service: s}\n  - name: b\n    service: s\n    inputs:\n"
        "      - from: a.output/../x\n      - {from: a, to: p, files: ['../*']}\n"
        "      - {from: a, to: q, rename: '*'}\n      - {from: a.stdout, to: r, files: ['*']}\n"
    )
    found = json.loads(fleet["c"].peerctl("workflows", "validate", str(file), "-o", "json", code=1).stdout)["problems"]
    assert [(entry["reason"], entry["field"], entry["line"]) for entry in found] == [
        ("bad_path", "jobs[1].inputs[0].from", 7),
        ("bad_pattern", "jobs[1].inputs[1].files[0]", 8),
        ("bad_rename", "jobs[1].inputs[2].rename[0]", 9),
        ("bad_pattern", "jobs[1].inputs[3].files", 10),
    ]


@pytest.mark.parametrize("failpoint", ["job.exit.after_commit", "sender.offer.before_send", "sender.offer.after_send"])
def test_what_an_edge_takes_survives_the_death_of_its_sender(fleet: Fleet, failpoint: str) -> None:
    a = fleet["a"]
    a.kill()
    a.start(failpoint=failpoint)
    edge: Mapping[str, Any] = {
        "from": "make.output/seen/package/data",
        "files": ["**/*.csv"],
        "rename": [{"from": "a.*", "to": "b.*"}],
    }
    run = start(fleet, "c", definition("killed", make("a"), job("use", "b", [edge])))
    wait_for(lambda: not a.alive, 60, f"a dies at {failpoint}")
    a.wait()
    a.start()
    assert run.wait() == "COMPLETED", run.explain()
    assert set(tree(run.directory("use") / "input")) == {"b.csv", "deep/b.csv"}
