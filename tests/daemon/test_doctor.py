"""Each thing that can be broken on a machine is broken, and named."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from peerd.clock import DAY_MS, SystemClock
from peerd.config import Config
from peerd.config_reading import load_config
from peerd.daemon.doctor import Verdict, examine
from peerd.daemon.offline import found
from peerd.secret_config import SecretConfig
from tests.e2e.fleet import free_port, tool


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a new peer."""
    folder = tmp_path / "d"
    flags = {"peer.listen": f"127.0.0.1:{free_port()}", "http.listen": "", "transfers.min_free_bytes": "1"}
    made = load_config(data_dir=folder, environ={}, flags={**flags, "transfers.min_free_fraction": "0"})
    asyncio.run(found(made))
    return made


def verdicts(config: Config, **more: Path) -> dict[str, tuple[str, str, str]]:
    findings = asyncio.run(examine(config, **more))
    return {entry.name: (entry.verdict.value, entry.message, entry.next_action) for entry in findings}


def test_a_new_peer_has_nothing_to_mend(config: Config) -> None:
    found_now = verdicts(config)
    assert not [name for name, entry in found_now.items() if entry[0] == Verdict.FAIL.value]
    assert {
        "versions",
        "sqlite",
        "store",
        "disk",
        "peer port",
        "clock",
        "isolation",
        "limits",
        "runners",
    } <= found_now.keys()


def test_an_open_key_and_directory(config: Config) -> None:
    (config.data_dir / "identity.key").chmod(0o644)
    config.data_dir.chmod(0o755)
    found_now = verdicts(config)
    assert found_now["identity key"][0] == found_now["data directory"][0] == "fail"
    assert found_now["identity key"][2] == f"chmod 600 {config.data_dir / 'identity.key'}"


def test_a_damaged_store(config: Config) -> None:
    store = config.data_dir / "peerd.db"
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(store.read_bytes())
    content[4096:20000] = b"\xa5" * (20000 - 4096)
    store.write_bytes(content)
    assert verdicts(config)["store"][0] == "fail"


def test_scans_that_wait_failed_or_are_tried_again(config: Config) -> None:
    assert verdicts(config)["scans"] == ("ok", "0 wait to be processed, 0 failed in the last 7 days", "")
    now = int(SystemClock().now())

    def add(state: str, updated_at: int, failing_since: int = 0) -> dict[str, tuple[str, str, str]]:
        with closing(sqlite3.connect(config.data_dir / "peerd.db")) as connection, connection:
            names = [
                row[1] for row in connection.execute("PRAGMA table_info(ingest_jobs)") if row[3] and row[4] is None
            ]
            given = {"job_uuid": str(updated_at), "scan_id": str(updated_at), "state": state, "updated_at": updated_at}
            blobs = ("content", "data_sha256")
            values = [given.get(name, b"" if name in blobs else 0) for name in names]
            connection.execute(
                f"INSERT INTO ingest_jobs ({', '.join(names)}, failing_since) VALUES ({'?, ' * len(names)}?)",
                (*values, failing_since),
            )
        return verdicts(config)

    assert add("failed", now - 8 * DAY_MS)["scans"][0] == "ok"
    failed = add("failed", now - 6 * DAY_MS)["scans"]
    assert (failed[0], failed[1]) == ("warn", "0 wait to be processed, 1 failed in the last 7 days")
    assert "--state failed" in failed[2]
    assert "1 wait" in add("pending", now)["scans"][1]
    again = add("processing", now + 1, failing_since=5)["scans"]
    assert again[0] == "warn" and "1 cannot be processed now" in again[1] and "scans list" in again[2]


def test_a_port_that_another_holds(config: Config) -> None:
    host, _, port = config.peer.listen.rpartition(":")
    with socket.create_server((host, int(port))):
        verdict, message, action = verdicts(config)["peer port"]
    assert verdict == "fail"
    assert config.peer.listen in message and action


def test_a_full_disk(config: Config) -> None:
    transfers = replace(config.transfers, min_free_bytes=2**60)
    assert verdicts(replace(config, transfers=transfers))["disk"][0] == "fail"


def test_a_serial_port_that_may_not_be_opened(config: Config, tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.symlink_to("/nowhere")  # what even root may not open
    verdict, message, action = verdicts(config, devices=tmp_path)["serial ports"]
    assert (verdict, "dialout" in action) == ("warn", True)
    assert str(port) in message


def test_no_peer_at_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [tool("peerd"), "--data-dir", tmp_path / "none", "doctor", "-o", "json"], capture_output=True, check=False
    )
    assert done.returncode == 1
    found_now = {entry["name"]: entry for entry in json.loads(done.stdout)["findings"]}
    assert found_now["identity"]["verdict"] == "fail"
    assert "peerd init" in found_now["identity"]["next_action"]


def test_secrets_that_are_missing_or_open_to_others(config: Config, tmp_path: Path) -> None:
    for name, mode in (("closed", 0o600), ("open", 0o644)):
        (tmp_path / name).write_text("hunter22")
        (tmp_path / name).chmod(mode)
    secrets = {name: SecretConfig(file=str(tmp_path / name)) for name in ("closed", "open", "gone")}
    secrets["variable"] = SecretConfig(env="NOT_OURS")
    found_now = verdicts(replace(config, secrets=secrets))
    assert found_now["secret gone"][0] == "warn"
    assert "cannot be read" in found_now["secret gone"][1]
    assert found_now["secret open"][2] == f"chmod 600 {tmp_path / 'open'}"
    assert not {"secret closed", "secret variable"} & found_now.keys()
    assert "hunter22" not in str(found_now)


def test_scans_of_jobs_that_could_not_be_handed_in(config: Config) -> None:
    now = int(SystemClock().now())

    def add(state: str, updated_at: int, reason: str) -> dict[str, tuple[str, str, str]]:
        with closing(sqlite3.connect(config.data_dir / "peerd.db")) as connection, connection:
            names = [
                row[1] for row in connection.execute("PRAGMA table_info(scan_hand_ins)") if row[3] and row[4] is None
            ]
            given = {"scan_id": str(updated_at), "state": state, "updated_at": updated_at}
            connection.execute(
                f"INSERT INTO scan_hand_ins ({', '.join(names)}, reason) VALUES ({'?, ' * len(names)}?)",
                (*(given.get(name, 0) for name in names), reason),
            )
        return verdicts(config)

    assert "hand-ins" not in add("handed_in", now, "")
    assert "hand-ins" not in add("waiting", now - 1, "")
    assert "hand-ins" not in add("refused", now - 8 * DAY_MS, "scan_conflict")
    verdict, message, action = add("waiting", now - 2, "permission_denied")["hand-ins"]
    assert (verdict, message[:45]) == ("warn", "1 scans of jobs could not be handed in yet, 0")
    assert "1 were refused" in add("refused", now - 3, "scan_conflict")["hand-ins"][1]
    assert "scans hand-ins" in action
