"""HTTP as Prometheus, a supervisor, a browser and a machine without peerd use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from peerd.daemon.http import listens
from peerd.v1 import tokens_pb2, tokens_pb2_grpc
from tests.e2e.fleet import Daemon, Fleet, wait_for
from tests.e2e.workflow import definition, job, start

ROOT = Path(__file__).parents[2]
needs_promtool = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and shutil.which("promtool") is None, reason="promtool is not installed"
)


OFFLINE_SECONDS = 8
"""Of machines without peerd: longer than two requests take, also on a busy machine."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    try:
        quick = f"\n[http]\nexternal_offline_seconds = {OFFLINE_SECONDS}\n"
        made.found(configure={"c": quick, "a": quick})
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def token(fleet: Fleet) -> str:
    return str(fleet["c"].json("tokens", "create", "--scope", "register", "--name", "tests")["token"])


class Answer:
    """Status, headers and body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    daemon: Daemon, path: str, *, token: str = "", body: Any = None, raw: bytes | None = None, **headers: str
) -> Answer:
    address = (daemon.data / "run" / "http").read_text().strip()
    sent = dict(headers)
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    if token:
        sent["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"http://{address}{path}", data=data, headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def ready_answer(daemon: Daemon) -> Answer:
    """What it says when it is ready: one that got no processor time for a second is not, and says so."""
    answers: list[Answer] = []

    def is_ready() -> bool:
        answers[:] = [ask(daemon, "/readyz")]
        return answers[0].status == 200

    wait_for(is_ready, 60, lambda: f"it is ready: {answers[0].body!r}")
    return answers[0]


def test_the_paths_of_the_source_document_answer_what_it_shows(fleet: Fleet) -> None:
    c = fleet["c"]
    health = ask(c, "/health").json
    assert health.keys() == {"status", "service", "version", "database", "uptime_seconds"}
    assert (health["status"], health["database"]["connected"]) == ("healthy", True)
    assert ask(c, "/livez").json == {"status": "ok"}
    ready = ready_answer(c).json
    assert (ready["status"], ready["failing"]) == ("ok", [])
    checks = {check["name"]: check["message"] for check in ready["checks"]}
    assert checks.keys() >= {"store", "disk", "grpc", "event_loop"}
    assert checks["grpc"] == f"listens on 127.0.0.1:{c.port}"
    assert "/api/v1/nodes" in ask(c, "/").json["paths"]
    nodes = ask(c, "/api/v1/nodes").json
    assert nodes["total"] == len(nodes["nodes"]) >= 2
    assert ask(c, "/nodes?role=worker").json["total"] == 1
    workers = "/api/v1/nodes?role=worker&status=online"
    online = wait_for(lambda: ask(c, workers).json["nodes"], 60, "a is online, and not suspected for a moment")
    assert online[0]["name"] == "a"
    assert ask(c, "/api/v1/nodes?role=none").json == {"nodes": [], "total": 0}
    one = ask(c, f"/api/v1/nodes/{fleet['a'].peer_id}").json
    assert {"node_id", "hostname", "ip", "role", "labels", "status", "last_heartbeat", "metadata"} <= one.keys()
    assert one["metadata"]["capabilities"]["cpu_cores"] > 0
    missing = ask(c, "/api/v1/nodes/nope")
    assert (missing.status, missing.json["detail"]) == (404, "Node not found: nope")
    assert ask(c, "/api/v1/profiles/worker").status == 404
    profile = fleet.folder / "p.yaml"
    profile.write_text("labels: [fast]\n")
    c.peerctl("profiles", "set", "worker", str(profile))
    assert ask(c, "/api/v1/profiles/worker").json["config"] == {"labels": ["fast"]}


def test_a_machine_without_peerd_registers_beats_goes_stale_moves_and_is_removed(fleet: Fleet, token: str) -> None:
    c, a = fleet["c"], fleet["a"]
    body: dict[str, Any] = {"hostname": "printer", "ip": "192.0.2.7", "role": "office", "labels": ["paper", "floor=2"]}
    first = ask(c, "/api/v1/nodes/register", token=token, body=body)
    assert (first.status, first.json["created"]) == (201, True)
    node_id = first.json["node_id"]
    body["metadata"] = {"rack": "7"}
    again = ask(c, "/api/v1/nodes/register", token=token, body={**body, "labels": ["paper"]})
    assert (again.status, again.json["created"], again.json["node_id"]) == (200, False, node_id)
    assert again.json["labels"] == ["paper"]
    audited = c.json("audit", "list", "--method", "RegisterExternal")["entries"][0]
    assert audited["caller"] == f"token {token.split('_')[1]}"

    def beats(**more: Any) -> Answer:
        return ask(c, "/api/v1/nodes/heartbeat", token=token, body={"node_id": node_id, **more})

    beat = beats(metrics={"cpu_percent": 12.5})
    assert (beat.status, beat.json["success"], beat.json["node_id"]) == (200, True, node_id)

    def seen(daemon: Daemon) -> dict[str, Any]:
        found = [peer for peer in daemon.json("peers", "list")["peers"] if peer["peer_id"] == node_id]
        return found[0] if found else {}

    def shown_as(shown: str, **said: str) -> bool:
        """It goes on beating: else it is soon offline."""
        beats(**said)
        return bool(seen(a).get("status") == f"PEER_STATUS_{shown}")

    wait_for(lambda: shown_as("ONLINE"), 60, "the other peer lists it, too")
    assert (seen(a)["external"], seen(a)["via_peer_id"], seen(a)["grants"]) == (True, c.peer_id, [])
    wait_for(lambda: shown_as("MAINTENANCE", status="maintenance"), 60, "what it says reaches the other peer")
    assert ask(c, f"/api/v1/nodes/{node_id}").json["metadata"]["rack"] == "7"
    assert ask(a, f"/api/v1/nodes/{node_id}").json["metadata"]["rack"] == "7"
    # Another machine of the same name, while the first still beats.
    beats()
    other = ask(c, "/api/v1/nodes/register", token=token, body={**body, "ip": "192.0.2.8"}).json
    assert other["created"] and other["node_id"] != node_id
    wait_for(lambda: seen(c)["status"] == seen(a)["status"] == "PEER_STATUS_OFFLINE", 60, "it is stale everywhere")
    moved = ask(c, "/api/v1/nodes/register", token=token, body={**body, "node_id": node_id, "ip": "192.0.2.9"}).json
    assert (moved["node_id"], moved["ip"], moved["created"]) == (node_id, "192.0.2.9", False)
    # It is never given jobs.
    refused = start(fleet, "c", definition("office", job("o", "printer")))
    assert refused.wait() == "FAILED"
    c.peerctl("peers", "forget", node_id)
    wait_for(lambda: seen(c) == seen(a) == {}, 60, "it is gone everywhere")
    gone = beats()
    assert (gone.status, gone.json["detail"]) == (404, f"Node not found: {node_id}")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hostname": ""}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": None}, "hostname"),
        ({"ip": "300.1.1.1"}, "ip"),
        ({"ip": 7}, "ip"),
        ({"role": "no such\x07role"}, "role"),
        ({"labels": "gpu"}, "labels"),
        ({"labels": ["a\x00b"]}, "labels[0]"),
        ({"labels": ["x" * 1000]}, "labels[0]"),
        ({"labels": [["deep"]]}, "labels[0]"),
        ({"surprise": 1}, "surprise"),
        ({"node_id": "ext-0000000000000000"}, ""),
        ({"node_id": "../../etc/passwd"}, ""),
    ],
)
def test_a_bad_registration_names_its_field_and_changes_nothing(
    fleet: Fleet, token: str, change: dict[str, Any], field: str
) -> None:
    before = ask(fleet["c"], "/api/v1/nodes").json["total"]
    body = {"hostname": "h", "ip": "192.0.2.1", "role": "r", "labels": [], **change}
    answer = ask(fleet["c"], "/api/v1/nodes/register", token=token, body=body)
    assert answer.status == (422 if field else 404), answer.body
    assert answer.json["reason"] and answer.json["next_action"]
    if field:
        assert field in [violation["field"] for violation in answer.json["violations"]]
    assert ask(fleet["c"], "/api/v1/nodes").json["total"] == before


def test_bodies_that_are_too_long_or_no_json_are_refused(fleet: Fleet, token: str) -> None:
    c, path = fleet["c"], "/api/v1/nodes/register"
    label = json.dumps({"hostname": "h", "ip": "::1", "role": "r", "labels": ["x" * 1024**2]}).encode()
    assert ask(c, path, token=token, raw=label).status == 413
    for raw in (b"", b"{", b"[1]", b"\xff\xfe", b'{"a": NaN}', b"[" * 60000):
        assert ask(c, path, token=token, raw=raw).status == 422, raw[:20]
    assert ask(c, path, token=token, raw=b"a=b", **{"Content-Type": "text/plain"}).status == 415
    bad = {"node_id": "x", "metrics": {"cpu_percent": "much"}}
    assert ask(c, "/api/v1/nodes/heartbeat", token=token, body=bad).status == 422
    assert ask(c, "/api/v1/nodes?color=red").status == 422
    assert ask(c, "/api/v1/nodes", raw=b"{}", token=token).status == 405
    assert ask(c, "/nowhere").status == 404


def test_who_may_ask(fleet: Fleet, token: str) -> None:
    c = fleet["c"]
    body = {"hostname": "h", "ip": "192.0.2.1", "role": "r"}
    assert ask(c, "/api/v1/nodes/register", body=body).status == 401
    assert ask(c, "/api/v1/nodes/register", body=body, token="peerd_000000000000_" + "0" * 48).status == 401
    reader = c.json("tokens", "create", "--scope", "read")
    wrong = ask(c, "/api/v1/nodes/register", body=body, token=reader["token"])
    assert (wrong.status, wrong.json["reason"]) == (403, "permission_denied")
    ended = c.json("tokens", "create", "--scope", "register")
    c.peerctl("tokens", "revoke", ended["details"]["token_id"])
    revoked = ask(c, "/api/v1/nodes/register", body=body, token=ended["token"])
    assert (revoked.status, "revoked" in revoked.json["detail"]) == (401, True)
    rebound = ask(c, "/api/v1/nodes", Host="evil.example")
    assert rebound.status == 403
    listed = c.peerctl("tokens", "list").stdout
    assert reader["token"] not in listed and reader["details"]["token_id"] in listed
    database = (c.data / "peerd.db").read_bytes() + (c.data / "peerd.db-wal").read_bytes()
    assert token.rpartition("_")[2].encode() not in database, "only its digest is stored"


def test_a_token_is_shown_once_even_if_asked_for_again(fleet: Fleet) -> None:
    request = tokens_pb2.CreateTokenRequest(request_id="the same", scope=tokens_pb2.TOKEN_SCOPE_READ, name="once")
    with grpc.insecure_channel(f"unix:{fleet['c'].socket}") as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        first, second = stub.CreateToken(request, timeout=60), stub.CreateToken(request, timeout=60)
    assert ask(fleet["c"], "/api/v1/nodes/register", token=first.token, body={}).status == 403, "it holds, for reading"
    assert (second.details, second.token) == (first.details, "")


async def test_an_address_that_nobody_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerd.daemon.http._CONNECT_SECONDS", 60)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert not await listens(address)
        taken.listen()
        assert await listens(address)
        assert await listens(address.replace("127.0.0.1", "0.0.0.0"))


def test_on_another_address_than_its_own_every_request_needs_a_token() -> None:
    made = Fleet(("x",))
    try:
        x = made["x"]
        x.peerd("init", "--name", "x", "--listen", f"127.0.0.1:{x.port}")
        x.configure("\n[http]\nrequests_per_second = 0.1\nburst = 20\n")
        x.http_listen = "0.0.0.0:0"
        x.start()
        port = (x.data / "run" / "http").read_text().strip().rpartition(":")[2]
        (x.data / "run" / "http").write_text(f"127.0.0.1:{port}")
        assert ask(x, "/livez").status == 200
        for path in ("/", "/health", "/metrics", "/api/v1/nodes"):
            assert ask(x, path).status == 401, path
        reader = x.json("tokens", "create", "--scope", "read")["token"]
        assert ask(x, "/api/v1/nodes", token=reader).status == 200
        limited = [answer for answer in (ask(x, "/livez") for _ in range(100)) if answer.status == 429]
        assert limited, "an address gets an answer each ten seconds, with bursts of 20"
        assert int(limited[0].headers["Retry-After"]) >= 1
        assert limited[0].json["reason"] == "rate_limited"
        assert ask(x, "/", token=reader).status == 200, "a token that holds is not an address"
    finally:
        made.close()


def test_a_peer_in_maintenance_is_ready_and_says_so(fleet: Fleet) -> None:
    fleet["c"].peerctl("peers", "drain", "c", "--reason", "painting")
    ready = ready_answer(fleet["c"])
    fleet["c"].peerctl("peers", "resume", "c")
    assert ready.status == 200
    assert next(check for check in ready.json["checks"] if check["name"] == "maintenance")["message"] == "painting"


def scrape(fleet: Fleet) -> str:
    return ask(fleet["c"], "/metrics").body.decode()


def value(text: str, series: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))


def test_metrics_count_what_happens(fleet: Fleet) -> None:
    before = scrape(fleet)
    done = start(fleet, "c", definition("counted", job("one", "c"), job("two", "a", ["one"]), deliver=["two"]))
    assert done.wait() == "COMPLETED", done.explain()
    counted = (
        'peerd_transfers_finished_total{direction="in"',
        'peerd_jobs_finished_total{result="completed"}',
        "peerd_job_duration_seconds_count",
        'peerd_transfers_finished_total{direction="out",result="delivered"}',
        "peerd_transfer_bytes_total",
        "peerd_transfer_duration_seconds_count",
        "peerd_store_commit_duration_seconds_count",
        'grpc_server_handled_total{grpc_code="OK",grpc_method="RunWorkflow"',
    )
    after = ""

    def missing() -> list[str]:
        """What is not counted yet: that follows the commit, and a peer may be suspected for a moment."""
        nonlocal after
        after = scrape(fleet)
        less = [series for series in counted if value(after, series) <= value(before, series)]
        wrong = {
            "workers online": value(after, 'peerd_peers{role="worker",status="online"}') != 1,
            "latency": not value(after, "peerd_heartbeat_latency_seconds_count") > 0,
        }
        return less + [name for name, is_so in wrong.items() if is_so]

    wait_for(lambda: not missing(), 60, lambda: f"all is counted but {missing()}")
    assert value(after, "peerd_build_info{") == 1
    ids = (fleet["c"].peer_id, fleet["a"].peer_id)
    assert not any(peer_id in after for peer_id in ids), "no label whose values grow without bound"


@needs_promtool
def test_prometheus_finds_nothing_to_object_to(fleet: Fleet) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(fleet), text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rules = subprocess.run(
        ["promtool", "check", "rules", ROOT / "docs" / "prometheus-alerts.yaml"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert rules.returncode == 0, rules.stdout + rules.stderr


def test_the_dashboard_asks_only_for_what_is_exposed(fleet: Fleet) -> None:
    exposed = set(re.findall(r"^# TYPE (\w+) ", scrape(fleet), re.MULTILINE))
    dashboard = json.loads((ROOT / "docs" / "grafana" / "peerd.json").read_text())
    assert {"title", "uid", "panels", "schemaVersion", "templating", "time"} <= dashboard.keys()
    asked: set[str] = set()
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["gridPos"] and panel["targets"]
        for target in panel["targets"]:
            asked |= set(re.findall(r"\b(?:peerd|grpc_server|process)_\w+", target["expr"]))
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert asked <= exposed | {name.removesuffix("_total") for name in exposed}, asked - exposed
    titles = " ".join(panel["title"].lower() for panel in dashboard["panels"])
    for topic in ("by role", "online and offline", "heartbeat latency", "registration"):
        assert topic in titles
