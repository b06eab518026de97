"""SIGKILL at every failpoint of jobs; the effect log, which the job itself writes, is the judge of lost and doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peerd.failpoints import FAILPOINTS

OF_JOBS = [name for name in FAILPOINTS if name.startswith("job.")]
OF_A_CANCEL = [name for name in OF_JOBS if ".cancel." in name]
# What comes after the end of a run, or happens in no usual one, is walked with real daemons.
AFTERWARDS = [name for name in OF_JOBS if name.startswith(("job.release.", "job.gc.", "job.quota.", "job.reuse."))]
OF_A_RUN = [name for name in OF_JOBS if name not in OF_A_CANCEL and name not in AFTERWARDS]


def machine(folder: Path, mode: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tests.jobs.machine", str(folder / "data"), str(folder / "log"), mode],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PEERD_FAILPOINT": failpoint},
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_ends_right_after_a_kill_at(name: str, tmp_path: Path) -> None:
    killed = machine(tmp_path, "run", name)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = machine(tmp_path, "run")
    assert again.stdout.split() == ["JOB_STATUS_COMPLETED", "attempt=1", "sends=1"], again.stderr
    assert (tmp_path / "log").read_text() == "start\ndone\n"
    assert list((tmp_path / "data" / "control").glob("*/exit.json")) == [], "what is recorded is not kept twice"


@pytest.mark.parametrize("name", OF_A_CANCEL)
def test_a_cancel_ends_right_after_a_kill_at(name: str, tmp_path: Path) -> None:
    killed = machine(tmp_path, "cancel", name)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = machine(tmp_path, "cancel")
    assert again.stdout.split() == ["JOB_STATUS_CANCELLED", "attempt=1", "sends=0"], again.stderr
    assert (tmp_path / "log").read_text() == "start\n"
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "log")], capture_output=True, check=False)
    assert left.stdout == b"", "a process of the cancelled job lives"
