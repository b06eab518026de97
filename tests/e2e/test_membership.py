"""Every machine knows how every machine is: killed, stopped, cut off, taken out, gone in order, renamed, replaced."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.load import busier
from tests.e2e.wire import Wire, needs_namespaces
from tests.e2e.workflow import definition, job, start

pytestmark = pytest.mark.timeout(300)

SEEN_GONE, SEEN_BACK = 10.0, 5.0
"""Seconds, at default settings: what the documentation promises of machines that are not starved."""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a", "b"))
    try:
        made.found()
        yield made
    finally:
        made.close()


def statuses(daemon: Daemon) -> dict[str, str]:
    return {peer["name"]: peer["status"].removeprefix("PEER_STATUS_").lower() for peer in listed(daemon)}


def listed(daemon: Daemon, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("peers", "list", *options)["peers"]
    return found


def changes(daemon: Daemon, of: Daemon) -> list[str]:
    """What it found another to be, one after the other, by its own log: a look from outside may miss one."""
    lines = daemon.log.read_text(errors="replace").splitlines()
    told = (re.search(r"after=(\w+)", line) for line in lines if "detector.changed" in line and of.peer_id in line)
    return [found[1] for found in told if found is not None]


class Watch:
    """What some daemons said of one, in order, and that they said nothing bad of each other."""

    def __init__(self, watchers: list[Daemon], of: str) -> None:
        self.watchers = watchers
        self.of = of
        self.seen: dict[str, list[str]] = {watcher.name: [] for watcher in watchers}

    def look(self) -> None:
        healthy = {watcher.name for watcher in self.watchers}
        for watcher in self.watchers:
            now = statuses(watcher)
            assert all(now[name] in ("online", "suspect") for name in healthy), now
            if not self.seen[watcher.name] or self.seen[watcher.name][-1] != now[self.of]:
                self.seen[watcher.name].append(now[self.of])

    def until(self, status: str, within: float) -> float:
        started = time.monotonic()
        while True:
            self.look()
            if all(seen[-1] == status for seen in self.seen.values()):
                return time.monotonic() - started
            assert time.monotonic() - started < within * busier(), (status, self.seen)


def test_a_killed_daemon_is_suspect_then_offline_then_back(fleet: Fleet) -> None:
    watch = Watch([fleet["c"], fleet["a"]], "b")
    fleet["b"].kill()
    watch.until("offline", SEEN_GONE)
    for watcher in watch.watchers:
        assert changes(watcher, fleet["b"])[-2:] == ["suspect", "offline"], watcher.tail()
    why = next(peer["status_reason"] for peer in listed(fleet["c"]) if peer["name"] == "b")
    assert "does not answer" in why
    fleet["b"].start()
    watch.until("online", SEEN_BACK)


def test_a_stopped_process_is_seen_like_a_dead_one_and_doubts_itself_when_it_goes_on(fleet: Fleet) -> None:
    watch = Watch([fleet["c"], fleet["a"]], "b")
    fleet["b"].signal(signal.SIGSTOP)
    watch.until("offline", SEEN_GONE)
    before = len(fleet["b"].log.read_text())
    fleet["b"].signal(signal.SIGCONT)

    # It was asleep for longer than anybody answers: it must blame itself, and nobody else.
    def own() -> dict[str, Any]:
        return next(peer for peer in listed(fleet["b"]) if peer["self"])

    wait_for(lambda: own()["sample"].get("local_health", 0) > 0, 10, "it doubts itself")
    assert [warning["reason"] for warning in own()["warnings"]] == ["slow"]
    watch.until("online", SEEN_BACK)
    wait_for(lambda: set(statuses(fleet["b"]).values()) == {"online"}, 30, "it finds them all well")
    log = fleet["b"].log.read_text()[before:]
    assert "after=offline" not in log and "after=suspect" not in log


def test_a_daemon_that_is_stopped_in_order_has_left_and_was_never_suspected(fleet: Fleet) -> None:
    watch = Watch([fleet["c"], fleet["a"]], "b")
    watch.look()
    assert fleet["b"].stop() == 0
    watch.until("left", 15)
    time_out = time.monotonic() + 8
    while time.monotonic() < time_out:
        watch.look()
    assert list(watch.seen.values()) == [["online", "left"]] * 2
    fleet["b"].start()
    watch.until("online", SEEN_BACK)


def test_with_the_founder_and_every_admin_gone_all_else_goes_on(fleet: Fleet) -> None:
    fleet["c"].kill()
    wait_for(lambda: statuses(fleet["a"])["c"] == statuses(fleet["b"])["c"] == "offline", 40, "the founder is offline")
    for survivor in (fleet["a"], fleet["b"]):
        wait_for(
            lambda survivor=survivor: statuses(survivor) == {"a": "online", "b": "online", "c": "offline"},
            30,
            "the others are well",
        )
        assert survivor.json("peers", "show", "c")["founder"] is True
    done = start(fleet, "a", definition("w", job("x", "a"), job("y", "b", ["x"])))
    assert done.wait() == "COMPLETED", done.explain()
    refused = fleet["a"].peerctl("invite", "--role", "worker", "--grants", "observe", code=4)
    assert "permission_denied" in refused.stderr


def test_a_second_admin_keeps_the_mesh_running_when_the_founders_key_is_lost(fleet: Fleet) -> None:
    founder, second, other = fleet["c"], fleet["a"], fleet["b"]
    founder.peerctl("peers", "grants", "a", "observe,execute,operate,admin")
    wait_for(lambda: "GRANT_ADMIN" in second.json("peers", "show", "a")["grants"], 30, "the second admin knows")
    founder.kill()
    shutil.rmtree(founder.data)
    newcomer = fleet.add("d")
    token = second.json("invite", "--role", "worker", "--grants", "observe,execute")["token"]
    newcomer.peerd("join", token, "--name", "d", "--listen", f"127.0.0.1:{newcomer.port}")
    newcomer.start()
    wait_for(
        lambda: statuses(other).get("d") == statuses(second).get("d") == "online",
        30,
        "the newcomer is known everywhere",
    )
    second.peerctl("peers", "revoke", "d", "--yes", "--reason", "rehearsal")
    wait_for(lambda: statuses(other)["d"] == "revoked", 30, "and so is its end")
    newcomer.kill()


def test_a_mesh_is_founded_anew_and_everybody_admitted_with_one_command(fleet: Fleet) -> None:
    fleet["c"].kill()
    shutil.rmtree(fleet["c"].data)
    survivor, other = fleet["a"], fleet["b"]
    survivor.stop()
    other.stop()
    said = survivor.peerd("refound").stdout
    command = next(line for line in said.splitlines() if line.startswith("peerd join --replace"))
    survivor.start()
    assert survivor.peer_id in command
    other.peerd(*command.split()[1:])
    other.start()
    wait_for(
        lambda: statuses(survivor).get("b") == statuses(other).get("a") == "online", 40, "the two are a mesh again"
    )
    shown = survivor.json("peers", "show", "b")
    assert shown["roles"] == ["worker"]
    assert "GRANT_OPERATE" in shown["grants"]
    assert survivor.json("peers", "show", "a")["founder"] is True
    survivor.peerctl("invite", "--role", "worker", "--grants", "observe")


def anywhere(name: str) -> dict[str, Any]:
    return {"name": name, "service": "step", "params": {"name": name}}


def test_a_drained_peer_finishes_what_it_has_and_gets_nothing_of_two_hundred(fleet: Fleet) -> None:
    slow = start(fleet, "c", definition("slow", job("slow", "b", params={"seconds": "4"})))
    wait_for(lambda: fleet.effects_seen(), 30, "the slow job runs")
    fleet["c"].peerctl("peers", "drain", "b", "--reason", "new fan")
    wait_for(lambda: statuses(fleet["c"])["a"] == "online", 30, "the other one can take jobs")
    many = start(fleet, "c", definition("many", *(anywhere(f"j{number}") for number in range(200))))
    assert many.wait(200) == "COMPLETED", many.explain()
    assert [entry["node_id"] for entry in fleet["b"].json("jobs", "list")["jobs"]] == ["slow"]
    spread = Counter(entry["executor_peer_id"] for entry in many.jobs().values())
    assert set(spread) == {fleet["a"].peer_id, fleet["c"].peer_id}
    assert min(spread.values()) > 50, "the others share them"
    assert slow.wait() == "COMPLETED"

    def seen_elsewhere() -> tuple[str, str]:
        peer = next(peer for peer in listed(fleet["a"]) if peer["name"] == "b")
        return peer["status"], peer["status_reason"]

    wait_for(lambda: seen_elsewhere() == ("PEER_STATUS_MAINTENANCE", "new fan"), 20, "everybody knows and why")
    # A job that only it may run waits for it; a heartbeat does not end the maintenance.
    waiting = start(fleet, "c", definition("waiting", job("waiting", "b")))
    wait_for(lambda: "maintenance" in str(waiting.jobs()["waiting"]), 30, "the job says for what it waits")
    why = fleet["c"].peerctl("why", str(waiting.id), "waiting").stdout
    assert "refused  b: maintenance" in why and "peerctl peers resume b" in why
    fleet["b"].peerctl("peers", "resume", "b")
    assert waiting.wait() == "COMPLETED", waiting.explain()


def test_equal_jobs_are_spread_evenly_and_the_plan_says_why(fleet: Fleet) -> None:
    run_of_jobs = start(fleet, "c", definition("even", *(anywhere(f"e{number}") for number in range(30))))
    assert run_of_jobs.wait() == "COMPLETED", run_of_jobs.explain()
    spread = Counter(entry["executor_peer_id"] for entry in run_of_jobs.jobs().values())
    assert len(spread) == 3 and min(spread.values()) >= 7, spread
    file = fleet.folder / "where.yaml"
    file.write_text(
        "name: w\njobs: [{name: big, service: step, params: {name: big}, on: {where: 'memory_gb>100000'}}]\n"
    )
    planned = json.loads(fleet["c"].peerctl("workflows", "plan", str(file), "-o", "json", code=1).stdout)["jobs"][0]
    assert planned["peer_id"] == ""
    assert all("100000" in refusal["message"] for refusal in planned["refusals"])
    file.write_text("name: w\njobs: [{name: big, service: step, params: {name: big}, on: {where: 'memory_gb>'}}]\n")
    assert "on.where" in fleet["c"].peerctl("workflows", "validate", str(file), code=1).stdout


def test_a_peer_that_is_down_is_drained_all_the_same(fleet: Fleet) -> None:
    fleet["b"].kill()
    fleet["c"].peerctl("peers", "drain", "b", "--reason", "do not come back")
    fleet["b"].start()
    wait_for(lambda: statuses(fleet["b"])["b"] == "maintenance", 30, "it obeys when it is back")
    wait_for(lambda: statuses(fleet["a"])["b"] == "maintenance", 30, "and everybody sees it")


def test_a_machine_that_moves_or_is_renamed_stays_one_peer_and_a_reinstalled_one_is_flagged(fleet: Fleet) -> None:
    fleet["b"].stop()
    text = (fleet["b"].data / "peerd.toml").read_text()
    moved = fleet.add("b2").port
    (fleet["b"].data / "peerd.toml").write_text(text.replace(str(fleet["b"].port), str(moved)))
    fleet["b"].start()
    wait_for(
        lambda: fleet["c"].json("peers", "show", "b")["addresses"][0] == f"127.0.0.1:{moved}",
        30,
        "the new address is known",
    )
    wait_for(lambda: statuses(fleet["c"])["b"] == "online", 30, "and works")
    assert len(listed(fleet["c"])) == 3
    fleet["c"].peerctl("peers", "rename", "b", "scanner-1")
    wait_for(lambda: "scanner-1" in statuses(fleet["a"]), 30, "the name is known everywhere")
    taken = fleet["c"].peerctl("peers", "rename", "a", "scanner-1", code=1)
    assert "already_exists" in taken.stderr
    # Reinstalled: a new key, and the name of the old one.
    old = fleet["b"].peer_id
    fleet["b"].kill()
    del fleet.daemons["b2"]
    again = fleet.add("again")
    fleet.join(again)
    again.peer_id = again.json("status")["peer_id"]
    fleet["c"].peerctl("peers", "rename", again.peer_id, "b")
    fleet["c"].peerctl("peers", "rename", old, "old-b")
    replaced = fleet["c"].json("peers", "replace", old, again.peer_id)
    assert replaced["admitted"]["subject"] == again.peer_id
    assert "GRANT_OPERATE" in replaced["admitted"]["grants"]
    wait_for(lambda: statuses(fleet["a"]).get("old-b") == "revoked", 30, "the old key is out")
    fleet["c"].peerctl("peers", "forget", "old-b")
    wait_for(lambda: "old-b" not in statuses(fleet["a"]), 30, "and out of sight")
    assert old in {peer["peer_id"] for peer in listed(fleet["a"], "--all")}


def test_two_machines_with_one_host_name_and_one_name_do_not_merge_and_a_copied_identity_is_noticed(
    fleet: Fleet,
) -> None:
    twin = fleet.add("twin")
    token = fleet["c"].json("invite", "--role", "worker", "--grants", "observe")["token"]
    twin.peerd("join", token, "--name", "a", "--listen", f"127.0.0.1:{twin.port}")
    twin.start()
    wait_for(lambda: len([p for p in listed(fleet["c"]) if p["name"] == "a"]) == 2, 30, "both are listed")
    wait_for(
        lambda: all(
            "same_name" in [warning["reason"] for warning in peer["warnings"]]
            for peer in listed(fleet["c"])
            if peer["name"] == "a"
        ),
        30,
        "both are flagged",
    )
    ambiguous = fleet["c"].peerctl("peers", "show", "a", code=1)
    assert "ambiguous_name" in ambiguous.stderr
    # A copy of b's data directory, started elsewhere.
    fleet["b"].stop()
    copy = fleet.add("copy")
    shutil.copytree(fleet["b"].data, copy.data)
    (copy.data / "peerd.toml").write_text(
        (copy.data / "peerd.toml").read_text().replace(str(fleet["b"].port), str(copy.port))
    )
    fleet["b"].start()
    copy.start()

    def noticed() -> bool:
        reports = [
            warning["reason"]
            for daemon in (fleet["c"], fleet["b"], copy)
            for peer in listed(daemon)
            if peer["name"] == "b"
            for warning in peer["warnings"]
        ]
        return reports.count("duplicate_identity") >= 2

    wait_for(noticed, 60, "the copy is reported by more than one", pause=0.5)


def test_heartbeats_are_kept_with_latency_and_clock_offset(fleet: Fleet) -> None:
    def answered() -> list[dict[str, Any]]:
        # On a loaded machine some go unanswered, and those have no latency.
        return [beat for beat in fleet["c"].json("peers", "heartbeats", "b")["heartbeats"] if "latency_ms" in beat]

    wait_for(lambda: len(answered()) >= 2, 30, "some heartbeats")
    for beat in answered():
        assert 0 < beat["latency_ms"] < 2000 * busier()
        # One clock: what seems to be its offset is how much longer one way took than the other.
        assert abs(beat["clock_offset_ms"]) <= beat["latency_ms"] / 2 + 5
        assert beat["memory_percent"] > 0
    refused = fleet["c"].peerctl("peers", "heartbeats", "nobody", code=5)
    assert "not_found" in refused.stderr


def test_peers_are_found_by_what_they_are(fleet: Fleet) -> None:
    def names(*options: str) -> set[str]:
        return {peer["name"] for peer in listed(fleet["c"], *options)}

    wait_for(lambda: names("--where", "cpus>=1") == {"a", "b", "c"}, 30, "each is known with what it has")
    assert names("--role", "worker") == {"a", "b"}
    assert names("--where", "cpus>=1 AND role=worker AND NOT name=a") == {"b"}
    assert names("--where", "memory_gb>100000") == set()
    assert names("--text", "bubblewrap worker") <= {"a", "b"}
    wait_for(lambda: names("--status", "online") == {"a", "b", "c"}, 30, "all are online")
    for bad in ("cpus>=", "cpus>=x", "cpus ~ 3", "(role=worker", "nonsense>1", "a" * 2000, "\x00"):
        refused = fleet["c"].peerctl("peers", "list", "--where", bad, code=None) if "\x00" not in bad else None
        assert refused is None or (refused.returncode, "invalid_expression" in refused.stderr) == (2, True), bad


def test_a_profile_reaches_the_peers_of_its_role_at_once_and_services_need_their_consent(fleet: Fleet) -> None:
    fleet["b"].stop()
    fleet["b"].configure("\n")
    text = (fleet["b"].data / "peerd.toml").read_text()
    (fleet["b"].data / "peerd.toml").write_text(text.replace("[peer]\n", "[peer]\naccept_profile_services = true\n", 1))
    fleet["b"].start()
    fleet.wait_until_all_see_all()
    profile = fleet.folder / "profile.yaml"
    profile.write_text(
        "labels: [fast]\nheartbeat_seconds: 0.5\nlimits: {max_running_jobs: 1}\n"
        "services: [{name: echo, kind: SERVICE_KIND_PROCESS, argv: [/bin/echo, hello]}]\n"
    )
    fleet["c"].peerctl("profiles", "set", "worker", str(profile), "--comment", "first")
    wait_for(lambda: {p["name"] for p in listed(fleet["c"], "--label", "fast")} == {"a", "b"}, 30, "labels are there")
    assert fleet["a"].json("profiles", "get", "worker")["version"] == "1"

    def offers(name: str) -> set[str]:
        return {s["declaration"]["name"] for s in fleet[name].json("services", "list")["services"]}

    wait_for(lambda: "echo" in offers("b"), 30, "who consents offers the service")
    assert "echo" not in offers("a")
    profile.write_text("labels: ['bad label', ok]\nheartbeat_seconds: 9999\n")
    refused = fleet["c"].peerctl("profiles", "set", "worker", str(profile), code=2)
    assert "labels[0]" in refused.stderr and "heartbeat_seconds" in refused.stderr
    profile.write_text("no_such_field: 1\n")
    assert "invalid_profile" in fleet["c"].peerctl("profiles", "set", "worker", str(profile), code=2).stderr
    denied = fleet["a"].peerctl("profiles", "delete", "worker", code=4)
    assert "permission_denied" in denied.stderr
    stale = fleet["c"].peerctl("profiles", "delete", "nobody", code=5)
    assert "not_found" in stale.stderr
    fleet["c"].peerctl("profiles", "delete", "worker")
    wait_for(lambda: listed(fleet["c"], "--label", "fast") == [], 30, "its labels are gone")
    wait_for(lambda: "echo" not in offers("b"), 30, "and its services")
    versions = fleet["b"].json("profiles", "history", "worker")["profiles"]
    assert [(entry["version"], entry["deleted"]) for entry in versions] == [("2", True), ("1", False)]


# -- Behind a dropped network


@needs_namespaces
def test_a_machine_behind_a_dropped_network_is_seen_gone_and_back_and_knows_it_is_alone() -> None:
    wire, fleet = Wire(), Fleet(("c", "a", "b"))
    try:
        for number, daemon in enumerate(fleet.daemons.values(), 1):
            daemon.host, daemon.namespace = f"10.77.0.{number}", wire.host(number)
        fleet.found()
        watch = Watch([fleet["c"], fleet["a"]], "b")
        wire.isolate(str(fleet["b"].namespace))
        watch.until("offline", SEEN_GONE)
        wait_for(lambda: statuses(fleet["b"])["c"] == statuses(fleet["b"])["a"] == "offline", 60, "it is alone")
        wire.heal()
        watch.until("online", SEEN_BACK)
        wait_for(lambda: set(statuses(fleet["b"]).values()) == {"online"}, 30, "it sees the others again")
    finally:
        fleet.close()
        wire.close()


def test_what_a_revoked_operator_ordered_holds_although_the_daemon_dies_as_it_takes_that_over(fleet: Fleet) -> None:
    founder, operator, other = fleet["c"], fleet["a"], fleet["b"]

    def ordered(daemon: Daemon) -> bool:
        return bool(daemon.json("peers", "show", "b").get("maintenance", {}).get("reason") == "no power")

    operator.peerctl("peers", "drain", "b", "--reason", "no power")
    wait_for(lambda: ordered(founder), 30, "the founder knows of the maintenance")
    founder.kill()
    founder.start(failpoint="documents.put.before_commit")
    founder.peerctl("peers", "revoke", "a", "--yes", code=None)
    assert founder.wait() == -signal.SIGKILL, "it dies between the revocation and what follows from it"
    founder.start()
    assert statuses(founder)["a"] == "revoked"
    for daemon in (founder, other):
        wait_for(lambda daemon=daemon: ordered(daemon), 30, f"{daemon.name} holds b for taken out")
