"""Any gRPC client can do what peerctl does: over the unix socket with reflection, and over TLS as that peer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .fleet import Daemon, Fleet
from .workflow import definition, job

BUF = shutil.which("buf") or ""

if not BUF:
    if os.environ.get("PEERD_REQUIRE_ALL"):
        raise RuntimeError("buf is missing, and this machine must run everything")
    pytest.skip("needs buf (npm install @bufbuild/buf)", allow_module_level=True)


def buf_curl(*args: str, data: Any) -> list[dict[str, Any]]:
    command = [BUF, "curl", "--protocol", "grpc", *args[:-1], "-d", json.dumps(data), args[-1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    decoder, answers, text = json.JSONDecoder(), [], done.stdout.strip()
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].strip()
    return answers


def over_socket(daemon: Daemon, method: str, data: Any) -> list[dict[str, Any]]:
    url = f"http://localhost/peerd.v1.{method}"
    return buf_curl("--http2-prior-knowledge", "--unix-socket", str(daemon.socket), url, data=data)


def test_the_services_are_listed_by_reflection(fleet: Fleet) -> None:
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(fleet["c"].socket)]
    done = subprocess.run([*command, "--list-services", "http://localhost"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = set(done.stdout.split())
    assert {
        "peerd.v1.WorkflowService",
        "peerd.v1.JobService",
        "peerd.v1.TransferService",
        "peerd.v1.MeshService",
    } <= listed
    assert "grpc.health.v1.Health" in listed


def test_a_workflow_is_started_and_watched_over_the_unix_socket(fleet: Fleet) -> None:
    content = definition("by-buf", job("one", "a"), job("two", "b", ["one"]), deliver=["two"])
    (started,) = over_socket(fleet["c"], "WorkflowService/RunWorkflow", {"source": {"definition": content}})
    watched = over_socket(
        fleet["c"], "WorkflowService/WatchExecution", {"workflow_execution_id": started["workflowExecutionId"]}
    )
    assert watched[-1]["execution"]["status"] == "EXECUTION_STATUS_COMPLETED"
    assert {entry["nodeId"] for entry in watched[0]["execution"]["jobs"]} == {"one", "two"}


def test_over_tls_with_an_exported_identity_it_does_the_same_as_that_peer(fleet: Fleet, tmp_path: Path) -> None:
    a, c = fleet["a"], fleet["c"]
    a.peerctl("identity", "export-tls", str(tmp_path))
    anchor = tmp_path / "c-anchor.pem"
    c.peerctl("identity", "export-tls", str(tmp_path / "c"))
    anchor.write_bytes((tmp_path / "c" / "ca.pem").read_bytes())
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    tls = ["--cacert", str(anchor), "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    tls += ["--servername", c.peer_id]
    url = f"https://127.0.0.1:{c.port}/peerd.v1"
    content = definition("by-tls", job("three", "b"), deliver=["three"])
    (started,) = buf_curl(*tls, f"{url}.WorkflowService/RunWorkflow", data={"source": {"definition": content}})
    watched = buf_curl(
        *tls, f"{url}.WorkflowService/WatchExecution", data={"workflow_execution_id": started["workflowExecutionId"]}
    )
    assert watched[-1]["execution"]["status"] == "EXECUTION_STATUS_COMPLETED"


def test_a_peer_can_be_asked_through_another_one(fleet: Fleet) -> None:
    assert fleet["c"].json("--peer", "a", "status")["peer_id"] == fleet["a"].peer_id


def test_logs_are_read_from_any_permitted_peer(fleet: Fleet) -> None:
    from .workflow import start

    run = start(fleet, "c", definition("logs", job("talks", "a")))
    assert run.wait() == "COMPLETED"
    assert "talks was here" in fleet["c"].peerctl("logs", str(run.id), "talks").stdout
    assert "talks was here" in fleet["b"].peerctl("--peer", "c", "logs", str(run.id), "talks").stdout
