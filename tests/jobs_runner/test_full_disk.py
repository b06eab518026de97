"""A disk that is full when a job ends: the log suffers, how it ended is kept as soon as there is room."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.jobs.runner import Outcome, ProcessRunner, ProcessSpec
from tests.faults.disks import SmallDisk, needs_mounts

pytestmark = needs_mounts

WRITES_ONCE_TOLD = """
import pathlib, sys, time
print("up", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("x" * 300_000)
raise SystemExit(7)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk", 4)
    yield made
    made.close()


async def test_how_a_job_ended_outlives_a_full_disk(disk: SmallDisk, tmp_path: Path) -> None:
    job, control, told = disk.folder / "job", disk.folder / "control", tmp_path / "told"
    for name in ("input", "output", "mounts", "package", "logs"):
        (job / name).mkdir(parents=True)
    spec = ProcessSpec(
        marker=f"full-{tmp_path.name}", argv=(sys.executable, "-c", WRITES_ONCE_TOLD, str(told)), env={},
        job_directory=job, stdin_files=(), stdout_path=job / "logs" / "stdout.txt",
        stderr_path=job / "logs" / "stderr.txt", output_cap_bytes=1_000_000, timeout_seconds=100, grace_seconds=1,
    )  # fmt: skip
    runner = await ProcessRunner.probe(sandbox="none", hidden=[])
    await runner.start(control, spec)
    async with asyncio.timeout(30):
        while not spec.stdout_path.exists() or "up" not in spec.stdout_path.read_text():
            await asyncio.sleep(0.01)
    disk.fill()
    told.touch()
    waiting = asyncio.ensure_future(runner.wait(control))
    done, _ = await asyncio.wait({waiting}, timeout=1.5)
    assert not done, "its end cannot be kept yet: nobody may take it for lost"
    disk.drain()
    ended = await asyncio.wait_for(waiting, 30)
    assert ended is not None, (control / "wrapper.log").read_text()
    assert (ended.outcome, ended.exit_code) == (Outcome.EXITED, 7)
    assert ended.stdout_truncated and spec.stdout_path.read_text().startswith("up\n")
