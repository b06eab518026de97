"""The inventory of a real daemon, as operators ask it: lists, diffs, walks, exports, and a watch over a restart."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from peerd.clock import Millis, SystemClock
from peerd.inventory.model import Certificate, Port, PortState, Record, Service, Source
from peerd.inventory.settling import complete
from peerd.inventory.writing import apply
from peerd.store.writer import Tx, connect

from .fleet import Daemon, Fleet, tool, wait_for
from .test_http import ask

HOUR = 3_600_000
BEGAN = (SystemClock().now() // 1000 - 10 * 3600) * 1000
NGINX = Service(name="https", product="nginx", version="1.18.0", tls=True)
SHARED = Certificate(sha256="cd" * 32, common_name="www.example", not_after=Millis(BEGAN + 24 * HOUR))


@pytest.fixture(scope="module")
def seen() -> Iterator[Fleet]:
    """Two daemons; the first has the inventory."""
    made = Fleet(("c", "a"))
    try:
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="test", int_type="u32")
        asn = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"}
        writer.insert_network(IPSet(["192.0.2.0/25"]), asn)
        database = made.folder / "asn.mmdb"
        writer.to_db_file(str(database))
        made.found(configure={"c": f'\n[inventory]\nasn_database = "{database}"\n'})
        yield made
    finally:
        made.close()


def ingest(
    daemon: Daemon, job: int, hours: int, *records: Record, scanner: str = "k" * 52, tool: str = "naabu"
) -> None:
    """Into the store of a daemon, while it does not run or beside it: SQLite lets one write at a time."""
    source = Source(
        ingest_job_id=job, scan_id=f"s{job}", scanner=scanner, tool=tool, scanned_at=Millis(BEGAN + hours * HOUR)
    )
    with closing(connect(daemon.data / "peerd.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Tx(connection, SystemClock().now())
        apply(tx, source, records)
        complete(tx, job)
        connection.execute("COMMIT")


def port(address: str, number: int, state: str = "open", **more: Any) -> Record:
    return Record(address=address, port=Port(number=number, state=PortState(state), **more))


def moment(hours: int) -> str:
    from peerd.clock import to_datetime

    return to_datetime(BEGAN + hours * HOUR).isoformat()


@pytest.fixture(scope="module")
def filled(seen: Fleet) -> Daemon:
    """Two naabu scans of two hosts, an nmap scan by another scanner."""
    c = seen["c"]
    first = (
        port("192.0.2.7", 443, service=NGINX, certificate=SHARED),
        port("192.0.2.7", 8080),
        port("198.51.100.9", 443, certificate=SHARED),
        port("2001:db8::7", 22, service=Service(name="ssh", product="OpenSSH", version="9.6p1")),
    )
    ingest(c, 1, 0, *first)
    ingest(c, 2, 1, first[0], *first[2:])
    ingest(c, 3, 2, port("192.0.2.7", 443, "filtered"), scanner="m" * 52, tool="nmap")
    return c


def test_lists_take_filters_and_moments(seen: Fleet, filled: Daemon) -> None:
    hosts = filled.json("hosts", "list")["hosts"]
    assert [host["address"] for host in hosts] == ["192.0.2.7", "198.51.100.9", "2001:db8::7"]
    assert [host["open_ports"] for host in hosts] == [1, 1, 1]
    ports = filled.json("inventory", "ports", "--where", "network=192.0.2.0/24 AND product~nginx AND version<1.20")
    assert [(found["number"], found["scanners"]) for found in ports["ports"]] == [(443, ["k" * 52])]
    then = filled.json("inventory", "ports", "--where", "port=8080", "--at", moment(0))["ports"]
    assert [found["state"] for found in then] == ["open"]
    assert [found["state"] for found in filled.json("inventory", "ports", "--where", "port=8080")["ports"]] == [
        "not_shown"
    ]
    (service, _) = filled.json("inventory", "services")["services"]
    assert (service["service"]["product"], service["ports"]) == ("nginx", 1)
    (certificate,) = filled.json("inventory", "certificates", "--where", f"expires<{moment(25)}")["certificates"]
    assert filled.json("inventory", "certificates", "--where", f"expires<{moment(23)}")["certificates"] == []
    assert certificate["ports"] == 2
    refused = filled.peerctl("hosts", "list", "--where", "prot=1", code=None)
    assert refused.returncode != 0 and "did you mean 'port'?" in refused.stderr and "inventory.md" in refused.stderr
    assert seen["a"].json("--peer", "c", "hosts", "list", "--where", "port=22")["hosts"][0]["address"] == "2001:db8::7"


def test_a_service_that_was_stopped_is_in_the_diff(filled: Daemon) -> None:
    for arguments in ((moment(0), moment(1)), ("1", "2", "--jobs")):
        (one,) = filled.json("inventory", "diff", *arguments)["differences"]
        assert (one["kind"], one["why"]) == ("INVENTORY_CHANGE_KIND_DISAPPEARED", "not_shown")
        assert (one["before"]["address"], one["before"]["number"]) == ("192.0.2.7", 8080)
    assert "disappeared" in filled.peerctl("inventory", "diff", moment(0)).stdout
    assert filled.json("inventory", "diff", moment(1))["differences"] == [], "another one sees less"
    (split,) = filled.json("inventory", "splits")["splits"]
    assert {(view["scanner"][0], view["state"]) for view in split["views"]} == {("k", "open"), ("m", "filtered")}


def submit(daemon: Daemon, content: str, tool: str) -> int:
    """A scan by the front door; its ingest job."""
    answer = daemon.peerctl("scans", "submit", "-", "--tool", tool, "--wait", "-o", "json", stdin=content)
    return int(json.loads(answer.stdout)["job"]["ingest_job_id"])


def gone(daemon: Daemon, first: int, second: int) -> list[tuple[str, int, str]]:
    found = daemon.json("inventory", "diff", str(first), str(second), "--jobs")["differences"]
    return [(one["kind"].rsplit("_", 1)[1].lower(), one["before"]["number"], one["why"]) for one in found]


def test_naabu_lists_open_ports_only_and_the_diff_says_what_was_stopped(seen: Fleet) -> None:
    a = seen["a"]
    lines = [f'{{"ip":"127.0.0.9","port":{number},"protocol":"tcp","tls":false}}\n' for number in (8001, 8002)]
    first = submit(a, "".join(lines), "naabu")
    again = submit(a, "".join(lines), "naabu")
    assert gone(a, first, again) == []
    last = submit(a, lines[0], "naabu")
    assert gone(a, again, last) == [("disappeared", 8002, "not_shown")]
    shown = a.json("inventory", "ports", "--where", "address=127.0.0.9")["ports"]
    assert [(one["number"], one["state"]) for one in shown] == [(8001, "open"), (8002, "not_shown")]


@pytest.mark.skipif(shutil.which("nmap") is None, reason="nmap is not installed")
def test_a_real_nmap_scan_of_a_service_that_is_stopped(seen: Fleet) -> None:
    a = seen["a"]
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as stays,
        closing(socket.create_server(("127.0.0.1", 0))) as goes,
    ):
        numbers = [one.getsockname()[1] for one in (stays, goes)]

        def scan() -> int:
            command = ["nmap", "-n", "-Pn", "-sT", "-p", ",".join(map(str, numbers)), "-oX", "-", "127.0.0.1"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            return submit(a, done.stdout, "nmap")

        first, again = scan(), scan()
        assert gone(a, first, again) == [], "the second changes nothing"
        goes.close()
        assert gone(a, again, scan()) == [("disappeared", numbers[1], "closed")]


def test_walks_from_host_to_host(filled: Daemon) -> None:
    shown = filled.json("hosts", "show", "192.0.2.7", "--depth", "3")
    assert [found["number"] for found in shown["ports"]] == [443, 8080]
    assert [related["address"] for related in shown["related"]] == ["198.51.100.9"]
    assert filled.json("hosts", "show", "192.0.2.7", "--depth", "0")["ports"] == []
    path = filled.json("graph", "path", "192.0.2.7", "198.51.100.9")
    assert [edge["relation"] for edge in path["edges"]] == ["has", "shows", "shows", "has"]
    wait_for(lambda: filled.json("hosts", "list", "--where", "asn=64500")["hosts"], 60, "the database was asked")
    edges = filled.json("graph", "neighbours", "asn:64500")["edges"]
    assert [edge["left"] for edge in edges] == ["host:192.0.2.7"]
    assert filled.peerctl("graph", "path", "192.0.2.7", "2001:db8::7", code=1).returncode == 1
    assert filled.peerctl("hosts", "show", "192.0.2.99", code=None).returncode != 0


def test_exports_are_lines(filled: Daemon) -> None:
    lines = filled.peerctl("hosts", "export", "--where", "state=open").stdout.splitlines()
    assert [json.loads(line)["address"] for line in lines] == ["192.0.2.7", "198.51.100.9", "2001:db8::7"]
    rows = list(csv.DictReader(io.StringIO(filled.peerctl("hosts", "export", "--format", "csv").stdout)))
    assert [(row["address"], row["port"], row["state"]) for row in rows][:2] == [
        ("192.0.2.7", "443", "open"),
        ("192.0.2.7", "8080", "not_shown"),
    ]


def test_http_answers_the_same(filled: Daemon) -> None:
    answer = ask(filled, "/v1/query/host/192.0.2.7?depth=2")
    assert answer.status == 200 and answer.json["ports"][0]["services"][0]["product"] == "nginx"
    found = ask(filled, "/v1/query/graph", body={"query_type": "by_service", "product": "OpenSSH"})
    assert [host["ip"] for host in found.json["results"]] == ["2001:db8::7"]
    assert "/v1/query/host/{ip}" in ask(filled, "/").json["paths"]


def test_a_watch_goes_on_over_a_kill_and_leaves_nothing_out(filled: Daemon) -> None:
    watch = subprocess.Popen(
        [tool("peerctl"), "--socket", str(filled.socket), "inventory", "watch", "--after", "0", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        said = [json.loads(watch.stdout.readline()) for _ in range(5)]
        assert [one["kind"].rsplit("_", 1)[1] for one in said] == [*["APPEARED"] * 4, "DISAPPEARED"]
        filled.kill()
        ingest(filled, 4, 3, port("203.0.113.1", 25))
        filled.start()
        one = json.loads(watch.stdout.readline())
        assert (one["change_id"], one["address"], one["number"]) == (
            str(int(said[-1]["change_id"]) + 1),
            "203.0.113.1",
            25,
        )
    finally:
        watch.kill()
        watch.communicate()
    assert asyncio.run(_first(filled)) == 25


async def _first(daemon: Daemon) -> int:
    """From Python, behind the fifth change."""
    from peerd.client import Client

    async with Client(socket=daemon.socket) as peerd:
        async for change in peerd.watch_inventory(after=5):
            return change.number
    return 0
