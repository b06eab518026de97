"""Scans against real servers: what each level looks at, what it costs, and what the report says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from peerd.clock import SystemClock
from peerd.nodes.examining import Outside, probe
from peerd.nodes.message_json import result_from_json, to_json
from peerd.nodes.messages import FailureReason, Kind, Permission, ProbeResult, Risk, Severity, Special
from peerd.nodes.probing.http_client import TlsSeen
from peerd.nodes.scanning.certificates import certificate_findings
from peerd.nodes.scanning.port_scan import nmap_arguments, open_of_greppable
from peerd.nodes.scanning.report import markdown_report, quoted
from peerd.nodes.scanning.scoring import Rule, risk_of, score_of
from tests.nodes import servers as sites
from tests.nodes.certificates import make, server_context
from tests.nodes.probing import OWNER, request, run
from tests.nodes.servers import Asked, Servers, as_json, banner, http, pages, rpc, servers, text

_hosts = iter(range(2, 250))
PERMISSION = Permission(by="the owner", reference="contract 7")


@pytest.fixture
async def running() -> AsyncIterator[Servers]:
    async with servers() as all_of_them:
        yield all_of_them


def fresh_host() -> str:
    return f"127.61.8.{next(_hosts)}"


async def scan(host: str, level: int, protocol: str, port: int | None = None) -> ProbeResult:
    result = await run(
        request(
            host, port, kind=Kind.SCAN, level=level, protocol=protocol, permission=PERMISSION if level == 3 else None
        )
    )
    assert result_from_json(to_json(result)) == result
    return result


def ids(result: ProbeResult) -> list[tuple[str, int]]:
    assert result.scan is not None, result
    return [(finding.id, finding.port) for finding in result.scan.findings]


async def test_a_clean_node_has_a_hundred(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 9000, http(sites.SUI))

    result = await scan(host, 1, "sui")

    assert result.scan is not None
    assert (result.scan.score, result.scan.risk, result.scan.findings) == (100, Risk.LOW, ())
    assert result.scan.version == "1.38.2"
    (port,) = result.scan.ports
    assert (port.number, port.service, port.version) == (9000, "sui", "1.38.2")
    assert result.scan.health == {}


async def test_level_one_finds_services_and_tls(running: Servers, tmp_path: Path) -> None:
    host = fresh_host()
    docker = pages(
        {"/version": as_json({"ApiVersion": "1.45", "Version": "26.1.4"}), "/containers/json?limit=1": as_json([])}
    )
    await running.start(host, 443, http(sites.SUI), server_context(tmp_path, names=["x.example"], expired=True))
    await running.start(host, 2375, http(docker))
    await running.start(host, 22, banner(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"))
    await running.start(host, 9100, http(sites.SUI_METRICS))
    await running.start(host, 6379, http(pages({})))

    result = await scan(host, 1, "sui")

    assert ids(result) == [
        ("docker-api-plain", 2375),
        ("certificate-expired", 443),
        ("ssh-open", 22),
        ("certificate-self-signed", 443),
        ("certificate-wrong-name", 443),
        ("web-port", 9100),
    ]
    assert result.scan is not None
    assert (result.scan.score, result.scan.risk) == (0, Risk.CRITICAL)
    assert {(port.number, port.service, port.product, port.version) for port in result.scan.ports} == {
        (22, "ssh", "OpenSSH", "9.2p1"),
        (443, "sui", "Sui", "1.38.2"),
        (2375, "docker-api", "", "Docker 26.1.4"),
        (9100, "sui", "Sui", "1.38.2-4f1e"),
    }


async def test_level_two_scans_ports_and_asks_how_the_node_is(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))
    await running.start(host, 6379, banner(b"-ERR\r\n"))

    first, second = await scan(host, 1, "ethereum"), await scan(host, 2, "ethereum")

    assert ids(first) == []
    assert ids(second) == [("dangerous-port", 6379)]
    assert second.scan is not None
    assert second.scan.health == {"syncing": "false", "peers": "0x32", "block": "0x12a05f2"}
    assert second.scan.score == 90
    assert len(second.connects) > len(first.connects) + 90


async def test_a_node_that_is_not_well_is_said_so(running: Servers) -> None:
    host = fresh_host()
    ill = rpc(
        {
            "eth_chainId": "0x1",
            "web3_clientVersion": "Geth/v1.13.14/linux",
            "eth_blockNumber": "0x10",
            "eth_syncing": {"currentBlock": "0x10", "highestBlock": "0x99"},
            "net_peerCount": "0x0",
        }
    )
    await running.start(host, 8545, http(ill))

    result = await scan(host, 2, "ethereum")

    assert ids(result) == [("unhealthy-peers", 8545), ("unhealthy-syncing", 8545)]
    assert result.scan is not None
    assert result.scan.score == 100
    assert result.scan.findings[1].title == "the node is not synchronised"


async def test_level_three_tries_sensitive_calls_and_the_others_do_not(running: Servers) -> None:
    host = fresh_host()
    requests: list[Asked] = []

    def wallets(asked: Asked) -> sites.Page:
        page = sites.FILECOIN(asked)
        opened = rpc({"Filecoin.WalletList": ["f1abc"]}, paths=("/rpc/v1",))(asked)
        return opened if b"WalletList" in asked.body else page

    await running.start(host, 1234, http(wallets, requests))

    second = await scan(host, 2, "filecoin")
    assert ids(second) == [("web-port", 1234)]
    assert not any(b"WalletList" in asked.body for asked in requests)

    third = await scan(host, 3, "filecoin")
    assert ids(third) == [("exposed-wallets", 1234), ("web-port", 1234)]
    assert third.scan is not None
    assert third.scan.findings[0].severity is Severity.CRITICAL
    assert third.scan.score == 65


async def test_an_api_that_wants_a_token_is_not_exposed(running: Servers) -> None:
    host = fresh_host()

    def guarded(asked: Asked) -> sites.Page:
        return (
            sites.Page(status=401)
            if b"eth_accounts" in asked.body or b"admin_" in asked.body
            else sites.ETHEREUM(asked)
        )

    await running.start(host, 8545, http(guarded))
    assert ids(await scan(host, 3, "ethereum")) == []


@pytest.mark.parametrize("permission", [None, Permission(by="", reference="x"), Permission(by="x", reference=" ")])
async def test_level_three_needs_written_permission(permission: Permission | None, running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))

    result = await run(request(host, kind=Kind.SCAN, level=3, protocol="ethereum", permission=permission))

    assert result.reason is FailureReason.PERMISSION_MISSING
    assert result.connects == ()
    assert running.accepted == []


async def test_another_protocol_than_the_named_one_is_a_failure(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 9000, http(sites.ETHEREUM))

    result = await scan(host, 1, "sui")

    assert result.reason is FailureReason.NOT_RECOGNISED
    assert result.message == "what answers at port 9000 is not recognised as Sui"


async def test_a_scan_without_a_protocol_discovers_it_and_asks_nothing_twice(running: Servers) -> None:
    host = fresh_host()
    requests: list[Asked] = []
    await running.start(host, 8545, http(sites.ETHEREUM, requests))

    result = await scan(host, 1, "")

    assert result.scan is not None
    assert result.scan.protocol == "ethereum"
    assert [one.protocol for one in result.recognitions] == ["ethereum"]
    assert len({asked.body for asked in requests if b"eth_chainId" in asked.body}) == 1
    assert sum(b"eth_chainId" in asked.body for asked in requests) == 1


async def test_generic_scans_whatever_answers(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8080, http(pages({"/": text("hello")})))
    result = await scan(host, 1, "generic")
    assert result.scan is not None
    assert (result.scan.protocol, result.scan.score) == ("generic", 100)


async def test_an_unknown_protocol_and_a_level_that_is_none_are_refused() -> None:
    assert (await scan("127.61.8.1", 1, "nonesuch")).reason is FailureReason.UNKNOWN_PROTOCOL
    refused = await scan("127.61.8.1", 4, "sui")
    assert refused.reason is FailureReason.INVALID_REQUEST
    assert "must be 1, 2, or 3" in refused.message


# nmap


def fake_nmap(directory: Path, script: str) -> str:
    path = directory / "nmap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)
    return str(path)


async def with_nmap(host: str, program: str) -> ProbeResult:
    outside = Outside(clock=SystemClock(), nmap=program)
    asked = request(
        host, kind=Kind.SCAN, level=2, protocol="ethereum", allow_special=(Special.LOOPBACK,), deadline_seconds=8.0
    )
    return await probe(asked, OWNER, outside)


async def test_nmap_is_used_where_there_is_one(running: Servers, tmp_path: Path) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))
    await running.start(host, 6379, banner(b"-ERR\r\n"))
    said = f"Host: {host} ()\\tPorts: 6379/open/tcp//redis///, 21/closed/tcp//ftp///, 7/open/tcp/////\\tIgnored: x"
    program = fake_nmap(tmp_path, f'echo "$@" > {tmp_path}/arguments\nprintf "# Nmap\\n{said}\\n"')

    result = await with_nmap(host, program)

    assert ids(result) == [("dangerous-port", 6379)]
    assert any("with nmap, 1 of them open" in note for note in result.notes)
    given_arguments = (tmp_path / "arguments").read_text().split()
    assert given_arguments[:4] == ["-sT", "-Pn", "-n", "--max-retries"]
    assert given_arguments[-2:] == ["--", host]
    assert {one.port for one in result.connects} >= {6379, 21, 23}


@pytest.mark.parametrize("script", ["exit 3", "exec sleep 60"])
async def test_an_nmap_that_fails_is_replaced_by_connecting(script: str, running: Servers, tmp_path: Path) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))
    await running.start(host, 6379, banner(b"-ERR\r\n"))

    result = await with_nmap(host, fake_nmap(tmp_path, script))

    assert ids(result) == [("dangerous-port", 6379)]
    assert any(note.startswith("nmap ") and "connected to instead" in note for note in result.notes)


def test_the_arguments_of_nmap_are_fixed() -> None:
    assert nmap_arguments(IPv4Address("192.0.2.1"), [443, 22], per_second=50, seconds=9.5) == [
        *("-sT", "-Pn", "-n", "--max-retries", "1", "--max-rate", "50", "--host-timeout", "9s", "-oG", "-"),
        *("-p", "22,443", "--", "192.0.2.1"),
    ]


@given(st.text())
def test_any_output_of_nmap_is_read(output: str) -> None:
    assert all(0 <= port <= 65535 for port in open_of_greppable(output))


# Score, certificates, report


@pytest.mark.parametrize(
    ("score", "risk"),
    [
        *((100, Risk.LOW), (80, Risk.LOW), (79, Risk.MEDIUM), (60, Risk.MEDIUM), (59, Risk.HIGH), (40, Risk.HIGH)),
        *((39, Risk.CRITICAL), (0, Risk.CRITICAL)),
    ],
)
def test_what_a_score_means(score: int, risk: Risk) -> None:
    assert risk_of(score) is risk


@given(st.lists(st.sampled_from(list(Rule)), max_size=30))
def test_a_score_is_between_nothing_and_a_hundred_and_falls_with_every_finding(rules: list[Rule]) -> None:
    findings = [rule.finding() for rule in rules]
    scores = [score_of(findings[:count]) for count in range(len(findings) + 1)]
    assert all(0 <= score <= 100 for score in scores)
    assert scores == sorted(scores, reverse=True)


def test_the_costs_are_those_that_are_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "protocols.md").read_text()
    for rule in Rule:
        assert f"| `{rule.id}` | {rule.value.severity.value} | {rule.points} |" in page, rule


async def test_many_ports_cost_each_above_five(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))
    for port in (21, 23, 25, 110, 143, 389, 445):
        await running.start(host, port, banner(b"220 hello\r\n"))
    result = await scan(host, 2, "ethereum")
    assert result.scan is not None
    (many,) = [one for one in result.scan.findings if one.id == "many-ports"]
    assert (many.points, many.detail) == (6, "7 ports")
    assert result.scan.score == 100 - 7 * 10 - 6


@pytest.mark.parametrize(
    ("names", "issuer", "host", "expected"),
    [
        (["node.example"], "An authority", "node.example", []),
        (["*.example"], "An authority", "node.example", []),
        (["*.example"], "An authority", "deep.node.example", ["certificate-wrong-name"]),
        (["192.0.2.7"], "An authority", "192.0.2.7", []),
        (["192.0.2.7"], "", "192.0.2.8", ["certificate-self-signed", "certificate-wrong-name"]),
        ([], "An authority", "node.example", ["certificate-wrong-name"]),
    ],
)
def test_certificates_are_judged_as_a_client_would(
    names: list[str], issuer: str, host: str, expected: list[str]
) -> None:
    der = x509.load_pem_x509_certificate(make(names, issuer=issuer)[0]).public_bytes(Encoding.DER)
    clock = SystemClock()
    seen = TlsSeen(version="TLSv1.3", certificate=der)
    found = [one.id for one in certificate_findings(seen, host=host, port=443, now=clock.now())]
    assert found == expected


def test_old_tls_and_rubbish_for_a_certificate_are_findings() -> None:
    seen = TlsSeen(version="TLSv1.1", certificate=b"rubbish")
    found = [one.id for one in certificate_findings(seen, host="h", port=443, now=SystemClock().now())]
    assert found == ["tls-old", "certificate-unreadable"]


@given(st.text())
def test_what_servers_say_cannot_be_markup(said: str) -> None:
    shown = quoted(said)
    assert "\n" not in shown
    assert "<" not in shown
    for letter in "`*_[]|":
        assert shown.replace("\\" + letter, "").count(letter) == 0


async def test_the_report_says_what_the_result_says(running: Servers) -> None:
    host = fresh_host()
    await running.start(host, 8545, http(sites.ETHEREUM))
    await running.start(host, 22, banner(b"SSH-2.0-a|b`<script>`_1 x\r\n"))
    asked = request(host, kind=Kind.SCAN, level=2, protocol="ethereum", node_id="node-1", org_id="org-1")
    result = await run(asked)
    assert result.scan is not None

    report = markdown_report(asked, result, result.scan)

    assert f"# Scan of {host}" in report
    assert "**Score 85 of 100, risk LOW.**" in report
    assert "**MEDIUM, -15** SSH is reachable (port 22) `ssh-open`" in report
    assert "- peers: 0x32" in report
    assert "node-1" in report
    assert "<script>" not in report
