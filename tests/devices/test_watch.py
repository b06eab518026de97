"""Simulated devices: only whoever runs the daemon may say what is one, and it is a terminal and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from peerd.devices.watch import Simulated, Udev, process_start

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


def test_udev_is_asked_of_usb_ports_only_and_one_that_goes_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyudev = pytest.importorskip("pyudev")
    asked: list[str] = []
    from_sys_path = pyudev.Devices.from_sys_path

    def ask(context: object, path: str) -> object:
        asked.append(path)
        return from_sys_path(context, path)

    monkeypatch.setattr(pyudev.Devices, "from_sys_path", ask)
    monkeypatch.setattr("peerd.devices.watch._TTYS", str(tmp_path / "none"))
    udev = Udev()
    assert udev.present() == []
    (tmp_path / "ttyACM7").symlink_to("../../sys/devices/pci0/usb1/1-1/1-1:1.0/tty/ttyACM7")
    (tmp_path / "tty1").symlink_to("../../sys/devices/virtual/tty/tty1")
    (tmp_path / "console").touch()
    monkeypatch.setattr("peerd.devices.watch._TTYS", str(tmp_path))
    assert udev.present() == [], "it was pulled out since its link was read"
    assert [path.rpartition("/")[2] for path in asked] == ["ttyACM7"]
