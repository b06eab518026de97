"""The simulator prints what the firmware prints; a console is recorded without passwords, and plays again."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from peerd.devices.events import Outcome
from peerd.devices.handshake import Handshake
from peerd.devices.simulator.command import read_recording
from peerd.devices.simulator.firmware import Board, Fault, boot, run
from peerd.devices.simulator.recording import replay
from peerd.devices.watch import Simulated
from peerd.errors import PeerdError
from tests.e2e.fleet import tool
from tests.e2e.miners import Sim

from .console import end


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.NONE, Outcome.MINING),
        (Fault.NO_WIFI, Outcome.STALLED),
        (Fault.STALL, Outcome.STALLED),
        (Fault.REFUSE, Outcome.REFUSED),
        (Fault.PORTAL, Outcome.PORTAL),
        (Fault.SILENT, Outcome.SILENT),
        (Fault.IDLE, Outcome.MINING),
        (Fault.CRASH, Outcome.MINING),
        (Fault.NOISE, Outcome.NOT_A_MINER),
        (Fault.GPS, Outcome.NOT_A_MINER),
    ],
)
def test_each_fault_ends_the_handshake_as_it_must(fault: Fault, outcome: Outcome) -> None:
    handshake, now = Handshake(0), 0.0
    for pause, data in islice(run(Board(fault=fault)), 1000):
        now += pause
        events, _ = handshake.feed(data, now)
        if handshake.finished:
            break
    assert end(events) is not None
    assert end(events).outcome is outcome  # type: ignore[union-attr]


def replayed(rows: list[str]) -> Handshake:
    """What these rows of a recording make of a console."""
    handshake, now = Handshake(0), 0.0
    for pause, data in replay(rows):
        now += pause
        handshake.feed(data, now)
    return handshake


def test_a_console_is_recorded_without_its_password_and_plays_again(tmp_path: Path) -> None:
    sim = Sim(tmp_path, "r1", "--password", "hush-pool-9", speed=10)
    try:
        command = [tool("peerd"), "simulate", "record", sim.path, "--seconds", "90"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recording:
            assert recording.stdout is not None
            rows: list[str] = []
            while not (handshake := replayed(rows)).finished:
                rows.append(recording.stdout.readline())
                assert rows[-1], "it ended before the miner mined"
            sim.pull()
            rows += recording.stdout.readlines()
        assert recording.returncode == 0
    finally:
        sim.pull()
    assert "hush" not in "".join(rows)
    assert handshake.stage.value == "Mining"
    assert Simulated(tmp_path).present() == [], "a simulator that was killed is unplugged"


@pytest.mark.parametrize("row", ["second", "nan second", "inf second", "-1 second", "1e9 second"])
def test_a_recording_that_is_none_names_its_line(row: str) -> None:
    with pytest.raises(PeerdError, match="line 2 does not begin with seconds"):
        list(replay(["0.1 first", row]))


def test_what_is_no_text_is_no_recording(tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"\x89PNG\xff")
    with pytest.raises(PeerdError, match="is no recording") as caught:
        read_recording(file)
    assert "simulate record" in caught.value.next_action


@pytest.mark.timeout(400)
def test_orders_that_are_none_are_refused(tmp_path: Path) -> None:
    for options in (["--fault", "dance"], ["--pool", "nowhere"], ["--name", "../x"], ["--rate", "0"]):
        command = [sys.executable, "-m", "peerd", "simulate", "miner", "--dir", str(tmp_path), *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 1
        assert "invalid_argument" in done.stderr


def test_a_board_that_is_no_good_never_ends_its_boot() -> None:
    assert len(list(islice(boot(Board(fault=Fault.STALL)), 500))) == 500
    assert len(list(boot(Board()))) < 100
