"""What a job can and cannot read, with bubblewrap and without."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Fleet, wait_for
from .workflow import Run, definition, start, tree

PROBE = """
import os, pathlib, sys
for path in sys.argv[1:]:
    try:
        if pathlib.Path(path).is_socket():
            import socket
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path, 'rb').read(1)
        print('READ', path)
    except OSError as error:
        print('refused', path, type(error).__name__)
"""


def secrets(fleet: Fleet, name: str) -> list[str]:
    data = fleet[name].data
    return [str(path) for path in (data / "identity.key", data / "peerd.db", data / "peerd.db-wal", fleet[name].socket)]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Fleet]:
    """a runs commands of c in bubblewrap; b isolates nothing, though its owner would allow c."""
    fleet = Fleet()
    try:
        fleet.found()
        allowed = f"allow_commands_from = ['{fleet.founder.peer_id}']\n"
        for name, more in (("a", ""), ("b", "sandbox = 'none'\n")):
            fleet[name].kill()
            fleet[name].configure(f"\n[jobs]\n{allowed}{more}")
            fleet[name].start()
        fleet.wait_until_all_see_all()
        # It has said something else of itself before.
        wait_for(lambda: isolation(fleet, "b") == "ISOLATION_LEVEL_NONE", 60, "c knows that b isolates nothing")
        yield fleet
    finally:
        fleet.close()


def isolation(fleet: Fleet, name: str) -> str:
    """What c knows of a peer."""
    (peer,) = [entry for entry in fleet["c"].json("peers", "list")["peers"] if entry["name"] == name]
    return str(peer["isolation"])


def command(peer: str, *argv: str) -> dict[str, object]:
    return definition("adhoc", {"name": "probe", "on": {"peer": peer}, "run": {"argv": list(argv)}})


def test_from_inside_a_job_key_store_and_socket_cannot_be_read(guarded: Fleet) -> None:
    if shutil.which("bwrap") is None:
        assert not os.environ.get("PEERD_REQUIRE_ALL"), "bubblewrap is missing, and this machine must run everything"
        pytest.skip("needs bubblewrap")
    assert isolation(guarded, "a") == "ISOLATION_LEVEL_BUBBLEWRAP"
    paths = [*secrets(guarded, "a"), "/etc/shadow", "/proc/1/environ"]
    run = start(guarded, "c", command("a", sys.executable, "-c", PROBE, *paths[:5]))
    assert run.wait() == "COMPLETED", run.explain()
    said = guarded["c"].peerctl("logs", str(run.id), "probe").stdout
    assert said.count("refused") == 5, said
    assert "READ" not in said


def test_where_nothing_isolates_the_peer_says_so_and_refuses_commands(guarded: Fleet) -> None:
    assert isolation(guarded, "b") == "ISOLATION_LEVEL_NONE"
    run = start(guarded, "c", command("b", sys.executable, "-c", PROBE))
    assert run.wait() == "FAILED"
    (probe,) = run.jobs().values()
    assert probe["reason"] == "refused"
    assert "isolation" in probe["message"]
    assert probe["next_action"]


def test_a_command_is_refused_where_its_caller_is_not_allowed(guarded: Fleet) -> None:
    run = start(guarded, "b", command("a", sys.executable, "-c", PROBE))
    assert run.wait() == "FAILED"
    (probe,) = run.jobs().values()
    assert probe["reason"] == "refused"
    assert "allow" in probe["next_action"]


def test_the_declared_service_still_runs_without_isolation(guarded: Fleet) -> None:
    from .workflow import job

    run = start(guarded, "c", definition("declared", job("plain", "b"), deliver=["plain"]))
    assert run.wait() == "COMPLETED"


def test_the_example_of_commands_runs(guarded: Fleet) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    file = Path(__file__).parent.parent.parent / "examples" / "commands.yaml"
    answer = guarded["c"].json("workflows", "run", str(file))
    run = Run(guarded, guarded["c"], int(answer["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert any("elm" in text for text in tree(run.home).values())


def test_the_example_of_a_matrix_runs(guarded: Fleet) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    file = Path(__file__).parent.parent.parent / "examples" / "matrix.yaml"
    answer = guarded["c"].json("workflows", "run", str(file))
    run = Run(guarded, guarded["c"], int(answer["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert sorted(run.jobs()) == ["first", "sorted.0", "sorted.1", "sorted.2", "sorted.3", "table"]
    home = tree(run.home)
    assert home["first/stdout.txt"].splitlines() == ["birch 25 fast", "oak 40 slow", "birch 25 fast", "oak 40 slow"]
    assert home["tables/sorted.2/stdout.txt"].splitlines() == ["birch 25 fast", "elm 35 fast", "oak 40 slow"]


def test_the_example_of_a_map_runs(guarded: Fleet) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    file = Path(__file__).parent.parent.parent / "examples" / "map.yaml"
    answer = guarded["c"].json("workflows", "run", str(file))
    run = Run(guarded, guarded["c"], int(answer["workflow_execution_id"]))
    assert run.wait() == "COMPLETED", run.explain()
    assert list(run.jobs()) == ["words", "count", "total", "count.0", "count.1", "count.2"]
    home = tree(run.home)
    assert home["total/stdout.txt"].split() == ["5", "3", "3"]
    assert home["counts/count.0/stdout.txt"].strip() == "5"
