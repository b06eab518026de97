"""Scanned hosts over HTTP: the paths, fields and errors of the source document."""

from __future__ import annotations

from typing import Any

import pytest

from peerd.clock import Millis
from peerd.inventory.model import Certificate, Port, Record, Service, Source
from peerd.inventory.writing import apply
from peerd.v1.tokens_pb2 import TokenScope

from .conftest import Site

READ = TokenScope.TOKEN_SCOPE_READ


async def fill(site: Site) -> None:
    """Three hosts, of which two run nginx."""
    nginx = Service(name="http", product="nginx", version="1.18.0", cpes=("cpe:/a:nginx",))
    records = [
        Record(address=f"192.0.2.{last}", hostnames=(f"h{last}.example",), port=Port(number=80, service=nginx))
        for last in (1, 2)
    ]
    records.append(
        Record(address="2001:db8::1", port=Port(number=443, certificate=Certificate(sha256="a" * 64, common_name="x")))
    )
    source = Source(ingest_job_id=1, scan_id="s", scanner="k", scanned_at=Millis(site.clock.now()))
    await site.store.write(lambda tx: apply(tx, source, records))
    await site.store.write(lambda tx: tx.execute("UPDATE inventory_hosts SET asn = 64500, country = 'CH' WHERE id = 1"))


async def test_a_host_with_as_much_as_asked_for(site: Site) -> None:
    await fill(site)
    async with site.client() as client:
        alone = (await client.get("/v1/query/host/192.0.2.1?depth=0")).json()
        assert (alone["ip"], alone["asn"], alone["country"], alone["hostnames"]) == (
            "192.0.2.1",
            64500,
            "CH",
            ["h1.example"],
        )
        assert "ports" not in alone and alone["last_seen"].endswith("Z")
        (port,) = (await client.get("/v1/query/host/192.0.2.1?depth=1")).json()["ports"]
        assert (port["number"], port["protocol"], port["state"], port["scanners"]) == (80, "tcp", "open", 1)
        assert "services" not in port
        (port,) = (await client.get("/v1/query/host/192.0.2.1")).json()["ports"]
        assert port["services"][0]["product"] == "nginx"
        six = (await client.get("/v1/query/host/2001:0DB8::1?depth=5")).json()
        assert six["next_page_token"] is None
        assert six["ip"] == "2001:db8::1" and six["ports"][0]["tls_cert"]["cn"] == "x" and "asn" not in six


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("/v1/query/host/192.0.2.1?depth=6", 400, "invalid_request", "depth must be between 0 and 5"),
        ("/v1/query/host/192.0.2.1?depth=-1", 400, "invalid_request", "depth must be between 0 and 5"),
        (
            *("/v1/query/host/192.0.2.1?depht=1", 400, "invalid_request"),
            "there is no parameter 'depht'; there are depth, limit, page_token",
        ),
        ("/v1/query/host/192.0.2.1?limit=0", 400, "invalid_request", "limit must be between 1 and 1000"),
        ("/v1/query/host/192.0.2.1?limit=1001", 400, "invalid_request", "limit must be between 1 and 1000"),
        ("/v1/query/host/example", 400, "invalid_request", "'example' is no address"),
        ("/v1/query/host/192.0.2.99", 404, "not_found", "host not found"),
    ],
)
async def test_a_question_that_has_no_answer(site: Site, path: str, status: int, code: str, message: str) -> None:
    async with site.client() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"], answer.json()["message"]) == (status, code, message)
    assert answer.json().keys() == {"error", "message", "next_action", "timestamp"}


async def test_hosts_by_what_they_have(site: Site) -> None:
    await fill(site)
    async with site.client() as client:

        async def ask(**body: Any) -> list[str]:
            answer = await client.post("/v1/query/graph", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["query_time_ms"] >= 0
            return [host["ip"] for host in answer.json()["results"]]

        assert await ask(query_type="by_asn", asn=64500) == ["192.0.2.1"]
        assert await ask(query_type="by_location", country="CH") == ["192.0.2.1"]
        assert await ask(query_type="by_service", product="nginx") == ["192.0.2.1", "192.0.2.2"]
        assert await ask(query_type="by_service", product="nginx", service="https") == []
        assert await ask(query_type="by_service", product='x" OR "') == []
        body = {"query_type": "by_service", "service": "http", "limit": 1}
        first = (await client.post("/v1/query/graph", json=body)).json()
        assert first["pagination"] == {"limit": 1, "offset": 0, "has_more": True, "next_offset": 1}
        second = (await client.post("/v1/query/graph", json={**body, "offset": 1})).json()
        assert second["pagination"] == {"limit": 1, "offset": 1, "has_more": False, "next_offset": None}
        assert [host["ip"] for host in second["results"]] == ["192.0.2.2"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "query_type must be one of"),
        ({"query_type": "by_vuln", "cve": "CVE-1"}, "by_vuln is not offered"),
        ({"query_type": "by_asn"}, "asn is required"),
        ({"query_type": "by_asn", "asn": "x"}, "asn must be a number"),
        ({"query_type": "by_asn", "asn": True}, "asn must be"),
        ({"query_type": "by_location", "city": "Bern"}, "leave city and region out"),
        ({"query_type": "by_location"}, "country is required"),
        ({"query_type": "by_service"}, "product or service is required"),
        ({"query_type": "by_service", "product": "x", "limit": 1001}, "limit must be a number between 1 and 1000"),
        ({"query_type": "by_service", "product": "x", "offset": -1}, "offset must be"),
        ({"query_type": "by_service", "prodcut": "x"}, "there is no field 'prodcut'"),
        ({"query_type": ["by_asn"]}, "query_type must be one of"),
    ],
)
async def test_a_missing_or_wrong_field_is_named(site: Site, body: dict[str, Any], says: str) -> None:
    async with site.client() as client:
        answer = await client.post("/v1/query/graph", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), answer.text
    assert says in answer.json()["message"]


async def test_elsewhere_a_token_that_may_read_is_enough(site: Site) -> None:
    await fill(site)
    body = {"query_type": "by_asn", "asn": 64500}
    async with site.client(loopback=False) as client:
        assert (await client.post("/v1/query/graph", json=body)).status_code == 401
        assert (await client.get("/v1/query/host/192.0.2.1")).status_code == 401
        headers = {"Authorization": f"Bearer {await site.token(READ)}"}
        assert (await client.post("/v1/query/graph", json=body, headers=headers)).status_code == 200
        assert (await client.get("/v1/query/host/192.0.2.1", headers=headers)).status_code == 200


async def test_a_host_with_many_ports_is_told_page_by_page(site: Site) -> None:
    source = Source(ingest_job_id=1, scan_id="many", scanner="key", scanned_at=Millis(1_800_000_000_000))
    records = [Record(address="192.0.2.7", port=Port(number=number)) for number in range(1, 26)]
    await site.store.write(lambda tx: apply(tx, source, records))
    found: list[int] = []
    token, pages = "", 0
    async with site.client() as client:
        while pages == 0 or token:
            page = (await client.get(f"/v1/query/host/192.0.2.7?depth=1&limit=10&page_token={token}")).json()
            found += [port["number"] for port in page["ports"]]
            token, pages = page["next_page_token"], pages + 1
        wrong = await client.get("/v1/query/host/192.0.2.7?page_token=x")
    assert (wrong.status_code, wrong.json()["message"]) == (400, "that page token is not one of ours")
    assert (found, pages) == (list(range(1, 26)), 3)
