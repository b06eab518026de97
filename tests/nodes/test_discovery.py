"""Discovery against real servers on loopback: what is a protocol, what only looks like one, and why."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from peerd.nodes.messages import FailureReason, Outcome
from peerd.nodes.probing import http_client
from tests.nodes import servers as sites
from tests.nodes.certificates import server_context
from tests.nodes.probing import Recorder, request, run
from tests.nodes.servers import Asked, Handler, Page, Servers, Site, as_json, http, rpc, servers
from tests.timing import quickest

_hosts = iter(range(2, 250))


@pytest.fixture
async def running() -> AsyncIterator[Servers]:
    async with servers() as all_of_them:
        yield all_of_them


def fresh_host() -> str:
    """A loopback address that no other test of this file uses."""
    return f"127.61.7.{next(_hosts)}"


POSITIVES: dict[str, tuple[list[tuple[int, Site]], str]] = {
    "sui": ([(9000, sites.SUI), (9184, sites.SUI_METRICS)], "1.38.2-4f1e"),
    "ethereum": ([(8545, sites.ETHEREUM)], "Geth/v1.13.14-stable-2bd6bd01"),
    "filecoin": ([(1234, sites.FILECOIN)], "1.26.3+mainnet+git.8c6bbdd6c"),
    "arweave": ([(1984, sites.ARWEAVE)], "release 69"),
    "helium": ([(8080, sites.HELIUM)], "1.1.0"),
    "render": ([(8000, sites.RENDER)], "2.4.1"),
    "walrus": ([(9185, sites.WALRUS), (9184, sites.WALRUS_METRICS)], "1.8.0-57f9"),
    "solana": ([(8899, sites.SOLANA)], "1.18.22"),
    "generic": ([(9090, sites.PROMETHEUS)], "Prometheus 2.53.0"),
}


@pytest.mark.parametrize("protocol", sorted(POSITIVES))
async def test_a_node_is_recognised_with_its_version(protocol: str, running: Servers) -> None:
    where, version = POSITIVES[protocol]
    host = fresh_host()
    for port, site in where:
        await running.start(host, port, http(site))

    result = await run(request(host))

    assert result.outcome is Outcome.OK, result
    (found,) = result.recognitions
    assert (found.protocol, found.version, found.address) == (protocol, version, host)
    assert found.port in {port for port, _ in where}
    assert found.confidence >= 0.6
    assert found.evidence


async def test_a_named_port_is_the_only_one_that_is_tried(running: Servers) -> None:
    host = fresh_host()
    port = await running.start(host, 0, http(sites.SUI))
    await running.start(host, 8545, http(sites.ETHEREUM))

    result = await run(request(host, port))

    assert [(one.protocol, one.port) for one in result.recognitions] == [("sui", port)]
    assert {one.port for one in result.connects} == {port}


async def test_several_protocols_on_a_host_are_several_findings(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 9000, http(sites.SUI))
    await running.start(host, 8545, http(sites.ETHEREUM))
    await running.start(host, 1984, http(sites.ARWEAVE))

    result = await run(request(host))

    assert {one.protocol for one in result.recognitions} == {"sui", "ethereum", "arweave"}
    assert [one.confidence for one in result.recognitions] == sorted(
        (one.confidence for one in result.recognitions), reverse=True
    )


async def test_only_allowed_protocols_are_looked_for(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 9000, http(sites.SUI))

    result = await run(request(host, allowed_protocols=("ethereum", "arweave")))

    assert result.reason is FailureReason.UNREACHABLE
    assert 9000 not in {one.port for one in result.connects}


async def test_a_node_behind_tls_with_a_bad_certificate_is_recognised(running: Servers, tmp_path: Path) -> None:
    host = fresh_host()
    requests: list[Asked] = []
    tls = server_context(tmp_path, names=["other.example"], expired=True)
    names: set[str] = set()
    tls.sni_callback = lambda _, name, __: names.add(name)
    port = await running.start(host, 0, http(sites.ETHEREUM, requests), tls)

    result = await run(request("node.example", port), recorder=Recorder([host]))

    assert [one.protocol for one in result.recognitions] == ["ethereum"]
    assert "(TLS)" in result.recognitions[0].evidence[0]
    assert {asked.host for asked in requests} == {f"node.example:{port}"}
    assert names == {"node.example"}
    assert [note.partition(" (")[0] for note in result.notes] == [
        f"port {port}: The certificate has expired",
        f"port {port}: The certificate is self-signed",
        f"port {port}: The certificate is for another name",
    ]


async def test_plain_text_is_spoken_where_tls_is_usual(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 443, http(sites.ETHEREUM))

    result = await run(request(host))

    assert [(one.protocol, one.port) for one in result.recognitions] == [("ethereum", 443)]


# What only looks like a node.


def answers_anything(result: Any) -> Site:
    def site(asked: Asked) -> Page:
        call = json.loads(asked.body) if asked.body else {"id": 1}
        return as_json({"jsonrpc": "2.0", "id": call["id"], "result": result})

    return site


def wrong(change: Mapping[str, Any]) -> Site:
    """An Ethereum node whose answers are spoilt."""

    def site(asked: Asked) -> Page:
        page = sites.ETHEREUM(asked)
        return as_json({**json.loads(page.body), **change}) if page.status == 200 else page

    return site


def clever(asked: Asked) -> Page:
    """Values that would do, to any method: even to ones that cannot exist."""
    call: dict[str, Any] = json.loads(asked.body) if asked.body else {"id": 1, "method": ""}
    value = "0x1" if call["method"].startswith(("eth", "net")) else "Geth/v1.13.14-stable/linux"
    return as_json({"jsonrpc": "2.0", "id": call["id"], "result": value})


NOT_NODES: dict[str, Site] = {
    "result-to-everything": answers_anything("ok"),
    "hex-to-everything": answers_anything("0x1"),
    "clever-to-everything": clever,
    "object-to-everything": answers_anything(
        {"Version": "1.26.3", "APIVersion": 131840, "Height": 12, "info": {"title": "Sui", "version": "1.0.0"}}
    ),
    "wrong-id": wrong({"id": 1}),
    "id-as-text": lambda asked: (
        as_json({**json.loads(page.body), "id": str(json.loads(page.body)["id"])})
        if (page := sites.ETHEREUM(asked)).status == 200
        else page
    ),
    "id-as-fraction": lambda asked: (
        as_json({**json.loads(page.body), "id": float(json.loads(page.body)["id"])})
        if (page := sites.ETHEREUM(asked)).status == 200
        else page
    ),
    "no-id": wrong({"id": None}),
    "version-1": wrong({"jsonrpc": "1.0"}),
    "error-and-result": wrong({"error": {"code": 1, "message": "no"}}),
    "result-of-another-type": rpc({"eth_chainId": 1, "web3_clientVersion": "unknown", "eth_blockNumber": "yes"}),
    "bare-version": lambda asked: as_json({"version": "1.2.3", "status": "ok"}),
    "null-values": lambda asked: as_json({"network": None, "release": None, "version": None}),
    "html": lambda asked: sites.HTML,
    "html-with-words": lambda asked: Page(
        body=b"<html>sui move object epoch validators helium gateway version 1.2.3 render gpu</html>",
        content_type="text/html",
    ),
    "words-as-text": lambda asked: sites.text("sui_node_build_info lotus_info helium gateway version arweave.N.1"),
    "info-at-any-path": lambda asked: as_json(
        {"network": "arweave.N.1", "release": 69, "height": 12, "current": "a" * 64}
    ),
    "metrics-of-others": sites.pages(
        {"/metrics": sites.text('go_info{version="go1.22"} 1\nprocess_cpu_seconds_total 3\neth_rx_bytes 4\n')}
    ),
    "not-json": lambda asked: Page(body=b'{"jsonrpc": "2.0", "result": '),
    "nested": lambda asked: Page(body=b"[" * 100_000),
    "nan": lambda asked: Page(body=b'{"network": "arweave.N.1", "release": NaN, "height": Infinity}'),
    "unauthorised": lambda asked: Page(status=401, body=b'{"version": "1.2.3"}'),
    "limited": lambda asked: Page(status=429, headers={"Retry-After": "30"}),
    "server-error": lambda asked: Page(status=500, body=b"oops"),
}


@pytest.mark.parametrize("name", sorted(NOT_NODES))
async def test_what_only_looks_like_a_node_is_none(name: str, running: Servers) -> None:
    host = fresh_host()
    port = await running.start(host, 0, http(NOT_NODES[name]))

    result = await run(request(host, port))

    assert result.outcome is Outcome.FAILED, result.recognitions
    assert result.reason is FailureReason.NOT_RECOGNISED
    assert f"port {port}" in result.message


@pytest.mark.parametrize(
    ("name", "note"),
    [("unauthorised", "HTTP 401"), ("limited", "HTTP 429"), ("hex-to-everything", "answers any JSON-RPC method")],
)
async def test_what_was_met_is_noted(name: str, note: str, running: Servers) -> None:
    host = fresh_host()
    port = await running.start(host, 0, http(NOT_NODES[name]))

    result = await run(request(host, port))

    assert any(note in one for one in result.notes), result.notes


async def test_one_spoilt_port_does_not_hide_another(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(NOT_NODES["hex-to-everything"]))
    await running.start(host, 9000, http(sites.SUI))

    result = await run(request(host))

    assert [one.protocol for one in result.recognitions] == ["sui"]


# Servers that misbehave.


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await sites.head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1")
    while True:
        writer.write(b", 1" * 20_000)
        await writer.drain()


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await sites.head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 1000)
        await writer.drain()


async def endless_early_hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await sites.head(reader)
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte a second, for ever."""
    await sites.head(reader)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"1" * 100_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await sites.head(reader)
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"network": "arweave.N.1"}')
    await writer.drain()


MISBEHAVING: dict[str, tuple[Handler, str]] = {
    "endless-body": (endless, "too large"),
    "endless-headers": (endless_headers, "not HTTP"),
    "endless-early-hints": (endless_early_hints, ""),
    "reset": (reset, "reset"),
    "hang-up": (hang_up, "closed"),
    "half-a-body": (half_a_body, "closed"),
    "ssh": (sites.banner(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), ""),
    "binary": (sites.banner(bytes(range(256))), ""),
}


@pytest.mark.parametrize("name", sorted(MISBEHAVING))
async def test_a_server_that_misbehaves_is_no_node_and_costs_little(name: str, running: Servers) -> None:
    handler, note = MISBEHAVING[name]
    host = fresh_host()
    port = await running.start(host, 0, handler)

    async def attempt() -> float:
        result = await run(request(host, port))
        assert result.reason is FailureReason.NOT_RECOGNISED, result
        assert not note or any(note in one for one in result.notes), result.notes
        return result.seconds

    await quickest(6, attempt)


@pytest.mark.parametrize("name", sorted(MISBEHAVING))
async def test_a_server_that_misbehaves_where_tls_is_usual_is_no_node(name: str, running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 443, MISBEHAVING[name][0])

    result = await run(request(host, deadline_seconds=50.0))

    assert result.reason is FailureReason.NOT_RECOGNISED, result


async def test_a_host_that_limits_is_left_alone(running: Servers) -> None:
    host = fresh_host()
    requests: list[Asked] = []
    port = await running.start(host, 0, http(NOT_NODES["limited"], requests))

    result = await run(request(host, port))

    assert len(requests) <= 6
    assert any("it limits how often it is asked, so not everything was asked" in note for note in result.notes)


@pytest.mark.parametrize("handler", [drip, mute], ids=["one-byte-a-second", "mute"])
async def test_a_slow_server_is_left_at_the_deadline(handler: Handler, running: Servers) -> None:
    host = fresh_host()
    port = await running.start(host, 0, handler)

    async def attempt() -> float:
        result = await run(request(host, port, deadline_seconds=1.5))
        assert result.reason is FailureReason.DEADLINE
        assert result.seconds > 1.4
        return result.seconds

    await quickest(2.5, attempt)


async def test_what_came_before_the_deadline_counts(running: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "PROBE_SECONDS", 60.0)
    host = fresh_host()
    await running.start(host, 9000, http(sites.SUI))
    await running.start(host, 8545, mute)

    for seconds in (2.0, 20.0):  # a busy machine needs longer for what is there
        result = await run(request(host, deadline_seconds=seconds))
        assert any("deadline" in note for note in result.notes)
        if result.recognitions:
            break
    assert [one.protocol for one in result.recognitions] == ["sui"]


async def test_a_host_that_says_too_much_in_all_is_left(running: Servers) -> None:
    host = fresh_host()
    full = Page(body=b'"' + b"a" * 1_000_000 + b'"')
    port = await running.start(host, 0, http(lambda asked: full))

    result = await run(request(host, port))

    assert result.reason is FailureReason.NOT_RECOGNISED
    assert any("more than 12582912 bytes in all" in note for note in result.notes)


async def test_a_host_with_an_ipv6_address_is_recognised(running: Servers, tmp_path: Path) -> None:
    requests: list[Asked] = []
    plain = await running.start("::1", 0, http(sites.SUI, requests))
    secure = await running.start("::1", 0, http(sites.SUI), server_context(tmp_path, names=["::1"]))

    results = [await run(request("::1", port)) for port in (plain, secure)]

    assert [[one.protocol for one in result.recognitions] for result in results] == [["sui"], ["sui"]]
    assert {asked.host for asked in requests} == {f"[::1]:{plain}"}


async def test_a_resolver_that_hangs_ends_at_the_deadline() -> None:
    class Hanging(Recorder):
        async def resolve(self, host: str) -> Sequence[str]:
            await asyncio.Event().wait()
            return ()

    async def attempt() -> float:
        result = await run(request("node.example", deadline_seconds=1.0), recorder=Hanging([]))
        assert result.reason is FailureReason.DEADLINE
        return result.seconds

    await quickest(2, attempt)


async def test_a_closed_host_is_unreachable() -> None:
    result = await run(request(fresh_host()))

    assert result.reason is FailureReason.UNREACHABLE
    assert "nothing answers" in result.message


async def test_a_redirect_to_another_host_is_not_followed(running: Servers) -> None:
    host, other = fresh_host(), fresh_host()
    requests: list[Asked] = []
    await running.start(other, 9000, http(sites.SUI, requests))
    elsewhere = Page(status=307, headers={"Location": f"http://{other}:9000/"})
    port = await running.start(host, 0, http(lambda asked: elsewhere))

    result = await run(request(host, port))

    assert result.reason is FailureReason.NOT_RECOGNISED
    assert any(f"redirects to http://{other}:9000/, not followed" in note for note in result.notes)
    assert requests == []
    assert {one.address for one in result.connects} == {host}


async def test_a_name_that_changes_its_address_is_dialed_where_it_was_judged(running: Servers) -> None:
    first, second = fresh_host(), fresh_host()
    await running.start(first, 9000, http(sites.SUI))
    await running.start(second, 8545, http(sites.ETHEREUM))
    recorder = Recorder([first], [second])

    result = await run(request("node.example"), recorder=recorder)

    assert [one.protocol for one in result.recognitions] == ["sui"]
    assert recorder.resolved == ["node.example"]
    assert {address for address, _ in recorder.connected} == {first}
    assert len(recorder.connected) == len(result.connects)
