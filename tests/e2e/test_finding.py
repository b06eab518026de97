"""Peers are found by what they say of themselves, and every decision about a job's place can be asked about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, wait_for
from tests.e2e.workflow import Run, definition, job, say, start

PLACES = {
    "c": {"labels": '["old"]', "groups": '["office"]', "region": '"eu-west"'},
    "a": {"labels": '["gpu", "rack=3"]', "groups": '["lab", "office"]', "region": '"eu-west"'},
    "b": {"labels": '["gpu"]', "groups": '["lab"]', "region": '"us"'},
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three daemons that say different things of themselves."""
    made = Fleet()
    try:
        made.found()
        for name, said in PLACES.items():
            daemon = made[name]
            daemon.stop()
            text = (daemon.data / "peerd.toml").read_text()
            lines = "".join(f"{key} = {value}\n" for key, value in said.items())
            (daemon.data / "peerd.toml").write_text(text.replace("[peer]\n", f"[peer]\n{lines}", 1))
            daemon.start()
        made.wait_until_all_see_all()
        for daemon in made.daemons.values():
            wait_for(
                lambda daemon=daemon: (
                    {peer["location"].get("region") for peer in peers(daemon)} == {"eu-west", "us"}
                    and all(peer.get("sample", {}).get("memory_total_bytes") for peer in peers(daemon))
                    # Seen online is not yet measured: another peer's word is enough for the first.
                    and sum("latency_ms" in peer for peer in peers(daemon)) == len(made.daemons) - 1
                ),
                60,
                "everybody knows what everybody is, how, and how far away",
            )
        yield made
    finally:
        made.close()


def peers(daemon: Any, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.json("peers", "list", *options)["peers"]
    return found


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--role", "worker"), "ab"),
        (("--role", "worker", "--label", "rack=3"), "a"),
        (("--label", "gpu"), "ab"),
        (("--group", "office"), "ac"),
        (("--region", "us"), "b"),
        (("--region", "mars"), ""),
        (("--status", "online"), "abc"),
        (("--status", "revoked"), ""),
        (("--status", "left"), ""),
        (("--text", "EU-WEST office"), "ac"),
        (("--text", "gpu lab"), "ab"),
        (("--where", "cpus>=1 AND memory_gb>0.1 AND disk_free_gb>0"), "abc"),
        (("--where", "gpu AND NOT region=us OR label=old"), "ac"),
        (("--where", 'label="rack=3" AND (group=lab OR group=nowhere)'), "a"),
        (("--where", "running_jobs<1000 AND runner=process AND status=online"), "abc"),
        (("--where", "latency_ms<100000"), "abc"),
        (("--where", "memory_gb>=100000"), ""),
        (("--where", "cpus>=1", "--region", "us"), "b"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("asked", ["c", "b"])
def test_the_same_peers_are_found_wherever_one_asks(
    fleet: Fleet, asked: str, options: tuple[str, ...], names: str
) -> None:
    found: list[str] = []

    def as_expected() -> bool:
        """A peer that a busy machine kept from answering is suspected for a moment, and not online then."""
        found[:] = sorted(peer["name"] for peer in peers(fleet[asked], *options))
        return found == sorted(names)

    wait_for(as_expected, 30 if "online" in " ".join(options) else 0, lambda: f"{found} are found, {names} are there")


@pytest.mark.parametrize(
    ("options", "reason", "says"),
    [
        (("--where", "memroy_gb>=4"), "invalid_expression", "column 1: unknown name 'memroy_gb'; did you mean"),
        (("--where", "cpus>=1 AND"), "invalid_expression", "column 12"),
        (("--where", "(" * 900), "invalid_expression", "nested deeper"),
        (("--where", "x" * 100_000), "invalid_expression", "at most 1000"),
        (("--role", "x" * 100_000), "invalid_argument", "at most 200 characters"),
        (("--label", "a\nb"), "invalid_argument", "control"),
        (("--text", "a\x1b[31m"), "invalid_argument", "control"),
    ],
    ids=["name", "end", "depth", "length", "role", "label", "text"],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(
    fleet: Fleet, options: tuple[str, ...], reason: str, says: str
) -> None:
    refused = fleet["c"].peerctl("peers", "list", *options, code=2).stderr
    assert reason in refused and says in refused, refused
    assert "\x1b" not in refused and len(refused) < 2000


def test_an_unknown_role_finds_nobody_and_the_known_ones_are_named(fleet: Fleet) -> None:
    done = fleet["a"].peerctl("peers", "list", "--role", "workr")
    assert "no peers" in done.stderr
    assert "there are the roles" in done.stderr and "worker" in done.stderr
    assert json.loads(fleet["a"].peerctl("peers", "list", "--role", "workr", "-o", "json").stdout) == {"peers": []}


def anywhere(name: str, **on: Any) -> dict[str, Any]:
    return {"name": name, "service": "step", "params": {"name": name}, **({"on": on} if on else {})}


def test_jobs_go_where_the_same_words_find_peers(fleet: Fleet) -> None:
    jobs = {
        "region": anywhere("region", region="us"),
        "group": anywhere("group", group="office", labels=["gpu"]),
        "where": anywhere("where", where='label="rack=3" AND region=eu-west'),
        "not": anywhere("not", where="NOT gpu"),
    }
    done = start(fleet, "c", definition("by-words", *jobs.values()))
    assert done.wait() == "COMPLETED", done.explain()
    placed = {name: entry["executor_name"] for name, entry in done.jobs().items()}
    assert placed == {"region": "b", "group": "a", "where": "a", "not": "c"}


def test_why_says_of_every_peer_what_is_so_and_where_the_job_is(fleet: Fleet) -> None:
    done = start(fleet, "c", definition("one", anywhere("picky", where="gpu AND region=eu-west"), anywhere("easy")))
    assert done.wait() == "COMPLETED", done.explain()
    answer = fleet["c"].json("why", str(done.id), "picky")
    row = done.view()
    assert answer["peer_name"] == "a"
    assert row["created_at"] <= answer["placed_at"] <= row["ended_at"]
    verdicts = {entry["peer_name"]: entry for entry in answer["verdicts"]}
    assert {name: entry["verdict"] for name, entry in verdicts.items()} == {
        "a": "VERDICT_CHOSEN",
        "b": "VERDICT_REFUSED",
        "c": "VERDICT_REFUSED",
    }
    assert verdicts["a"]["message"] == "the only one that fits"
    assert verdicts["b"]["message"] == "b: region is us, region=eu-west is asked"
    assert verdicts["b"]["next_action"] == "ask for what b has: region us"
    assert verdicts["c"]["message"] == "c: label is old, label=gpu is asked"
    shown = fleet["c"].peerctl("why", str(done.id), "picky").stdout
    assert shown.startswith("picky is on a, given to it 20") and "refused  b: not_selected" in shown
    easy = fleet["c"].json("why", str(done.id), "easy")["verdicts"]
    assert Counter(entry["verdict"] for entry in easy) == {"VERDICT_CHOSEN": 1, "VERDICT_FITS": 2}
    assert easy[0]["verdict"] == "VERDICT_CHOSEN" and easy[0]["message"]
    assert "not_found" in fleet["c"].peerctl("why", str(done.id), "nothing", code=5).stderr
    assert "not_found" in fleet["c"].peerctl("why", "4711", "easy", code=5).stderr


def test_a_refused_job_says_who_refused_it_even_when_all_is_over(fleet: Fleet) -> None:
    command = {"name": "bare", "on": {"peer": "a"}, "run": {"argv": ["/bin/true"]}}
    done = start(fleet, "c", definition("bare", command))
    assert done.wait() == "FAILED"
    verdicts = {entry["peer_name"]: entry for entry in fleet["c"].json("why", str(done.id), "bare")["verdicts"]}
    assert verdicts["a"]["reason"] in ("refused", "isolation_insufficient")
    assert verdicts["a"]["next_action"]
    assert verdicts["b"]["reason"] == "not_selected"


def test_a_job_that_asks_for_an_idle_peer_waits_for_one_and_says_so(fleet: Fleet) -> None:
    busy = start(fleet, "c", definition("busy", job("long", "b", params={"until": "b may rest"})))
    wait_for(lambda: peers(fleet["c"], "--where", "name=b AND running_jobs>=1"), 60, "b runs it, and c knows")
    waiting = start(fleet, "c", definition("waiting", anywhere("idle", where="region=us AND running_jobs<1")))
    wait_for(lambda: "waits for b (busy)" in str(waiting.jobs()["idle"]), 60, "the job says for what it waits")
    why = {entry["peer_name"]: entry for entry in fleet["c"].json("why", str(waiting.id), "idle")["verdicts"]}
    assert "running_jobs is 1, running_jobs<1 is asked" in why["b"]["message"]
    assert "region is eu-west" in why["a"]["message"], "that does not pass"
    say(fleet, "b may rest")
    assert waiting.wait() == "COMPLETED", waiting.explain()
    assert waiting.jobs()["idle"]["executor_name"] == "b"
    assert busy.wait() == "COMPLETED"


def test_a_drained_peer_is_refused_with_the_operators_reason_and_found_by_its_status(fleet: Fleet) -> None:
    fleet["a"].peerctl("peers", "drain", "b", "--reason", "new fan")
    try:
        # Whoever is suspected for a moment is shown as that.
        for asked in (("--status", "maintenance"), ("--where", "status=maintenance")):
            wait_for(lambda asked=asked: [p["name"] for p in peers(fleet["c"], *asked)] == ["b"], 60, "c knows")
        file = fleet.folder / "plan.json"
        file.write_text(json.dumps(definition("plan", anywhere("x"), anywhere("y", region="us"))))
        x, y = fleet["c"].json("workflows", "plan", str(file))["jobs"]
        assert x["peer_name"] in ("a", "c") and x["rule"]
        (refusal,) = x["refusals"]
        assert (refusal["peer_name"], refusal["reason"]) == ("b", "maintenance")
        assert "new fan" in refusal["message"] and "peerctl peers resume b" in refusal["next_action"]
        assert y["peer_id"] == "" and y["waits"] is True
        assert "waits for it" in fleet["c"].peerctl("workflows", "plan", str(file)).stdout
    finally:
        fleet["a"].peerctl("peers", "resume", "b")


def test_thirty_equal_jobs_are_spread_evenly_over_three_equal_machines(fleet: Fleet) -> None:
    done, doubted = spread(fleet)
    for _ in range(4):
        if not doubted:
            break
        done, doubted = spread(fleet)  # machines of which one is suspected, or was measured at work, are not equal
    assert Counter(entry["executor_name"] for entry in done.jobs().values()) == {"a": 10, "b": 10, "c": 10}


def spread(fleet: Fleet) -> tuple[Run, bool]:
    """Thirty jobs that ran somewhere, and whether c suspected anybody just then."""
    c = fleet["c"]
    before = suspicions(c)
    wait_for(lambda: len(peers(c, "--where", "running_jobs=0 AND status=online")) == 3, 60, "all are idle")
    done = start(fleet, "c", definition("even", *(anywhere(f"e{number}") for number in range(30))))
    wait_for(lambda: all(entry["executor_name"] for entry in done.jobs().values()), 60, "all have their places")
    doubted = suspicions(c) > before
    assert done.wait() == "COMPLETED", done.explain()
    return done, doubted


def suspicions(daemon: Any) -> int:
    """How often it has suspected somebody since it was made."""
    return str(daemon.log.read_text()).count("after=suspect")


def test_a_wrong_expression_in_a_definition_is_named_with_its_place(fleet: Fleet) -> None:
    file = fleet.folder / "wrong.yaml"
    file.write_text('name: w\njobs:\n  - name: x\n    service: step\n    on:\n      where: "cpus>=1 AND grups=2"\n')
    said = fleet["c"].peerctl("workflows", "validate", str(file), code=1).stdout
    assert f"{file}:6:" in said and "column 13: unknown name 'grups'" in said and "jobs[0].on.where" in said
    refused = fleet["c"].peerctl("workflows", "run", str(file), code=1).stderr
    assert f"{file}:6:" in refused
