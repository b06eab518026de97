"""Real libudev and pyudev over devices that umockdev pretends: plugged, unplugged, five hundred times in all.

Its library forgets no port that was opened and has room for some 160 of them in one process: hence several.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PARTS, CYCLES = 10, 50
REQUIRED = bool(os.environ.get("PEERD_REQUIRE_ALL"))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.skipif(
    not REQUIRED and shutil.which("umockdev-wrapper") is None, reason="umockdev is not installed (apt: umockdev)"
)
def test_devices_come_and_go_five_hundred_times(tmp_path: Path, part: int) -> None:
    done = subprocess.run(
        ["umockdev-wrapper", sys.executable, "-m", "tests.devices.udev_program", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=350,
        env={**os.environ, "CYCLES": str(CYCLES)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])

    assert measured["listed"] < 1
    assert measured["inactive"] < 1
    assert measured["paths"] == [None, None]
    assert measured["descriptors"] <= 0, "some of the start may have closed meanwhile"
    assert measured["tasks"] == 0
    assert measured["leases"] == 0
    assert (measured["miners"], measured["devices"]) == (1, 0)
    assert measured["unwatched"], "what no rule is for is listed, and was never opened"
    # Who had the lease whenever a port was opened, and the status that says so.
    assert measured["opened"] == [["discovery", "initializing"], ["monitor", "active"]]
