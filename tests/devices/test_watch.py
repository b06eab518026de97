"""Simulated devices: only whoever runs the daemon may say what is one, and it is a terminal and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from peerd.devices.watch import Simulated, process_start

SAID = {
    "usb_path": "1-1",
    "vendor_id": "10c4",
    "product_id": "ea60",
    "serial": "S\x1b[2J",
    "product": "p",
    "token": "t",
}


def write(folder: Path, path: str) -> Path:
    me = {"pid": os.getpid(), "started": process_start(os.getpid())}
    file = folder / "one.json"
    file.write_text(json.dumps({**SAID, **me, "path": path}))
    return file


@pytest.mark.parametrize("path", ["/dev/ttyUSB0", "/dev/pts/../mem", "/dev/pts/1 ", "/etc/passwd"])
def test_only_a_pseudo_terminal_is_one(tmp_path: Path, path: str) -> None:
    write(tmp_path, path)
    simulated = Simulated(tmp_path)
    with structlog.testing.capture_logs() as said:
        assert [simulated.present() for _ in range(3)] == [[], [], []]
    assert [(entry["event"], entry["log_level"]) for entry in said] == [("devices.simulated_ignored", "warning")]


def test_what_it_says_is_fit_for_a_terminal(tmp_path: Path) -> None:
    write(tmp_path, "/dev/pts/7")
    assert [port.serial.isprintable() for port in Simulated(tmp_path).present()] == [True]


def test_files_of_somebody_else_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "/dev/pts/7")
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert Simulated(tmp_path).present() == []
