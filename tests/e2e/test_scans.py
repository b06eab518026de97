"""Scans on real daemons: from the command line, from openssl and curl, over kills at every step."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from peerd.client import Client
from peerd.errors import PeerdError
from peerd.failpoints import FAILPOINTS
from peerd.v1 import scans_pb2

from .fleet import Daemon, Fleet, run_async, wait_for

T = TypeVar("T")

pytestmark = pytest.mark.timeout(400)

EXAMPLES = Path(__file__).parents[2] / "examples" / "scans"
OF_SCANS = [name for name in FAILPOINTS if name.startswith("scans.")]
ON_THE_WAY = [
    name for name in OF_SCANS if name.split(".")[1] in ("piece", "submit", "processing", "chunk", "settle", "complete")
]
KILLS = int(os.environ.get("PEERD_TEST_SCAN_KILLS", "6"))
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_buf = pytest.mark.skipif(shutil.which("buf") is None, reason="buf is not installed")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet(("c", "a"))
    try:
        made.found(configure={"c": "\n[scans]\nsubmissions_per_minute = 0\n"})
        yield made
    finally:
        made.close()


def living(fleet: Fleet, name: str = "c") -> Daemon:
    """The daemon, also after a test that failed while it was dead."""
    daemon = fleet[name]
    if not daemon.alive:
        if daemon.process is not None:
            daemon.wait()
        daemon.start()
    return daemon


def lines(network: int, hosts: int, *, bad: int = 0) -> bytes:
    """Hosts of 10.<network>.0.0/16 with two ports each, every one said twice, and lines that are nothing."""
    good = [
        b'{"ip":"10.%d.%d.%d","port":%d,"protocol":"tcp"}\n' % (network, host // 250, host % 250 + 1, port)
        for host in range(hosts)
        for port in (22, 443)
    ]
    return b"".join(good + good[: len(good) // 2] + [b'{"ip":"nowhere","port":1}\n'] * bad)


def ask(daemon: Daemon, call: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with Client(socket=daemon.socket) as peerd:
            return await call(peerd)

    result: T = run_async(connected())
    return result


def submit(daemon: Daemon, raw: bytes, scan_id: str) -> scans_pb2.SubmitResponse:
    return ask(daemon, lambda peerd: peerd.submit_scan(io.BytesIO(raw), scans_pb2.ScanStatement(scan_id=scan_id)))


def finished(daemon: Daemon, number: int) -> scans_pb2.IngestJob:
    return ask(daemon, lambda peerd: peerd.wait_for_ingest(number, timeout=150))


def state(job: scans_pb2.IngestJob) -> str:
    return scans_pb2.IngestState.Name(job.state).removeprefix("INGEST_STATE_").lower()


def hosts_of(daemon: Daemon, network: int) -> list[tuple[str, int]]:
    """What the inventory has of a network: (address, open ports)."""
    found = ask(daemon, lambda peerd: peerd.hosts(f"network = 10.{network}.0.0/16"))
    return [(host.address, host.open_ports) for host in found]


def test_an_operator_hands_in_a_scan_and_sees_what_became_of_it(fleet: Fleet) -> None:
    c, a = living(fleet), living(fleet, "a")
    file = fleet.folder / "scan.json"
    file.write_bytes(lines(1, 3, bad=2))
    done = c.peerctl(
        *("scans", "submit", str(file), "--wait", "--scan-id", "first"),
        *("--vantage", "office", "--tool", "naabu", "--tool-version", "2.3"),
    )
    assert "scan first" in done.stdout and "3 hosts, 6 ports, 2 skipped" in done.stdout
    shown = c.peerctl("scans", "show", "1", "--skipped").stdout
    assert "office" in shown and "naabu 2.3" in shown and "invalid_address" in shown and "nowhere" in shown
    # Standard input, on another machine, signed there and handed in here.
    from_a = a.peerctl("--peer", "c", "scans", "submit", "-", "--wait", stdin=lines(1, 4).decode())
    assert "4 hosts, 8 ports" in from_a.stdout
    (newest, *_) = c.json("scans", "list")["jobs"]
    assert (newest["scanner"], newest["scanner_name"], newest["submitted_by"]) == (a.peer_id, "a", a.peer_id)
    assert [job["scan_id"] for job in c.json("scans", "list", "--scanner", "c")["jobs"]] == ["first"]
    assert hosts_of(c, 1) == [(f"10.1.0.{number}", 2) for number in range(1, 5)]
    again = c.peerctl("scans", "submit", str(file), "--scan-id", "first", "--vantage", "office", code=1)
    assert "scan_conflict" in again.stderr
    repeated = c.peerctl(
        *("scans", "submit", str(file), "--scan-id", "first"),
        *("--vantage", "office", "--tool", "naabu", "--tool-version", "2.3"),
    )
    assert "handed in before" in repeated.stdout
    audited = c.json("audit", "list", "--method", "Submit")["entries"]
    assert {entry["result"] for entry in audited} == {"ok", "scan_conflict"}
    assert all('"scan_id": "' in entry["target"] for entry in audited if entry["result"] == "ok")
    nothing = c.peerctl("scans", "submit", "-", "--wait", stdin="10.0.0.1:99999\n", code=1)
    assert "no_valid_hosts: no valid hosts found in scan data" in nothing.stderr
    watched = c.peerctl("scans", "watch", "1").stdout
    assert "completed" in watched
    metrics = _http(c, "/metrics")
    assert "peerd_scan_records_total" in metrics and 'peerd_ingest_jobs_finished_total{result="completed"}' in metrics


@pytest.fixture(scope="module")
def key(fleet: Fleet) -> Path:
    """A scanner's key, made with openssl and registered."""
    path = fleet.folder / "scanner.pem"
    public = fleet.folder / "scanner.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, timeout=20)
    subprocess.run(["openssl", "pkey", "-in", str(path), "-pubout", "-out", str(public)], check=True, timeout=20)
    living(fleet).peerctl("scanners", "add", "probe", str(public))
    return path


@needs_openssl
@needs_curl
@pytest.mark.parametrize("program", ["post.sh", "post.py"])
def test_a_scanner_without_peerd_posts_what_it_signed(fleet: Fleet, key: Path, program: str) -> None:
    c = living(fleet)
    network = 20 + len(program)
    file = fleet.folder / "post.json"
    file.write_bytes(lines(network, 3))
    run = [sys.executable] if program.endswith(".py") else ["sh"]
    command = [*run, str(EXAMPLES / program), str(key), str(file), f"http://{_address(c)}"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout)
    assert answer["status"] == "accepted", answer
    wait_for(lambda: json.loads(_http(c, f"/v1/jobs/{answer['job_id']}"))["state"] == "completed", 60, "processed")
    job = json.loads(_http(c, f"/v1/jobs/{answer['job_id']}"))
    assert (job["host_count"], job["port_count"], job["error_message"]) == (3, 6, None)
    assert len(hosts_of(c, network)) == 3


@needs_openssl
@needs_buf
def test_openssl_and_buf_curl_are_enough(fleet: Fleet, key: Path) -> None:
    c = living(fleet)
    (scanner,) = [found["scanner"] for found in c.json("scanners", "list")["keys"] if not found.get("revoked_at")]
    file = fleet.folder / "buf.json"
    file.write_bytes(lines(30, 3))
    command = ["sh", str(EXAMPLES / "submit.sh"), str(key), scanner, c.peer_id, "by-hand", str(file), str(c.socket)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    job = finished(c, int(json.loads(done.stdout)["job"]["ingestJobId"]))
    assert (state(job), job.scanner_name, job.scan_id, job.hosts) == ("completed", "probe", "by-hand", 3)


@needs_openssl
@needs_curl
def test_a_key_that_is_rotated_or_revoked_is_out_at_once_and_after_a_restart(fleet: Fleet, key: Path) -> None:
    c = living(fleet)
    file = fleet.folder / "late.json"
    file.write_bytes(lines(40, 2))
    fresh, public = fleet.folder / "fresh.pem", fleet.folder / "fresh.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(fresh)], check=True, timeout=20)
    subprocess.run(["openssl", "pkey", "-in", str(fresh), "-pubout", "-out", str(public)], check=True, timeout=20)

    def post(with_key: Path) -> dict[str, Any]:
        command = ["sh", str(EXAMPLES / "post.sh"), str(with_key), str(file), f"http://{_address(c)}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    assert post(fresh)["reason"] == "unknown_scanner"
    assert "probe has the key" in c.peerctl("scanners", "rotate", "probe", str(public)).stdout
    assert (post(key)["error"], post(key)["reason"]) == ("invalid_signature", "scanner_revoked")
    assert post(fresh)["status"] == "accepted"
    c.peerctl("scanners", "revoke", "probe", "--reason", "lost")
    c.kill()
    c.start()
    assert post(fresh)["reason"] == "scanner_revoked"
    refused = c.peerctl("scanners", "add", "again", str(public), code=4)
    assert "scanner_revoked" in refused.stderr


def test_one_scan_outlives_the_death_of_its_daemon_at_every_step(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first piece to its end, one death after the other: everything counts once."""
    monkeypatch.setattr("peerd.client.scans.UNARY_BYTES", 0)  # it comes in as a stream
    c = living(fleet)
    hosts, bad, scan_id = 900, 5, "much-killed"
    raw = lines(100, hosts, bad=bad)
    c.kill()
    for name in ON_THE_WAY:
        handing_in = name.split(".")[1] in ("piece", "submit")
        c.start(failpoint=name, wait=handing_in)
        if handing_in:
            _act(c, raw, scan_id)
        wait_for(lambda: not c.alive, 60, f"it dies at {name}")
        c.wait()
    c.start()
    answer = submit(c, raw, scan_id)  # whoever got no answer asks again
    assert answer.repeated
    _check(c, finished(c, answer.job.ingest_job_id), "completed", 100, hosts, bad)


@pytest.mark.parametrize("name", [name for name in OF_SCANS if name not in ON_THE_WAY])
def test_a_scan_that_fails_waits_or_is_cancelled_does_so_once(fleet: Fleet, name: str) -> None:
    c = living(fleet)
    network = 101 + OF_SCANS.index(name)
    step, scan_id = name.split(".")[1], f"kill-{name}"
    hosts, bad, outcome = (0, 7, "failed") if step == "failed" else (800, 5, "completed")
    hosts *= 5 if step == "cancel" else 1  # so many that a cancel finds it under way
    raw = lines(network, hosts, bad=bad)
    c.kill()
    if step == "postponed":
        number = _begun_with_a_fault(c, raw, scan_id)
        c.start(failpoint=name, wait=False)
    else:
        c.start(failpoint=name)
        _act(c, raw, scan_id, cancel=step == "cancel")
    wait_for(lambda: not c.alive, 60, f"it dies at {name}")
    c.wait()
    if step == "postponed":
        _mend(c, number)
    c.start()
    answer = submit(c, raw, scan_id)
    assert answer.repeated
    if step == "cancel":
        _act(c, raw, scan_id, cancel=True)
        assert state(finished(c, answer.job.ingest_job_id)) in ("cancelled", "completed")
        with contextlib.suppress(PeerdError):
            ask(c, lambda peerd: peerd.retry_ingest_job(answer.job.ingest_job_id))
    _check(c, finished(c, answer.job.ingest_job_id), outcome, network, hosts, bad)


def _check(c: Daemon, job: scans_pb2.IngestJob, outcome: str, network: int, hosts: int, bad: int) -> None:
    """That everything was counted, and once."""
    assert (state(job), job.hosts, job.ports) == (outcome, hosts, 2 * hosts), job
    assert (job.records, job.skipped) == (3 * hosts, bad)
    assert len(ask(c, lambda peerd: peerd.skipped_records(job.ingest_job_id))) == bad
    found = hosts_of(c, network)
    assert len(found) == hosts and {ports for _, ports in found} <= {2}
    assert len([one for one in _stored(c, "SELECT scan_id FROM ingest_jobs") if one == job.scan_id]) == 1
    assert _stored(c, "SELECT count(*) FROM scan_data WHERE owned = 0") == [0]


def _act(c: Daemon, raw: bytes, scan_id: str, *, cancel: bool = False) -> None:
    """Hand it in, and then cancel it, as far as the daemon lives to hear of it."""

    async def hand_in(peerd: Client) -> None:
        answer = await peerd.submit_scan(io.BytesIO(raw), scans_pb2.ScanStatement(scan_id=scan_id))
        if cancel:  # over the same connection: it is not to have ended by then
            await peerd.cancel_ingest_job(answer.job.ingest_job_id, reason="test")

    with contextlib.suppress(PeerdError, OSError):
        ask(c, hand_in)


def _begun_with_a_fault(c: Daemon, raw: bytes, scan_id: str) -> int:
    """A scan that waits, with a row that no daemon can make sense of: a fault that may pass."""
    c.start(failpoint="scans.submit.after_commit")
    _act(c, raw, scan_id)
    wait_for(lambda: not c.alive, 60, "it dies")
    c.wait()
    with closing(sqlite3.connect(c.data / "peerd.db")) as store, store:
        store.execute("UPDATE ingest_jobs SET format = 'of tomorrow' WHERE scan_id = ?", (scan_id,))
        return int(store.execute("SELECT id FROM ingest_jobs WHERE scan_id = ?", (scan_id,)).fetchone()[0])


def _mend(c: Daemon, number: int) -> None:
    with closing(sqlite3.connect(c.data / "peerd.db")) as store, store:
        store.execute("UPDATE ingest_jobs SET format = '' WHERE id = ?", (number,))


@pytest.mark.slow
def test_random_kills_while_scans_come_in_lose_and_double_nothing(fleet: Fleet) -> None:
    c = living(fleet)
    scans = max(5, KILLS // 2)
    raws = {f"random-{number}": lines(150 + number, 300 + 37 * (number % 10), bad=number) for number in range(scans)}
    assert scans < 100
    jobs: dict[str, int] = {}
    done = threading.Event()

    def hand_in() -> None:
        waiting = list(raws)
        while waiting and not done.is_set():
            try:
                jobs[waiting[0]] = submit(c, raws[waiting[0]], waiting[0]).job.ingest_job_id
            except (PeerdError, OSError):
                time.sleep(0.05)  # it is down
            else:
                waiting.pop(0)

    handing = threading.Thread(target=hand_in, daemon=True)
    handing.start()
    rng = random.Random(7)
    try:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.01, 0.4))
            c.kill()
            c.start()
        handing.join(240)
        assert not handing.is_alive()
    finally:
        done.set()
    for number, (scan_id, raw) in enumerate(raws.items()):
        hosts = 300 + 37 * (number % 10)
        job = finished(c, jobs[scan_id])
        assert (state(job), job.hosts, job.ports, job.records, job.skipped) == (
            *("completed", hosts, 2 * hosts),
            *(3 * hosts, number),
        ), raw[:80]
        assert hosts_of(c, 150 + number) == [
            (f"10.{150 + number}.{host // 250}.{host % 250 + 1}", 2) for host in range(hosts)
        ]
    assert c.json("audit", "verify")["intact"]


def _stored(c: Daemon, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{c.data / 'peerd.db'}?mode=ro", uri=True)) as store:
        return [row[0] for row in store.execute(sql)]


def _address(daemon: Daemon) -> str:
    return (daemon.data / "run" / "http").read_text().strip()


def _http(daemon: Daemon, path: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{_address(daemon)}{path}", timeout=60) as answer:
        body: bytes = answer.read()
        return body.decode()
