"""Scans over HTTP: the envelope of the source document, its codes, and bytes that nobody writes anew."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import tracemalloc
from typing import Any

import httpx
import pytest

from peerd.clock import DAY_MS
from peerd.errors import PeerdError
from peerd.identity.key import Identity
from peerd.rpc.rates import Rates
from peerd.scans import plain, repository, scanners
from peerd.scans.data import open_data
from peerd.scans.scanners import key_base64
from peerd.scans.statement import Claim
from peerd.v1.tokens_pb2 import TokenScope
from peerd.web.scan_bodies import parse_submission

from .conftest import Site

KEY = Identity.generate()
# Spacing, order, escapes and a number that every library writes differently.
DATA = '{ "port":443 ,"ip":"10.0.0.1","tls":true,\n "x":1.10e2,"\\u0068ost":"\\u00fc" , "y": [ {},"}]\\"{" ] }'


@pytest.fixture
async def scanner(site: Site) -> Identity:
    await site.store.write(lambda tx: scanners.add(tx, name="probe", scanner=KEY.peer_id, created_by="test"))
    return KEY


def signed(site: Site, stated: str, *, key: Identity = KEY, ahead: int = 0, name: str = "data", **change: Any) -> str:
    """A body, its data as it stands. ``change`` replaces a field by raw JSON; None leaves it out."""
    at = site.clock.now() // 1000 + ahead
    raw = base64.b64decode(json.loads(stated)) if name == "data_base64" else stated.encode()
    fields = {
        name: stated,
        "public_key": json.dumps(key_base64(key.peer_id)),
        "signature": json.dumps(base64.b64encode(key.sign(str(at).encode() + raw)).decode()),
        "timestamp": str(at),
        **change,
    }
    return "{" + ", ".join(f'"{field}": {value}' for field, value in fields.items() if value is not None) + "}"


async def post(client: httpx.AsyncClient, body: str | bytes) -> httpx.Response:
    return await client.post("/v1/mesh/ingest", content=body)


async def kept(site: Site, job_uuid: str) -> bytes:
    job = await repository.read_uuid(site.store, job_uuid)
    assert job.scan_data_id is not None
    with open_data(site.store._path, job.scan_data_id) as stream:
        return stream.read()


async def test_a_large_body_is_verified_beside_the_event_loop(
    site: Site, scanner: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may send ten megabytes with a signature of some key."""
    threads = []
    real = plain.PlainScans._claim

    def seen(scans: plain.PlainScans, envelope: plain.PlainEnvelope) -> Claim:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(scans, envelope)

    monkeypatch.setattr(plain.PlainScans, "_claim", seen)
    async with site.client() as client:
        for data in (DATA, json.dumps(DATA + " " * 100_000)):
            assert (await post(client, signed(site, data))).status_code == 202
    assert threads == [True, False]


@pytest.mark.parametrize("name", ["data", "data_base64"])
async def test_the_exact_bytes_are_verified_and_kept(site: Site, scanner: Identity, name: str) -> None:
    data = DATA if name == "data" else json.dumps(base64.b64encode(DATA.encode()).decode())
    async with site.client() as client:
        answer = await post(client, signed(site, data, name=name))
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body.keys() == {"job_id", "status", "message", "timestamp"} and body["status"] == "accepted"
        assert await kept(site, body["job_id"]) == DATA.encode()
        rewritten = json.dumps(json.loads(DATA)) if name == "data" else None
        if rewritten is not None:
            at = site.clock.now() // 1000
            signature = base64.b64encode(KEY.sign(str(at).encode() + DATA.encode())).decode()
            refused = await post(client, signed(site, rewritten, signature=json.dumps(signature)))
            assert (refused.status_code, refused.json()["error"]) == (401, "invalid_signature")


async def test_json_lines_come_as_one_string(site: Site, scanner: Identity) -> None:
    lines = '{"ip":"10.0.0.1","port":1}\n{"ip":"10.0.0.2","port":2}\n'
    async with site.client() as client:
        answer = await post(client, signed(site, json.dumps(lines)))
        assert await kept(site, answer.json()["job_id"]) == lines.encode()
        raw = await post(client, signed(site, lines))
        assert (raw.status_code, raw.json()["error"]) == (400, "invalid_json")
        assert "JSON Lines" in raw.json()["message"]


async def test_a_replay_answers_the_same_job_and_none_after_the_window(site: Site, scanner: Identity) -> None:
    body = signed(site, DATA)
    async with site.client() as client:
        first = (await post(client, body)).json()["job_id"]
        site.clock.advance(299)
        again = await post(client, body)
        assert (again.status_code, again.json()["job_id"]) == (202, first)
        site.clock.advance(2)
        late = await post(client, body)
        assert (late.status_code, late.json()["error"]) == (401, "invalid_signature")
        assert (await client.get("/v1/jobs")).json()["total"] == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"signature": None}, 401, "invalid_signature"),
        ({"public_key": None}, 401, "invalid_signature"),
        ({"timestamp": None}, 401, "invalid_signature"),
        ({"timestamp": '"1700000000"'}, 401, "invalid_signature"),
        ({"timestamp": "1.7e9"}, 401, "invalid_signature"),
        ({"timestamp": "-1"}, 401, "invalid_signature"),
        ({"signature": '"%%%"'}, 401, "invalid_signature"),
        ({"signature": json.dumps(base64.b64encode(b"x" * 64).decode())}, 401, "invalid_signature"),
        ({"public_key": json.dumps(base64.b64encode(b"x" * 31).decode())}, 401, "invalid_signature"),
        ({"public_key": json.dumps(key_base64(Identity.generate().peer_id))}, 401, "invalid_signature"),
        ({"data": None}, 400, "invalid_request"),
        ({"data_base64": '"eA=="'}, 400, "invalid_request"),
        ({"more": "1"}, 400, "invalid_request"),
        ({"data": '""'}, 400, "invalid_request"),
        ({"data": '"\\ud800"'}, 400, "invalid_json"),
        ({"data": "[" * 600 + "]" * 600}, 400, "invalid_json"),
        ({"data": "[" * 60_000}, 400, "invalid_json"),
        ({"data": '{"a"'}, 400, "invalid_json"),
        ({"data": ""}, 400, "invalid_json"),
        ({"data": "9" * 100_000}, 400, "invalid_json"),
        ({"timestamp": "NaN"}, 401, "invalid_signature"),
    ],
)
async def test_what_is_wrong_has_the_code_of_the_source(
    site: Site, scanner: Identity, change: dict[str, Any], status: int, code: str
) -> None:
    async with site.client() as client:
        answer = await post(client, signed(site, DATA, **change))
        assert (answer.status_code, answer.json()["error"]) == (status, code)
        assert answer.json().keys() >= {"error", "message", "timestamp", "next_action"}
        assert (await client.get("/v1/jobs")).json()["total"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}x", b'{"data": 1, "data": 2}', b"\xff", b"{" + b" " * 190_000, b'{"a" 1}', b"{1: 2}"]
)
async def test_a_body_that_is_no_object_is_told_so(site: Site, scanner: Identity, body: bytes) -> None:
    async with site.client() as client:
        answer = await post(client, body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_json")


async def test_only_keys_that_are_registered_and_in_time_are_taken(site: Site) -> None:
    async with site.client() as client:

        async def code(**fields: Any) -> tuple[int, str]:
            answer = await post(client, signed(site, DATA, **fields))
            return answer.status_code, answer.json().get("reason", "")

        assert await code() == (401, "unknown_scanner")
        await site.store.write(lambda tx: scanners.add(tx, name="probe", scanner=KEY.peer_id, created_by=""))
        assert await code(ahead=3600) == (401, "clock_skew")
        assert await code(ahead=-3600) == (401, "statement_expired")
        assert await code() == (202, "")
        await site.store.write(lambda tx: scanners.revoke(tx, "probe", reason="lost"))
        assert await code(ahead=1) == (401, "scanner_revoked")
        assert await code() == (401, "scanner_revoked")


async def test_too_large_and_too_often_are_told(site: Site, scanner: Identity) -> None:
    async with site.client() as client:
        large = await post(client, signed(site, json.dumps("x" * 200_000)))
        assert (large.status_code, large.json()["error"]) == (413, "payload_too_large")
    plain = site.around.scans
    plain._receiving._by_caller = Rates(per_second=1, burst=3)
    plain.per_minute = 60
    async with site.client() as client:
        answers = [await post(client, signed(site, DATA, ahead=number)) for number in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    last = answers[-1]
    assert last.json()["error"] == "rate_limit_exceeded" and last.headers["Retry-After"] == "1"
    assert (last.headers["X-RateLimit-Limit"], last.headers["X-RateLimit-Window"]) == ("60", "60")


async def test_an_address_that_is_not_this_machines_own_needs_no_token_to_hand_in_and_one_to_look(
    site: Site, scanner: Identity
) -> None:
    async with site.client(loopback=False) as client:
        answer = await post(client, signed(site, DATA))
        assert answer.status_code == 202
        path = f"/v1/jobs/{answer.json()['job_id']}"
        assert (await client.get(path)).status_code == 401
        token = await site.token(TokenScope.TOKEN_SCOPE_READ)
        found = await client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert found.json()["state"] == "pending"
        assert (await client.get("/v1/mesh/ingest")).status_code == 401


async def test_jobs_are_shown_one_by_one_and_in_slices(site: Site, scanner: Identity) -> None:
    other = Identity.generate()
    await site.store.write(lambda tx: scanners.add(tx, name="other", scanner=other.peer_id, created_by=""))
    async with site.client() as client:
        ids = []
        for number in range(5):
            key = other if number == 2 else KEY
            ids.append((await post(client, signed(site, DATA, key=key))).json()["job_id"])
            site.clock.advance(1)
        one = (await client.get(f"/v1/jobs/{ids[2]}")).json()
        assert (one["id"], one["state"], one["scanner_key"]) == (ids[2], "pending", key_base64(other.peer_id))
        assert one["error_message"] is None and one["completed_at"] is None and one["host_count"] == 0
        page = (await client.get("/v1/jobs?limit=2&offset=1")).json()
        assert [job["id"] for job in page["jobs"]] == [ids[3], ids[2]]
        assert {name: page[name] for name in page if name != "jobs"} == {
            "total": 5,
            "limit": 2,
            "offset": 1,
            "has_more": True,
            "next_offset": 3,
        }
        oldest = (await client.get("/v1/jobs?order_by=updated_at&order_desc=false&limit=1")).json()
        assert oldest["jobs"][0]["id"] == ids[0]
        mine = (await client.get("/v1/jobs", params={"scanner_key": key_base64(other.peer_id)})).json()
        assert (mine["total"], mine["has_more"], mine["next_offset"]) == (1, False, None)
        assert (await client.get("/v1/jobs?state=failed")).json()["total"] == 0
        missing = await client.get("/v1/jobs/nope")
        assert (missing.status_code, missing.json()["error"]) == (404, "not_found")
        for bad in ("limit=0", "limit=501", "limit=x", "offset=-1", "state=x", "order_by=id", "x=1", "limit=1&limit=2"):
            refused = await client.get(f"/v1/jobs?{bad}")
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request"), bad


def test_a_body_of_brackets_costs_little() -> None:
    for body in (b'{"data": [' + b"[]," * 1_000_000 + b"[]]}", b'{"data": "' + b"\\\\" * 2_000_000 + b'"}'):
        began = time.process_time()
        with pytest.raises(PeerdError):
            parse_submission(body)
        assert time.process_time() - began < 2
        tracemalloc.start()
        with pytest.raises(PeerdError):
            parse_submission(body[:100_000] + body[-4:])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 8 * 100_000


async def test_a_conflict_cannot_be_made_up(site: Site, scanner: Identity) -> None:
    """The scan id is made from what was signed, so that nobody can take one away from another scanner."""
    async with site.client() as client:
        answer = await post(client, signed(site, DATA))
        job = await repository.read_uuid(site.store, answer.json()["job_id"])
        at = site.clock.now() // 1000
        assert job.scan_id == f"http:{hashlib.sha256(str(at).encode() + DATA.encode()).hexdigest()}"
        assert job.scanned_at == at * 1000 and job.scanned_at > DAY_MS
