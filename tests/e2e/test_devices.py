"""Miners on real daemons: simulated ones, plugged in and out, named, killed under, moved, read from afar."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from peerd.failpoints import FAILPOINTS

from .fleet import Daemon, Fleet, tool, wait_for
from .miners import Sim

PASSWORD = "hush-pool-77"
SOON_SECONDS = 2.0
TRIES = 5
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def two() -> Iterator[Fleet]:
    """Two peers, each with a directory of simulators."""
    made = Fleet(("c", "a"))
    try:
        folders = {name: f"\n[devices]\nsimulated = '{usb(made, name)}'\n" for name in ("c", "a")}
        made.found(configure=folders)
        yield made
    finally:
        made.close()


@pytest.fixture
def sims() -> Iterator[list[Sim]]:
    """What is plugged in is pulled out after the test."""
    made: list[Sim] = []
    yield made
    for sim in made:
        sim.pull()


def usb(fleet: Fleet, name: str) -> Path:
    """Where the simulators of a daemon say what they are."""
    return fleet.folder / f"usb-{name}"


def listed(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("devices", "list")["devices"]
    return found


def at(daemon: Daemon, path: str) -> dict[str, Any]:
    """What is plugged in there; empty for nothing."""
    return next((device for device in listed(daemon) if device["dev_path"] == path), {})


def named(daemon: Daemon, name: str) -> dict[str, Any]:
    return next((device for device in listed(daemon) if device["name"] == name), {})


def judged(daemon: Daemon, path: str, outcome: str = "mining") -> dict[str, Any]:
    """What discovery has come to that with, and is done with: both are written, one after the other."""
    device = at(daemon, path)
    return device if device.get("outcome") == outcome and device["status"] == "DEVICE_STATUS_INACTIVE" else {}


def rows(daemon: Daemon, query: str) -> list[sqlite3.Row]:
    """What its store says."""
    with closing(sqlite3.connect(daemon.data / "peerd.db")) as store:
        store.row_factory = sqlite3.Row
        return store.execute(query).fetchall()


def holders(daemon: Daemon, path: str) -> list[str]:
    """Its descriptors of a port."""
    if daemon.process is None:
        return []
    folder = Path(f"/proc/{daemon.process.pid}/fd")
    return [entry.name for entry in folder.iterdir() if os.path.realpath(entry) == path]


def soon(act: Callable[[], object], seen: Callable[[], object], what: str, *, undo: Callable[[], object]) -> None:
    """What follows the act does so soon, once in a few tries: other tests may just then have the processors."""
    took: list[float] = []
    while True:
        act()
        begun = time.monotonic()
        wait_for(seen, 60, what)
        took.append(time.monotonic() - begun)
        if took[-1] < SOON_SECONDS:
            return
        assert len(took) < TRIES, f"{what}: not once within {SOON_SECONDS} s, but {took}"
        undo()


def test_a_miner_is_found_named_watched_and_found_again(two: Fleet, sims: list[Sim]) -> None:
    c, a = two["c"], two["a"]

    def plug() -> None:
        sims.append(Sim(usb(two, "c"), "m1", "--serial", "SN-1", "--password", PASSWORD))

    def pull() -> None:
        path = sims[-1].path
        sims[-1].pull()
        wait_for(lambda: not at(c, path), 60, "it is gone")

    soon(plug, lambda: at(c, sims[-1].path), "it is listed", undo=pull)
    sim = sims[-1]
    device = wait_for(lambda: judged(c, sim.path), 60, "it is heard to mine")
    assert device["status"] == "DEVICE_STATUS_INACTIVE"
    assert device["state"] == "Mining"
    assert device["pool_url"] == "public-pool.io:21496"
    assert device["firmware_version"] == "V1.8.3"

    c.peerctl("devices", "onboard", str(device["device_id"]), "--name", "MINER_010", "--currency", "BTC")
    wait_for(lambda: named(c, "MINER_010").get("health") == "ok", 60, "Active without a replug")
    assert named(c, "MINER_010")["status"] == "DEVICE_STATUS_ACTIVE"

    wait_for(lambda: named(a, "MINER_010").get("health") == "ok", 60, "the other peer knows")
    assert named(a, "MINER_010")["peer_name"] == "c"
    lines = a.json("devices", "tail", "MINER_010")["lines"]
    assert any(line.startswith(">>> Completed") for line in lines)

    def plug_again() -> None:
        sim.order("plug")
        wait_for(lambda: named(c, "MINER_010")["status"] == "DEVICE_STATUS_ACTIVE", 60, "Active again")

    unplugged = lambda: named(c, "MINER_010")["state"] == "Not Connected"  # noqa: E731
    soon(lambda: sim.order("unplug"), unplugged, "unplugged", undo=plug_again)
    gone = named(c, "MINER_010")
    assert (gone["status"], gone["dev_path"], gone["port_path"]) == ("DEVICE_STATUS_INACTIVE", "", "")

    plug_again()
    stored = b"".join(file.read_bytes() for file in c.data.glob("peerd.db*"))
    assert PASSWORD.encode() not in stored
    assert PASSWORD not in c.log.read_text()
    assert PASSWORD not in "\n".join(c.json("devices", "tail", "MINER_010")["lines"])


def onboarded(daemon: Daemon, sim: Sim, name: str) -> None:
    """The device of that simulator, with a name, Active."""
    wait_for(lambda: judged(daemon, sim.path), 60, f"{name} is heard to mine")
    daemon.peerctl("devices", "onboard", sim.path, "--name", name, "--currency", "BTC")
    wait_for(lambda: named(daemon, name)["status"] == "DEVICE_STATUS_ACTIVE", 60, f"{name} is Active")


def test_a_miner_that_moves_to_another_peer_keeps_name_and_history(two: Fleet, sims: list[Sim]) -> None:
    c, a = two["c"], two["a"]
    sims.append(Sim(usb(two, "c"), "mover", "--serial", "SN-MOVES"))
    onboarded(c, sims[0], "MOVER")
    before = c.json("devices", "show", "MOVER")["events"]
    sims[0].pull()
    wait_for(lambda: named(a, "MOVER").get("status") == "DEVICE_STATUS_INACTIVE", 60, "a knows that it is gone")

    sims.append(Sim(usb(two, "a"), "mover", "--serial", "SN-MOVES"))

    wait_for(lambda: named(a, "MOVER").get("status") == "DEVICE_STATUS_ACTIVE", 60, "a has it")
    wait_for(lambda: named(c, "MOVER").get("peer_name") == "a", 60, "c says that a has it")
    after = a.json("devices", "show", "MOVER")["events"]
    assert {event["event"] for event in before} <= {event["event"] for event in after}
    assert "moved" in {event["event"] for event in after}
    assert named(a, "MOVER")["currency"] == "BTC"
    wait_for(lambda: not rows(c, "SELECT * FROM miners WHERE miner_id = 'MOVER'"), 60, "c has forgotten it")
    a.peerctl("devices", "forget", "MOVER")


def test_names_are_unique_in_the_mesh_and_bad_orders_change_nothing(two: Fleet, sims: list[Sim]) -> None:
    c, a = two["c"], two["a"]
    sims += [Sim(usb(two, "c"), "n1", "--serial", "SN-N1"), Sim(usb(two, "a"), "n2", "--serial", "SN-N2")]
    onboarded(c, sims[0], "TWICE")
    wait_for(lambda: named(a, "TWICE"), 60, "a knows the name")
    wait_for(lambda: judged(a, sims[1].path), 60, "the other one mines")

    refused = a.peerctl("devices", "onboard", sims[1].path, "--name", "twice", "--currency", "BTC", code=1)
    assert "already_exists" in refused.stderr
    assert "at peer c" in refused.stderr
    missing = a.peerctl("devices", "onboard", sims[1].path, "--name", "NEW", code=2)
    assert "--currency" in missing.stderr
    wrong = a.peerctl("devices", "onboard", sims[1].path, "--name", "a/b", "--currency", "btc!", code=2)
    assert "name" in wrong.stderr
    assert "currency" in wrong.stderr
    assert at(a, sims[1].path)["name"] == ""
    a.peerctl("devices", "onboard", "no-such", "--name", "NEW", "--currency", "BTC", code=5)
    c.peerctl("devices", "rename", "TWICE", "ONCE")
    assert named(c, "ONCE")["status"] == "DEVICE_STATUS_ACTIVE"
    c.peerctl("devices", "forget", "ONCE")
    wait_for(lambda: judged(c, sims[0].path), 60, "it is found anew, without a name")
    assert at(c, sims[0].path)["name"] == ""


def test_twins_that_changed_places_wait_for_the_operator(two: Fleet, sims: list[Sim]) -> None:
    c = two["c"]
    wallet = ("--wallet", "bc1qtwins")
    sims += [Sim(usb(two, "c"), f"t{port}", "--usb-path", f"1-{port}", *wallet) for port in (1, 2)]
    onboarded(c, sims[0], "TWIN_1")
    onboarded(c, sims[1], "TWIN_2")
    for sim in sims[:2]:
        sim.pull()
    wait_for(lambda: named(c, "TWIN_2")["status"] == "DEVICE_STATUS_INACTIVE", 60, "both are gone")
    wait_for(lambda: named(c, "TWIN_1")["status"] == "DEVICE_STATUS_INACTIVE", 60, "both are gone")

    sims += [Sim(usb(two, "c"), f"u{port}", "--usb-path", f"1-{port}", *wallet) for port in (1, 2)]

    wait_for(lambda: "TWIN_1, TWIN_2" in at(c, sims[2].path).get("reason", ""), 60, "the first one waits")
    wait_for(lambda: "TWIN_1, TWIN_2" in at(c, sims[3].path).get("reason", ""), 60, "the other one, too")
    c.peerctl("devices", "onboard", sims[2].path, "--known", "TWIN_2")
    wait_for(lambda: named(c, "TWIN_2")["dev_path"] == sims[2].path, 60, "the operator has said who it is")
    wait_for(lambda: named(c, "TWIN_2")["status"] == "DEVICE_STATUS_ACTIVE", 60, "and it is Active")
    for name in ("TWIN_1", "TWIN_2"):
        c.peerctl("devices", "forget", name)


def test_what_is_no_miner_or_is_no_good_says_why_and_what_is_ignored_is_left_alone(two: Fleet, sims: list[Sim]) -> None:
    c = two["c"]
    sims += [Sim(usb(two, "c"), f"f-{fault}", "--fault", fault) for fault in ("gps", "refuse", "portal")]
    sims.append(Sim(usb(two, "c"), "ign", "--usb-path", "1-9"))
    expected = {"gps": "not_a_miner", "refuse": "refused", "portal": "portal"}
    for sim, outcome in zip(sims, expected.values(), strict=False):
        device = wait_for(lambda sim=sim, outcome=outcome: judged(c, sim.path, outcome), 60, outcome)
        assert device["status"] == "DEVICE_STATUS_INACTIVE"
        assert device["reason"]
    wait_for(lambda: judged(c, sims[3].path), 60, "it is there, and mines")
    # One that may be set up meanwhile is listened to again by and by.
    wait_for(lambda: not rows(c, "SELECT * FROM device_leases"), 60, "nobody has a port")

    c.peerctl("devices", "ignore", sims[3].path)
    c.kill()
    sims[3].order("unplug")
    sims[3].order("plug")
    c.start()
    wait_for(lambda: at(c, sims[3].path), 60, "it is listed")
    assert at(c, sims[3].path)["ignored"]
    assert at(c, sims[3].path)["reason"] == "ignored"
    assert not holders(c, sims[3].path)
    c.peerctl("devices", "ignore", sims[3].path, "--undo")
    wait_for(lambda: judged(c, sims[3].path), 60, "it is looked at again")


def killed_at_each(daemon: Daemon, sim: Sim, points: Sequence[str], name: str) -> None:
    """Kill it at each of them while the miner boots; the last daemon finds everything as the wire says it is."""
    daemon.kill()
    for point in points:
        sim.order("reboot")
        daemon.start(failpoint=point, wait=False)
        assert daemon.wait() == -9, f"{point} was not reached"
    daemon.start()
    # Active it may be said to be by the daemon before; that all is well, this one has heard itself.
    wait_for(lambda: named(daemon, name).get("health") == "ok", 60, "it is well after all of it")
    wait_for(lambda: named(daemon, name).get("status") == "DEVICE_STATUS_ACTIVE", 60, "it is Active after all of it")
    assert [row["owner"] for row in rows(daemon, "SELECT owner FROM device_leases")] == ["monitor"]


def test_a_kill_at_every_step_leaves_the_truth_to_the_wire_at_every_failpoint(two: Fleet, sims: list[Sim]) -> None:
    points = [name for name in FAILPOINTS if name.startswith("devices.") and ".onboard." not in name]
    points = [name for name in points if ".take_over." not in name]
    sims += [Sim(usb(two, name), f"k-{name}", "--serial", f"SN-K{name}") for name in ("c", "a")]
    # Half of them at each of two daemons, at the same time: most of it is waiting for daemons to start.
    for number, name in enumerate(("c", "a")):
        onboarded(two[name], sims[number], f"KILLED_{name}")
    with ThreadPoolExecutor(2) as threads:
        done = [
            threads.submit(killed_at_each, two[name], sims[number], points[number::2], f"KILLED_{name}")
            for number, name in enumerate(("c", "a"))
        ]
    for each in done:
        each.result()


def test_the_example_shows_a_miner_from_plug_to_active(two: Fleet) -> None:
    c = two["c"]
    tools = str(Path(tool("peerd")).parent)
    done = subprocess.run(
        [EXAMPLES / "miners" / "try.sh", str(usb(two, "c")), "TRY_001"],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PEERD_SOCKET": str(c.socket)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "device" in done.stdout
    assert "is TRY_001" in done.stdout
    assert " 1 active," in done.stdout
    assert ">>> Completed" in done.stdout
    assert not named(c, "TRY_001")


def test_an_onboarding_and_a_move_that_are_killed_happen_once_at_every_failpoint(two: Fleet, sims: list[Sim]) -> None:
    c, a = two["c"], two["a"]
    sims.append(Sim(usb(two, "c"), "o1", "--serial", "SN-O1"))
    wait_for(lambda: judged(c, sims[0].path), 60, "it mines")
    for point in ("devices.onboard.before_commit", "devices.onboard.after_commit"):
        c.kill()
        c.start(failpoint=point)
        wait_for(lambda: judged(c, sims[0].path), 60, "it is heard to mine again")
        c.peerctl("devices", "onboard", sims[0].path, "--name", "ONCE_ONLY", "--currency", "BTC", code=None)
        wait_for(lambda: not c.alive, 60, f"{point} was reached")
    c.wait()
    c.start()
    wait_for(
        lambda: named(c, "ONCE_ONLY").get("status") == "DEVICE_STATUS_ACTIVE", 60, "it has its name, and is Active"
    )

    sims[0].pull()
    wait_for(lambda: named(a, "ONCE_ONLY").get("status") == "DEVICE_STATUS_INACTIVE", 60, "a knows that it is gone")
    a.kill()
    sims.append(Sim(usb(two, "a"), "o1", "--serial", "SN-O1"))
    for point in ("devices.take_over.before_commit", "devices.take_over.after_commit"):
        a.start(failpoint=point, wait=False)
        assert a.wait() == -9, f"{point} was not reached"
    a.start()
    wait_for(lambda: named(a, "ONCE_ONLY").get("status") == "DEVICE_STATUS_ACTIVE", 60, "a has it")
    wait_for(lambda: not rows(c, "SELECT * FROM miners WHERE miner_id = 'ONCE_ONLY'"), 60, "c has forgotten it")
    assert len(rows(a, "SELECT * FROM miners WHERE miner_id = 'ONCE_ONLY'")) == 1
