"""What is asked over HTTP, and what is refused: the application on a real store."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from peerd import metrics
from peerd.errors import PeerdError, Reason
from peerd.rpc.rates import Rates
from peerd.tokens.tokens import READ, REGISTER
from peerd.web import bodies
from peerd.web.errors import HttpRefusalError, refusal
from peerd.web.surroundings import Check
from tests.web.conftest import Site

MACHINE = {"hostname": "printer", "ip": "192.0.2.7", "role": "office"}
REGISTER_PATH, BEAT_PATH = "/api/v1/nodes/register", "/api/v1/nodes/heartbeat"


def auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def registered(site: Site, client: httpx.AsyncClient, **change: object) -> dict[str, Any]:
    token = await site.token(REGISTER)
    answer = await client.post(REGISTER_PATH, json={**MACHINE, **change}, headers=auth(token))
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (REGISTER_PATH, rb'{"\ud800": 1}', r"'\ud800'"),
        (REGISTER_PATH, rb'{"\u001b[31m": 1}', r"'\x1b[31m'"),
        (REGISTER_PATH, b'{"' + b"x" * 9000 + b'": 1}', "x" * 80),
        (REGISTER_PATH, b'{"metadata": [1]}', "metadata"),
        (REGISTER_PATH, b'{"labels": {"a": 1}}', "labels"),
        (REGISTER_PATH, b'{"hostname": true}', "hostname"),
        (BEAT_PATH, b'{"node_id": "x", "metrics": {"cpu": ' + b"9" * 400 + b"}}", "metrics.cpu"),
        (BEAT_PATH, b'{"node_id": "x", "metrics": {"cpu": 1e999}}', "metrics.cpu"),
        (BEAT_PATH, b'{"node_id": "x", "metrics": {"cpu": true}}', "metrics.cpu"),
        (BEAT_PATH, rb'{"node_id": "x", "metrics": {"\ud800": "x"}}', "metrics"),
        (BEAT_PATH, b'{"node_id": "x", "status": "dancing"}', "status"),
        (BEAT_PATH, b'{"metrics": 1}', "metrics"),
    ],
)
async def test_a_body_that_is_wrong_is_told_the_field(site: Site, path: str, body: bytes, field: str) -> None:
    headers = auth(await site.token(REGISTER)) | {"Content-Type": "application/json"}
    async with site.client() as client:
        answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json().keys() == {"detail", "reason", "next_action", "violations"}
    assert field in [violation["field"] for violation in answer.json()["violations"]]


@pytest.mark.parametrize(
    "metadata", [{"a": "x" * 5000}, json.loads('{"a":' * 20 + "1" + "}" * 20), {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}]
)
async def test_metadata_that_every_peer_would_have_to_carry_is_small(site: Site, metadata: object) -> None:
    token = await site.token(REGISTER)
    async with site.client() as client:
        answer = await client.post(REGISTER_PATH, json={**MACHINE, "metadata": metadata}, headers=auth(token))
        assert (answer.status_code, answer.json()["violations"][0]["field"]) == (422, "metadata")
        assert (await client.get("/api/v1/nodes?role=office")).json() == {"nodes": [], "total": 0}


async def test_what_a_machine_says_of_itself_is_shown(site: Site) -> None:
    async with site.client() as client:
        said = {"capabilities": {"gpus": 2}, "rack": "7", "via": "someone else", "load": {"cpu_percent": 1}}
        node = await registered(site, client, metadata=said)
        assert node["metadata"]["capabilities"] == {"gpus": 2}
        assert (node["metadata"]["rack"], node["metadata"]["via"]) == ("7", site.around.self_id)
        assert node["metadata"]["load"] == {"cpu_percent": 1}
        beat = {"node_id": node["node_id"], "metrics": {"cpu_percent": 12.5, "timestamp": 1}}
        answer = await client.post(BEAT_PATH, json=beat, headers=auth(await site.token(REGISTER)))
        assert (answer.status_code, answer.json()["success"]) == (200, True)
        shown = (await client.get(f"/api/v1/nodes/{node['node_id']}")).json()
        assert shown["metadata"]["load"] == {"cpu_percent": 12.5}
        assert shown["role"] == "office"


@pytest.mark.parametrize(
    ("said", "shown", "reason"),
    [
        ("online", "online", "sends heartbeats"),
        ("degraded", "degraded", "says that it is degraded"),
        ("maintenance", "maintenance", "says that it is in maintenance"),
        ("offline", "offline", "says that it is offline"),
    ],
)
async def test_a_machine_is_what_it_says_until_it_falls_silent(site: Site, said: str, shown: str, reason: str) -> None:
    async with site.client() as client:
        node_id = (await registered(site, client))["node_id"]
        headers = auth(await site.token(REGISTER))
        await client.post(BEAT_PATH, json={"node_id": node_id, "status": said}, headers=headers)
        listed = (await client.get(f"/api/v1/nodes?status={shown}&role=office")).json()["nodes"]
        assert [(node["node_id"], node["status"], node["status_reason"]) for node in listed] == [
            (node_id, shown, reason)
        ]
        site.clock.advance(301)
        silent = (await client.get(f"/api/v1/nodes/{node_id}")).json()
        assert (silent["status"], silent["status_reason"]) == ("offline", "no heartbeat for 300 s")
        await client.post(BEAT_PATH, json={"node_id": node_id}, headers=headers)
        back = (await client.get(f"/api/v1/nodes/{node_id}")).json()
        assert (back["status"], back["status_reason"]) == ("online", "sends heartbeats")


async def test_a_machine_that_was_forgotten_is_told_how_to_come_back(site: Site) -> None:
    async with site.client() as client:
        headers = auth(await site.token(REGISTER))
        gone = await client.post(REGISTER_PATH, json={**MACHINE, "node_id": "ext-00000000000000aa"}, headers=headers)
        assert (gone.status_code, gone.json()["detail"]) == (404, "Node not found: ext-00000000000000aa")
        assert "without a node_id" in gone.json()["next_action"]


async def test_a_body_that_dawdles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_BODY_SECONDS", 0.05)
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> MutableMapping[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop()

    scope = {"type": "http", "headers": [(b"content-type", b"application/json")], "method": "POST"}
    with pytest.raises(HttpRefusalError) as caught:
        await bodies.read_object(Request(scope, receive))
    assert caught.value.status == 408


def test_a_refusal_may_quote_what_no_encoding_takes() -> None:
    answer = refusal(PeerdError(Reason.NOT_FOUND, "there is no \ud800"))
    assert json.loads(bytes(answer.body))["detail"] == "there is no \ud800"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.TOO_LARGE, 413),
        (Reason.DISK_LOW, 503),
        (Reason.QUOTA_EXCEEDED, 503),
        (Reason.SHUTTING_DOWN, 503),
        (Reason.RATE_LIMITED, 429),
        (Reason.INTERNAL, 500),
    ],
)
def test_a_reason_has_its_status(reason: Reason, status: int) -> None:
    assert refusal(PeerdError(reason, "")).status_code == status


async def test_a_fault_inside_is_told_in_json_and_no_more(site: Site) -> None:
    async def broken() -> list[Check]:
        raise RuntimeError("secret path /root")

    site.around = dataclasses.replace(site.around, checks=broken)
    async with site.client(raises=False) as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal")
    assert "secret" not in answer.text


async def test_not_ready_names_what_fails_and_maintenance_is_not_a_failure(site: Site) -> None:
    site.checks[:] = [
        Check(name="store", ok=False, message="the disk is full"),
        Check(name="disk", ok=True, message="room"),
        Check(name="maintenance", ok=False, message="painting", required=False),
    ]
    async with site.client() as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["failing"]) == (503, ["store"])
        assert answer.json()["checks"][0]["message"] == "the disk is full"
        site.checks[0] = Check(name="store", ok=True, message="takes writes")
        assert (await client.get("/readyz")).status_code == 200
    async with site.client(loopback=False) as stranger:
        told = (await stranger.get("/readyz")).json()
    assert [check.keys() for check in told["checks"]] == [{"name", "ok"}] * 3, "strangers hear yes or no"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9205", 200),
        ("127.0.0.1:9205", 200),
        ("127.8.8.8", 200),
        ("[::1]:9205", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:9205", 403),
        ("192.0.2.1", 403),
        ("2130706433", 403),
        ("", 403),
    ],
)
async def test_on_loopback_the_host_must_be_this_machine(site: Site, host: str, status: int) -> None:
    async with site.client() as client:
        assert (await client.get("/api/v1/nodes", headers={"Host": host})).status_code == status


async def test_who_may_do_what(site: Site) -> None:
    read, register = await site.token(READ), await site.token(REGISTER)
    short = await site.token(READ, ttl_seconds=60)
    cases = [
        # loopback, method, path, token, status
        (True, "GET", "/api/v1/nodes", "", 200),
        (True, "POST", REGISTER_PATH, "", 401),
        (True, "POST", REGISTER_PATH, read, 403),
        (True, "POST", REGISTER_PATH, register, 201),
        (False, "GET", "/livez", "", 200),
        (False, "GET", "/readyz", "", 200),
        (False, "GET", "/livez/../metrics", "", 401),
        (False, "GET", "//livez", "", 401),
        (False, "GET", "/metrics", "", 401),
        (False, "HEAD", "/api/v1/nodes", "", 401),
        (False, "GET", "/nowhere", "", 401),
        (False, "GET", "/api/v1/nodes", read, 200),
        (False, "GET", "/api/v1/nodes", short, 200),
        (False, "GET", "/api/v1/nodes", register, 403),
        (False, "GET", "/nowhere", read, 404),
        (False, "POST", REGISTER_PATH, register, 200),
    ]
    for loopback, method, path, token, status in cases:
        async with site.client(loopback=loopback) as client:
            body = MACHINE if method == "POST" else None
            answer = await client.request(method, path, json=body, headers=auth(token) if token else {})
        assert answer.status_code == status, (loopback, method, path, answer.text)
        assert status != 401 or answer.headers["WWW-Authenticate"]
    site.clock.advance(60)
    async with site.client(loopback=False) as client:
        late = await client.get("/api/v1/nodes", headers=auth(short))
    assert (late.status_code, late.json()["detail"]) == (401, "this token has expired")


async def test_guessing_tokens_uses_up_the_address_and_nobody_elses_turn(site: Site) -> None:
    token = await site.token(READ)
    rates = Rates(per_second=1, burst=5)
    async with site.client(loopback=False, rates=rates) as client:
        guesses = [await client.get("/", headers=auth(f"peerd_{n:012x}_{'0' * 48}")) for n in range(8)]
        assert [guess.status_code for guess in guesses] == [401] * 5 + [429] * 3
        assert int(guesses[-1].headers["Retry-After"]) >= 1
        prefix = [await client.get("/", headers=auth(token[:20] + "0" * 47)) for _ in range(8)]
        assert {answer.status_code for answer in prefix} == {429}
        mine = [(await client.get("/", headers=auth(token))).status_code for _ in range(6)]
        assert mine == [200] * 5 + [429], "a token that holds has a bucket of its own"
        site.clock.advance(2)
        assert (await client.get("/", headers=auth(token))).status_code == 200


def counted(**labels: str) -> float:
    return metrics.REGISTRY.get_sample_value("peerd_http_requests_total", labels) or 0.0


async def test_every_answer_is_counted_under_few_labels(site: Site) -> None:
    cases = [
        ("GET", "/livez", "livez", "GET", "200"),
        ("GET", "/nowhere", "none", "GET", "404"),
        ("DELETE", "/nowhere", "none", "other", "401"),
        ("BREW", "/livez", "livez", "other", "405"),
        ("GET", "/api/v1/nodes/abc", "get_node", "GET", "404"),
    ]
    async with site.client() as client:
        for method, path, route, shown, code in cases:
            before = counted(route=route, method=shown, code=code)
            answer = await client.request(method, path)
            assert str(answer.status_code) == code, answer.text
            assert counted(route=route, method=shown, code=code) == before + 1, (method, path)


async def test_queries_that_nobody_understands_are_refused(site: Site) -> None:
    async with site.client() as client:
        for query in ("color=red", "role=a&role=b", "role=%00", "label=" + "x" * 300):
            answer = await client.get(f"/api/v1/nodes?{query}")
            assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_argument"), query
        assert (await client.get("/api/v1/nodes?status=dancing")).json() == {"nodes": [], "total": 0}
