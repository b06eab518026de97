"""The program that hands signed scans in, against an HTTP server that behaves and one that does not."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from peerd.clock import FakeClock, Millis
from peerd.errors import PeerdError, Reason
from peerd.scans.handing_in import Collector, hand_in
from peerd.scans.sealing import seal_scan

NOW = Millis(1_714_816_800_999)
SCAN = b"192.0.2.1:80\n\xff\x00"


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Answers:
    """What the server says, and what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.states = ["pending", "processing", "completed"]
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.redirect = ""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def answers() -> Iterator[Answers]:
    told = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            if told.redirect:
                self.send_response(302)
                self.send_header("Location", told.redirect)
                self.end_headers()
            elif told.refusal:
                self.answer(*told.refusal)
            else:
                self.answer(202, {"job_id": f"job-{len(told.bodies)}", "status": "accepted"})

        def do_GET(self) -> None:
            state = told.states.pop(0) if len(told.states) > 1 else told.states[0]
            self.answer(200, {"id": self.path.rpartition("/")[2], "state": state, "host_count": 1})

        def answer(self, status: int, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 503:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_scan_is_signed_over_time_and_bytes() -> None:
    key = Ed25519PrivateKey.generate()
    body = json.loads(seal_scan(pem(key), SCAN, NOW))
    assert set(body) == {"data_base64", "public_key", "signature", "timestamp"}
    assert body["timestamp"] == 1_714_816_800
    assert base64.b64decode(body["data_base64"]) == SCAN
    shown = Ed25519PublicKey.from_public_bytes(base64.b64decode(body["public_key"]))
    shown.verify(base64.b64decode(body["signature"]), b"1714816800" + SCAN)
    with pytest.raises(InvalidSignature):
        shown.verify(base64.b64decode(body["signature"]), b"1714816801" + SCAN)


@pytest.mark.parametrize("text", [b"", b"secret words", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_another_key_is_refused_without_showing_it(text: bytes) -> None:
    with pytest.raises(PeerdError) as caught:
        seal_scan(text, SCAN, NOW)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_was_signed_is_posted_as_it_is_and_waited_for(answers: Answers, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("scan.signed.json", "scan6.signed.json")]
    for file in files:
        file.write_bytes(seal_scan(pem(Ed25519PrivateKey.generate()), SCAN, NOW))
    pauses: list[float] = []
    jobs = hand_in(files, Collector(answers.url), clock=FakeClock(), pause=pauses.append, seconds=60)
    assert answers.bodies == [file.read_bytes() for file in files]
    assert [(job["id"], job["state"]) for job in jobs] == [("job-1", "completed"), ("job-2", "completed")]
    assert len(pauses) == 2


def test_a_refusal_a_redirection_and_silence_are_failures_that_say_what_happened(
    answers: Answers, tmp_path: Path
) -> None:
    file = tmp_path / "scan.signed.json"
    file.write_bytes(b"{}")

    clock = FakeClock()

    def reason(url: str, text: str) -> Reason:
        with pytest.raises(PeerdError, match=text) as caught:
            hand_in([file], Collector(url), clock=clock, pause=clock.advance, seconds=60)
        return caught.value.reason

    answers.refusal = (401, {"error": "invalid_signature", "message": "the key is not registered"})
    assert reason(answers.url, "401 invalid_signature: the key is not registered") is Reason.EXECUTION_FAILED
    answers.refusal = None
    answers.redirect = f"{answers.url}/elsewhere"
    assert reason(answers.url, "302") is Reason.EXECUTION_FAILED
    assert len(answers.bodies) == 2
    answers.redirect = ""
    answers.refusal = (202, {"status": "accepted"})
    assert reason(answers.url, "without a job_id") is Reason.EXECUTION_FAILED
    assert reason("http://127.0.0.1:1", "does not answer") is Reason.NOT_TRUSTED_OR_UNREACHABLE
    assert reason("file:///etc/passwd", "no http") is Reason.INVALID_ARGUMENT


def test_a_collector_that_is_restarted_or_has_too_much_to_do_is_asked_again(answers: Answers, tmp_path: Path) -> None:
    """A scan that is signed and whole must not be lost to a restart of the collector, and comes once however often."""
    file = tmp_path / "scan.signed.json"
    file.write_bytes(b"{}")
    clock = FakeClock()
    pauses: list[float] = []
    up, down = answers.url, "http://127.0.0.1:1"
    collector = Collector(down)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)
        collector._url = down if len(pauses) in (5, 6) else up
        answers.refusal = (503, {"error": "overloaded", "message": "wait"}) if len(pauses) < 3 else None

    answers.states = ["pending", "pending", "completed"]
    (job,) = hand_in([file], collector, clock=clock, pause=pause, seconds=60)
    assert job["state"] == "completed"
    assert pauses == [2, 7, 7, 0.1, 0.1, 2, 2]
    assert len(answers.bodies) == 3


def test_a_job_that_never_ends_is_given_up(answers: Answers, tmp_path: Path) -> None:
    file = tmp_path / "scan.signed.json"
    file.write_bytes(b"{}")
    answers.states = ["processing"]
    clock = FakeClock()
    with pytest.raises(PeerdError) as caught:
        hand_in([file], Collector(answers.url), clock=clock, pause=lambda _: clock.advance(10), seconds=60)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize(("state", "status"), [("completed", 0), ("failed", 1)])
def test_the_program_ends_as_the_ingest_did(answers: Answers, tmp_path: Path, state: str, status: int) -> None:
    folders = tmp_path / "input", tmp_path / "output"
    for folder in folders:
        folder.mkdir()

    def call() -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "peerd.scans.handing_in", *map(str, folders), answers.url]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ, timeout=60)

    empty = call()
    assert (empty.returncode, empty.stderr.startswith("invalid_argument: there is no *.signed.json")) == (2, True)
    (folders[0] / "scan").mkdir()
    (folders[0] / "scan" / "scan.signed.json").write_bytes(b"{}")
    answers.states = [state]
    assert call().returncode == status
    assert [job["state"] for job in json.loads((folders[1] / "ingest.json").read_text())["jobs"]] == [state]
