"""Scripts depend on the exit codes and people on the three lines."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from peerd.cli import run
from peerd.errors import Reason
from peerd.v1 import daemon_pb2
from tests.cli.conftest import Peerctl
from tests.cli.fake_daemon import FakeDaemon, refusing


@pytest.mark.parametrize(
    ("reason", "exit_code"),
    [
        (Reason.PERMISSION_DENIED, 4),
        (Reason.NOT_AUTHENTICATED, 4),
        (Reason.SERVICE_NOT_FOUND, 5),
        (Reason.NOT_TRUSTED_OR_UNREACHABLE, 3),
        (Reason.INVALID_ARGUMENT, 2),
        (Reason.INVALID_DEFINITION, 1),
        (Reason.ILLEGAL_TRANSITION, 1),
        (Reason.INTERNAL, 1),
        (Reason.DEADLINE_EXCEEDED, 124),
    ],
)
def test_a_refusal_has_the_exit_code_of_its_kind(
    peerctl: Peerctl, daemon: FakeDaemon, reason: Reason, exit_code: int
) -> None:
    daemon.on("DaemonService.GetStatus", refusing(reason))
    assert peerctl("status").exit_code == exit_code


def test_an_error_says_cause_reason_and_what_to_do_on_stderr_only(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("RegistryService.GetPeer", refusing(Reason.NOT_FOUND, "no peer delta", next_action="peerctl peers"))
    outcome = peerctl("peers", "show", "delta")
    assert outcome.out == ""
    assert outcome.err.splitlines() == ["error: no peer delta", "reason: not_found", "next: peerctl peers"]


def test_an_error_names_the_fields_that_are_wrong(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("DaemonService.GetStatus", refusing(Reason.INVALID_ARGUMENT, fields={"name": "too long"}))
    assert "  name: too long\n" in peerctl("status").err


def test_with_json_the_last_line_of_stderr_is_the_error_as_json(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.on("DaemonService.GetStatus", refusing(Reason.REVOKED, "you are out", fields={"peer": "gone"}))
    outcome = peerctl("status", "-o", "json")
    error = json.loads(outcome.err.splitlines()[-1])["error"]
    assert error == {
        "message": "you are out",
        "reason": "revoked",
        "code": "PERMISSION_DENIED",
        "retryable": False,
        "next_action": Reason.REVOKED.next_action,
        "violations": [{"field": "peer", "message": "gone"}],
        "exit_code": 4,
    }
    assert outcome.out == ""


def test_a_missing_socket_is_said_at_once(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    took = []
    for _ in range(5):  # one of several: others want the processor, too
        started = time.monotonic()
        assert run(["status", "--socket", str(tmp_path / "none.sock")]) == 3
        took.append(time.monotonic() - started)
    assert min(took) < 1
    err = capfd.readouterr().err
    assert f"there is no daemon's socket at {tmp_path}/none.sock" in err
    assert "reason: daemon_not_reachable" in err
    assert "peerd run" in err


def test_a_socket_nobody_listens_on_is_not_reachable(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    daemon.stop()
    daemon.socket.touch()
    outcome = peerctl("status")
    assert outcome.exit_code == 3
    assert "nobody answers" in outcome.err


def test_an_old_daemon_says_unimplemented(peerctl: Peerctl) -> None:
    outcome = peerctl("status")
    assert outcome.exit_code == 1
    assert "reason: unimplemented" in outcome.err


def test_a_daemon_that_does_not_answer_in_time_is_exit_code_124(peerctl: Peerctl, daemon: FakeDaemon) -> None:
    def hang(request: Any, context: grpc.ServicerContext) -> daemon_pb2.GetStatusResponse:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(20)
        return daemon_pb2.GetStatusResponse()

    daemon.on("DaemonService.GetStatus", hang)
    outcome = peerctl("status", "--timeout", "0.2s")
    assert outcome.exit_code == 124
    assert "reason: deadline_exceeded" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["peers", "destroy"],
        ["nonsense"],
        ["executions", "show", "seven"],
        ["status", "-o", "xml"],
        ["status", "--timeout", "soon"],
        ["invite", "--grants", "everything"],
        ["invite", "--grants", "admin"],
        ["workflows", "validate", "/no/such/file.yaml"],
        ["workflows", "run", "word-count", "--param", "nameonly"],
        ["peers", "revoke", "beta"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_calls_nobody(
    peerctl: Peerctl, daemon: FakeDaemon, arguments: list[str]
) -> None:
    outcome = peerctl(*arguments)
    assert outcome.exit_code == 2
    assert "Error: " in outcome.err
    assert daemon.calls == []


def test_an_interrupt_is_exit_code_130(peerctl: Peerctl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("peerd.cli.status.call", interrupted)
    assert peerctl("status").exit_code == 130
